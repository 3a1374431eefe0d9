"""Many pictures: batches that fill the machine, files named after what made them, processes that share the work."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from inspect import signature
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import PartialState
from accelerate.utils import find_executable_batch_size
from PIL import Image
from tqdm.auto import tqdm

from .files import write_whole
from .model import StableDiffusion, fingerprint
from .pictures import pasted_back
from .pipeline import generate_batch, picture_size

# Two cores make 129, 177, 200, 224, 239 pictures of picturebook a minute in batches of 1, 2, 4, 8, 16 (tests/benchmarks/batch.py);
# the larger they are, the less evenly several processes share them. For a GPU the size is a guess: none was at hand.
ON_CPU, ON_GPU = 8, 32
SETTINGS = signature(partial(generate_batch, None, (), ()))  # what may be said of a batch besides prompts and seeds
PATIENCE = timedelta(weeks=4)  # of a process for those whose share takes longer; torch would give up after ten minutes on a GPU


class Order(NamedTuple):
    """One picture that is wanted."""

    prompt: str
    seed: int


def paint_all(
    model: StableDiffusion, orders: Sequence[Order], folder: str | PathLike, batch_size: int | None = None, **settings
) -> list[Path]:
    """Paint a PNG for each order into `folder`, and return their paths; `settings` are those of `pipeline.generate_batch`.

    A name carries a hash of all that made the picture; one that is there is not painted again. Batches are cut from the whole list,
    whatever is there already and however many processes share the work: rounding depends on a batch's make-up, so only then does
    sharing, or going on after a stop, give the same files to the last byte, with as many threads. Under `accelerate launch` each
    process paints its part of the batches. A batch that does not fit into memory is halved until it does. With a mask, what lies
    outside is pasted back. Raises ValueError for a value that cannot be used, or if not even one picture fits.
    """
    size = (ON_CPU if model.device.type == "cpu" else ON_GPU) if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"expected batch_size to be at least 1, got {size}; None is what suits the device")
    files = picture_files(model, orders, Path(folder), settings)
    state = PartialState(cpu=model.device.type == "cpu", timeout=PATIENCE)
    batches = [slice(start, start + size) for start in range(0, len(orders), size)]
    with state.split_between_processes(batches) as mine:
        label = "painting" if state.num_processes == 1 else f"painting, one of {state.num_processes} shares"
        with tqdm(desc=label, total=sum(len(orders[part]) for part in mine), unit="picture", disable=not state.is_main_process) as bar:
            for part in mine:
                if not all(file.exists() for file in files[part]):
                    _paint(model, orders[part], files[part], settings)
                bar.update(len(orders[part]))
    state.wait_for_everyone()
    return files


def _paint(model, orders, files, settings):
    def painted(size):
        parts = [orders[start : start + size] for start in range(0, len(orders), size)]
        return [image for part in parts for image in generate_batch(model, *zip(*part, strict=True), **settings)]

    picture, mask = settings.get("image"), settings.get("mask")
    fitting = find_executable_batch_size(painted, len(orders), _halves(len(orders)).__next__)
    for image, file in zip(fitting(), files, strict=True):
        pixels = np.asarray(image) if mask is None else pasted_back(np.asarray(image), np.asarray(picture.convert("RGB")), mask)
        if not file.exists():
            Image.fromarray(pixels).save(data := BytesIO(), "PNG")
            write_whole(file, data.getvalue())


def _halves(size: int) -> Iterator[int]:
    """Smaller and smaller batches. Raises ValueError after one of a single picture."""
    while size > 1:
        yield (size := size // 2)
    raise ValueError("expected memory for at least one picture, got less; make smaller pictures")


def picture_files(model: StableDiffusion, orders: Sequence[Order], folder: Path, settings: Mapping[str, object]) -> list[Path]:
    """Where `paint_all` paints each order: a slug of the prompt, the seed, and a hash of all that makes the picture. Raises ValueError for
    a size that cannot be."""
    given = SETTINGS.bind(**settings)
    given.apply_defaults()
    settings = given.arguments
    image = settings["image"]
    height, width = picture_size(model, settings["height"], settings["width"], image and (image.height, image.width))
    # What begins with an underscore is diffusers' own bookkeeping, some of it in another order in every process.
    schedule = {name: value for name, value in model.scheduler.config.items() if not name.startswith("_")}
    made_by = settings | {
        "model": fingerprint(*model.networks.values()), "dtype": str(model.dtype), "height": height, "width": width,
        "guidance_scale": model.guidance_scale if settings["guidance_scale"] is None else settings["guidance_scale"],
        "scheduler": [settings["scheduler"], type(model.scheduler).__name__, schedule],
    }  # fmt: skip
    files = []
    for order in orders:
        made = json.dumps({"prompt": order.prompt, "seed": order.seed, **made_by}, sort_keys=True, default=_plain)
        slug = re.sub(r"\W+", "-", order.prompt.lower())[:40].strip("-_") or "picture"
        files.append(folder / f"{slug}-{order.seed}-{hashlib.sha256(made.encode()).hexdigest()[:12]}.png")
    return files


def _plain(value):
    """A setting that JSON does not know as text; of a picture or a mask the hash of its pixels."""
    if isinstance(value, Image.Image | np.ndarray):
        pixels = np.asarray(value)
        return [pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest()]
    return str(value)
