"""The objects of the picture book: each painter draws one with a hand of its own, never twice the same.

A painter returns its parts, back to front, as (paint, outline): the outline in the unit circle, y downwards; the paint an
RGB triple, or the object's own colour lightened (> 0) or darkened (< 0) by a share.
"""

from itertools import pairwise

import numpy as np

INK = (52, 46, 62)
BLOT = "blot"


def _oval(x, y, rx, ry=None, start=0.0, end=2 * np.pi, points=28):
    angle = np.linspace(start, end, points)
    return np.stack([x + rx * np.cos(angle), y + (ry or rx) * np.sin(angle)], 1)


def _ball(rng):
    band, half = rng.uniform(-0.15, 0.15), rng.uniform(0.2, 0.28)
    top, bottom = np.arcsin(band - half), np.arcsin(band + half)
    ring = np.concatenate([_oval(0, 0, 0.95, None, top, bottom, 8), _oval(0, 0, 0.95, None, np.pi - bottom, np.pi - top, 8)])
    return [(0.0, _oval(0, 0, 0.95, points=48)), (0.65, ring)]


def _box_(rng):
    w, d = rng.uniform(0.6, 0.7), rng.uniform(0.28, 0.36)
    x, y = -d / 2, d / 2
    front = [(x - w, y - w), (x + w, y - w), (x + w, y + w), (x - w, y + w)]
    lid = [(x - w, y - w), (x - w + d, y - w - d), (x + w + d, y - w - d), (x + w, y - w)]
    side = [(x + w, y - w), (x + w + d, y - w - d), (x + w + d, y + w - d), (x + w, y + w)]
    return [(0.0, front), (0.35, lid), (-0.3, side)]


def _star(rng):
    inner = rng.uniform(0.42, 0.5)
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    reach = np.where(np.arange(10) % 2, inner, 1.0)
    return [(0.0, np.stack([reach * np.cos(angle), reach * np.sin(angle) + 0.05], 1))]


def _heart(rng):
    t = np.linspace(0, 2 * np.pi, 40)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [(0.0, np.stack([x / 17 * rng.uniform(0.92, 1.0), (y - 2) / 17], 1))]


def _house(rng):
    w, eaves = rng.uniform(0.6, 0.7), rng.uniform(-0.15, -0.05)
    wall = [(-w, eaves), (w, eaves), (w, 0.85), (-w, 0.85)]
    roof = [(-w - 0.2, eaves), (0, -0.95), (w + 0.2, eaves)]
    door = [(-0.42, 0.3), (-0.08, 0.3), (-0.08, 0.85), (-0.42, 0.85)]
    window = [(0.14, 0.2), (0.44, 0.2), (0.44, 0.5), (0.14, 0.5)]
    return [(0.0, wall), (-0.35, roof), ((120, 76, 48), door), ((255, 240, 170), window)]


def _tree(rng):
    lobes = rng.integers(7, 10)
    angle = np.linspace(0, 2 * np.pi, 72)
    reach = 0.6 + 0.09 * np.abs(np.sin(lobes * angle / 2))
    crown = np.stack([reach * np.cos(angle) * rng.uniform(0.95, 1.1), reach * np.sin(angle) - 0.3], 1)
    trunk = [(-0.14, 0.15), (0.14, 0.15), (0.19, 0.95), (-0.19, 0.95)]
    return [((138, 92, 58), trunk), (0.0, crown)]


def _car(rng):
    roof, hood = rng.uniform(-0.6, -0.5), rng.uniform(-0.08, 0.0)
    cabin = [(-0.6, hood), (-0.38, roof), (0.26, roof), (0.54, hood)]
    body = [(-0.98, 0.05), (-0.9, hood), (0.85, hood), (0.98, 0.1), (0.98, 0.42), (-0.98, 0.42)]
    panes = [[(-0.44, hood - 0.06), (-0.3, roof + 0.12), (-0.09, roof + 0.12), (-0.09, hood - 0.06)],
             [(0.04, hood - 0.06), (0.04, roof + 0.12), (0.2, roof + 0.12), (0.37, hood - 0.06)]]  # fmt: skip
    wheels = [_oval(x, 0.42, 0.25) for x in (-0.52, 0.52)]
    hubs = [_oval(x, 0.42, 0.09) for x in (-0.52, 0.52)]
    parts = [(0.0, cabin), (0.0, body)] + [((206, 234, 246), pane) for pane in panes]
    return parts + [((62, 58, 68), wheel) for wheel in wheels] + [((214, 214, 218), hub) for hub in hubs]


