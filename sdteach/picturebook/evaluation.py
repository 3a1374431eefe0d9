"""What picturebook can do, measured against the truth: every number with its 95 % interval.

The scenes and the prompts are fixed by the words that the checkpoint knows, and by nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Bool, Float32
from PIL import Image
from tqdm.auto import tqdm

from ..model import StableDiffusion
from ..pictures import psnr
from ..pipeline import generate
from ..records import Tokens
from ..text_encoder import encode_text, image_features
from ..trace import Trace
from ..vae import copies
from ..vectors import cosine_similarity
from .captions import OBJECT_WORDS, known_grammar, read, vocabulary
from .judge import Judge, Seen, faults
from .scenes import HELD_OUT_SEED, Description, Scene, describe, draw
from .world import WORLD, Grammar

SCENES = 250
PROMPTS = {"one_object": 80, "two_objects": 80, "held_out_pairs": 40}
GOALS = {"vae_psnr": 30.0, "clip_top1": 0.90, "one_object": 0.97, "two_objects": 0.90, "held_out_pairs": 0.85, "attention_miou": 0.60,
         "judge_true": 0.97, "judge_shuffled": 0.05}  # fmt: skip
HEAT = 0.35  # a word was read wherever its heat map (0..1) is above this; chosen by `attention_truth`
Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Measure:
    """The mean, or the share, of `count` cases and its 95 % interval; not a number where there was no case."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, eq=False)
class Painted:
    """A prompt of the evaluation, what was painted for it, and what the judge found wrong with that."""

    kind: str
    prompt: str
    pixels: np.ndarray
    faults: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """`measures` by the names of `GOALS`; the pictures that the prompts gave, in the prompts' order."""

    measures: dict[str, Measure]
    painted: tuple[Painted, ...]


def evaluate(model: StableDiffusion, judge: Judge, guidance_scale: float | None = None) -> Evaluation:
    """Measure a checkpoint on scenes and prompts of the words it knows. Raises ValueError if it lacks a CLIP image tower."""
    if model.image_encoder is None or model.text_projection is None:
        raise ValueError(f"expected a checkpoint with CLIP's image tower and projection, got {model.name!r} without; picturebook has them")
    words = model.vocabulary or frozenset(vocabulary(WORLD))
    scenes = [draw(description) for description in islice(in_words(words, 0, None, known_grammar(words)), SCENES)]
    copies = [copied(model, scene.picture) for scene in tqdm(scenes, "through the VAE and back")]
    judged = [(judge.look(scene.picture), judge.look(copy)) for scene, copy in tqdm([*zip(scenes, copies, strict=True)], "judging scenes")]
    requests = [read(scene.caption) for scene in scenes]
    painted, overlaps = [], []
    asked = [(kind, prompt) for kind, texts in prompts(words).items() for prompt in texts]
    for seed, (kind, prompt) in enumerate(tqdm(asked, "painting prompts")):
        trace = generate(model, prompt, guidance_scale=guidance_scale, seed=seed, collect=("attention",))
        seen, request = judge.look(trace.pixels), read(prompt)
        painted.append(Painted(kind, prompt, trace.pixels, tuple(faults(seen, request))))
        overlaps += [overlap for thing in request.things if (overlap := attention_iou(trace, seen, thing.name)) is not None]
    measures = {
        "vae_psnr": average([psnr(scene.picture, copy) for scene, copy in zip(scenes, copies, strict=True)]),
        "clip_top1": share(retrieved(model, scenes)),
        **{kind: share([not case.faults for case in painted if case.kind == kind]) for kind in PROMPTS},
        "attention_miou": average(overlaps),
        "judge_true": share([not faults(seen, request) for pair, request in zip(judged, requests, strict=True) for seen in pair]),
        "judge_shuffled": share(
            [not faults(seen, other) for pair, other in zip(judged, requests[1:] + requests[:1], strict=True) for seen in pair]
        ),
    }
    return Evaluation(measures, tuple(painted))


