"""The judge's lessons: drawn scenes of the whole world, worn as a painted picture is, each square with its truth.

Half of them are worn by hand, half went through a VAE and back: what a decoder does to a small thing is hard to imitate.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from io import BytesIO
from os import cpu_count

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ...vae import copies
from ..judge import NAMES, SQUARE, Eyes, as_input, cut_out
from ..objects import BLOT
from ..scenes import HELD_OUT_SEED, box_of, describe, draw
from ..world import COLOURS, PLACES, STYLES, WORLD

BLOT_SHARE = 0.1
UNKNOWN = -100  # cross_entropy passes over it


class SeeingObjective(nn.Module):
    """Cross-entropy of thing and colour for every square, of place and style for the whole picture, of the name of every thing."""

    def __init__(self):
        super().__init__()
        self.eyes = Eyes()

    def forward(self, pictures, things, colours, places, styles, crops, names):
        thing, colour, place, style = self.eyes.see(pictures)
        return (
            binary_cross_entropy_with_logits(thing, things) + 0.2 * cross_entropy(colour, colours)
            + 0.1 * cross_entropy(place, places) + 0.1 * cross_entropy(style, styles) + 0.2 * cross_entropy(self.eyes.name(crops), names)
        )  # fmt: skip


def sights(batch, autoencoder):
    """Random batches of worn scenes and their truths, drawn by all cores."""
    painters = ProcessPoolExecutor(cpu_count())

    def draw():
        seeds = torch.randint(HELD_OUT_SEED, (batch,)).tolist()
        scenes, pictures, things, colours, places, styles, boxes, names = zip(*painters.map(sight, seeds, chunksize=8), strict=True)
        copied = batch // 2
        pictures = [*map(np.asarray, copies(autoencoder, [*map(Image.fromarray, scenes[:copied])])), *pictures[copied:]]
        crops = [as_input(cut_out(picture, box)) for picture, several in zip(pictures, boxes, strict=True) for box in several]
        return (
            torch.cat([as_input(picture) for picture in pictures]), torch.from_numpy(np.stack(things)).float(),
            torch.from_numpy(np.stack(colours)), torch.tensor(places), torch.tensor(styles),
            torch.cat(crops), torch.tensor([name for several in names for name in several]),
        )  # fmt: skip

    return draw


def sight(seed):
    """The scene of a seed, now and then with a blot for an object, as drawn and worn; the truth of every square; where its things
    are, roughly, and their names."""
    rng = np.random.default_rng([seed, 2])
    description = describe(seed, grammar=WORLD)
    blots = [replace(thing, name=BLOT) if rng.random() < BLOT_SHARE else thing for thing in description.things]
    scene = draw(replace(description, things=tuple(blots)))
    picture = worn(rng, scene.picture)
    things, colours = np.zeros(picture.shape[:2], bool), np.full(picture.shape[:2], UNKNOWN)
    for thing in scene.objects:
        things |= thing.mask
        colours[thing.mask] = list(COLOURS).index(thing.colour)
    middle = slice(SQUARE // 2, None, SQUARE)
    boxes = [_shaken(rng, thing.mask) for thing in scene.objects]
    names = [NAMES.index(thing.name) for thing in scene.objects]
    place, style = PLACES.index(scene.place), STYLES.index(scene.style)
    return scene.picture, picture, things[middle, middle], colours[middle, middle], place, style, boxes, names


def _shaken(rng, mask):
    """A box that is off by a few pixels, as one found by eye is."""
    left, top, right, bottom = box_of(mask)
    edges = np.array([[top, bottom - 1], [left, right - 1]])
    # Sorted, since a very thin thing can be shaken inside out.
    (top, bottom), (left, right) = np.sort(np.clip(edges + rng.integers(-3, 4, 4).reshape(2, 2), 0, len(mask) - 1))
    box = np.zeros_like(mask)
    box[top : bottom + 1, left : right + 1] = True
    return box


def worn(rng, picture):
    """A picture as it comes out of a decoder: blurred, its colours a little off, ringing at the edges."""
    image = Image.fromarray(picture)
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.6)))
    if rng.random() < 0.4:
        image.save(data := BytesIO(), "JPEG", quality=int(rng.integers(30, 90)))
        image = Image.open(data)
    if rng.random() < 0.4:
        share = rng.uniform(1.2, 2.6)
        image = image.resize([round(edge / share) for edge in image.size], Image.Resampling.BOX).resize(
            image.size, Image.Resampling.BICUBIC
        )
    pixels = np.asarray(image, float) * rng.normal(1, 0.03, 3) + rng.normal(0, 4, 3)
    height, width, _ = picture.shape
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels += (np.asarray(coarse, float) - 127.5) * rng.uniform(0, 0.1)
    pixels += rng.normal(0, rng.uniform(0, 4), picture.shape)
    return pixels.round().clip(0, 255).astype(np.uint8)
