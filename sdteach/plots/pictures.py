"""Pictures side by side."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from .style import Page


def picture_grid(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], captions: Sequence[str], columns: int = 8) -> Figure:
    """Pictures with their captions beneath, row by row. Raises ValueError unless there is one caption for each picture."""
    if len(pictures) != len(captions) or not captions:
        raise ValueError(f"expected as many captions as pictures, at least one, got {len(captions)} and {len(pictures)}")
    texts = [textwrap.fill(caption, 20) for caption in captions]
    rows, cell, gap = -(-len(pictures) // columns), 2.0, 0.07
    row_height = cell + 0.15 + 0.2 * max(text.count("\n") + 1 for text in texts)
    page = Page(cell * columns, row_height * rows, f"{len(pictures)} pictures: {'; '.join(captions)}")
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(index, columns)
        edge = cell - 2 * gap
        page.picture(picture, column * cell + gap, row * row_height + gap, edge, edge, text)
    return page.figure
