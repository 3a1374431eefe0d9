"""Cross-attention against the truth: where words are read beside where things are, and what becomes of a thing whose word
cannot be read there.

How maps become one map is chosen on one range of seeds and reported on another. DAAM's way (Tang et al., 2023) is scored on
the same maps. All numbers carry their 95 % interval.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice, product

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from tqdm.auto import tqdm

from ...collecting import by_layer
from ...edits import layout_kept, masked_out
from ...files import data_folder
from ...model import StableDiffusion, fingerprint
from ...pipeline import denoise, generate
from ...records import Record, Tokens, by_area, heat_map, over_text
from ...schedule import add_noise
from ...text_encoder import encode_text
from ...trace import Trace
from ...unet import UNetStep, unet_step
from ...vae import image_to_latents, latents_to_image
from ..captions import IDEAS, known_grammar, read
from ..imagining import HELD_OUT_SEED
from ..judge import Judge
from ..scenes import scenes_in_words
from ..world import COLOURS
from .measures import HEAT, Measure, average, fraction, iou, overlap, word_for
from .prompts import full_captions, known_words

STEPS = 25
TIMESTEPS = tuple(range(1, 1000, 100))
THRESHOLDS = tuple(twentieths / 20 for twentieths in range(4, 13))
VIEWS = {"raw": np.asarray, "over the text": over_text}
WEIGHTS = {"layers alike": lambda maps: dict.fromkeys(maps, 1.0), "by area": by_area}
SINCE = {"all steps": 0.0, "second half": 0.5, "last quarter": 0.75}
AGGREGATIONS = {
    f"{view}, {weights}, {since}": (VIEWS[view], WEIGHTS[weights], SINCE[since], Image.Resampling.BILINEAR)
    for view, weights, since in product(VIEWS, WEIGHTS, SINCE)
}
DAAM = "DAAM: raw, layers alike, all steps, bicubic"
AGGREGATIONS[DAAM] = (VIEWS["raw"], WEIGHTS["layers alike"], 0.0, Image.Resampling.BICUBIC)
Scores = dict[str, list[list[float]]]  # by way to make one map, of each thing the overlap at each of the thresholds
CHOSEN = "over the text, by area, last quarter"  # what `Trace.heat_map` does


class Aggregated(Record):
    """The overlap of one way to make one map with the things' masks: its best threshold on the seeds for choosing, the overlap
    there, and the overlap at that threshold on the others."""

    threshold: float
    chosen_on: Measure
    reported: Measure


class AttentionTruth(Record):
    """All that was measured. `drawn` is the overlap on drawn scenes noised to `TIMESTEPS`, a row for each layer and one for all.

    `gone` is how often a thing is gone when `word`, `word and later` or `control` cannot be read in its region;
    `later_minus_control` their paired difference. `kept` and `recoloured` are the rates at which a run with another colour
    word keeps the thing's mask (overlap of at least one half) and changes its colour: with the layout `kept` or `free`.
    """

    unet: str
    layers: Sequence[str]
    drawn: Float32[np.ndarray, "layers timesteps"]
    drawn_things: int
    aggregations: dict[str, Aggregated]
    by_layer: dict[str, Aggregated]
    best: str
    gone: dict[str, Measure]
    later_minus_control: Measure
    mask_overlap: dict[str, Measure]
    kept: dict[str, Measure]
    recoloured: dict[str, Measure]


def attention_truth(
    model: StableDiffusion, judge: Judge, guidance_scale: float | None = None, steps: int = STEPS, drawn: int = 60,
    timesteps: Sequence[int] = TIMESTEPS, choosing: int = 60, reporting: int = 100, causal: int = 50,
) -> AttentionTruth:  # fmt: skip
    """Measure a picturebook's cross-attention on so many drawn scenes, prompts to choose by, others to report and others to
    intervene in: by default six minutes on two cores."""
    words = known_words(model)
    layers, table, things = drawn_overlaps(model, words, drawn, timesteps)
    aggregations, by_layer = choose(*(painted_overlaps(model, judge, guidance_scale, _captions(words, seed, count), seed, steps)
                                      for seed, count in ((40_000, choosing), (60_000, reporting))))  # fmt: skip
    gone, overlaps, recoloured = interventions(model, judge, guidance_scale, words, steps, causal)
    return AttentionTruth(
        fingerprint(model.unet), layers, table, things, aggregations, by_layer,
        max(aggregations, key=lambda name: aggregations[name].chosen_on.value),
        {hidden: fraction(cases) for hidden, cases in gone.items()},
        average(np.subtract(gone["word and later"], gone["control"], dtype=float)),
        {layout: average(cases) for layout, cases in overlaps.items()},
        {layout: fraction([same >= 0.5 for same in cases]) for layout, cases in overlaps.items()},
        {layout: fraction(cases) for layout, cases in recoloured.items()},
    )  # fmt: skip


def as_plain(truth: AttentionTruth) -> dict:
    """What was measured as names and numbers that JSON knows; four digits are as much as the intervals bear."""
    plain = asdict(truth) | {"drawn": truth.drawn.tolist()}
    return json.loads(json.dumps(plain), parse_float=lambda number: round(float(number), 4))


def from_json(text: str) -> AttentionTruth:
    """What `as_plain` made plain, from its JSON. Raises TypeError or KeyError for anything else."""
    plain = json.loads(text, object_hook=_measured)
    return AttentionTruth(**plain | {"drawn": np.array(plain["drawn"], np.float32)})


def _measured(plain):
    """A Measure or Aggregated in place of its names and numbers."""
    kind = {"value": Measure, "threshold": Aggregated}.get(next(iter(plain), None), dict)
    return kind(**plain)


def shipped() -> AttentionTruth:
    """What was measured on the embedded checkpoint, as the project ships it; the lessons quote it."""
    return from_json((data_folder("assets") / "attention.json").read_text("utf-8"))


def drawn_overlaps(
    model: StableDiffusion, words: frozenset[str], number: int, timesteps: Sequence[int]
) -> tuple[list[str], Float32[np.ndarray, "layers timesteps"], int]:
    """The overlap of every object's word with its drawn mask, on scenes noised to each timestep: by layer, and all by area."""
    scenes, scores = scenes_in_words(words, number, HELD_OUT_SEED + 70_000, known_grammar(words)), defaultdict(list)
    encoded = [(scene, image_to_latents(model, scene.image).mean, encode_text(model, scene.caption)) for scene in scenes]
    for timestep, (seed, (scene, latents, text)) in tqdm([*product(timesteps, enumerate(encoded))], "reading drawn scenes"):
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
        step = unet_step(model, add_noise(model, latents, noise, timestep), timestep, text, guidance_scale=1.0)
        maps = by_layer(step.attention, text.tokens.end)
        for thing in scene.objects:
            places = text.tokens.places(word_for(text.tokens, thing.name))
            for row, layers in {**{layer: {layer: maps[layer]} for layer in maps}, "all layers, by area": maps}.items():
                scores[row].append(overlap(heat_map([layers], places, *latents.shape[2:]), thing.mask, HEAT))
    table = np.reshape([*scores.values()], (len(scores), len(timesteps), -1))  # by thing
    return [*scores], table.mean(2).astype(np.float32), table.shape[2]


