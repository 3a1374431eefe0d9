"""Pictures side by side."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from .style import SMALL, bare, new_figure, write


def picture_grid(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], captions: Sequence[str], columns: int = 8) -> Figure:
    """Pictures with their captions beneath, row by row. Raises ValueError unless there is one caption for each picture."""
    if len(pictures) != len(captions) or not captions:
        raise ValueError(f"expected as many captions as pictures, at least one, got {len(captions)} and {len(pictures)}")
    rows, cell, caption_height = -(-len(pictures) // columns), 2.0, 0.75
    figure = new_figure(cell * columns, (cell + caption_height) * rows, f"{len(pictures)} pictures: {'; '.join(captions)}")
    gap = 0.07
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(index, columns)
        bottom = 1 - (row * (cell + caption_height) + cell) / (rows * (cell + caption_height))
        width, height = (cell - 2 * gap) / (cell * columns), (cell - 2 * gap) / (rows * (cell + caption_height))
        axes = figure.add_axes((column / columns + gap / (cell * columns), bottom, width, height))
        axes.imshow(picture)
        bare(axes)
        write(axes, 0.5, -0.04, textwrap.fill(caption, 21), SMALL - 1, transform=axes.transAxes, ha="center", va="top")
    return figure
