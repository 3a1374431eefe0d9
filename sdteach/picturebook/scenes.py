"""Picture-book scenes, drawn by code, so that what they show is known to the pixel.

A scene is one to three coloured objects at a place, in a style. `describe(seed)` imagines one, `draw(description)` paints it
and returns the picture together with its truth: caption, masks, colours, boxes.

>>> scene = scene_from_seed(7)
>>> scene.picture.shape
(128, 128, 3)
>>> scene.objects[0].mask.shape
(128, 128)
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from .captions import Request, RequestedThing, say
from .objects import INK, parts_of
from .world import COLOURS, RELATIONS, SIZES, WORLD, Grammar

OVERSAMPLING = 3
HELD_OUT_SEED = 1_000_000_000  # scenes from this seed on are never trained on
PAPER = (253, 252, 248)
PIXEL = 3  # edge of a square of pixel art
OUTLINES = {"flat": INK, "line": -0.12, "crayon": -0.45, "pixel": -0.55}  # paints, see `objects`


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
    style: str
    relation: str | None

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.picture)

    @property
    def things(self) -> UInt8[np.ndarray, "height width"]:
        """Which of the objects every pixel shows: 0 for none, 1 for the first."""
        things = np.zeros(self.picture.shape[:2], np.uint8)
        for number, thing in enumerate(self.objects, 1):
            things[thing.mask] = number
        return things


# --- imagining --------------------------------------------------------------------------------------------------


def describe(seed: int, canvas: int = 128, objects: int | None = None, grammar: Grammar = WORLD) -> Description:
    """Imagine the scene of this seed: up to `grammar.most` objects, or exactly `objects`, on a square of `canvas` pixels.

    Objects keep their size in pixels on any canvas; on one under 128 pixels there are two at most, and two are small.
    Raises ValueError for a canvas under 64 pixels or a number of objects that it or the grammar has no room for.
    """
    most = min(grammar.most, len(grammar.objects), 3 if canvas >= 128 else 2)
    if canvas < 64 or not 1 <= (objects or most) <= most or objects == 0:
        raise ValueError(f"expected a canvas of 64 pixels or more and 1 to {most} objects on it, got {canvas} and {objects}")
    rng = np.random.default_rng(seed)
    place, style = rng.choice(grammar.places).item(), rng.choice(grammar.styles).item()
    count = objects or rng.integers(1, most + 1).item()
    names = rng.choice(grammar.objects, count, replace=False).tolist()
    colours = [_colour(rng, grammar, name, place, style) for name in names]
    sizes = rng.choice(_sizes(count, canvas), count).tolist()
    radii = [rng.uniform(*SIZES[size]) for size in sizes]
    said = None
    if count == 1:
        centres = [_anywhere(rng, radii[0], canvas)]
    elif count == 2:
        direction = rng.choice(list(RELATIONS)).item()
        said = "and" if rng.random() < 0.2 else direction
        centres = _apart(rng, radii, RELATIONS[direction], canvas)
    else:
        said, centres = "and", _scattered(rng, radii, canvas)
    things = tuple(
        Thing(name, colour, size, centre, radius, rng.uniform(-0.15, 0.15))
        for name, colour, size, centre, radius in zip(names, colours, sizes, centres, radii, strict=True)
    )
    return Description(things, place, style, said, say(rng, _request(rng, things, place, style, said)), seed, canvas)


def _colour(rng, grammar, name, place, style):
    """White things need ink around them or another ground beneath, if they are to be seen."""
    lost = {"white"} if place == "paper" or style == "line" else set()
    return rng.choice([colour for colour in COLOURS if (colour, name) in grammar.pairs and colour not in lost]).item()


def _sizes(count, canvas):
    if count == 2 and canvas < 128:
        return ["small"]
    return ["small", "medium"] if count == 3 else list(SIZES)


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


def _scattered(rng, radii, canvas):
    """Centres of objects that never touch, anywhere."""
    while True:
        centres = [_anywhere(rng, radius, canvas) for radius in radii]
        pairs = combinations(zip(centres, radii, strict=True), 2)
        if all(np.hypot(a[0] - b[0], a[1] - b[1]) > r + s + 3 for (a, r), (b, s) in pairs):
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


# --- drawing ----------------------------------------------------------------------------------------------------


def draw(description: Description) -> Scene:
    """Paint a description. The same description gives the same pixels, masks and boxes."""
    rng = np.random.default_rng([description.seed, 1])
    sheet = _background(rng, description.place, description.canvas)
    if description.style == "line":
        sheet = Image.blend(sheet, Image.new("RGB", sheet.size, PAPER), 0.8)
    pen, style = ImageDraw.Draw(sheet), description.style
    objects = []
    for thing in description.things:
        ground = Image.new("L", sheet.size)
        mask_pen = ImageDraw.Draw(ground)
        line = _mix(OUTLINES[style], thing.colour)
        width = round((1.4 if style == "flat" else 2.2) * OVERSAMPLING)
        for paint, outline in parts_of(thing.name, rng):
            points = _placed(_wobbled(rng, outline) if style == "crayon" else outline, thing)
            pen.polygon(points, fill=_mix(0.86, thing.colour) if style == "line" else _mix(paint, thing.colour))
            pen.line([*points, *points[:2]], fill=line, width=width, joint="curve")
            mask_pen.polygon(points, fill=255)
            mask_pen.line([*points, *points[:2]], fill=255, width=width, joint="curve")
        mask = np.asarray(ground.reduce(OVERSAMPLING)) >= 128
        objects.append((thing, _squares(mask) if style == "pixel" else mask))
    picture = np.asarray(sheet.reduce(OVERSAMPLING))
    if style == "crayon":
        picture = _waxed(rng, picture)
    elif style == "pixel":
        picture = _squares(picture)
    return Scene(
        picture, description.caption,
        tuple(SceneObject(thing.name, thing.colour, thing.size, mask, box_of(mask)) for thing, mask in objects),
        description.place, style, description.relation,
    )  # fmt: skip


def scene_from_seed(seed: int, canvas: int = 128, objects: int | None = None, grammar: Grammar = WORLD) -> Scene:
    """Imagine and draw the scene of this seed; see `describe`."""
    return draw(describe(seed, canvas, objects, grammar))


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


def box_of(mask):
    """The smallest box (left, top, right, bottom) around a mask, right and bottom outside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# --- styles -----------------------------------------------------------------------------------------------------