def heat_of(step: UNetStep, tokens: Tokens, name: str) -> Float32[np.ndarray, "_ _"]:
    """Where the word for an object was read at one step: all layers by their area, 0..1."""
    return heat_map([by_layer(step.attention, tokens.end)], tokens.places(word_for(tokens, name)), *step.noise.shape[2:])


def _captions(words, start, count):
    """Half of them of one object, half of two in a relation, every colour said."""
    one, two = (full_captions(words, start + 5_000 * objects, objects, known_grammar(words)) for objects in (1, 2))
    return [*islice(one, count - count // 2), *islice(two, count // 2)]


def painted_overlaps(
    model: StableDiffusion, judge: Judge, guidance_scale: float | None, captions: Sequence[str], seed: int, steps: int = STEPS
) -> Scores:
    """For every way to make one map, and for every layer alone over the second half of the run: the overlap at each threshold, for
    each thing the judge found."""
    scores = {}
    for index, caption in enumerate(tqdm(captions, "painting and reading")):
        trace = generate(model, caption, steps=steps, guidance_scale=guidance_scale, seed=seed + index, collect=("attention",))
        seen = judge.look(trace.pixels)
        layers = {layer: (over_text, lambda _, layer=layer: {layer: 1.0}, 0.5, Image.Resampling.BILINEAR)
                  for layer in trace.steps[0].attention}  # fmt: skip
        for thing in filter(None, (seen.find(wanted.name) for wanted in read(caption).things)):
            places = trace.tokens.places(word_for(trace.tokens, thing.name))
            for way, options in (AGGREGATIONS | layers).items():
                heat = aggregated(trace, places, *options)
                scores.setdefault(way, []).append([overlap(heat, thing.mask, threshold) for threshold in THRESHOLDS])
    return scores


def aggregated(trace: Trace, places: tuple[int, ...], view, weigh, since: float, resample) -> Float32[np.ndarray, "_ _"]:
    """All maps of a run as one, from a fraction 0..1 of the run on."""
    maps = [step.attention for step in trace.steps[int(since * len(trace.steps)) :]]
    return heat_map(maps, places, *trace.final_latents.shape[2:], weigh(maps[0]), view, resample)


def choose(choosing: Scores, reporting: Scores) -> tuple[dict[str, Aggregated], ...]:
    """For every way and every layer the threshold that is best on the seeds for choosing, and what it gives on the others.

    Raises ValueError if nothing was found on either.
    """
    if not choosing or not reporting:
        raise ValueError("expected the judge to find some of the things that were asked for, found none: too weak a checkpoint to measure")
    found = {}
    for way, rows in choosing.items():
        best = int(np.mean(rows, 0).argmax())
        found[way] = Aggregated(THRESHOLDS[best], *(average([row[best] for row in scored[way]]) for scored in (choosing, reporting)))
    return {way: found.pop(way) for way in AGGREGATIONS}, found


def interventions(
    model: StableDiffusion, judge: Judge, guidance_scale: float | None, words: frozenset[str], steps: int, number: int
) -> tuple[dict[str, list], ...]:
    """Paint prompts of one object until so many show it, and each of those again.

    With words hidden where the thing was: whether it is gone. With another colour word, the layout kept or free: how much the
    thing's mask overlaps with the first one, and whether it has that colour.
    """
    gone, overlaps, recoloured = defaultdict(list), defaultdict(list), defaultdict(list)
    colours = [colour for colour in COLOURS if colour in words]
    bar = tqdm(total=number, desc="hiding and swapping words")
    for seed, caption in enumerate(full_captions(words, 80_000, 1, known_grammar(words))):
        run = [*denoise(model, caption, steps=steps, guidance_scale=guidance_scale, seed=seed)]
        (wanted,), tokens = read(caption).things, run[0].text.tokens
        thing = judge.look(np.asarray(latents_to_image(model, run[-1].next_latents))).find(wanted.name)
        if thing is None or thing.colour != wanted.colour:
            continue

        def again(context, prompt, seed=seed, name=thing.name):
            with context:
                trace = generate(model, prompt, steps=steps, guidance_scale=guidance_scale, seed=seed, collect=())
            return judge.look(trace.pixels).find(name)

        word = tokens.places(word_for(tokens, thing.name))
        for hidden, places in {"word": word, "word and later": range(word[0], len(tokens.ids)), "control": tokens.places(0)}.items():
            gone[hidden].append(again(masked_out(model, places, thing.mask), caption) is None)
        other = colours[(colours.index(thing.colour) + 1 + seed % (len(colours) - 1)) % len(colours)]
        for layout, context in {"kept": layout_kept(model, [step.attention_heads for step in run]), "free": nullcontext()}.items():
            shown = again(context, with_colour(caption, other))
            overlaps[layout].append(iou(thing.mask, shown.mask) if shown else 0.0)
            recoloured[layout].append(shown is not None and shown.colour == other)
        bar.update()
        if bar.n == number:
            break
    return gone, overlaps, recoloured


def with_colour(caption: str, colour: str) -> str:
    """The caption of one object with another colour word, word for word."""
    article, colours = "an" if colour[0] in "aeiou" else "a", "|".join(IDEAS["colours"])
    return re.sub(rf"\b(an? )?({colours})\b", lambda found: f"{article} {colour}" if found[1] else colour, caption, count=1)
