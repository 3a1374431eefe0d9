"""What tasks are given, over their pictures: regions and boxes."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..pictures import Box, checked_layout
from .grids import Grid, Pixels, sheet
from .style import SMALL, fit, styled, theme, width_of

Mask = Bool[np.ndarray, "_ _"]
DIM = 0.75  # how much of the paper lies over what is not the region
LABEL = 0.25  # inches from the middle of one word to that of the next


@styled()
def regions(
    pictures: Sequence[Pixels], masks: Sequence[Mask | None], captions: Sequence[str], columns: int = 4,
    cell: float | None = None,
) -> Figure:  # fmt: skip
    """Pictures with a region clear and outlined, the rest dimmed; with None for a mask as they are. Captions beneath.

    `cell` is a picture's width in inches. Before, the region and after, side by side, are
    `regions([before, before, after], [None, mask, None], ["before", "region", "after"])`. Raises ValueError unless there is a
    caption and a mask, of the picture's size, for each picture.
    """
    return _drawn_over(draw_region, _extent, pictures, masks, captions, columns, cell)


@styled()
def boxes(
    pictures: Sequence[Pixels], layouts: Sequence[Mapping[str, Box] | None], captions: Sequence[str],
    columns: int = 4, cell: float | None = None,
) -> Figure:  # fmt: skip
    """Pictures with the boxes of their layouts, each with its word; with None for a layout as they are. Captions beneath.

    A box is left, top, right, bottom as shares of the picture, 0..1; `cell` is a picture's width in inches. Raises ValueError
    unless there is a caption and a layout for each picture, and, naming its word, for a box that is none.
    """
    layouts = [checked_layout(layout) if layout else None for layout in layouts]
    return _drawn_over(draw_boxes, _sides, pictures, layouts, captions, columns, cell)


def _drawn_over(draw, tell, pictures, over, captions, columns, cell):
    if not len(pictures) == len(over) == len(captions) > 0:
        raise ValueError(f"expected for each picture a caption and what is drawn over it, or None, at least one, got {len(pictures)} "
                         f"pictures, {len(captions)} captions and {len(over)} to draw over them")  # fmt: skip
    told = [caption if what is None else f"{caption}, {tell(what)}" for caption, what in zip(captions, over, strict=True)]
    page, images = sheet(Grid(pictures, captions, columns, cell=cell), f"{len(pictures)} pictures: {'; '.join(told)}")
    for image, what in zip(images, over, strict=True):
        if what is not None:
            draw(image.axes, what)
    return page.figure


def _extent(mask):
    if not mask.any():
        return "nowhere"
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return f"from {columns[0]} to {columns[-1] + 1} across and {rows[0]} to {rows[-1] + 1} down"


def _sides(layout):
    return ", ".join(f"{word} {left:.0%} to {right:.0%} across and {top:.0%} to {bottom:.0%} down"
                     for word, (left, top, right, bottom) in layout.items())  # fmt: skip


def draw_outline(axes: Axes, mask: Mask) -> None:
    """The edge of a mask, seen on any ground, over the picture of its size that `axes` show."""
    if mask.any():
        height, width = mask.shape
        axes.autoscale(False)
        for colour, thickness in (("black", 3.0), ("white", 1.5)):
            axes.contour(range(-1, width + 1), range(-1, height + 1), np.pad(mask, 1), [0.5], colors=[colour], linewidths=thickness)


def draw_region(axes: Axes, mask: Mask) -> None:
    """Dim the picture that `axes` show where it is not masked, and draw the mask's edge. Raises ValueError for another size."""
    if mask.shape != (size := axes.images[0].get_array().shape[:2]):
        raise ValueError(f"expected a mask of the picture's size, {size}, got {mask.shape}; bring one to the other's size")
    axes.imshow(np.where(mask[..., None], 0, to_rgba(theme().paper, DIM)), interpolation="nearest")
    draw_outline(axes, mask)


def draw_frames(axes: Axes, layout: Mapping[str, Box], thin: float) -> list[str]:
    """Draw boxes over the picture that `axes` show -> the colour of each."""
    looks = zip(cycle(theme().cycle), cycle(["-", (0, (3, 1)), (0, (1, 0.6))]), strict=False)
    drawn = [(box, *look) for box, look in zip(layout.values(), looks, strict=False)]
    for (left, top, right, bottom), colour, dashes in drawn:
        for look in ({"lw": 2 * thin, "ec": theme().paper}, {"lw": thin, "ec": colour, "ls": dashes}):
            place = (left, 1 - bottom), right - left, bottom - top
            axes.add_patch(Rectangle(*place, transform=axes.transAxes, fill=False, clip_on=False, **look))
    return [colour for _, colour, _ in drawn]


def draw_boxes(axes: Axes, layout: Mapping[str, Box]) -> None:
    """Draw boxes and their words: above the box, below it, or as near as there is room and no other word stands."""
    axes.apply_aspect()
    width, height = axes.bbox.size / axes.figure.dpi
    colours, taken = draw_frames(axes, layout, 2.5), []
    for (word, (left, top, _, bottom)), colour in zip(layout.items(), colours, strict=True):
        name = fit(word, width - 0.4, SMALL)
        wide = width_of(name, SMALL)
        x = min(left * width, width - wide - 0.2) + 0.1
        rows = [row for row in (top * height - 0.17, bottom * height + 0.17, top * height + 0.17, *np.arange(0.14, height, LABEL))
                if 0.13 < row < height - 0.13]  # fmt: skip
        free = [y for y in rows if not any(abs(y - there) < LABEL and x < end and x + wide > start for there, start, end in taken)]
        y = (free or rows)[0]
        taken.append((y, x - 0.1, x + wide + 0.1))
        axes.text(x / width, 1 - y / height, name, transform=axes.transAxes, fontsize=SMALL, va="center",
                  bbox={"boxstyle": "round,pad=0.15", "facecolor": theme().paper, "edgecolor": colour})  # fmt: skip
