"""Stage 2: text features, and what is near to what."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from ..records import Tokens
from .style import BODY, SMALL, TITLE, Page, as_array, cut, fit, legend, theme, width_of
from .tokens import place_names

NUMBERED = 14  # rows or columns up to which a table carries its numbers
TURN = math.radians(40)  # the names of a table's columns stand aslant


def feature_matrix(features, tokens: Tokens) -> Figure:
    """The text as the UNet reads it: a row for each of the (77) places, a column for each feature (places, features)."""
    values, names = as_array(features), place_names(tokens)
    places, width = values.shape
    page = Page(11.0, 6.9, f"Text features: {places} places by {width} features, orange below and purple above zero. "
                           f"The first rows are {', '.join(names)}; the other {places - len(names)} are padding.")  # fmt: skip
    page.text(0.3, 0.4, f"{places} places × {width} features", TITLE, fontweight="bold")
    limit = float(np.percentile(np.abs(values), 99))
    how = {"cmap": theme().diverging, "vmin": -limit, "vmax": limit}
    row = min(0.3, 4.0 / len(names))
    page.scale(page.picture(values[: len(names)], 1.6, 0.8, 7.9, row * len(names), **how), 9.75, 0.8, 5.6, "feature value")
    axes = page.figure.axes[0]
    shown = range(len(names)) if len(names) <= 20 else range(0, len(names), 4)
    axes.set_yticks(shown, [fit(names[place], 1.3, SMALL) for place in shown], fontsize=SMALL, color=theme().ink, parse_math=False)
    axes.tick_params(length=0)
    if places > len(names):
        top = 0.9 + row * len(names)
        axes = page.picture(values[len(names) :], 1.6, top, 7.9, 6.4 - top, **how).axes
        middle = (places - len(names) - 1) / 2
        axes.set_yticks([middle], [f"padding\n{places - len(names)} places"], fontsize=SMALL, color=theme().ink)
        axes.tick_params(length=0)
    axes.set_xlabel("feature", fontsize=BODY, color=theme().ink)
    return page.figure


def heat_table(values, rows: Sequence[str], columns: Sequence[str], title: str, scale: str, low: float = 0.0, high: float = 1.0) -> Figure:
    """A table of numbers from `low` to `high` as colours: cosines of texts, self-attention of places. (rows, columns).

    `scale` names what is shown. Small tables carry their numbers. Raises ValueError unless the labels fit the values.
    """
    values = as_array(values)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"expected {len(rows)} x {len(columns)} values for the labels, got {values.shape}")
    cell = float(np.clip(8.0 / len(columns), 0.33, 1.0))
    beside, above = ([fit(cut(name, 60), 2.8) for name in names] for names in (rows, columns))
    left = 0.45 + max(map(width_of, beside))
    over = 0.85 + math.sin(TURN) * max(map(width_of, above))
    width, height = cell * len(columns), min(cell, 0.75) * len(rows)
    scale_height = max(height, width_of(scale, SMALL))
    ends = [left + cell * (column + 0.5) + math.cos(TURN) * width_of(name) + 0.2 for column, name in enumerate(above)]
    page = Page(max(left + width + 1.3, min(12.0, 0.4 + width_of(title, TITLE, "bold")), *ends), over + scale_height + 0.25,
                _table_alt(values, rows, columns, title, scale))  # fmt: skip
    page.text(0.3, 0.4, title, TITLE, fontweight="bold")
    image = page.picture(values, left, over, width, height, cmap=theme().sequential, vmin=low, vmax=high)
    page.scale(image, left + width + 0.2, over, scale_height, scale)
    axes = image.axes
    axes.set_yticks(range(len(rows)), beside, fontsize=BODY, color=theme().ink, parse_math=False)
    axes.set_xticks(range(len(columns)), above, fontsize=BODY, color=theme().ink, parse_math=False,
                    rotation=math.degrees(TURN), ha="left", rotation_mode="anchor")  # fmt: skip
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    if max(values.shape) <= NUMBERED:
        digits = 0 if high >= 10 else 2
        for (row, column), value in np.ndenumerate(values):
            light = np.dot(np.power(image.to_rgba(value)[:3], 2.2), (0.2126, 0.7152, 0.0722))  # relative luminance
            colour = "white" if light < 0.18 else "black"
            axes.text(column, row, f"{value:.{digits}f}", color=colour, fontsize=SMALL, ha="center", va="center")
    return page.figure


def prompt_map(points, labels: Sequence[str], groups: Sequence[str], shares: Sequence[float]) -> Figure:
    """Texts as points in a plane (n, 2), each group in its colour and shape; `shares` of the variance that the axes hold."""
    points = as_array(points)
    if not len(points) == len(labels) == len(groups) > 0:
        raise ValueError(f"expected a label and a group for each point, at least one, got {len(points)}, {len(labels)}, {len(groups)}")
    kinds = list(dict.fromkeys(groups))
    page = Page(10.0, 7.4, f"Map of {len(labels)} texts in the plane of their two main directions, in {len(kinds)} groups: "
                           f"{', '.join(kinds)}. " + "; ".join(f"{name} at {x:.2f}, {y:.2f}" for name, (x, y) in
                                                              zip(labels, points.tolist(), strict=True)) + ".")  # fmt: skip
    page.text(0.3, 0.4, "A map of prompts", TITLE, fontweight="bold")
    names = [f"direction {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares)]
    axes = page.panel(1.0, 1.2, 8.6, 5.4, *names)
    # The legend stands in one row if it can, else in two.
    wanted = 0.9 + max(width_of(kind, SMALL) for kind in kinds)
    columns = len(kinds) if len(kinds) * wanted < 8.6 else -(-len(kinds) // 2)
    for index, kind in enumerate(kinds):
        chosen = points[[group == kind for group in groups]]
        axes.plot(*chosen.T, linestyle="", marker="osD^v*"[index % 6], markersize=11, label=fit(kind, 8.6 / columns - 0.9, SMALL))
    axes.margins(0.1, 0.1)
    axes.autoscale_view()
    texts = [fit(cut(label, 60), 3.0, SMALL) for label in labels]
    for point, text, (right, up) in zip(points, texts, _label_places(axes, points, texts), strict=True):
        line = {"arrowstyle": "-", "color": theme().quiet, "linewidth": 0.6, "relpos": (0 if right else 1, 0.5), "shrinkA": 0}
        axes.annotate(text, point, (11 if right else -11, up), textcoords="offset points", ha="left" if right else "right", va="center",
                      fontsize=SMALL, color=theme().ink, parse_math=False, arrowprops=line if abs(up) > 15 else None)  # fmt: skip
    legend(axes, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1))
    return page.figure


def _label_places(axes, points, texts):
    """Whether each label stands to the right of its point, and how many points of type above it, so that none covers another."""
    scale = 72 / axes.figure.dpi
    places, (page_width, page_height) = axes.transData.transform(points) * scale, axes.figure.bbox.size * scale
    taken, found = [], {}
    for index in places[:, 1].argsort():
        x, y = places[index]
        width = 72 * width_of(texts[index], SMALL)
        for up, right in product(sorted(range(-400, 401), key=abs), (True, False)):
            left, middle = x + 11 if right else x - 11 - width, y + up
            inside = left > 72 and left + width < page_width and 60 < middle < page_height - 90
            if inside and not any(left < end and start < left + width and abs(middle - level) < 15 for start, end, level in taken):
                break
        else:  # too many for the page: it covers another
            left, middle, up, right = x + 11, y, 0, x + 11 + width < page_width
        taken.append((left, left + width, middle))
        found[index] = right, up
    return [found[index] for index in range(len(texts))]


def _table_alt(values, rows, columns, title, scale):
    told = values.round(2)  # what differs by rounding alone would be another cell on another machine
    if list(rows) == list(columns) and (told.diagonal() == told.max()).all():
        told = np.where(np.eye(len(rows), dtype=bool), -np.inf, told)  # all are most like themselves, which tells nothing
    row, column = np.unravel_index(told.argmax(), told.shape)
    sides = f"{len(rows)} rows ({cut(', '.join(rows), 300)}) by {len(columns)} columns ({cut(', '.join(columns), 300)})"
    return f"{title}. {scale}, {sides}: {values.min():.2f} to {values.max():.2f}, most for {rows[row]} and {columns[column]}."
