"""How well the loop does its other tasks on picturebook, where the truth is known: small pictures made large, and layouts."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ...model import StableDiffusion
from ...pictures import Box, back_projected, box_mask, psnr
from ...pipeline import generate
from ...records import Record
from ...tokenizer import tokenize
from ...vae import copies
from ..captions import known_grammar, read
from ..imagining import HELD_OUT_SEED
from ..judge import Judge, Seen
from ..scenes import Scene, box_of, scenes_in_words
from ..world import RELATIONS
from .measures import Measure, average, iou, word_for
from .prompts import full_captions, known_words

STEPS, GUIDANCE = 20, 2.0  # of the enlarging
EDGE = 0.44  # of a box in a layout


def scenes_for(model: StableDiffusion, number: int) -> list[Scene]:
    """Scenes that were never trained on, in the checkpoint's words."""
    words = known_words(model)
    return scenes_in_words(words, number, HELD_OUT_SEED + 80_000, known_grammar(words))


def shrunk(scene: Scene) -> Image.Image:
    """The scene's picture, each square of 4 x 4 pixels made its mean."""
    return scene.image.reduce(4)


def enlarged(model: StableDiffusion, scene: Scene, seed: int = 0) -> dict[str, Image.Image]:
    """A scene shrunk and made large again: by bicubic interpolation; that through the VAE, to see what the VAE
    alone does; by the loop, told the caption; these two with the small picture's pixels put back (`pictures.back_projected`).
    And the scene itself through the VAE, the ceiling of what the loop can paint."""
    small, large = shrunk(scene), scene.image
    bicubic = small.resize(large.size, Image.Resampling.BICUBIC)
    loop = generate(model, scene.caption, steps=STEPS, guidance_scale=GUIDANCE, seed=seed, small=small, collect=(),
                    height=large.height, width=large.width).image  # fmt: skip
    through_vae, ceiling = (copies(model.vae, [image])[0] for image in (bicubic, large))
    return {"bicubic": bicubic, "VAE alone": through_vae, "VAE alone, pixels put back": back_projected(through_vae, small),
            "loop": loop, "loop, pixels put back": back_projected(loop, small), "ceiling": ceiling}  # fmt: skip


def enlarging_truth(model: StableDiffusion, scenes: Sequence[Scene]) -> dict[str, Measure]:
    """PSNR in dB of each way in `enlarged` against the scenes as they were drawn."""
    decibels = {}
    for seed, scene in enumerate(tqdm(scenes, "enlarging")):
        for way, image in enlarged(model, scene, seed).items():
            decibels.setdefault(way, []).append(psnr(scene.picture, np.asarray(image)))
    return {way: average(values) for way, values in decibels.items()}


class Layout(Record):
    """A caption and where its things are to go: their names as the world has them, and the boxes."""

    caption: str
    boxes: dict[str, Box]


def layouts(model: StableDiffusion, number: int, objects: int) -> list[Layout]:
    """Captions of one object with a box somewhere, or of two with boxes that fit their relation."""
    words, rng, found = known_words(model), np.random.default_rng(objects), []
    captions = full_captions(words, 90_000 + 10_000 * objects, objects, known_grammar(words).taught())
    for caption in islice(captions, number):
        request = read(caption)
        if objects == 1:
            corners = [rng.uniform(0.03, 0.97 - EDGE, 2)]
        else:
            way = np.array(RELATIONS[request.relation])
            corners = [0.5 - EDGE / 2 + sign * 0.24 * way for sign in (1, -1)]
        boxes = {thing.name: (*corner, *(corner + EDGE)) for thing, corner in zip(request.things, corners, strict=True)}
        found.append(Layout(caption, boxes))
    return found


def in_box(seen: Seen, name: str, box: Box) -> float:
    """Intersection over union of a box and of that around the thing the judge saw, 0 if it saw none."""
    thing = seen.find(name)
    if thing is None:
        return 0.0
    around, (left, top, right, bottom) = np.zeros_like(thing.mask), box_of(thing.mask)
    around[top:bottom, left:right] = True
    return iou(around, box_mask(box, *around.shape))


def layout_truth(model: StableDiffusion, judge: Judge, cases: Sequence[Layout], steps: int = 25) -> dict[str, dict[str, Measure]]:
    """How well things lie in their boxes (`in_box`), and how many of them were found: with the layout and without."""
    found = defaultdict(list)
    for seed, case in enumerate(tqdm(cases, "laying out")):
        tokens = tokenize(model, case.caption)
        boxes = {tokens.words[word_for(tokens, name)]: box for name, box in case.boxes.items()}
        for way, layout in {"free": None, "led": boxes}.items():
            seen = judge.look(generate(model, case.caption, steps=steps, seed=seed, layout=layout, collect=()).pixels)
            found[way] += [(in_box(seen, name, box), seen.find(name) is not None) for name, box in case.boxes.items()]
    return {way: dict(zip(("overlap", "found"), map(average, zip(*pairs, strict=True)), strict=True)) for way, pairs in found.items()}
