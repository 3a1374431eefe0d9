"""A scene before it is drawn: `describe(seed)` imagines one to three coloured objects at a place, in a style, and its caption."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, count
from math import dist

import numpy as np

from .captions import Request, RequestedThing, say, words_of
from .world import COLOURS, RELATIONS, SIZES, WORLD, Grammar

HELD_OUT_SEED = 1_000_000_000  # scenes from this seed on are never trained on


@dataclass(frozen=True)
class Thing:
    """What a description says of one object: `centre` and `radius` in pixels, `tilt` in radians."""

    name: str
    colour: str
    size: str
    centre: tuple[float, float]
    radius: float
    tilt: float


@dataclass(frozen=True)
class Description:
    """A scene before it is drawn. `seed` fixes the hand of the painter: proportions, clouds, stars, strokes."""

    things: tuple[Thing, ...]
    place: str
    style: str
    relation: str | None
    caption: str
    seed: int
    canvas: int = 128


def describe(seed: int, canvas: int = 128, objects: int | None = None, grammar: Grammar = WORLD) -> Description:
    """Imagine the scene of this seed: up to `grammar.most` objects, or exactly `objects`, on a square of `canvas` pixels.

    Objects keep their size in pixels on any canvas; on one under 128 pixels there are two at most, and two are small.
    Raises ValueError for a canvas under 64 pixels or a number of objects that it or the grammar has no room for.
    """
    most = min(grammar.most, len(grammar.objects), 3 if canvas >= 128 else 2)
    if canvas < 64 or not 1 <= (most if objects is None else objects) <= most:
        raise ValueError(f"expected a canvas of 64 pixels or more and 1 to {most} objects on it, got {canvas} and {objects}")
    rng = np.random.default_rng(seed)
    place, style = rng.choice(grammar.places).item(), rng.choice(grammar.styles).item()
    number = objects or rng.integers(1, most + 1).item()
    names = rng.choice(grammar.objects, number, replace=False).tolist()
    # White things need ink around them or another ground beneath, if they are to be seen.
    lost = {"white"} if place == "paper" or style == "line" else set()
    colours = [rng.choice([one for one in COLOURS if (one, name) in grammar.pairs and one not in lost]).item() for name in names]
    smallest = number == 2 and canvas < 128
    sizes = rng.choice([*SIZES][: 1 if smallest else 2 if number == 3 else 3], number).tolist()
    radii = [rng.uniform(*SIZES[size]) for size in sizes]
    if number == 2:
        direction = rng.choice([*RELATIONS]).item()
        relation = "and" if rng.random() < 0.2 else direction
        centres = _apart(rng, radii, RELATIONS[direction], canvas)
    else:
        relation, centres = "and" if number == 3 else None, _scattered(rng, radii, canvas)
    things = tuple(Thing(*thing, rng.uniform(-0.15, 0.15)) for thing in zip(names, colours, sizes, centres, radii, strict=True))
    return Description(things, place, style, relation, say(rng, _request(rng, things, place, style, relation)), seed, canvas)


def describe_in_words(
    words: frozenset[str], first_seed: int, objects: int | None, grammar: Grammar, canvas: int = 128
) -> Iterator[Description]:
    """The scenes of all seeds from `first_seed` on whose captions need no other `words`; see `describe`."""
    scenes = (describe(seed, canvas, objects, grammar) for seed in count(first_seed))
    return (scene for scene in scenes if words_of(scene.caption) <= words)


def _apart(rng, radii, direction, canvas):
    """Centres of two objects that stand clearly in `direction` of each other and never touch."""
    before, between = np.sort(rng.uniform(0, canvas - 2 * sum(radii) - 6, 2))
    first = sum(direction) < 0
    near = 2 + before + radii[not first]
    far = near + radii[0] + radii[1] + 2 + (between - before)
    along, reach = (near, far) if first else (far, near), canvas / 2 - np.array(radii) - 2
    middle = rng.uniform(-min(reach), min(reach))
    across = canvas / 2 + np.clip(middle + rng.uniform(-0.4, 0.4, 2) * radii, -reach, reach)
    return [*map(tuple, np.stack([along, across] if direction[0] else [across, along], 1).tolist())]


def _scattered(rng, radii, canvas):
    """Centres of objects that never touch, anywhere."""
    while True:
        centres = [tuple(canvas / 2 + rng.uniform(-reach, reach, 2)) for reach in (canvas / 2 - radius - 2 for radius in radii)]
        pairs = combinations(zip(centres, radii, strict=True), 2)
        if all(dist(a, b) > r + s + 3 for (a, r), (b, s) in pairs):
            return centres


def _request(rng, things, place, style, relation):
    """What the caption says: every object; colour, size and place are now and then left unsaid, as people do."""
    said = tuple(
        RequestedThing(
            thing.name,
            thing.colour if rng.random() < 0.93 else None,
            thing.size if thing.size != "medium" and rng.random() < 0.5 else None,
        )
        for thing in things
    )
    styled = style if style != "flat" or rng.random() < 0.15 else None
    return Request(said, relation, place if rng.random() < 0.7 else None, styled)