def _fish(rng):
    belly = rng.uniform(0.46, 0.54)
    tail = [(0.45, 0.0), (0.97, -0.48), (0.84, 0.0), (0.97, 0.48)]
    fin = [(-0.25, -belly + 0.08), (0.2, -belly - 0.26), (0.34, -belly + 0.2)]
    return [(-0.25, tail), (-0.25, fin), (0.0, _oval(-0.15, 0, 0.78, belly, points=40)),
            ((255, 255, 255), _oval(-0.56, -0.1, 0.13)), (INK, _oval(-0.58, -0.1, 0.05))]  # fmt: skip


def _boat(rng):
    top = rng.uniform(0.26, 0.34)
    hull = [(-0.95, top), (0.95, top), (0.6, 0.85), (-0.6, 0.85)]
    mast = [(-0.07, -0.95), (0.03, -0.95), (0.03, top), (-0.07, top)]
    sail = [(0.12, -0.86), (0.76, 0.12), (0.12, 0.12)]
    jib = [(-0.17, -0.66), (-0.17, 0.12), (-0.66, 0.12)]
    return [((138, 92, 58), mast), (0.0, hull), (0.7, sail), (0.7, jib)]


def _flower(rng):
    petals = int(rng.integers(5, 7))
    angles = np.arange(petals) * 2 * np.pi / petals - np.pi / 2 + rng.uniform(-0.2, 0.2)
    stem = [(-0.06, 0.1), (0.06, 0.1), (0.06, 0.98), (-0.06, 0.98)]
    leaf = _oval(0.27, 0.68, 0.24, 0.11)
    blossom = [(0.0, _oval(0.4 * np.cos(a), -0.35 + 0.4 * np.sin(a), 0.27)) for a in angles]
    return [((84, 150, 70), stem), ((84, 150, 70), leaf), *blossom, ((252, 214, 90), _oval(0, -0.35, 0.2))]


def _mushroom(rng):
    brim = rng.uniform(0.02, 0.12)
    stem = [(-0.26, brim - 0.1), (0.26, brim - 0.1), (0.34, 0.9), (-0.34, 0.9)]
    cap = np.concatenate([_oval(0, brim, 0.92, 0.92, np.pi, 2 * np.pi), _oval(0, brim, 0.92, 0.16, 0, np.pi)])
    dots = [_oval(x, y, r) for x, y, r in ((-0.42, -0.24, 0.14), (0.08, -0.5, 0.16), (0.46, -0.16, 0.12))]
    return [((246, 232, 206), stem), (0.0, cap)] + [((255, 252, 244), dot) for dot in dots]


def _umbrella(rng):
    rim = rng.uniform(-0.04, 0.04)
    pole = [(-0.05, rim), (0.05, rim), (0.05, 0.78), (-0.05, 0.78)]
    hook = np.concatenate([_oval(0.18, 0.74, 0.23, None, 0, np.pi, 12), _oval(0.18, 0.74, 0.12, None, np.pi, 0, 12)])
    edges = np.linspace(-0.95, 0.95, 5)
    scallops = [_oval((a + b) / 2, rim, (b - a) / 2, 0.14, np.pi, 2 * np.pi, 9)[::-1] for a, b in pairwise(edges)][::-1]
    dome = np.concatenate([_oval(0, rim, 0.95, 0.88, np.pi, 2 * np.pi, 36), *scallops])
    gore = np.concatenate([_oval(0, rim, 0.48, 0.88, np.pi, 2 * np.pi, 24), *scallops[1:3]])
    return [((138, 92, 58), pole), ((138, 92, 58), hook), (0.0, dome), (0.3, gore)]


def _sun(rng):
    rays = int(rng.integers(8, 11))
    a = np.arange(2 * rays) * np.pi / rays
    reach = np.where(np.arange(2 * rays) % 2, 0.68, 1.0)
    return [
        (0.35, np.stack([reach * np.cos(a), reach * np.sin(a)], 1)),
        (0.0, _oval(0, 0, 0.62, points=40)),
        (INK, _oval(-0.2, -0.1, 0.06)),
        (INK, _oval(0.2, -0.1, 0.06)),
        (INK, _oval(0, 0.05, 0.26, 0.2, 0.3, np.pi - 0.3, 10)),
    ]


def _moon(rng):
    bite = rng.uniform(0.3, 0.42)
    t = np.linspace(0.55, 2 * np.pi - 0.55, 40)
    outer = np.stack([0.95 * np.cos(t), 0.95 * np.sin(t)], 1)
    start, end = outer[0], outer[-1]
    y = np.linspace(end[1], start[1], 24)
    x = start[0] - (start[0] + bite) * np.sqrt(np.clip(1 - (y / start[1]) ** 2, 0, 1))
    crescent = np.concatenate([outer, np.stack([x, y], 1)])
    crescent[:, 0] += 0.12
    return [(0.0, crescent)]


