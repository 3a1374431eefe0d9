"""Numbers and pictures in rows and columns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..pictures import Box, checked_layout
from ..records import Tokens
from .chips import place_names
from .grids import Pixels
from .overlays import Mask, draw_frames, draw_region
from .style import BODY, DIVERGING, SMALL, TITLE, WIDTH, Page, as_array, cut, fit, styled, theme, widest, width_of, wrapped

NUMBERED = 14  # rows or columns up to which a table carries its numbers
TURN = math.radians(40)  # the names of a table's columns stand aslant
COLUMNS = {"task": 1.1, "start latent": 1.1, "conditioning": 1.1, "mask": 1.05, "step range": 0.95, "before": 0.83, "after": 0.75,
           "how well": 1.0}  # inches # fmt: skip
CHANGING = ("start latent", "conditioning", "mask", "step range")
THUMB, PAD, LINE = 0.66, 0.07, 0.18  # inches


@styled()
def feature_matrix(features, tokens: Tokens) -> Figure:
    """The text as the UNet reads it: a row for each of the (77) places, a column for each feature (places, features)."""
    values, names = as_array(features), place_names(tokens)
    (places, width), count = values.shape, len(names)
    page = Page(WIDTH, 5.6, f"Text features: {places} places by {width} features, orange below and purple above zero. The first rows are "
                f"{', '.join(names)}; the other {places - count} are padding.", f"{places} places × {width} features")  # fmt: skip
    limit = float(np.percentile(np.abs(values), 99))
    how = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
    high = min(0.25, 3.2 / count) * count
    image = page.picture(values[:count], 1.3, 0.55, 5.7, high, **how)
    page.scale(image, 7.1, 0.55, 4.6, "feature value")
    shown = range(0, count, 1 if count <= 20 else 4)
    image.axes.set_yticks(shown, [fit(names[place], 1.1, SMALL) for place in shown])
    if places > count:
        image = page.picture(values[count:], 1.3, 0.65 + high, 5.7, 4.5 - high, **how)
        image.axes.set_yticks([(places - count - 1) / 2], [f"padding\n{places - count} places"])
    image.axes.set_xlabel("feature")
    for axes in page.figure.axes:
        axes.tick_params(length=0, labelcolor=theme().ink)
    return page.figure


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
    ends = [left + cell * (column + 0.5) + math.cos(TURN) * width_of(name) + 0.1 for column, name in enumerate(above)]
    page = Page(max(left + width + 1.15, min(WIDTH, 0.4 + width_of(title, TITLE, "bold")), *ends),
                over + max(height, width_of(scale, SMALL)) + 0.2, _table_alt(values, rows, columns, scale), title)  # fmt: skip
    colours = {"cmap": DIVERGING, "vmin": -max(-low, high), "vmax": max(-low, high)} if low < 0 else {"vmin": low, "vmax": high}
    image = page.picture(values, left, over, width, height, **colours)
    page.scale(image, left + width + 0.15, over, max(height, width_of(scale, SMALL)), scale)
    axes = image.axes
    axes.set_yticks(range(len(rows)), beside, fontsize=BODY)
    axes.set_xticks(range(len(columns)), above, fontsize=BODY, rotation=math.degrees(TURN), ha="left",
                    rotation_mode="anchor")  # fmt: skip
    axes.tick_params(length=0, labeltop=True, labelbottom=False, labelcolor=theme().ink)
    if max(values.shape) <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            light = np.dot(np.power(image.to_rgba(value)[:3], 2.2), (0.2126, 0.7152, 0.0722))  # relative luminance
            axes.text(column, row, f"{value:.{0 if high >= 10 else 2}f}", color="white" if light < 0.18 else "black", fontsize=SMALL,
                      ha="center", va="center")  # fmt: skip
    return page.figure


def _table_alt(values, rows, columns, scale):
    told = values.round(2)  # what differs by rounding alone would be another cell on another machine
    if list(rows) == list(columns) and (told.diagonal() == told.max()).all():
        told = np.where(np.eye(len(rows), dtype=bool), -np.inf, told)  # all are most like themselves, which tells nothing
    row, column = np.unravel_index(told.argmax(), told.shape)
    sides = f"{len(rows)} rows ({cut(', '.join(rows), 300)}) by {len(columns)} columns ({cut(', '.join(columns), 300)})"
    return f"{scale}, {sides}: {values.min():.2f} to {values.max():.2f}, most for {rows[row]} and {columns[column]}."


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


@styled()
def task_table(tasks: Sequence[Task], title: str = "One loop, many tasks") -> Figure:
    """All tasks in one table, a row for each. What a task does unlike the first, text to picture, is lit.

    Raises ValueError for no task, a region without a picture before or of another size, and a box that is none.
    """
    if not tasks or any(task.region is not None and task.before is None for task in tasks):
        raise ValueError(f"expected at least one task, and a picture before for every region, got {[task.name for task in tasks]}")
    told = [dict(zip(COLUMNS, (task.name, task.start, task.conditioning, task.mask, task.steps, "", "", task.result), strict=True))
            for task in tasks]  # fmt: skip
    rows = [{name: wrapped(text, COLUMNS[name] - 0.15, SMALL, _weight(name)) for name, text in row.items()} for row in told]
    heights = [max(THUMB, LINE * max(map(len, row.values())) + 0.1) + 2 * PAD for row in rows]
    lefts, tops = dict(zip(COLUMNS, accumulate([0.12, *COLUMNS.values()]), strict=False)), [*accumulate([0.8, *heights])]
    page = Page(WIDTH, tops[-1] + 0.1, ". ".join("; ".join(f"{name}: {cut(text, 80)}" for name, text in row.items() if text)
                                                        for row in told) + ".", title)  # fmt: skip
    for name, left in lefts.items():
        page.text(left, 0.65, name, SMALL, theme().quiet)
    for task, row, height, top in zip(tasks, rows, heights, tops, strict=False):
        middle = top + height / 2
        page.patch(Rectangle, 0.1, top, WIDTH - 0.2, 0.009, color=theme().line)
        for name, lines in row.items():
            if name in CHANGING and lines != rows[0][name]:
                page.patch(Rectangle, lefts[name] - 0.06, top + 0.05, COLUMNS[name] - 0.05, height - 0.09, color=theme().chip)
            for line, text in enumerate(lines):
                page.text(lefts[name], middle + LINE * (line - (len(lines) - 1) / 2), text, SMALL, fontweight=_weight(name))
        shown = {name: page.picture(pixels, lefts[name], middle - THUMB / 2, THUMB, THUMB, aspect="equal").axes
                 for name, pixels in (("before", task.before), ("after", task.after)) if pixels is not None}  # fmt: skip
        if task.layout:
            draw_frames(shown["after"], checked_layout(task.layout), 1.5)
        if task.before is not None:
            page.arrow((lefts["before"] + THUMB, middle), (lefts["after"], middle))
        if task.region is not None:
            draw_region(shown["before"], task.region)
    return page.figure


def _weight(column):
    return "bold" if column == "task" else "normal"
