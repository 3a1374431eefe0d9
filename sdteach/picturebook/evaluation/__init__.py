"""What picturebook can do, measured against the truth: every number with its 95 % interval.

The scenes and the prompts are fixed by the words that the checkpoint knows, and by nothing else.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from ...model import StableDiffusion
from ...pictures import psnr
from ...pipeline import generate
from ...records import Record
from ..captions import Request, RequestedThing, known_grammar, read
from ..imagining import HELD_OUT_SEED
from ..judge import Judge, Seen, faults, relation_right
from ..scenes import scenes_in_words
from ..world import STYLES
from . import other_tasks as other_tasks
from . import reading as reading
from .measures import HEAT, Measure, average, copied, fraction, overlap, retrieved, word_for
from .prompts import PROMPTS, known_words, prompts

GOALS = {"vae_psnr": 30.0, "clip_top1": 0.90, "one_object": 0.97, "two_objects": 0.90, "held_out_pairs": 0.85, "attention_miou": 0.60,
         "judge_true": 0.97, "judge_shuffled": 0.05}  # fmt: skip
# Guidance scales, at each of which every fifth prompt of one and two objects, 32, is painted once more, in so many steps.
SCALES, SCALE_STEPS, EVERY = (1.0, 2.5, 5.0, 7.5, 10.0), 20, 5


class Painted(Record):
    """A prompt of the evaluation, what was painted for it, and what the judge saw there; where its things' words were read, how
    much that overlaps with them."""

    kind: str
    prompt: str
    pixels: np.ndarray
    seen: Seen
    overlaps: tuple[float, ...] = ()

    @property
    def request(self) -> Request:
        return read(self.prompt)

    @property
    def faults(self) -> list[str]:
        return faults(self.seen, self.request)


class Evaluation(Record):
    """`measures` by name, first those that have one of the `GOALS`; the pictures that the prompts gave, in the prompts' order;
    and what was left out, since the checkpoint has no words for it."""

    measures: dict[str, Measure]
    painted: tuple[Painted, ...]
    left_out: tuple[str, ...]


def evaluate(
    model: StableDiffusion, judge: Judge, guidance_scale: float | None = None, scenes: int = 250, most: int | None = None,
    scales: Sequence[float] = SCALES,
) -> Evaluation:  # fmt: skip
    """Measure a checkpoint on scenes and prompts of the words it knows: so many scenes, and at `most` so many prompts of a kind.

    Raises ValueError if it lacks a CLIP image tower.
    """
    if model.image_encoder is None or model.text_projection is None:
        raise ValueError(f"expected a checkpoint with CLIP's image tower and projection, got {model.name!r} without; picturebook has them")
    words = known_words(model)
    drawn = scenes_in_words(words, scenes, HELD_OUT_SEED, known_grammar(words))
    pictures = [scene.picture for scene in drawn]
    copies = [copied(model, picture) for picture in tqdm(pictures, "through the VAE and back")]
    decibels = [(scene.style, psnr(scene.picture, copy)) for scene, copy in zip(drawn, copies, strict=True)]
    seen = [judge.look(picture) for picture in tqdm(pictures + copies, "judging scenes")]
    requests = [read(scene.caption) for scene in drawn]
    asked = [(kind, prompt) for kind, captions in prompts(words).items() for prompt in captions[:most]]
    cases = [(seed, *case) for seed, case in enumerate(asked)]
    painted = paint(model, judge, cases, guidance_scale=guidance_scale)
    measures = {
        "vae_psnr": average([value for _, value in decibels]),
        "clip_top1": fraction(retrieved(model, drawn)),
        **measures_of_painted(painted),
        "judge_true": _without_faults(seen, 2 * requests),
        "judge_shuffled": _without_faults(seen, 2 * (requests[1:] + requests[:1])),
        **_by_style("vae_psnr", average, decibels),
    }
    fewer = [case for case in cases if case[1] in ("one_object", "two_objects")][::EVERY]
    for scale in scales:
        again = paint(model, judge, fewer, guidance_scale=scale, steps=SCALE_STEPS)
        measures[f"guidance_{scale:g}"] = fraction([not case.faults for case in again])
    known = {"three_objects": "three_objects" in measures, "styles": len(known_grammar(words).styles) > 1}
    first = {name: measures[name] for name in GOALS if name in measures}
    return Evaluation(first | measures, tuple(painted), tuple(name for name in known if not known[name]))


def _without_faults(seen, requests):
    return fraction([not faults(*pair) for pair in zip(seen, requests, strict=True)])


def paint(model: StableDiffusion, judge: Judge, cases: Sequence[tuple[int, str, str]], **settings) -> list[Painted]:
    """Paint cases (seed, kind, prompt) with these settings of `generate`, and let the judge look."""
    painted = []
    for seed, kind, prompt in tqdm(cases, "painting prompts"):
        trace = generate(model, prompt, seed=seed, collect=("attention",), **settings)
        seen = judge.look(trace.pixels)
        found = filter(None, (seen.find(thing.name) for thing in read(prompt).things))
        overlaps = (overlap(trace.heat_map(word_for(trace.tokens, thing.name)), thing.mask, HEAT) for thing in found)
        painted.append(Painted(kind, prompt, trace.pixels, seen, tuple(overlaps)))
    return painted


def measures_of_painted(painted: Sequence[Painted]) -> dict[str, Measure]:
    """How many of each kind are right; how many of all, by the style they are asked in; the overlap of words and things; and
    `relation`: of the pictures of two objects that show both, in whatever colour, how many have them where they were asked for."""
    right = {kind: [not case.faults for case in painted if case.kind == kind] for kind in PROMPTS}
    named = [replace(case.request, things=tuple(RequestedThing(thing.name) for thing in case.request.things)) for case in painted]
    relations = [relation_right(case.seen, request) for case, request in zip(painted, named, strict=True) if case.kind == "two_objects"]
    return {
        **{kind: fraction(cases) for kind, cases in right.items() if cases},
        "attention_miou": average([value for case in painted for value in case.overlaps]),
        "relation": fraction([stands for stands in relations if stands is not None]),
        **_by_style("right", fraction, [(case.request.style or "flat", not case.faults) for case in painted]),
    }


def _by_style(name, measure, cases):
    """A measure of each style, if there are several; cases are (style, value)."""
    values = {style: [value for other, value in cases if other == style] for style in STYLES}
    several = {f"{name}_{style}": measure(found) for style, found in values.items() if found}
    return several if len(several) > 1 else {}
