"""The objects of the picture book: each is drawn by a hand of its own, never twice the same. Their outlines lie in objects.toml."""

import numpy as np

from ..files import data_of

THINGS = data_of(__file__)
OBJECTS = tuple(THINGS)
BLOT = "blot"


def parts_of(name: str, rng: np.random.Generator) -> list[tuple[float | list[int], np.ndarray]]:
    """The parts of the object of this name, or of a `BLOT`, back to front: (paint, outline (points, 2)); see objects.toml."""
    if name == BLOT:
        return _blot(rng)
    drawing = DRAWINGS[name][rng.integers(len(DRAWINGS[name]))]
    hand = [1.0, *(rng.uniform(*span) for span in THINGS[name].get("varied", {}).values())]
    return [(paint, outline[..., : len(hand)] @ hand) for paint, outline in drawing] + ON_TOP.get(name, lambda rng: [])(rng)


def _row(x, y, rx=0.0, ry=None, start=0.0, end=2 * np.pi, points=28):
    """One row of an outline as (points, 2, 3): what is constant in it, and what is proportional to the two varied numbers."""
    x, y, rx, ry = (np.pad(np.atleast_1d(number), (0, 2))[:3] for number in (x, y, rx, rx if ry is None else ry))
    angle = np.linspace(start, end, abs(points) if rx.any() else 1)[:: np.sign(points), None]
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


DRAWINGS = {
    name: [
        [(paint, np.concatenate([_row(*row) for row in rows])) for paint, rows in parts]
        for parts in thing.get("one_of") or [thing["parts"]]
    ]
    for name, thing in THINGS.items()
}


def _arc(*numbers):
    return _row(*numbers)[..., 0]


def _belt(rng):
    band, half = rng.uniform(-0.15, 0.15), rng.uniform(0.2, 0.28)
    top, bottom = np.arcsin([band - half, band + half])
    ends = (top, bottom), (np.pi - bottom, np.pi - top)
    return [(0.65, np.concatenate([_arc(0, 0, 0.95, None, *angles, 8) for angles in ends]))]


def _blossom(rng):
    petals = rng.integers(5, 7)
    angles = np.arange(petals) * 2 * np.pi / petals - np.pi / 2 + rng.uniform(-0.2, 0.2)
    return [*((0.0, _arc(0.4 * np.cos(a), -0.35 + 0.4 * np.sin(a), 0.27)) for a in angles), ([252, 214, 90], _arc(0, -0.35, 0.2))]


ON_TOP = {"ball": _belt, "flower": _blossom}


def _blot(rng):
    """No object of the book: a lump, or the parts of an object bent out of shape. The judge must not take it for one."""
    if rng.random() < 0.5:
        angle = np.linspace(0, 2 * np.pi, 60)
        reach = 0.65 + sum(rng.uniform(-0.3, 0.3) / k * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 6))
        inner = _arc(*rng.uniform(-0.25, 0.25, 2), *rng.uniform(0.1, 0.3, 2))
        return [(0.0, np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1)), (rng.uniform(-0.5, 0.7), inner)]
    parts = parts_of(rng.choice(OBJECTS).item(), rng)
    turn, wave, phase = rng.normal(0, 1, (2, 2)), rng.uniform(2.5, 4.0, 2), rng.uniform(0, 6, 2)
    bend = 0.4 * turn / np.linalg.norm(turn)
    return [(paint, outline + np.sin(outline[:, ::-1] * wave + phase) @ bend) for paint, outline in parts]