def _wobbled(rng, outline):
    """An outline as a child's hand follows it."""
    outline = np.asarray(outline, float)
    return outline + rng.normal(0, 0.018, outline.shape)


def _waxed(rng, picture):
    """Wax on rough paper: slanting strokes let the paper show through."""
    height, width, _ = picture.shape
    grain = rng.normal(size=(height + 12, width + 12))
    strokes = sum(grain[k : k + height, 12 - k : 12 - k + width] for k in range(12)) / np.sqrt(12)
    cover = np.clip(0.82 + 0.16 * strokes + 0.06 * grain[:height, :width], 0.35, 1.0)[..., None]
    return np.round(np.array(PAPER) + (picture - np.array(PAPER, float)) * cover).clip(0, 255).astype(np.uint8)


def _squares(picture):
    """What the middle of every square shows, all over the square; a mask or a picture."""
    rows, columns = (np.minimum(np.arange(edge) // PIXEL * PIXEL + PIXEL // 2, edge - 1) for edge in picture.shape[:2])
    return picture[rows][:, columns]


# --- places -----------------------------------------------------------------------------------------------------

SKIES = {  # from the top down
    "paper": ((255, 254, 250), (252, 251, 246)), "sky": ((120, 186, 240), (206, 232, 250)), "night": ((38, 46, 104), (72, 84, 150)),
    "meadow": ((170, 218, 246), (226, 242, 250)), "beach": ((150, 212, 244), (222, 242, 248)), "snow": ((168, 188, 214), (212, 224, 238)),
    "desert": ((250, 214, 160), (254, 240, 212)), "sea": ((104, 196, 208), (28, 92, 148)),
}  # fmt: skip


def _background(rng, place, canvas):
    """The place, oversampled; horizons scale with the canvas, clouds and stars keep their pixels."""
    size = canvas * OVERSAMPLING
    share = np.linspace(0, 1, size)[:, None, None]
    top, bottom = SKIES[place]
    sheet = Image.fromarray(np.broadcast_to((1 - share) * top + share * bottom, (size, size, 3)).astype(np.uint8))
    pen = ImageDraw.Draw(sheet)

    def ground(level, bend, colour):
        x = np.linspace(0, size, 24)
        y = size * level + size * bend * np.sin(x / size * 3 + rng.uniform(0, 6))
        pen.polygon([*zip(x.tolist(), y.tolist(), strict=True), (size, size), (0, size)], fill=colour)

    def dots(least, most, **how):
        for x, y in rng.uniform(0, size, (round(canvas / 5), 2)):
            r = rng.uniform(least, most) * OVERSAMPLING
            pen.ellipse((x - r, y - r, x + r, y + r), **how)

    match place:
        case "sky":
            for _ in range(3):
                _cloud(pen, rng.uniform(0, size, 2), rng.uniform(7, 12) * OVERSAMPLING)
        case "night":
            dots(0.5, 1.0, fill=(250, 244, 200))
        case "meadow":
            ground(rng.uniform(0.45, 0.6), 0.03, (142, 204, 106))
            ground(rng.uniform(0.68, 0.8), 0.03, (118, 186, 84))
        case "beach":
            level = rng.uniform(0.42, 0.5)
            ground(level, 0.0, (70, 164, 204))
            ground(level + rng.uniform(0.14, 0.2), 0.012, (242, 222, 168))
        case "snow":
            ground(rng.uniform(0.5, 0.65), 0.03, (246, 249, 253))
            dots(0.8, 1.4, fill=(255, 255, 255))
        case "desert":
            ground(rng.uniform(0.45, 0.6), 0.05, (236, 190, 122))
            ground(rng.uniform(0.68, 0.8), 0.05, (222, 166, 96))
        case "sea":
            dots(0.8, 1.8, outline=(196, 236, 240), width=2)
            ground(rng.uniform(0.82, 0.9), 0.02, (224, 206, 150))
    return sheet


def _cloud(pen, centre, r):
    x, y = centre
    for dx, dy, s in ((-1.1, 0.15, 0.65), (0, -0.2, 1.0), (1.1, 0.1, 0.75), (0.2, 0.25, 0.8)):
        pen.ellipse((x + (dx - s) * r, y + (dy - s * 0.7) * r, x + (dx + s) * r, y + (dy + s * 0.7) * r), fill=(250, 253, 255))
