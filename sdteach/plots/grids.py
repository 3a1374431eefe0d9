"""The one grid that all pictures side by side stand in."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from .style import SMALL, TITLE, WIDTH, Page, styled, width_of, wrapped

MOST = 2.6  # inches, of a cell
GAP, MARGIN, LINE = 0.1, 0.1, 0.18
Pixels = UInt8[np.ndarray, "_ _ 3"]


class Grid:
    """Cells of one size, row by row, for arrays of pixels or None for an empty cell; their captions beneath.

    `columns` are the titles above the columns, or how many there are; `rows` the titles beside the rows. `cell` is a cell's width in
    inches, at most: they have room on a page, but for `right`, where scales of colours stand. Raises ValueError unless there is a
    caption for each picture, at least one, and a title for each row.
    """

    def __init__(self, pictures, captions=(), columns=4, rows=(), cell=MOST, right=0.0):
        self.pictures, self.rows, self.heads, self.right = pictures, rows, () if isinstance(columns, int) else columns, right
        if (rows or self.heads) and not len(captions):
            captions = [""] * len(pictures)
        if not len(captions) == len(pictures) > 0:
            raise ValueError(f"expected as many captions as pictures, at least one, got {len(captions)} and {len(pictures)}")
        self.across = min(len(self.heads) or columns, len(pictures))
        down = -(-len(pictures) // self.across)
        if rows and len(rows) != down:
            raise ValueError(f"expected a title for each of {down} rows, got {len(rows)}")
        self.beside, self.above = MARGIN + 0.25 * bool(rows), 0.3 * bool(self.heads)
        self.cell = min(cell, (WIDTH - self.beside - MARGIN + GAP - right) / self.across)
        self.wide = self.cell - GAP
        self.tall = self.wide * min(2.0, max(pixels.shape[0] / pixels.shape[1] for pixels in pictures if pixels is not None))
        self.captions = ["\n".join(wrapped(caption, self.wide, SMALL)) for caption in captions]
        self.step = self.tall + 0.14 + LINE * max(caption.count("\n") + bool(caption) for caption in self.captions)
        self.width, self.height = self.beside + self.cell * self.across - GAP + MARGIN + right, self.above + self.step * down
        titles = product(rows or [""] * down, self.heads or [""] * self.across)
        self.told = "; ".join(", ".join(filter(None, [*title, caption])) for title, caption in zip(titles, captions, strict=False))

    def draw(self, page, top):
        """-> the pictures drawn, so many inches down the page."""
        self.top = top + self.above
        for column, head in enumerate(self.heads):
            page.write(self.beside + self.cell * column + self.wide / 2, top + 0.12, head, SMALL, room=self.wide, ha="center")
        for row, name in enumerate(self.rows):
            middle = self.top + self.step * row + self.tall / 2
            page.write(self.beside - 0.16, middle, name, SMALL, room=self.tall, ha="center", rotation=90)
        places = product(range(len(self.pictures)), range(self.across))
        cells = zip(places, self.pictures, self.captions, strict=False)
        return [page.picture(pixels, self.beside + self.cell * column, self.top + self.step * row, self.wide, self.tall, caption)
                for (row, column), pixels, caption in cells if pixels is not None]  # fmt: skip

    def scale(self, page, image, name, row=0):
        """The scale of colours beside a row that is drawn."""
        page.scale(image, self.width - self.right, self.top + self.step * row, self.tall, name)


def sheet(grid, alt, title=""):
    """-> a page of its own for a grid, beneath its title, and the pictures drawn there."""
    top = 0.5 if title else MARGIN
    page = Page(max(grid.width, min(WIDTH, 0.4 + width_of(title, TITLE, "bold"))), top + grid.height, alt, title)
    return page, grid.draw(page, top)


@styled()
def picture_grid(
    pictures: Sequence[Pixels], captions: Sequence[str] = (), columns: int | Sequence[str] = 4, rows: Sequence[str] = ()
) -> Figure:
    """Pictures row by row, with captions beneath, or titles of the `rows` and of the `columns`, or both.

    `columns` without titles is how many there are. Raises ValueError unless there is a caption for each picture, at least one, or
    titles instead, and a title for each row.
    """
    grid = Grid(pictures, captions, columns, rows)
    return sheet(grid, f"{len(pictures)} pictures: {grid.told}")[0]
