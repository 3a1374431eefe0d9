"""Drawn scenes on disk: pictures as one memory-mapped array, captions beside it."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import cpu_count, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..scenes import scene_from_seed

HELD_OUT_SEED = 1_000_000_000  # seeds from here on are never trained on


@dataclass(frozen=True, eq=False)
class DrawnScenes:
    """`pictures` (n, size, size, 3) uint8 and their `captions`."""

    pictures: np.ndarray
    captions: list[str]

    def __getitem__(self, which: slice) -> "DrawnScenes":
        return DrawnScenes(self.pictures[which], self.captions[which])


def draw_scenes(folder: Path, count: int, canvas: int, first_seed: int = 0, objects: int | None = None) -> DrawnScenes:
    """Draw the scenes of `count` seeds from `first_seed` on into `folder`, or open them if they are there; see `describe`.

    Raises ValueError if what is there is another number of scenes or on another canvas.
    """
    pictures, captions = folder / "pictures.npy", folder / "captions.json"
    if not captions.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "pictures.part.npy"
        sheet = np.lib.format.open_memmap(part, "w+", np.uint8, (count, canvas, canvas, 3))
        texts = []
        with ProcessPoolExecutor(cpu_count()) as painters:
            seeds = range(first_seed, first_seed + count)
            scenes = painters.map(partial(_picture_and_caption, canvas, objects), seeds, chunksize=64)
            for index, (picture, caption) in enumerate(tqdm(scenes, f"drawing {canvas} px scenes", count)):
                sheet[index] = picture
                texts.append(caption)
        sheet.flush()
        replace(part, pictures)
        captions.write_text(json.dumps(texts))
    drawn = np.load(pictures, mmap_mode="r")
    if drawn.shape[:2] != (count, canvas):
        raise ValueError(f"expected {count} scenes of {canvas} pixels in {folder}, got {drawn.shape[0]} of {drawn.shape[1]}; "
                         "this folder is another recipe's, name a new one")  # fmt: skip
    return DrawnScenes(drawn, json.loads(captions.read_text()))


def _picture_and_caption(canvas, objects, seed):
    scene = scene_from_seed(seed, canvas, objects)
    return scene.picture, scene.caption


def to_tensor(pictures):
    """(n, height, width, 3) uint8 -> (n, 3, height, width) float in -1..1, as the towers and the VAE take them."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
