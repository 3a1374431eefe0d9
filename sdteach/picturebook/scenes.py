"""Picture-book scenes, drawn by code, so that what they show is known to the pixel.

A scene is one or two coloured objects at a place. `describe(seed)` imagines one, `draw(description)` paints it
and returns the picture together with its truth: caption, masks, colours, boxes.

>>> scene = scene_from_seed(7)
>>> scene.picture.shape
(128, 128, 3)
>>> scene.objects[0].mask.shape
(128, 128)
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

COLOURS = {
    "red": (218, 48, 46), "orange": (244, 136, 38), "yellow": (250, 212, 52), "green": (66, 164, 76),
    "blue": (48, 104, 214), "purple": (134, 72, 184), "pink": (245, 146, 186), "brown": (140, 88, 54),
    "black": (54, 53, 60), "white": (250, 250, 246), "gray": (146, 148, 152),
}  # fmt: skip
SIZES = {"small": (13.0, 14.5), "medium": (19.0, 22.0), "big": (26.0, 29.0)}  # radius in pixels
PLACES = {
    "white": "on white paper", "sky": "in the sky", "night": "at night",
    "meadow": "in a meadow", "beach": "on a beach", "snow": "in the snow",
}  # fmt: skip
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # first object seen from second

INK = (52, 46, 62)
OVERSAMPLING = 3


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
    """A scene before it is drawn. `seed` fixes the hand of the painter: proportions, clouds, stars."""

    things: tuple[Thing, ...]
    place: str
    relation: str | None
    caption: str
    seed: int
    canvas: int = 128


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object as drawn: its true mask, and its box (left, top, right, bottom) with the right and bottom outside."""

    name: str
    colour: str
    size: str
    mask: Bool[np.ndarray, "height width"]
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn scene and the whole truth about it."""

    picture: UInt8[np.ndarray, "height width 3"]
    caption: str
    objects: tuple[SceneObject, ...]
    place: str
    relation: str | None


# --- imagining --------------------------------------------------------------------------------------------------


def describe(seed: int, canvas: int = 128, objects: int | None = None) -> Description:
    """Imagine the scene of this seed on a square canvas of `canvas` pixels with one or two `objects`.

    Objects keep their size in pixels on any canvas; on one under 128 pixels two objects are always small.
    Raises ValueError for a canvas under 64 pixels or another number of objects.
    """
    if canvas < 64 or objects not in (None, 1, 2):
        raise ValueError(f"expected a canvas of 64 pixels or more and 1 or 2 objects, got {canvas} and {objects}")
    rng = np.random.default_rng(seed)
    place = rng.choice(list(PLACES)).item()
    count = objects or rng.choice([1, 2]).item()
    sizes = rng.choice(list(SIZES) if count == 1 or canvas >= 128 else ["small"], count).tolist()
    names = rng.choice(list(PAINTERS), count, replace=False).tolist()
    colours = rng.choice([c for c in COLOURS if (c, place) != ("white", "white")], count).tolist()
    radii = [rng.uniform(*SIZES[size]) for size in sizes]
    said, centres = None, [_anywhere(rng, radii[0], canvas)]
    if count == 2:
        direction = rng.choice(list(RELATIONS)).item()
        said = "and" if rng.random() < 0.2 else direction
        centres = _apart(rng, radii, RELATIONS[direction], canvas)
    things = tuple(
        Thing(name, colour, size, centre, radius, rng.uniform(-0.15, 0.15))
        for name, colour, size, centre, radius in zip(names, colours, sizes, centres, radii, strict=True)
    )
    return Description(things, place, said, _caption(rng, things, place, said), seed, canvas)


def _anywhere(rng, radius, canvas):
    reach = canvas / 2 - radius - 2
    return tuple(canvas / 2 + rng.uniform(-reach, reach, 2))


def _apart(rng, radii, direction, canvas):
    """Centres of two objects that stand clearly in `direction` of each other and never touch."""
    first, second = radii
    room = canvas - 2 * (first + second) - 6
    before, between = np.sort(rng.uniform(0, room, 2))
    near = 2 + before + (first if sum(direction) < 0 else second)
    far = near + first + second + 2 + (between - before)
    along = (near, far) if sum(direction) < 0 else (far, near)
    reach = [canvas / 2 - r - 2 for r in radii]
    middle = rng.uniform(-min(reach), min(reach))
    across = [canvas / 2 + np.clip(middle + rng.uniform(-0.4, 0.4) * r, -w, w) for r, w in zip(radii, reach, strict=True)]
    pairs = zip(along, across, strict=True)
    return [(float(a), float(c)) if direction[0] else (float(c), float(a)) for a, c in pairs]


def _caption(rng, things, place, relation):
    """The caption names every object; colour, size and place are now and then left unsaid, as people do."""
    phrases = []
    for thing in things:
        words = [thing.size] if thing.size != "medium" and rng.random() < 0.5 else []
        words += [thing.colour] if rng.random() < 0.93 else []
        words += [thing.name]
        phrases.append(f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}")
    where = f" {PLACES[place]}" if rng.random() < 0.7 else ""
    return f" {relation} ".join(phrases) + where


def vocabulary() -> list[str]:
    """Every word a caption can contain, sorted: what the embedded checkpoint has ever read."""
    texts = [*PAINTERS, *COLOURS, *SIZES, *PLACES.values(), *RELATIONS, "and a an"]
    return sorted({word for text in texts for word in text.split()} - {"medium"})


# --- drawing ----------------------------------------------------------------------------------------------------


def draw(description: Description) -> Scene:
    """Paint a description. The same description gives the same pixels, masks and boxes."""
    rng = np.random.default_rng([description.seed, 1])
    sheet = Image.fromarray(_background(rng, description.place, description.canvas))
    pen = ImageDraw.Draw(sheet)
    objects = []
    for thing in description.things:
        ground = Image.new("L", sheet.size)
        mask_pen = ImageDraw.Draw(ground)
        for paint, outline in PAINTERS[thing.name](rng):
            points = _placed(outline, thing)
            width = max(1, round(1.4 * OVERSAMPLING))
            pen.polygon(points, fill=_mix(paint, thing.colour))
            pen.line([*points, *points[:2]], fill=INK, width=width, joint="curve")
            mask_pen.polygon(points, fill=255)
            mask_pen.line([*points, *points[:2]], fill=255, width=width, joint="curve")
        mask = np.asarray(ground.reduce(OVERSAMPLING)) >= 128
        objects.append(SceneObject(thing.name, thing.colour, thing.size, mask, _box(mask)))
    picture = np.asarray(sheet.reduce(OVERSAMPLING))
    return Scene(picture, description.caption, tuple(objects), description.place, description.relation)


def scene_from_seed(seed: int, canvas: int = 128, objects: int | None = None) -> Scene:
    """Imagine and draw the scene of this seed; see `describe`."""
    return draw(describe(seed, canvas, objects))


def _placed(outline, thing):
    """Unit outline -> pixel points on the oversampled sheet, tilted and moved to the object's place."""
    cos, sin = np.cos(thing.tilt), np.sin(thing.tilt)
    points = np.asarray(outline, float) @ np.array([[cos, sin], [-sin, cos]]) * thing.radius + thing.centre
    return [tuple(point) for point in (points * OVERSAMPLING).tolist()]


