"""The other tasks: regions painted anew, layouts, and the table that unites all tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..pictures import Box, checked_layout
from .pictures import captioned, draw_outline
from .style import BODY, DPI, SMALL, TITLE, Page, cut, fit, theme, width_of, wrapped

Pixels = UInt8[np.ndarray, "_ _ 3"]
Mask = Bool[np.ndarray, "_ _"]
DIM = 0.75  # how much of the paper lies over what is not the region
COLUMNS = {"task": 2.3, "start latent": 2.4, "conditioning": 2.4, "mask": 1.9, "step range": 1.9, "before": 1.35, "after": 1.15,
           "how well": 1.9}  # inches # fmt: skip
CHANGING = ("start latent", "conditioning", "mask", "step range")
THUMB, PAD, LINE = 0.88, 0.08, 0.24  # inches


def regions(
    pictures: Sequence[Pixels], masks: Sequence[Mask | None], captions: Sequence[str], columns: int = 8, cell: float = 3.2
) -> Figure:
    """Pictures with a region clear and outlined, the rest dimmed; with None for a mask as they are. Captions beneath.

    `cell` is a picture's width in inches. Before, the region and after, side by side, are
    `regions([before, before, after], [None, mask, None], ["before", "region", "after"])`. Raises ValueError unless there is a
    caption and a mask, of the picture's size, for each picture.
    """
    told = [caption if mask is None else f"{caption}, {_extent(mask)}" for caption, mask in zip(captions, masks, strict=False)]
    for axes, mask in zip(every := _cells(pictures, masks, captions, told, columns, cell), masks, strict=True):
        if mask is not None:
            draw_region(axes, mask)
    return every[0].figure


def boxes(
    pictures: Sequence[Pixels], layouts: Sequence[Mapping[str, Box] | None], captions: Sequence[str], columns: int = 8, cell: float = 3.2
) -> Figure:
    """Pictures with the boxes of their layouts, each with its word; with None for a layout as they are. Captions beneath.

    A box is left, top, right, bottom as shares of the picture, 0..1; `cell` is a picture's width in inches. Raises ValueError
    unless there is a caption and a layout for each picture, and, naming its word, for a box that is none.
    """
    layouts = [layout and checked_layout(layout) for layout in layouts]
    told = [", ".join([caption, *(_sides(*pair) for pair in (layout or {}).items())])
            for caption, layout in zip(captions, layouts, strict=False)]  # fmt: skip
    for axes, layout in zip(every := _cells(pictures, layouts, captions, told, columns, cell), layouts, strict=True):
        draw_boxes(axes, layout or {})
    return every[0].figure


def _cells(pictures, over, captions, told, columns, cell):
    """The axes of a page of captioned pictures, over each of which something is drawn."""
    if not len(pictures) == len(over) == len(captions) > 0:
        raise ValueError(f"expected for each picture a caption and what is drawn over it, or None, at least one, got {len(pictures)} "
                         f"pictures, {len(captions)} captions and {len(over)} to draw over them")  # fmt: skip
    tall = cell * pictures[0].shape[0] / pictures[0].shape[1]
    page, places = captioned(captions, columns, cell, tall, f"{len(pictures)} pictures: {'; '.join(told)}")
    return [page.picture(picture, *place, aspect="equal").axes for picture, place in zip(pictures, places, strict=True)]


def _extent(mask):
    if not mask.any():
        return "nowhere"
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return f"from {columns[0]} to {columns[-1] + 1} across and {rows[0]} to {rows[-1] + 1} down"


def _sides(word, box):
    return "{} {:.0%} to {:.0%} across and {:.0%} to {:.0%} down".format(word, *(box[side] for side in (0, 2, 1, 3)))


def draw_region(axes: Axes, mask: Mask) -> None:
    """Dim the picture that `axes` show where it is not masked, and draw the mask's edge. Raises ValueError for another size."""
    if mask.shape != (size := axes.images[0].get_array().shape[:2]):
        raise ValueError(f"expected a mask of the picture's size, {size}, got {mask.shape}; bring one to the other's size")
    axes.imshow(np.where(mask[..., None], 0, to_rgba(theme().paper, DIM)), interpolation="nearest")
    draw_outline(axes, mask)


