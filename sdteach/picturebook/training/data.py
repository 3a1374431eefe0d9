"""Drawn scenes on disk: pictures as one memory-mapped array, captions beside it."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import cpu_count, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..scenes import scene_from_seed
from ..world import Grammar


@dataclass(frozen=True, eq=False)
class DrawnScenes:
    """`pictures` (n, size, size, 3) uint8 and their `captions`."""

    pictures: Tensor
    captions: list[str]

    def __getitem__(self, which: slice) -> "DrawnScenes":
        return DrawnScenes(self.pictures[which], self.captions[which])

    def to(self, device: torch.device) -> "DrawnScenes":
        """The same scenes with the pictures where the training runs, so that no loader stands between them."""
        return DrawnScenes(self.pictures.to(device), self.captions)


def draw_scenes(folder: Path, count: int, canvas: int, grammar: Grammar, first_seed: int = 0, objects: int | None = None) -> DrawnScenes:
    """Draw the scenes of `count` seeds from `first_seed` on into `folder`, or open them if they are there; see `describe`.

    All cores draw, ahead of the training's need. Raises ValueError if what is there is another recipe's.
    """
    pictures, facts = folder / "pictures.npy", folder / "scenes.json"
    asked = {"canvas": canvas, "first_seed": first_seed, "objects": objects, "pairs": sorted(map(list, grammar.pairs)),
             "places": list(grammar.places), "styles": list(grammar.styles), "most": grammar.most}  # fmt: skip
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "pictures.part.npy"
        sheet = np.lib.format.open_memmap(part, "w+", np.uint8, (count, canvas, canvas, 3))
        captions = []
        with ProcessPoolExecutor(cpu_count()) as painters:
            seeds = range(first_seed, first_seed + count)
            scenes = painters.map(partial(_picture_and_caption, canvas, objects, grammar), seeds, chunksize=64)
            for index, (picture, caption) in enumerate(tqdm(scenes, f"drawing {canvas} px scenes", count)):
                sheet[index] = picture
                captions.append(caption)
        sheet.flush()
        replace(part, pictures)
        (folder / "scenes.part.json").write_text(json.dumps(asked | {"captions": captions}))
        replace(folder / "scenes.part.json", facts)
    drawn = json.loads(facts.read_text())
    captions = drawn.pop("captions")
    if drawn != asked or len(captions) != count:
        raise ValueError(f"expected {count} scenes of {canvas} pixels from seed {first_seed} in {folder}, got {len(captions)} of "
                         f"{drawn['canvas']} from seed {drawn['first_seed']}, or of another grammar; "
                         "this folder is another recipe's, name a new one")  # fmt: skip
    return DrawnScenes(torch.from_numpy(np.load(pictures, mmap_mode="c")), captions)


def _picture_and_caption(canvas, objects, grammar, seed):
    scene = scene_from_seed(seed, canvas, objects, grammar)
    return scene.picture, scene.caption


def to_tensor(pictures: Tensor) -> Tensor:
    """(n, height, width, 3) uint8 -> (n, 3, height, width) float in -1..1, as the towers and the VAE take them."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
