"""The judge's lessons: drawn scenes of the whole world, degraded as a painted picture is, each square with its truth.

Half of them are degraded by hand, half went through a VAE and back: what a decoder does to a small thing is hard to imitate.
"""

from dataclasses import replace
from io import BytesIO
from itertools import chain

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ...vae import copies
from ..imagining import HELD_OUT_SEED, describe
from ..judge import NAMES, SQUARE, Judge, cut_out, to_tensor
from ..objects import BLOT
from ..scenes import box_of, draw
from ..world import COLOURS, PLACES, STYLES, WORLD

BLOTS = 0.1  # of all things
UNKNOWN = -100  # cross_entropy passes over it


class SeeingObjective(nn.Module):
    """Cross-entropy of thing and colour for every square, of place and style for the whole picture, of the name of every thing."""

    def __init__(self):
        super().__init__()
        self.eyes = Judge()

    def forward(self, pictures, things, colours, places, styles, crops, names):
        thing, colour, place, style = self.eyes.see(pictures)
        return (
            binary_cross_entropy_with_logits(thing, things) + 0.2 * cross_entropy(colour, colours)
            + 0.1 * cross_entropy(place, places) + 0.1 * cross_entropy(style, styles) + 0.2 * cross_entropy(self.eyes.name(crops), names)
        )  # fmt: skip


def judge_batches(batch, autoencoder, painters):
    """Random batches of degraded scenes and their truths, drawn by the processes of `painters`."""

    def draw():
        seeds = torch.randint(HELD_OUT_SEED, (batch,)).tolist()
        scenes, pictures, things, colours, places, styles, boxes, names = zip(*painters.map(sight, seeds, chunksize=8), strict=True)
        pictures = [*map(np.asarray, copies(autoencoder, [*map(Image.fromarray, scenes[: batch // 2])])), *pictures[batch // 2 :]]
        crops = [cut_out(picture, box) for picture, of_picture in zip(pictures, boxes, strict=True) for box in of_picture]
        pictures, crops = (to_tensor(torch.tensor(np.stack(several))).contiguous() for several in (pictures, crops))
        return (
            pictures, torch.tensor(np.stack(things)).float(), torch.tensor(np.stack(colours)), torch.tensor(places), torch.tensor(styles),
            crops, torch.tensor([*chain(*names)]),
        )  # fmt: skip

    return draw


def sight(seed):
    """The scene of a seed, now and then with a blot for an object, as drawn and degraded; the truth of every square; where its
    things are, roughly, and their names."""
    rng = np.random.default_rng([seed, 2])
    description = describe(seed, grammar=WORLD)
    blots = [replace(thing, name=BLOT) if rng.random() < BLOTS else thing for thing in description.things]
    scene = draw(replace(description, things=tuple(blots)))
    picture = degrade(rng, scene.picture)
    middle = slice(SQUARE // 2, None, SQUARE)
    things = scene.things[middle, middle]
    colours = np.array([UNKNOWN, *([*COLOURS].index(thing.colour) for thing in scene.objects)])[things]
    boxes = [_shaken(rng, thing.mask) for thing in scene.objects]
    names = [NAMES.index(thing.name) for thing in scene.objects]
    return scene.picture, picture, things > 0, colours, PLACES.index(scene.place), STYLES.index(scene.style), boxes, names


def _shaken(rng, mask):
    """A box that is off by a few pixels, as one found by eye is."""
    left, top, right, bottom = box_of(mask)
    edges = np.array([[top, bottom - 1], [left, right - 1]])
    # Sorted, since a very thin thing can be shaken inside out.
    (top, bottom), (left, right) = np.sort(np.clip(edges + rng.integers(-3, 4, (2, 2)), 0, len(mask) - 1))
    box = np.zeros_like(mask)
    box[top : bottom + 1, left : right + 1] = True
    return box


def degrade(rng, picture):
    """A picture as it comes out of a decoder: blurred, its colours a little off, ringing at the edges."""
    image, (height, width, _) = Image.fromarray(picture), picture.shape
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.6)))
    if rng.random() < 0.4:
        image.save(data := BytesIO(), "JPEG", quality=int(rng.integers(30, 90)))
        image = Image.open(data)
    if rng.random() < 0.4:
        factor = rng.uniform(1.2, 2.6)
        small = image.resize((round(width / factor), round(height / factor)), Image.Resampling.BOX)
        image = small.resize(image.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image, float) * rng.normal(1, 0.03, 3) + rng.normal(0, 4, 3)
    stains = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    stains = np.asarray(stains.resize((width, height), Image.Resampling.BICUBIC), float) - 127.5
    pixels += stains * rng.uniform(0, 0.1)
    pixels += rng.normal(0, rng.uniform(0, 4), picture.shape)
    return pixels.round().clip(0, 255).astype(np.uint8)
