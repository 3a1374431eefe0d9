"""A recorded run: a Trace made light enough to copy to a class."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import data_folder
from ..records import by_area, over_text
from ..trace import Trace, mean_of_heads

EDGE = 128  # pixels of a preview's longer edge, at most
GRID = 64  # positions of a map's longer edge, at most


def recorded(trace: Trace) -> Trace:
    """The run with less in it: 50 steps of Stable Diffusion 1.5 at 512 pixels with all their previews take less than 25 MB as a file.

    Numbers are rounded to float16, previews have edges of at most 128 pixels, heads are not kept. Layers that read at the same grid
    become one, named by it ("64 × 64"), which holds their mean, at most 64 x 64; `layer_areas` tell what it weighs. The mean is that of
    the words' shares (`records.over_text`), as in `Trace.heat_map`: so up to that grid a heat map is the whole run's within 0.005,
    or 0.02 where a word is read nearly alike everywhere, and beyond it a little smoother. A recorded run comes back as it is.
    """
    if trace.layer_areas is not None:
        return trace
    read = [step.attention or mean_of_heads(step.attention_heads) for step in trace.steps]
    steps = tuple(
        replace(
            step, **{name: _half(value) for name, value in vars(step).items() if getattr(value, "dtype", None) == np.float32},
            attention=_by_grid(maps, _together), attention_heads=None, preview=_small(step.preview),
        )
        for step, maps in zip(trace.steps, read, strict=True)
    )  # fmt: skip
    return replace(
        trace, steps=steps, text=_half(trace.text), final_latents=_half(trace.final_latents),
        layer_areas=_by_grid(next(iter(read), None), _area),
    )  # fmt: skip


def recordings() -> dict[str, Trace]:
    """The recorded runs at hand, by the names of their files: those in the folder $SDTEACH_RECORDINGS, else picturebook's own.

    Raises ValueError for a folder without any, and as `Trace.load` does.
    """
    folder = Path(os.environ.get("SDTEACH_RECORDINGS") or data_folder("assets") / "traces")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"expected a folder with recorded runs (.safetensors, made by sdteach record), got {folder}; see $SDTEACH_RECORDINGS"
        )
    return {file.stem: Trace.load(file) for file in files}


def _half(numbers):
    most = np.finfo(np.float16).max
    return numbers.clip(-most, most).astype(np.float16).astype(np.float32)


def _small(preview):
    if preview is None:
        return None
    image = Image.fromarray(preview)
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _by_grid(maps, made_of):
    """What is made of the layers that read at one grid, by its name; None of no maps."""
    grids = {}
    for layer, values in (maps or {}).items():
        grids.setdefault("{} × {}".format(*values.shape[-2:]), {})[layer] = values
    return {grid: made_of(layers) for grid, layers in grids.items()} or None


def _area(layers):
    return sum(by_area(layers).values())


def _together(layers):
    """Maps (places, height, width) as one: the mean of their words' shares, of what start and padding leave."""
    read, shares = (np.mean([*each], 0) for each in (layers.values(), map(over_text, layers.values())))
    total = read.sum(0).mean()
    ends, words = _coarse(read[[0, -1]]), _coarse(shares[1:-1])
    return _half(np.concatenate([ends[:1], words * (total - ends.sum(0)), ends[1:]]))


def _coarse(maps):
    height, width = maps.shape[1:]
    scale = min(1, GRID / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.stack([np.asarray(Image.fromarray(place).resize(size, Image.Resampling.BOX)) for place in maps])
