"""The judge: says whether a picture shows what a caption asks for, without asking the checkpoint that painted it.

Its eyes are two small networks, trained on drawn scenes only (`training/seeing.py`). One says of every 2 x 2 square of a picture
whether it belongs to a thing and in which colour, and which place and style it speaks for. What hangs together is one thing;
the other network names it.

>>> judge = load_judge()
>>> faults(judge.look(picture), read("a red car below a yellow star"))
['no red car', 'an extra blue fish']
"""

import numpy as np
import torch
from diffusers import UNet2DModel
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import load_model
from scipy.ndimage import label
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from ..files import data_folder
from ..pictures import Mask, Pixels
from ..records import Record
from ..vae import to_signed
from .captions import Request
from .networks import NETWORKS
from .objects import BLOT
from .scenes import PIXEL, box_of
from .world import COLOURS, OBJECTS, PLACES, RELATIONS, STYLES

NAMES = (*OBJECTS, BLOT)
PARTS = (1, len(COLOURS), len(PLACES), len(STYLES))
SQUARE = 2  # edge in pixels of what is judged as one
SMALLEST = 20  # squares; the smallest object drawn covers twice as many
CROP = 40  # pixels to which a thing is brought before it is named
# Set on drawn scenes, and their copies from a VAE, apart from those of the evaluation. Pale parts, a white sail over sand, are
# things too: so a square need not be a thing for sure. A small thing that the VAE has blurred is no blot yet: so only a sure one is.
LEAST_THING, SURE_BLOT, SURE_PIXELS = 0.25, 0.9, 0.6


class SeenThing(Record):
    """One thing found in a picture; `name` is "blot" for one that is no object of the book. `centre` is (x, y) in pixels."""

    name: str
    colour: str
    centre: tuple[float, float]
    mask: Mask


class Seen(Record):
    """All that the judge sees in a picture, the largest thing first."""

    things: tuple[SeenThing, ...]
    place: str
    style: str

    def find(self, name: str) -> SeenThing | None:
        """The largest thing of this name, None if there is none."""
        return next((thing for thing in self.things if thing.name == name), None)


