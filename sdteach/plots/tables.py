"""Numbers and pictures in rows and columns."""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..files import data_of
from ..pictures import Boxes, checked_layout
from ..records import Record, Tokens
from .chips import place_names
from .grids import Pixels
from .overlays import Mask, draw_frames, draw_region
from .style import BODY, DIVERGING, SMALL, TITLE, WIDTH, Page, as_array, bright, cut, fit, styled, theme, widest, width_of, wrapped

NUMBERED = 14  # rows or columns up to which a table carries its numbers
TURN = math.radians(40)  # the names of a table's columns stand aslant
TEXTS = data_of(__file__)["texts"]
# Of the table of tasks, in inches from the left: its pictures.
BEFORE, AFTER, THUMB, PAD, LINE = 5.42, 6.25, 0.66, 0.07, 0.18


@styled()
def feature_matrix(features, tokens: Tokens) -> Figure:
    """The text as the UNet reads it: a row for each of the (77) places, a column for each feature (places, features)."""
    values, names = as_array(features), place_names(tokens)
    (places, width), count = values.shape, len(names)
    page = Page(WIDTH, 5.6, f"Text features: {places} places by {width} features, orange below and purple above zero. The first rows are "
                f"{', '.join(names)}; the other {places - count} are padding.", f"{places} places × {width} features")  # fmt: skip
    limit = float(np.percentile(np.abs(values), 99))
    how = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit, "aspect": "auto"}
    high, every = min(0.25, 3.2 / count) * count, 1 if count <= 20 else 4
    image = page.picture(values[:count], 1.3, 0.55, 5.7, high, **how)
    page.scale(image, 7.1, 0.55, 4.6, "feature value")
    image.axes.set_yticks(range(0, count, every), [fit(name, 1.1, SMALL) for name in names[::every]])
    if places > count:
        image = page.picture(values[count:], 1.3, 0.65 + high, 5.7, 4.5 - high, **how)
        image.axes.set_yticks([(places - count - 1) / 2], [f"padding\n{places - count} places"])
    image.axes.set_xlabel("feature")
    for axes in page.axes:
        axes.tick_params(length=0, labelcolor=theme().ink)
    return page


@styled()
def heat_table(values, rows: Sequence[str], columns: Sequence[str], title: str, scale: str, low: float = 0.0, high: float = 1.0) -> Figure:
    """A table of numbers from `low` to `high` as colours: cosines of texts, self-attention of places. (rows, columns).

    `scale` names what is shown; with a `low` beneath zero it goes both ways, zero in its middle. Small tables carry their numbers.
    Raises ValueError unless the labels fit the values.
    """
    values = as_array(values)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"expected {len(rows)} x {len(columns)} values for the labels, got {values.shape}")
    beside, above = ([fit(cut(name, 60), 1.9) for name in names] for names in (rows, columns))
    left, over = 0.3 + widest(beside), 0.75 + math.sin(TURN) * widest(above)
    cell = float(np.clip((WIDTH - left - 1.15) / len(columns), 0.27, 0.85))
    width, height = cell * len(columns), min(cell, 0.6) * len(rows)
    tall = max(height, width_of(scale, SMALL))
    ends = [left + cell * (column + 0.5) + math.cos(TURN) * width_of(name) + 0.1 for column, name in enumerate(above)]
    page = Page(max(left + width + 1.15, min(WIDTH, 0.4 + width_of(title, TITLE, "bold")), *ends), over + tall + 0.2,
                _table_alt(values, rows, columns, scale), title)  # fmt: skip
    if low < 0:
        low, high = min(low, -high), max(-low, high)
    image = page.picture(values, left, over, width, height, cmap=DIVERGING if low < 0 else None, vmin=low, vmax=high, aspect="auto")
    page.scale(image, left + width + 0.15, over, tall, scale)
    axes = image.axes
    axes.set_yticks(range(len(rows)), beside, fontsize=BODY)
    axes.set_xticks(range(len(columns)), above, fontsize=BODY, rotation=math.degrees(TURN), ha="left",
                    rotation_mode="anchor")  # fmt: skip
    axes.tick_params(length=0, labeltop=True, labelbottom=False, labelcolor=theme().ink)
    if max(values.shape) <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            ink = "black" if bright(np.array(image.to_rgba(value)[:3])) else "white"
            axes.text(column, row, f"{value:.{0 if high >= 10 else 2}f}", color=ink, fontsize=SMALL, ha="center", va="center")
    return page


def _table_alt(values, rows, columns, scale):
    told = values.round(2)  # what differs by rounding alone would be another cell on another machine
    if list(rows) == list(columns) and (told.diagonal() == told.max()).all():
        told = np.where(np.eye(len(rows), dtype=bool), -np.inf, told)  # all are most like themselves, which tells nothing
    row, column = np.unravel_index(told.argmax(), told.shape)
    sides = f"{len(rows)} rows ({cut(', '.join(rows), 300)}) by {len(columns)} columns ({cut(', '.join(columns), 300)})"
    return f"{scale}, {sides}: {values.min():.2f} to {values.max():.2f}, most for {rows[row]} and {columns[column]}."


class Task(Record):
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
    layout: Boxes | None = None


@styled()
def task_table(tasks: Sequence[Task]) -> Figure:
    """All tasks in one table, a row for each. What a task does unlike the first, text to picture, is lit.

    Raises ValueError for no task, a region without a picture before or of another size, and a box that is none.
    """
    if not tasks or any(task.region is not None and task.before is None for task in tasks):
        raise ValueError(f"expected at least one task, and a picture before for every region, got {[task.name for task in tasks]}")
    told = [{header: getattr(task, field) for header, (field, *_) in TEXTS.items()} for task in tasks]
    rows = [{header: wrapped(text, TEXTS[header][2], SMALL, _weight(header)) for header, text in row.items()} for row in told]
    heights = [max(THUMB, LINE * max(map(len, row.values())) + 0.1) + 2 * PAD for row in rows]
    *tops, bottom = accumulate([0.8, *heights])
    page = Page(WIDTH, bottom + 0.1, ". ".join("; ".join(f"{header}: {cut(text, 80)}" for header, text in row.items() if text)
                                               for row in told) + ".", "One loop, many tasks")  # fmt: skip
    for header, left in ({header: left for header, (_, left, _) in TEXTS.items()} | {"before": BEFORE, "after": AFTER}).items():
        page.write(left, 0.65, header, SMALL, theme().quiet)
    for task, row, height, top in zip(tasks, rows, heights, tops, strict=True):
        middle = top + height / 2
        page.lay(Rectangle((0.1, top), WIDTH - 0.2, 0.009, color=theme().line))
        for header, lines in row.items():
            _, left, room = TEXTS[header]
            if header not in ("task", "how well") and lines != rows[0][header]:
                page.lay(Rectangle((left - 0.06, top + 0.05), room + 0.1, height - 0.09, color=theme().chip))
            for line, text in enumerate(lines):
                page.write(left, middle + LINE * (line - (len(lines) - 1) / 2), text, SMALL, fontweight=_weight(header))
        if task.before is not None:
            before = page.picture(task.before, BEFORE, middle - THUMB / 2, THUMB, THUMB)
            page.arrow((BEFORE + THUMB, middle), (AFTER, middle))
            if task.region is not None:
                draw_region(before.axes, task.region)
        after = page.picture(task.after, AFTER, middle - THUMB / 2, THUMB, THUMB)
        if task.layout:
            draw_frames(after.axes, checked_layout(task.layout), 1.5)
    return page


def _weight(header):
    return "bold" if header == "task" else "normal"