def _cat(rng):
    tip = rng.uniform(-0.1, 0.1)
    tail = np.concatenate(
        [_oval(0.62, 0.35, 0.3, 0.5, -np.pi / 2, np.pi / 2, 12), _oval(0.62, 0.35, 0.16, 0.36, np.pi / 2, -np.pi / 2, 12)]
    )
    body = np.concatenate([_oval(0, 0.9, 0.55, 0.9, np.pi, 2 * np.pi, 24)])
    ears = [[(-0.42, -0.4), (-0.4, -0.95 + tip / 3), (-0.08, -0.62)], [(0.42, -0.4), (0.4, -0.95 + tip / 3), (0.08, -0.62)]]
    head = _oval(0, -0.32, 0.46, 0.4, points=32)
    eyes = [_oval(x, -0.36, 0.07, 0.09) for x in (-0.18, 0.18)]
    nose = [(-0.07, -0.2), (0.07, -0.2), (0, -0.12)]
    return [(-0.2, tail), (0.0, body), *[(0.0, e) for e in ears], (0.0, head), *[(INK, e) for e in eyes], ((240, 130, 150), nose)]


def _bird(rng):
    wing = rng.uniform(-0.2, 0.1)
    tail = [(0.5, 0.02), (0.98, -0.22), (0.98, 0.22)]
    beak = [(-0.72, -0.28), (-0.99, -0.16), (-0.7, -0.08)]
    legs = [[(x, 0.45), (x + 0.06, 0.45), (x + 0.06, 0.85), (x, 0.85)] for x in (-0.12, 0.14)]
    return [
        *[((230, 150, 50), leg) for leg in legs],
        (-0.25, tail),
        ((244, 168, 48), beak),
        (0.0, _oval(0.05, 0.08, 0.6, 0.44, points=36)),
        (0.0, _oval(-0.45, -0.24, 0.32, points=28)),
        (-0.25, _oval(0.16, 0.02 + wing / 4, 0.32, 0.2)),
        (INK, _oval(-0.54, -0.3, 0.06)),
    ]


def _butterfly(rng):
    w = rng.uniform(0.4, 0.48)
    top = [_oval(s * 0.46, -0.34, w, 0.42) for s in (-1, 1)]
    low = [_oval(s * 0.38, 0.4, w - 0.1, 0.34) for s in (-1, 1)]
    dots = [_oval(s * 0.5, -0.36, 0.15) for s in (-1, 1)]
    body = _oval(0, 0.04, 0.09, 0.62)
    return [*[(-0.2, p) for p in low], *[(0.0, p) for p in top], *[(0.65, p) for p in dots], ((70, 60, 70), body)]


def _rocket(rng):
    n = rng.uniform(0.3, 0.36)
    flame = [(-0.2, 0.62), (0.2, 0.62), (0.08, 0.8), (0, 1.0), (-0.08, 0.8)]
    y = np.linspace(-0.98, 0.62, 20)
    half = n * np.sqrt(np.clip(1 - ((y - 0.25) / 1.23) ** 2, 0, 1))
    body = np.concatenate([np.stack([half, y], 1), np.stack([-half, y], 1)[::-1]])
    fins = [[(s * 0.24, 0.2), (s * 0.66, 0.7), (s * 0.2, 0.6)] for s in (-1, 1)]
    return [((250, 170, 50), flame), *[(-0.35, f) for f in fins], (0.0, body), ((206, 234, 246), _oval(0, -0.25, 0.16))]


def _balloon(rng):
    h = rng.uniform(0.66, 0.74)
    string = [(-0.03, 0.5), (0.03, 0.5), (0.07, 0.98), (0.01, 0.98)]
    knot = [(-0.1, 0.5), (0.1, 0.5), (0, 0.34)]
    return [((120, 110, 120), string), (-0.25, knot), (0.0, _oval(0, -0.28, 0.58, h, points=44)), (0.65, _oval(-0.22, -0.5, 0.12, 0.2))]


def _apple(rng):
    t = np.linspace(0, 2 * np.pi, 48)
    r = 0.82 - 0.16 * np.exp(-((t - 3 * np.pi / 2) ** 2) / 0.12) - 0.07 * np.exp(-((t - np.pi / 2) ** 2) / 0.1)
    body = np.stack([r * np.cos(t) * rng.uniform(0.98, 1.06), r * np.sin(t) + 0.16], 1)
    stalk = [(-0.05, -0.42), (0.05, -0.42), (0.12, -0.9), (0.02, -0.92)]
    leaf = _oval(0.36, -0.74, 0.25, 0.12)
    return [((120, 80, 52), stalk), ((92, 164, 74), leaf), (0.0, body), (0.65, _oval(-0.36, -0.02, 0.12, 0.2))]


def _hat(rng):
    h = rng.uniform(-0.75, -0.62)
    crown = [(-0.46, 0.4), (-0.5, h), (0.5, h), (0.46, 0.4)]
    band = [(-0.47, 0.2), (-0.48, -0.08), (0.48, -0.08), (0.47, 0.2)]
    return [(0.0, crown), (-0.5, band), (0.0, _oval(0, 0.42, 0.96, 0.2, points=40))]


