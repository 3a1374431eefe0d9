"""One look for every figure: the style sheets beside this module, pages laid out in inches, text cut to its room.

`SDTEACH_THEME=dark` in the environment draws light on dark, for a dim room; "light" is the default.
"""

import base64
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from html import escape
from io import BytesIO
from os import environ
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch
from matplotlib.textpath import text_to_path

SHEETS = {name: mpl.rc_params_from_file(Path(__file__).with_name(f"{name}.mplstyle"), use_default_template=False)
          for name in ("light", "dark")}  # fmt: skip
WIDTH = 8.0  # inches, of the column that a notebook shows figures in
CSS = 96.0  # of a browser's pixels to the inch
DIVERGING = "PuOr"  # colormap around zero; `image.cmap` of the sheets goes from little to much
PIXELS = 2.2  # as wide in a browser, pixels are shown as they are, smaller ones as a smooth picture


class Theme(NamedTuple):
    """The colours of a style sheet: `chip` fills what is lit, `pale` what is not; `cycle` tells curves and groups apart."""

    ink: str
    paper: str
    quiet: str
    line: str
    pale: str
    chip: str
    cycle: list[str]
    sequential: str
    sheet: dict


KEYS = ("text.color", "figure.facecolor", "xtick.color", "grid.color", "hatch.color", "patch.facecolor")
THEMES = {name: Theme(*(to_hex(sheet[key]) for key in KEYS), sheet["axes.prop_cycle"].by_key()["color"], sheet["image.cmap"], sheet)
          for name, sheet in SHEETS.items()}  # fmt: skip
TITLE, BODY, SMALL, DPI = (SHEETS["light"][key] for key in ("axes.titlesize", "font.size", "legend.fontsize", "savefig.dpi"))


def theme() -> Theme:
    """The theme that $SDTEACH_THEME names. Raises ValueError if there is none of that name."""
    name = environ.get("SDTEACH_THEME") or "light"
    if name not in THEMES:
        raise ValueError(f"expected SDTEACH_THEME to be one of {', '.join(THEMES)}, got {name!r}")
    return THEMES[name]


@contextmanager
def styled(chosen: Theme | None = None) -> Iterator[None]:
    """Draw by the style sheet of a theme, by default that of $SDTEACH_THEME: for a `with`, or over a function."""
    with style.context(["default", (chosen or theme()).sheet]):
        yield


class Plate(Figure):
    """A figure that a notebook shows as an `<img>` with its alt text, by the style sheet it was made with.

    Made without pyplot: nothing is kept alive behind it.
    """

    def __init__(self, width: float, height: float, alt: str):
        super().__init__(figsize=(width, height), dpi=100, layout="none")
        self.set_label(alt)
        self.theme = theme()

    def draw(self, renderer) -> None:
        with styled(self.theme):
            super().draw(renderer)

    def html(self) -> str:
        """The picture with its own bytes in it, two pixels for each of the browser's, as wide as its column at most."""
        self.savefig(data := BytesIO(), format="webp", dpi=2 * CSS, pil_kwargs={"quality": 85, "method": 2})
        return (f'<img alt="{escape(self.get_label())}" style="max-width:100%" width="{self.get_figwidth() * CSS:.0f}" '
                f'src="data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}">')  # fmt: skip

    _repr_html_ = html