def draw_boxes(axes: Axes, layout: Mapping[str, Box], words: bool = True) -> None:
    """Draw boxes over the picture that `axes` show, and their words: inside at the top, or as near as no other word stands."""
    axes.apply_aspect()
    width, height = axes.bbox.size / axes.figure.dpi
    looks, thin, taken = zip(cycle(theme().cycle), cycle(["-", (0, (3, 1)), (0, (1, 0.6))]), strict=False), 3.0 if words else 1.5, []
    for (word, (left, top, right, bottom)), (colour, dashes) in zip(layout.items(), looks, strict=False):
        for look in ({"lw": 2 * thin, "ec": theme().paper}, {"lw": thin, "ec": colour, "ls": dashes}):
            place = (left, 1 - bottom), right - left, bottom - top
            axes.add_patch(Rectangle(*place, transform=axes.transAxes, fill=False, clip_on=False, **look))
        if words:
            name = fit(word, width - 0.4)
            x, wide = min(left * width, width - width_of(name) - 0.36) + 0.18, width_of(name)
            rows = [top * height + 0.24, *np.arange(0.24, height - 0.2, 0.34)]
            free = [y for y in rows if not any(abs(y - there) < 0.34 and x < end and x + wide > start for there, start, end in taken)]
            y = min(free or rows, key=lambda row: abs(row - rows[0]))
            taken.append((y, x - 0.1, x + wide + 0.1))
            axes.text(x / width, 1 - y / height, name, transform=axes.transAxes, fontsize=BODY, color=theme().ink, parse_math=False,
                      va="center", bbox={"boxstyle": "round,pad=0.2", "facecolor": theme().paper, "edgecolor": colour})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Task:
    """A row of `task_table`: what a task does with the loop, in a few words each; its pictures; and how well it does, with the unit.

    `before` is None where the task starts from noise alone; `region` is outlined in it. `layout` is drawn over `after`.
    """

    name: str
    start: str
    conditioning: str
    mask: str
    steps: str
    before: Pixels | None
    after: Pixels
    result: str = ""
    region: Mask | None = None
    layout: Mapping[str, Box] | None = None


def task_table(tasks: Sequence[Task], title: str = "One loop, many tasks") -> Figure:
    """All tasks in one table, a row for each. What a task does unlike the first, text to picture, is lit.

    Raises ValueError for no task, a region without a picture before or of another size, and a box that is none.
    """
    if not tasks or any(task.region is not None and task.before is None for task in tasks):
        raise ValueError(f"expected at least one task, and a picture before for every region, got {[task.name for task in tasks]}")
    told = [dict(zip(COLUMNS, (task.name, task.start, task.conditioning, task.mask, task.steps, "", "", task.result), strict=True))
            for task in tasks]  # fmt: skip
    rows = [{name: wrapped(text, COLUMNS[name] - 0.3, BODY, _weight(name)) for name, text in row.items()} for row in told]
    heights = [max(THUMB, LINE * max(map(len, row.values())) + 0.15) + 2 * PAD for row in rows]
    lefts, tops = (np.cumsum([first, *sizes]).tolist() for first, sizes in ((0.35, COLUMNS.values()), (1.15, heights)))
    page = Page(lefts[-1] + 0.1, tops[-1] + 0.15, f"{title}. {'. '.join(map(_row_told, told))}.")
    page.text(lefts[0], 0.42, title, TITLE, fontweight="bold")
    for left, name in zip(lefts, COLUMNS, strict=False):
        page.text(left, 0.95, name, SMALL, theme().quiet)
    for task, row, height, top in zip(tasks, rows, heights, tops, strict=False):
        _block(page, lefts[0] - 0.12, top, page.width - 0.4, 0.009, theme().line)
        for left, (name, lines) in zip(lefts, row.items(), strict=False):
            if name in CHANGING and lines != rows[0][name]:
                _block(page, left - 0.12, top + 0.06, COLUMNS[name] - 0.08, height - 0.1, theme().chip)
            for line, text in enumerate(lines):
                down = top + height / 2 + LINE * (line - (len(lines) - 1) / 2)
                page.text(left, down, text, fontweight=_weight(name))
        middle = top + height / 2
        after = _thumb(page, task.after, lefts[6], middle)
        if task.layout:
            draw_boxes(after, checked_layout(task.layout), words=False)
        if task.before is not None:
            before = _thumb(page, task.before, lefts[5], middle)
            page.arrow((lefts[5] + THUMB + 0.05, middle), (lefts[6] - 0.05, middle))
            if task.region is not None:
                draw_region(before, task.region)
    return page.figure


def _weight(column):
    return "bold" if column == "task" else "normal"


def _row_told(row):
    return "; ".join(f"{name}: {cut(text, 80)}" for name, text in row.items() if text)


def _block(page, left, down, width, height, colour):
    corner = page.at(left, down + height)
    page.figure.add_artist(Rectangle(corner, width / page.width, height / page.height, facecolor=colour, zorder=-1, snap=True,
                                     transform=page.figure.transFigure))  # fmt: skip


def _thumb(page, pixels, left, middle):
    """A small picture; of one that is smaller still, the pixels can be seen."""
    smooth = "nearest" if max(pixels.shape) < THUMB * DPI else "auto"
    return page.picture(pixels, left, middle - THUMB / 2, THUMB, THUMB, aspect="equal", interpolation=smooth).axes