def _key(rng):
    n = int(rng.integers(2, 4))
    shaft = [(-0.2, -0.1), (0.95, -0.1), (0.95, 0.1), (-0.2, 0.1)]
    teeth = [[(0.85 - 0.24 * i, 0.1), (0.85 - 0.24 * i, 0.38), (0.73 - 0.24 * i, 0.38), (0.73 - 0.24 * i, 0.1)] for i in range(n)]
    bow = np.concatenate([_oval(-0.55, 0, 0.42, points=36), _oval(-0.55, 0, 0.18, points=24)[::-1]])
    return [(0.0, shaft), *[(0.0, t) for t in teeth], (0.0, bow)]


def _snowman(rng):
    r = rng.uniform(0.32, 0.37)
    white = (252, 252, 255)
    scarf = [(-0.34, -0.22), (0.34, -0.22), (0.34, -0.04), (0.3, -0.04), (0.3, 0.26), (0.12, 0.26), (0.12, -0.04), (-0.34, -0.04)]
    hat = [(-0.22, -0.66), (-0.22, -0.98), (0.22, -0.98), (0.22, -0.66)]
    brim = [(-0.36, -0.66), (0.36, -0.66), (0.36, -0.58), (-0.36, -0.58)]
    nose = [(0.0, -0.42), (0.26, -0.36), (0.0, -0.32)]
    return [
        (white, _oval(0, 0.52, 0.5, 0.46, points=32)),
        (white, _oval(0, -0.38, r, points=28)),
        (0.0, scarf),
        (0.0, hat),
        (0.0, brim),
        ((244, 136, 38), nose),
        (INK, _oval(-0.12, -0.46, 0.05)),
        (INK, _oval(0.1, -0.46, 0.05)),
    ]


def _train(rng):
    c = rng.uniform(-0.62, -0.54)
    cab = [(0.28, c), (0.92, c), (0.92, 0.4), (0.28, 0.4)]
    roof = [(0.2, c - 0.14), (1.0, c - 0.14), (1.0, c), (0.2, c)]
    boiler = [(-0.86, -0.18), (0.28, -0.18), (0.28, 0.4), (-0.86, 0.4)]
    stack = [(-0.7, -0.6), (-0.38, -0.6), (-0.46, -0.18), (-0.62, -0.18)]
    pane = [(0.42, c + 0.12), (0.78, c + 0.12), (0.78, -0.1), (0.42, -0.1)]
    wheels = [_oval(x, 0.48, 0.22) for x in (-0.6, -0.1, 0.58)]
    return [
        ((62, 58, 68), stack),
        (0.0, boiler),
        (0.0, cab),
        (-0.35, roof),
        ((206, 234, 246), pane),
        *[((62, 58, 68), w) for w in wheels],
        *[((214, 214, 218), _oval(x, 0.48, 0.08)) for x in (-0.6, -0.1, 0.58)],
    ]


def _blot(rng):
    """No object of the book: a lump, or the parts of an object bent out of shape. The judge must not take it for one."""
    if rng.random() < 0.5:
        angle = np.linspace(0, 2 * np.pi, 60)
        reach = 0.65 + sum(rng.uniform(-0.3, 0.3) / k * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 6))
        inner = _oval(*rng.uniform(-0.25, 0.25, 2), *rng.uniform(0.1, 0.3, 2))
        return [(0.0, np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1)), (rng.uniform(-0.5, 0.7), inner)]
    parts = PAINTERS[rng.choice(list(PAINTERS)).item()](rng)
    turn, wave, phase = rng.normal(0, 1, (2, 2)), rng.uniform(2.5, 4.0, 2), rng.uniform(0, 6, 2)
    bend = 0.4 * turn / np.linalg.norm(turn)
    return [
        (paint, np.asarray(outline, float) + np.sin(np.asarray(outline, float)[:, ::-1] * wave + phase) @ bend) for paint, outline in parts
    ]


PAINTERS = {
    "ball": _ball, "box": _box_, "star": _star, "heart": _heart, "house": _house, "tree": _tree, "car": _car, "fish": _fish,
    "boat": _boat, "flower": _flower, "mushroom": _mushroom, "umbrella": _umbrella, "sun": _sun, "moon": _moon, "cat": _cat,
    "bird": _bird, "butterfly": _butterfly, "rocket": _rocket, "balloon": _balloon, "apple": _apple, "hat": _hat, "key": _key,
    "snowman": _snowman, "train": _train,
}  # fmt: skip


def parts_of(name: str, rng: np.random.Generator) -> list:
    """The parts of the object of this name, or of a `BLOT`."""
    return (_blot if name == BLOT else PAINTERS[name])(rng)
