"""Picture-book scenes, drawn by code, so that what they show is known to the pixel.

`draw(description)` paints what `imagining.describe` imagined and returns the picture together with its truth: caption, masks,
colours.

>>> scene = scene_from_seed(7)
>>> scene.picture.shape
(128, 128, 3)
>>> scene.objects[0].mask.shape
(128, 128)
"""

from dataclasses import replace
from itertools import islice

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from ..pictures import Mask, Pixels
from ..records import Record
from .imagining import HELD_OUT_SEED, Description, describe, describe_in_words  # noqa: F401 - lessons find all of a scene here
from .objects import parts_of
from .world import BOOK, COLOURS, WORLD, Grammar

OVERSAMPLING = 3
PAPER = (253, 252, 248)
PIXEL = 3  # edge of a square of pixel art


class SceneObject(Record):
    """One object as drawn, and its true mask."""

    name: str
    colour: str
    mask: Mask


class Scene(Record):
    """A drawn scene and the whole truth about it."""

    picture: Pixels
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


def draw(description: Description) -> Scene:
    """Paint a description. The same description gives the same pixels and masks."""
    rng, style = np.random.default_rng([description.seed, 1]), description.style
    sheet = _background(rng, description.place, description.canvas)
    if style == "line":
        sheet = Image.blend(sheet, Image.new("RGB", sheet.size, PAPER), 0.8)
    width, objects = round((1.4 if style == "flat" else 2.2) * OVERSAMPLING), []
    for thing in description.things:
        ground = Image.new("L", sheet.size)
        pens = ImageDraw.Draw(sheet), ImageDraw.Draw(ground)
        line, cos, sin = _mix(BOOK["styles"][style]["lines"], thing.colour), np.cos(thing.tilt), np.sin(thing.tilt)
        for paint, outline in parts_of(thing.name, rng):
            wobble = rng.normal(0, 0.018, outline.shape) if style == "crayon" else 0.0  # a child's hand
            points = (outline + wobble) @ np.array([[cos, sin], [-sin, cos]]) * thing.radius + thing.centre
            points = (points * OVERSAMPLING).ravel().tolist()
            fill = _mix(0.86 if style == "line" else paint, thing.colour)
            for pen, inside, edge in zip(pens, (fill, 255), (line, 255), strict=True):
                pen.polygon(points, fill=inside)
                pen.line([*points, *points[:4]], fill=edge, width=width, joint="curve")
        mask = np.asarray(ground.reduce(OVERSAMPLING)) >= 128
        objects.append(SceneObject(thing.name, thing.colour, _squares(mask) if style == "pixel" else mask))
    picture = np.asarray(sheet.reduce(OVERSAMPLING))
    if style == "crayon":
        picture = _waxed(rng, picture)
    elif style == "pixel":
        picture = _squares(picture)
    return Scene(picture, description.caption, tuple(objects), description.place, style, description.relation)


def scene_from_seed(seed: int, canvas: int = 128, objects: int | None = None, grammar: Grammar = WORLD) -> Scene:
    """Imagine and draw the scene of this seed; see `describe`."""
    return draw(describe(seed, canvas, objects, grammar))


def scene_to_scale(seed: int, edge: int, grammar: Grammar = WORLD) -> Scene:
    """The scene of this seed as `scene_from_seed` draws it, but all of it larger, or smaller, on a square of `edge` pixels: so that
    any checkpoint sees it at its own size."""
    scene = describe(seed, grammar=grammar)
    larger = edge / scene.canvas
    things = tuple(replace(thing, centre=tuple(larger * at for at in thing.centre), radius=larger * thing.radius) for thing in scene.things)
    return draw(replace(scene, things=things, canvas=edge))


def scenes_in_words(
    words: frozenset[str], number: int, first_seed: int, grammar: Grammar, objects: int | None = None, canvas: int = 128
) -> list[Scene]:
    """So many scenes from a seed on whose captions need no other `words`."""
    return [draw(description) for description in islice(describe_in_words(words, first_seed, objects, grammar, canvas), number)]


def _mix(paint, colour):
    """A paint is an RGB triple, or the object's own colour lightened (> 0) or darkened (< 0) by so much."""
    if not np.isscalar(paint):
        return tuple(paint)
    towards = np.array((255, 252, 245) if paint > 0 else BOOK["styles"]["flat"]["lines"])
    own = np.array(COLOURS[colour])
    return tuple(np.round(own + abs(paint) * (towards - own)).astype(int).tolist())


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """The smallest box (left, top, right, bottom) around a mask that is not empty, right and bottom outside."""
    return Image.fromarray(mask).getbbox()


def _waxed(rng, picture):
    """Wax on rough paper: slanting strokes let the paper show through."""
    height, width, _ = picture.shape
    grain = rng.normal(size=(height + 12, width + 12))
    strokes = sum(grain[k : k + height, 12 - k : 12 - k + width] for k in range(12)) / np.sqrt(12)
    cover = np.clip(0.82 + 0.16 * strokes + 0.06 * grain[:height, :width], 0.35, 1.0)[..., None]
    return np.round(PAPER + (picture - np.array(PAPER)) * cover).clip(0, 255).astype(np.uint8)


def _squares(picture):
    """What the middle of every square shows, all over the square; a mask or a picture."""
    return picture[np.ix_(*(np.minimum(np.arange(edge) // PIXEL * PIXEL + PIXEL // 2, edge - 1) for edge in picture.shape[:2]))]


def _background(rng, place, canvas):
    """The place, oversampled; horizons scale with the canvas, clouds and stars keep their pixels."""
    size, horizon = canvas * OVERSAMPLING, 0.0
    down = np.linspace(0, 1, size)[:, None, None]
    top, bottom = np.array(BOOK["places"][place]["sky"])
    sheet = Image.fromarray(np.broadcast_to((1 - down) * top + down * bottom, (size, size, 3)).astype(np.uint8))
    pen = ImageDraw.Draw(sheet)
    for layer in BOOK["places"][place]["layers"]:
        match layer:
            case {"clouds": radius}:
                for _ in range(3):
                    (x, y), r = rng.uniform(0, size, 2), rng.uniform(*radius) * OVERSAMPLING
                    for dx, dy, s in ((-1.1, 0.15, 0.65), (0, -0.2, 1.0), (1.1, 0.1, 0.75), (0.2, 0.25, 0.8)):
                        box = (x + (dx - s) * r, y + (dy - s * 0.7) * r, x + (dx + s) * r, y + (dy + s * 0.7) * r)
                        pen.ellipse(box, fill=(250, 253, 255))
            case {"dots": radius, **ink}:
                for x, y in rng.uniform(0, size, (round(canvas / 5), 2)):
                    r = rng.uniform(*radius) * OVERSAMPLING
                    pen.ellipse((x - r, y - r, x + r, y + r), **ink)
            case {"horizon": heights, "bend": bend, "fill": fill}:
                horizon = horizon * layer.get("beneath", 0) + rng.uniform(*heights)
                x = np.linspace(0, size, 24)
                y = size * horizon + size * bend * np.sin(x / size * 3 + rng.uniform(0, 6))
                pen.polygon([*zip(x.tolist(), y.tolist(), strict=True), (size, size), (0, size)], fill=fill)
    return sheet