def _mix(paint, colour):
    """A paint is an RGB triple, or the object's own colour lightened (> 0) or darkened (< 0) by a share."""
    if isinstance(paint, tuple):
        return paint
    towards = np.array((255, 252, 245) if paint > 0 else INK)
    own = np.array(COLOURS[colour])
    return tuple(np.round(own + abs(paint) * (towards - own)).astype(int).tolist())


def _box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# --- places -----------------------------------------------------------------------------------------------------


def _background(rng, place, canvas):
    """The place as an oversampled RGB array; horizons scale with the canvas, clouds and stars keep their pixels."""
    size = canvas * OVERSAMPLING
    sky = {
        "white": ((255, 254, 250), (252, 251, 246)), "sky": ((120, 186, 240), (206, 232, 250)),
        "night": ((38, 46, 104), (72, 84, 150)), "meadow": ((170, 218, 246), (226, 242, 250)),
        "beach": ((150, 212, 244), (222, 242, 248)), "snow": ((168, 188, 214), (212, 224, 238)),
    }[place]  # fmt: skip
    share = np.linspace(0, 1, size)[:, None, None]
    sheet = Image.fromarray(np.broadcast_to((1 - share) * sky[0] + share * sky[1], (size, size, 3)).astype(np.uint8))
    pen = ImageDraw.Draw(sheet)

    def ground(level, bend, colour):
        x = np.linspace(0, size, 24)
        y = size * level + size * bend * np.sin(x / size * 3 + rng.uniform(0, 6))
        pen.polygon([*zip(x.tolist(), y.tolist(), strict=True), (size, size), (0, size)], fill=colour)

    if place == "sky":
        for _ in range(3):
            _cloud(pen, rng.uniform(0, size, 2), rng.uniform(7, 12) * OVERSAMPLING)
    elif place == "night":
        for x, y in rng.uniform(0, size, (round(canvas / 5), 2)):
            r = rng.uniform(0.5, 1.0) * OVERSAMPLING
            pen.ellipse((x - r, y - r, x + r, y + r), fill=(250, 244, 200))
    elif place == "meadow":
        ground(rng.uniform(0.45, 0.6), 0.03, (142, 204, 106))
        ground(rng.uniform(0.68, 0.8), 0.03, (118, 186, 84))
    elif place == "beach":
        level = rng.uniform(0.42, 0.5)
        ground(level, 0.0, (70, 164, 204))
        ground(level + rng.uniform(0.14, 0.2), 0.012, (242, 222, 168))
    elif place == "snow":
        ground(rng.uniform(0.5, 0.65), 0.03, (246, 249, 253))
        for x, y in rng.uniform(0, size, (round(canvas / 5), 2)):
            r = rng.uniform(0.8, 1.4) * OVERSAMPLING
            pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))
    return np.array(sheet)


def _cloud(pen, centre, r):
    x, y = centre
    for dx, dy, s in ((-1.1, 0.15, 0.65), (0, -0.2, 1.0), (1.1, 0.1, 0.75), (0.2, 0.25, 0.8)):
        pen.ellipse((x + (dx - s) * r, y + (dy - s * 0.7) * r, x + (dx + s) * r, y + (dy + s * 0.7) * r), fill=(250, 253, 255))


# --- objects: each painter returns its parts, back to front, as (paint, outline) in the unit circle, y downwards ----


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


PAINTERS = {
    "ball": _ball, "box": _box_, "star": _star, "heart": _heart, "house": _house, "tree": _tree, "car": _car,
    "fish": _fish, "boat": _boat, "flower": _flower, "mushroom": _mushroom, "umbrella": _umbrella,
}  # fmt: skip
OBJECTS = tuple(PAINTERS)