class Page:
    """A figure laid out in inches from its top left corner, `alt` telling after its title what it shows."""

    def __init__(self, width: float, height: float, alt: str, title: str = ""):
        self.width, self.height = width, height
        self.figure = Plate(width, height, f"{title}. {alt}" if title else alt)
        if title:
            self.text(0.15, 0.25, title, TITLE, fontweight="bold")

    def at(self, left: float, down: float) -> tuple[float, float]:
        """Inches to fractions of the figure."""
        return left / self.width, 1 - down / self.height

    def text(self, left: float, down: float, text: str, size: float = BODY, colour: str | None = None, **how) -> None:
        """A line of text, cut where it would leave the page."""
        how = {"ha": "left", "va": "center", "fontsize": size, "color": colour} | how
        room = {"left": self.width - left, "right": left, "center": 2 * min(left, self.width - left)}[how["ha"]] - 0.05
        shown = text if "rotation" in how else fit(text, room, size, how.get("fontweight", "normal"))
        self.figure.text(*self.at(left, down), shown, **how)

    def picture(self, pixels, left: float, down: float, width: float, height: float, caption: str = "", **how) -> AxesImage:
        """A framed picture with its caption beneath; `how` goes to imshow. It is smooth unless its pixels are large."""
        axes = self._axes(left, down, width, height)
        seen = "lanczos" if width * CSS < PIXELS * pixels.shape[1] else "nearest"
        image = axes.imshow(pixels, **{"aspect": "auto", "interpolation": seen} | how)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(True)
        axes.annotate(
            fit(caption, width, SMALL), (0.5, 0), (0, -5), "axes fraction", "offset points", fontsize=SMALL, ha="center", va="top"
        )
        return image

    def scale(self, image: ScalarMappable, left: float, down: float, height: float, name: str) -> None:
        """The colour scale of a picture, upright, with its name and units."""
        bar = self.figure.colorbar(image, cax=self._axes(left, down, 0.14, height))
        bar.set_label(fit(name, height + 0.1, SMALL), size=SMALL)

    def panel(self, left: float, down: float, width: float, height: float, x_name: str, y_name: str, **how) -> Axes:
        """Axes for curves, with names and units; `how` goes to `Axes.set`."""
        axes = self._axes(left, down, width, height)
        axes.set(xlabel=fit(x_name, width), ylabel=fit(y_name, height), **how)
        return axes

    def arrow(self, start: tuple[float, float], end: tuple[float, float], bend: str = "arc3,rad=0", colour: str | None = None) -> None:
        """An arrow between two points in inches."""
        self.figure.add_artist(FancyArrowPatch(
            self.at(*start), self.at(*end), connectionstyle=bend, arrowstyle="-|>", mutation_scale=14, color=colour or theme().quiet,
            linewidth=1.6, transform=self.figure.transFigure, shrinkA=2, shrinkB=2,
        ))  # fmt: skip

    def patch(self, shape, left: float, down: float, width: float, height: float, *form, **how) -> None:
        """A patch of matplotlib's, such as a Rectangle, between the page and what is written on it."""
        corner = self.at(left, down + height)
        self.figure.add_artist(shape(corner, width / self.width, height / self.height, *form, zorder=-1, figure=self.figure,
                                     transform=self.figure.transFigure, **how))  # fmt: skip

    def _axes(self, left, down, width, height):
        return self.figure.add_axes((*self.at(left, down + height), width / self.width, height / self.height))


def as_array(values) -> np.ndarray:
    """Numbers as float numpy, from whatever holds them: a record's array, or a stage's tensor on any device."""
    return np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values)


def cut(text: str, length: int) -> str:
    """Text on one line, with an ellipsis where it was too long."""
    text = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return text if len(text) <= length else text[: length - 1] + "…"


@cache
def width_of(line: str, size: float = BODY, weight: str = "normal") -> float:
    """How many inches a line takes, with a twentieth to spare for what the screen's grid does to letters."""
    with warnings.catch_warnings(action="ignore"):  # of letters that the font has not
        return 1.05 * text_to_path.get_text_width_height_descent(line, FontProperties(size=size, weight=weight), False)[0] / 72


def widest(lines: Sequence[str], size: float = BODY) -> float:
    """How many inches the widest of the lines takes; 0 of none."""
    return max((width_of(line, size) for line in lines), default=0.0)


def fit(text: str, inches: float, size: float = BODY, weight: str = "normal") -> str:
    """Text with an ellipsis where it was wider than so many inches."""
    if all(width_of(line, size, weight) <= inches for line in text.split("\n")):
        return text
    fitting = bisect_right(range(len(text)), inches, key=lambda length: width_of(text[:length] + "…", size, weight))
    return text[: max(fitting - 1, 0)] + "…"


def wrapped(text: str, inches: float, size: float, weight: str = "normal") -> list[str]:
    """Text in lines of at most so many inches."""
    for length in range(len(text), 0, -1):
        lines = wrap(text, length)
        if all(width_of(line, size, weight) <= inches for line in lines):
            return lines
    return [text]