class Judge(nn.Module):
    """Two networks, and how they look at a picture."""

    def __init__(self):
        super().__init__()
        self.ground = UNet2DModel(in_channels=3 * SQUARE**2, out_channels=sum(PARTS), **NETWORKS["judge"])
        blocks = [
            nn.Sequential(nn.Conv2d(w, v, 3, padding=1), nn.GroupNorm(8, v), nn.SiLU(),
                          nn.Conv2d(v, v, 3, padding=1), nn.GroupNorm(8, v), nn.SiLU(), nn.MaxPool2d(2))
            for w, v in ((3, 32), (32, 64), (64, 128))
        ]  # fmt: skip
        self.name = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128 * (CROP // 8) ** 2, len(NAMES)))

    def see(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures (n, 3, h, w) in -1..1 -> logits: thing (n, h/2, w/2), colours (n, 11, h/2, w/2), places (n, 8), styles (n, 4)."""
        things, colours, places, styles = self.ground(pixel_unshuffle(pictures, SQUARE), 0).sample.split(PARTS, 1)
        # The ground speaks for the place; an even ground looks the same in paint and in pixels, so the things speak for the style.
        weight = things.detach().sigmoid() + 0.01
        return things[:, 0], colours, places.mean((2, 3)), (styles * weight).sum((2, 3)) / weight.sum((2, 3))

    @torch.no_grad()
    def look(self, picture: Pixels) -> Seen:
        """Find the things, the place and the style of one picture. Raises ValueError unless its edges are multiples of 16."""
        if picture.shape[0] % 16 or picture.shape[1] % 16:
            raise ValueError(f"expected a picture whose edges are multiples of 16, got {picture.shape[1]} x {picture.shape[0]}; resize it")
        pixels = to_tensor(torch.tensor(picture)[None])
        # The picture and its mirror image, averaged: nothing in the book reads from left to right.
        mirrored = (part.flip(-1) if part.ndim > 2 else part for part in self.see(pixels.flip(-1)))
        things, colours, places, styles = ((one + other)[0] / 2 for one, other in zip(self.see(pixels), mirrored, strict=True))
        islands, count = label((things.sigmoid() > LEAST_THING).numpy())
        found = []
        for squares in (islands == island for island in range(1, count + 1)):
            if squares.sum() >= SMALLEST:
                colour = list(COLOURS)[colours[:, torch.from_numpy(squares)].log_softmax(0).mean(1).argmax()]
                mask = squares.repeat(SQUARE, 0).repeat(SQUARE, 1)
                *objects, blot = self.name(to_tensor(torch.tensor(cut_out(picture, mask))[None]))[0].softmax(0).tolist()
                name = BLOT if blot > SURE_BLOT else OBJECTS[np.argmax(objects)]
                y, x = np.argwhere(mask).mean(0) + 0.5
                found.append(SeenThing(name, colour, (float(x), float(y)), mask))
        found.sort(key=lambda thing: -thing.mask.sum())
        style = STYLES[styles.argmax()]
        if style in ("flat", "pixel"):
            style = "pixel" if change_on_grid(picture) > SURE_PIXELS else "flat"
        return Seen(tuple(found), PLACES[places.argmax()], style)


def change_on_grid(picture: Pixels) -> float:
    """The fraction of all change from pixel to pixel that falls on the lines between squares of pixel art: 1 there, else about 1/3."""
    changes = [np.abs(np.diff(picture.astype(float), axis=axis)).sum((1 - axis, 2)) for axis in (0, 1)]
    return float(np.mean([change[PIXEL - 1 :: PIXEL].sum() / max(change.sum(), 1.0) for change in changes]))


def to_tensor(pictures: UInt8[Tensor, "n height width 3"]) -> Float[Tensor, "n 3 height width"]:
    """Pictures as networks take them, in -1..1."""
    return to_signed(pictures).permute(0, 3, 1, 2)


def cut_out(picture: Pixels, mask: Mask) -> UInt8[np.ndarray, "40 40 3"]:
    """The square around a thing, brought to one size; beyond the picture's edge it is gray."""
    left, top, right, bottom = box_of(np.pad(mask, 64))
    half, x, y = (max(right - left, bottom - top) - 1) / 2 + 3, (left + right) / 2, (top + bottom) / 2
    padded = Image.fromarray(np.pad(picture, ((64, 64), (64, 64), (0, 0)), constant_values=127))
    return np.asarray(padded.resize((CROP, CROP), Image.Resampling.BILINEAR, (x - half, y - half, x + half, y + half)))


def matched(seen: Seen, request: Request) -> tuple[SeenThing | None, ...]:
    """For each thing that is asked for the largest one that fits it, none for two; None where there is none."""
    left, found = list(seen.things), {}
    # Things asked for in a colour choose first: "a car left of a red car" must leave the red one to the second.
    for index, thing in sorted(enumerate(request.things), key=lambda item: item[1].colour is None):
        found[index] = next((other for other in left if other.name == thing.name and thing.colour in (None, other.colour)), None)
        left = [other for other in left if other is not found[index]]
    return tuple(found[index] for index in range(len(found)))


def relation_right(seen: Seen, request: Request) -> bool | None:
    """Whether the first of two things stands where it was asked for, seen from the second: nearer to that direction than to any
    other. None unless both are there and a direction was asked for."""
    things = matched(seen, request)
    if request.relation not in RELATIONS or None in things:
        return None
    way, apart = np.array(RELATIONS[request.relation]), np.subtract(things[0].centre, things[1].centre)
    return bool(way @ apart > abs(way[::-1] @ apart))


def faults(seen: Seen, request: Request) -> list[str]:
    """What is wrong with a picture that should show `request`; empty if all is right. What is left unsaid is free."""
    things = matched(seen, request)
    asked = sorted(zip(request.things, things, strict=True), key=lambda pair: pair[0].colour is None)
    found = [f"no {thing.colour + ' ' if thing.colour else ''}{thing.name}" for thing, shown in asked if shown is None]
    found += [f"something {other.colour} that is no object" if other.name == BLOT else f"an extra {other.colour} {other.name}"
              for other in seen.things if other not in things]  # fmt: skip
    if relation_right(seen, request) is False:
        found.append(f"the {request.things[0].name} is not {request.relation} the {request.things[1].name}")
    for what in ("place", "style"):
        wanted, shown = getattr(request, what), getattr(seen, what)
        if wanted not in (None, shown):
            found.append(f"the {what} is {shown}, not {wanted}")
    return found


def load_judge() -> Judge:
    """The judge that the project ships; it looks on the CPU. Raises FileNotFoundError if its file is missing."""
    judge = Judge().eval()
    load_model(judge, data_folder("assets") / "judge.safetensors")
    return judge
