"""The one grid that all pictures side by side stand in."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .style import SMALL, TITLE, WIDTH, Page, fit, styled, width_of, wrapped

MOST = 2.6  # inches, of a cell
GAP, MARGIN, LINE = 0.1, 0.1, 0.18
Pixels = UInt8[np.ndarray, "_ _ 3"]


class Grid:
    """Cells of one size, row by row, for arrays of pixels or None for an empty cell; their captions beneath.

    `columns` are the titles above the columns, or how many there are; `rows` the titles beside the rows. `cell` is a cell's width in
    inches, at most: they have room on a page, but for a `right` margin. Raises ValueError unless there is a caption for each
    picture, at least one, and a title for each row.
    """

    def __init__(self, pictures: Sequence, captions: Sequence[str] = (), columns: int | Sequence[str] = 4, rows: Sequence[str] = (),
                 cell: float | None = None, right: float = 0.0):  # fmt: skip
        self.pictures, self.rows, self.heads = pictures, rows, () if isinstance(columns, int) else columns
        captions = captions if len(captions) or not (rows or self.heads) else [""] * len(pictures)
        if not len(captions) == len(pictures) > 0:
            raise ValueError(f"expected as many captions as pictures, at least one, got {len(captions)} and {len(pictures)}")
        self.across = min(len(self.heads) or columns, len(pictures))
        down = -(-len(pictures) // self.across)
        if rows and len(rows) != down:
            raise ValueError(f"expected a title for each of {down} rows, got {len(rows)}")
        self.beside, self.above = MARGIN + 0.25 * bool(rows), 0.3 * bool(self.heads)
        self.cell = min(cell or MOST, (WIDTH - self.beside - MARGIN + GAP - right) / self.across)
        self.wide = self.cell - GAP
        self.tall = self.wide * min(2.0, max(pixels.shape[0] / pixels.shape[1] for pixels in pictures if pixels is not None))
        self.captions = ["\n".join(wrapped(caption, self.wide, SMALL)) for caption in captions]
        self.step = self.tall + 0.14 + LINE * max(caption.count("\n") + bool(caption) for caption in self.captions)
        self.width, self.height = self.beside + self.cell * self.across - GAP + MARGIN, self.above + self.step * down
        titles = product(rows or [""] * down, self.heads or [""] * self.across)
        self.told = "; ".join(", ".join(filter(None, [*title, caption])) for title, caption in zip(titles, captions, strict=False))

    def draw(self, page: Page, top: float) -> list[AxesImage]:
        """The pictures, so many inches down the page."""
        for column, head in enumerate(self.heads):
            middle = self.beside + self.cell * column + self.wide / 2
            page.text(middle, top + 0.12, fit(head, self.wide, SMALL), SMALL, ha="center")
        for row, name in enumerate(self.rows):
            middle = top + self.above + self.step * row + self.tall / 2
            page.text(self.beside - 0.16, middle, fit(name, self.tall, SMALL), SMALL, ha="center", rotation=90)
        places = [(self.beside + self.cell * (index % self.across), top + self.above + self.step * (index // self.across))
                  for index in range(len(self.pictures))]  # fmt: skip
        return [page.picture(pixels, *place, self.wide, self.tall, caption, aspect="equal")
                for pixels, place, caption in zip(self.pictures, places, self.captions, strict=True) if pixels is not None]  # fmt: skip


def sheet(grid: Grid, alt: str, title: str = "", right: float = 0.0) -> tuple[Page, list[AxesImage]]:
    """A page of its own for a grid, beneath its title, and the pictures drawn there; `right` is left free beside them."""
    top = 0.5 if title else MARGIN
    page = Page(max(grid.width + right, min(WIDTH, 0.4 + width_of(title, TITLE, "bold"))), top + grid.height, alt, title)
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
    return sheet(grid, f"{len(pictures)} pictures: {grid.told}")[0].figure
