"""Drawn scenes on disk: pictures and what every pixel shows as memory-mapped arrays, captions beside them."""

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

from ...vae import to_signed
from ..scenes import scene_from_seed
from ..world import Grammar


@dataclass(frozen=True, eq=False)
class DrawnScenes:
    """`pictures` (n, size, size, 3) uint8, their `captions`, and `things` (n, size, size) uint8: see `Scene.things`."""

    pictures: Tensor
    captions: list[str]
    things: Tensor

    def __getitem__(self, which: slice) -> "DrawnScenes":
        return DrawnScenes(self.pictures[which], self.captions[which], self.things[which])

    def to(self, device: torch.device) -> "DrawnScenes":
        """The same scenes with the pictures where the training runs, so that no loader stands between them."""
        return DrawnScenes(self.pictures.to(device), self.captions, self.things.to(device))


def draw_scenes(folder: Path, count: int, canvas: int, grammar: Grammar, first_seed: int = 0, objects: int | None = None) -> DrawnScenes:
    """Draw the scenes of `count` seeds from `first_seed` on into `folder`, or open them if they are there; see `describe`.

    All cores draw, ahead of the training's need. Raises ValueError if what is there is another recipe's.
    """
    facts, sheets = folder / "scenes.json", {"pictures": (count, canvas, canvas, 3), "things": (count, canvas, canvas)}
    asked = {"canvas": canvas, "first_seed": first_seed, "objects": objects, "pairs": sorted(map(list, grammar.pairs)),
             "places": list(grammar.places), "styles": list(grammar.styles), "most": grammar.most}  # fmt: skip
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pictures, things = (np.lib.format.open_memmap(folder / f"{name}.part.npy", "w+", np.uint8, shape) for name, shape in sheets.items())
        captions = []
        with ProcessPoolExecutor(cpu_count()) as painters:
            seeds = range(first_seed, first_seed + count)
            scenes = painters.map(partial(_drawn, canvas, objects, grammar), seeds, chunksize=64)
            for index, scene in enumerate(tqdm(scenes, f"drawing {canvas} px scenes", count)):
                pictures[index], things[index], caption = scene
                captions.append(caption)
        pictures.flush()
        things.flush()
        for name in sheets:
            replace(folder / f"{name}.part.npy", folder / f"{name}.npy")
        (folder / "scenes.part.json").write_text(json.dumps(asked | {"captions": captions}))
        replace(folder / "scenes.part.json", facts)
    drawn = json.loads(facts.read_text())
    captions = drawn.pop("captions")
    if drawn != asked or len(captions) != count:
        raise ValueError(f"expected {count} scenes of {canvas} pixels from seed {first_seed} in {folder}, got {len(captions)} of "
                         f"{drawn['canvas']} from seed {drawn['first_seed']}, or of another grammar; "
                         "this folder is another recipe's, name a new one")  # fmt: skip
    pictures, things = (torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in sheets)
    return DrawnScenes(pictures, captions, things)


def _drawn(canvas, objects, grammar, seed):
    scene = scene_from_seed(seed, canvas, objects, grammar)
    return scene.picture, scene.things, scene.caption


def to_tensor(pictures: Tensor) -> Tensor:
    """(n, height, width, 3) uint8 -> (n, 3, height, width) float in -1..1, as the towers and the VAE take them."""
    return to_signed(pictures).permute(0, 3, 1, 2)