def prompts(words: frozenset[str]) -> dict[str, list[str]]:
    """The captions to paint, in these `words`, by kind, none twice: every colour is said; two objects stand in a relation;
    held-out pairs stand alone."""
    grammar, asked = known_grammar(words), {}
    sources = {"one_object": (10_000, 1, grammar.taught()), "two_objects": (20_000, 2, grammar.taught()),
               "held_out_pairs": (30_000, 1, grammar.held_out())}  # fmt: skip
    for kind, source in sources.items():
        captions = (description.caption for description in in_words(words, *source))
        asked[kind] = [*islice(dict.fromkeys(islice(filter(says_all, captions), 8 * PROMPTS[kind])), PROMPTS[kind])]
    return asked


def in_words(words: frozenset[str], start: int, objects: int | None, grammar: Grammar) -> Iterator[Description]:
    """Scenes that were never trained on, from a seed on, of so many objects, whose captions need no other words."""
    for seed in count(HELD_OUT_SEED + start):
        description = describe(seed, objects=objects, grammar=grammar)
        if {*description.caption.replace(",", "").split()} <= words:
            yield description


def says_all(caption: str) -> bool:
    """Whether a caption leaves no colour open, and no relation."""
    request = read(caption)
    return all(thing.colour for thing in request.things) and request.relation != "and"


def copied(model: StableDiffusion, picture: np.ndarray) -> np.ndarray:
    """A picture (height, width, 3), uint8, through the VAE and back."""
    return np.asarray(copies(model.vae, [Image.fromarray(picture)])[0])


def retrieved(model: StableDiffusion, scenes: Sequence[Scene]) -> list[bool]:
    """For every scene, whether its caption is the one that CLIP finds nearest to its picture."""
    captions = [scene.caption for scene in scenes]
    images = torch.stack([image_features(model, Image.fromarray(scene.picture)) for scene in tqdm(scenes, "CLIP looks")])
    texts = torch.stack([encode_text(model, caption).projected for caption in tqdm(captions, "CLIP reads")])
    nearest = cosine_similarity(images, texts).argmax(1).tolist()
    return [captions[found] == caption for found, caption in zip(nearest, captions, strict=True)]


def attention_iou(trace: Trace, seen: Seen, name: str) -> float | None:
    """Overlap (intersection over union) of where the word for an object was read and where it is; None if it is not there."""
    thing = seen.find(name)
    return None if thing is None else overlap(trace.heat_map(word_for(trace.tokens, name)), thing.mask, HEAT)


def word_for(tokens: Tokens, name: str) -> int:
    """Which word of a prompt says this object."""
    return next(index for index, word in enumerate(tokens.words) if word.lower() in OBJECT_WORDS[name])


def overlap(heat: Float32[np.ndarray, "_ _"], mask: Bool[np.ndarray, "height width"], threshold: float) -> float:
    """`iou` of a mask and of where a heat map, brought to its size, is above a threshold."""
    stretched = Image.fromarray(heat).resize(mask.shape[::-1], Image.Resampling.BILINEAR)
    return iou(np.asarray(stretched) > threshold, mask)


def iou(first: Bool[np.ndarray, "height width"], second: Bool[np.ndarray, "height width"]) -> float:
    """Intersection over union of two masks, of which at least one is not empty."""
    return float((first & second).sum() / (first | second).sum())


def share(right: Sequence[bool]) -> Measure:
    """A share and its interval (Wilson, 1927)."""
    n, p = len(right), float(np.mean(right))
    middle, half = p + Z**2 / (2 * n), Z * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    low, high = min((middle - half) / scale, p), max((middle + half) / scale, p)  # rounding puts 1 of 1 a hair above the interval
    return Measure(p, float(low), float(high), n)


def average(values: Sequence[float]) -> Measure:
    """A mean and its normal interval."""
    n = len(values)
    mean = float(np.mean(values)) if n else float("nan")
    half = float(Z * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Measure(mean, mean - half, mean + half, n)
