"""Drawn scenes: all cores draw them straight into memory-mapped files, and whoever learns takes what is there."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import parent_process
from os import cpu_count
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...files import write_whole
from ...records import Record
from ..scenes import scene_from_seed
from ..world import COLOURS, OBJECTS, WORLD, Grammar

JOB = 64  # scenes that a core draws at a time
LONGEST = 200  # bytes of a caption


class DrawnScenes(Record):
    """`pictures` (n, size, size, 3) uint8, their `captions`, and `things` (n, size, size) uint8: see `Scene.things`.

    `kinds` (n, 4, 2) uint8 says of the ground and of every thing, by its number in `things`, the index of its name in
    `OBJECTS` and of its colour in `COLOURS`; of the ground, and where there is no such thing, the index after the last.
    """

    pictures: Tensor
    captions: list[str]
    things: Tensor
    kinds: Tensor | None = None

    def to(self, device: torch.device) -> "DrawnScenes":
        """The same scenes with the pictures where the training runs, so that no loader stands between them."""
        return replace(self, pictures=self.pictures.to(device), things=self.things.to(device))


@contextmanager
def as_one_error(path: Path):
    """Tell of whatever a library finds wrong with what lies at `path` in one ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"expected {path} as this version and this recipe leave it, got one that is damaged or another's "
                         f"({type(error).__name__}: {error}); remove it, or name a new folder") from error  # fmt: skip


class Drawing:
    """The scenes of `count` seeds from `first_seed` on, drawn by `painters` into `folder`, or opened if they are there; see `describe`.

    What was cut off goes on. Without painters another process draws. Raises ValueError if what is there is another recipe's,
    another version's or damaged.
    """

    def __init__(self, folder: Path, count: int, canvas: int, grammar: Grammar, first_seed: int = 0, objects: int | None = None,
                 painters: ProcessPoolExecutor | None = None):  # fmt: skip
        asked = {"count": count, "canvas": canvas, "first_seed": first_seed, "objects": objects, "grammar": asdict(grammar)}
        asked, facts = json.loads(json.dumps(asked, default=sorted)), folder / "scenes.json"
        if not facts.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for name, (dtype, *shape) in _fields(canvas).items():
                np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape)).flush()
            write_whole(facts, json.dumps(asked).encode())
        with as_one_error(facts):
            there = json.loads(facts.read_text())
            if there != asked:
                raise ValueError({name: there.get(name) for name in asked if there.get(name) != asked[name]})
        opened, draw = partial(_opened, folder, canvas, count), partial(scene_from_seed, canvas=canvas, objects=objects, grammar=grammar)
        self.sheets, self.count, self.jobs = opened(), count, []
        if painters and not self.sheets["drawn"].all():
            self.jobs = [painters.submit(_paint, opened, draw, first_seed, start) for start in range(0, count, JOB)]

    def drawn(self, least: int) -> int:
        """How many are there, from the first on without a gap; those up to `least` are waited for."""
        drawn = self.sheets["drawn"]
        jobs = [] if drawn[:least].all() else self.jobs[: -(-least // JOB)]
        for job in tqdm(jobs, "drawing", unit_scale=JOB, unit=" scenes", disable=not jobs):
            job.result()
        return int(np.append(drawn, False).argmin())

    def first(self, number: int) -> DrawnScenes:
        """The first `number` scenes, or all if there are fewer, once they are drawn."""
        self.drawn(min(number, self.count))
        pictures, things, kinds = (torch.from_numpy(self.sheets[name][:number]) for name in ("pictures", "things", "kinds"))
        return DrawnScenes(pictures, [*map(bytes.decode, self.sheets["captions"][:number].tolist())], things, kinds)


@contextmanager
def all_painters():
    """A process for every core. They end with this one, whatever ends it; if it fails, what is not begun stays undone."""
    pool = ProcessPoolExecutor(cpu_count(), initializer=_end_with_parent)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _end_with_parent():
    def wait():
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _fields(canvas):
    return {"pictures": ("u1", canvas, canvas, 3), "things": ("u1", canvas, canvas), "kinds": ("u1", WORLD.most + 1, 2),
            "captions": (f"S{LONGEST}",), "drawn": ("?",)}  # fmt: skip


def _opened(folder, canvas, count):
    sheets = {}
    for name, (dtype, *shape) in _fields(canvas).items():
        with as_one_error(folder / f"{name}.npy"):
            there = np.load(folder / f"{name}.npy", mmap_mode="r")  # opened to be written, a file cut short would be filled up
            if there.shape != (count, *shape) or there.dtype != dtype:
                raise ValueError(f"{there.dtype} {there.shape}")
            sheets[name] = np.load(folder / f"{name}.npy", mmap_mode="r+")
    return sheets


def _paint(opened, draw, first_seed, start):
    sheets = opened()
    for index in start + np.flatnonzero(~sheets["drawn"][start : start + JOB]):
        scene = draw(first_seed + int(index))
        sheets["pictures"][index], sheets["things"][index], sheets["captions"][index] = scene.picture, scene.things, scene.caption
        sheets["kinds"][index] = len(OBJECTS), len(COLOURS)
        for number, thing in enumerate(scene.objects, 1):
            sheets["kinds"][index, number] = OBJECTS.index(thing.name), [*COLOURS].index(thing.colour)
        sheets["drawn"][index] = True
