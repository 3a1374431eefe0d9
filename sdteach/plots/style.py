"""One look for every figure: big type, quiet axes, colours that the colour-blind tell apart (Okabe & Ito, 2008).

`SDTEACH_THEME=dark` in the environment draws light on dark, for a dim room; "light" is the default.
"""

import base64
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from html import escape
from io import BytesIO
from os import environ
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch
from matplotlib.textpath import text_to_path

TITLE, BODY, SMALL = 22.0, 14.0, 12.0
DPI, SCREEN_DPI = 110.0, 90.0  # of a file, of a notebook


@dataclass(frozen=True)
class Theme:
    """The colours of a figure: `chip` fills what is lit, `pale` what is not; `cycle` tells curves and groups apart."""

    ink: str
    paper: str
    quiet: str
    line: str
    pale: str
    chip: str
    cycle: tuple[str, ...]
    diverging: str  # colormap around zero
    sequential: str  # colormap from little to much


THEMES = {
    "light": Theme("#26232e", "#ffffff", "#5d5968", "#c9c5d0", "#f2f0f5", "#d3e8f5",
                   ("#0072b2", "#d55e00", "#009e73", "#a8568a", "#96700a", "#26232e"), "PuOr", "Blues"),
    "dark": Theme("#f3f1f7", "#1d1b22", "#b4b0be", "#57535f", "#2b2832", "#0f4b70",
                  ("#56b4e9", "#f2904a", "#3cc89f", "#e09cc4", "#f0e442", "#f3f1f7"), "PuOr", "cividis"),
}  # fmt: skip


def theme() -> Theme:
    """The theme that $SDTEACH_THEME names. Raises ValueError if there is none of that name."""
    name = environ.get("SDTEACH_THEME") or "light"
    if name not in THEMES:
        raise ValueError(f"expected SDTEACH_THEME to be one of {', '.join(THEMES)}, got {name!r}")
    return THEMES[name]


class Plate(Figure):
    """A figure that a notebook shows as an `<img>` with its alt text. Made without pyplot: nothing is kept alive behind it."""

    def png(self, dpi: float = DPI) -> bytes:
        data = BytesIO()
        self.savefig(data, format="png", dpi=dpi, pil_kwargs={"optimize": True})
        return data.getvalue()

    def _repr_html_(self) -> str:
        return as_img(self.png(SCREEN_DPI), self.get_label())


def as_img(png: bytes, alt: str) -> str:
    """The HTML of a picture that carries its own bytes, as wide as its column at most."""
    return f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


class Page:
    """A figure laid out in inches from its top left corner, `alt` telling those who cannot see it what it shows."""

    def __init__(self, width: float, height: float, alt: str):
        self.width, self.height = width, height
        self.figure = Plate(figsize=(width, height), facecolor=theme().paper, layout="none")
        self.figure.set_label(alt)

    def at(self, left: float, down: float) -> tuple[float, float]:
        """Inches to fractions of the figure."""
        return left / self.width, 1 - down / self.height

    def text(self, left: float, down: float, text: str, size: float = BODY, colour: str | None = None, **how) -> None:
        """A line of text, cut where it would leave the page."""
        right = self.width - left
        room = {"left": right, "right": left, "center": 2 * min(left, right)}[how.get("ha", "left")] - 0.05
        text = fit(text, room, size, how.get("fontweight", "normal"))
        how = {"ha": "left", "va": "center"} | how
        self.figure.text(*self.at(left, down), text, fontsize=size, color=colour or theme().ink, parse_math=False, **how)

    def picture(self, pixels, left: float, down: float, width: float, height: float, caption: str = "", **how) -> AxesImage:
        """A framed picture with its caption beneath; `how` goes to imshow."""
        axes = self._axes(left, down, width, height)
        image = axes.imshow(pixels, **{"aspect": "auto", "interpolation": "nearest"} | how)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=theme().line, linewidth=0.8)
        axes.annotate(fit(caption, width, SMALL), (0.5, 0), (0, -6), "axes fraction", "offset points", fontsize=SMALL, color=theme().ink,
                      parse_math=False, ha="center", va="top")  # fmt: skip
        return image

    def scale(self, image: AxesImage, left: float, down: float, height: float, name: str) -> None:
        """The colour scale of a picture, upright, with its name and units."""
        axes = self._axes(left, down, 0.16, height)
        bar = self.figure.colorbar(image, cax=axes)
        bar.outline.set(edgecolor=theme().line, linewidth=0.8)
        bar.set_label(fit(name, height + 0.5, SMALL), size=SMALL, color=theme().ink, parse_math=False)
        axes.tick_params(colors=theme().quiet, labelsize=SMALL)

    def panel(self, left: float, down: float, width: float, height: float, x_name: str, y_name: str, **how) -> Axes:
        """Axes for curves, with names and units; `how` goes to `Axes.set`."""
        axes = self._axes(left, down, width, height)
        axes.set(facecolor=theme().paper, **how)
        axes.set_xlabel(fit(x_name, width), fontsize=BODY, color=theme().ink, parse_math=False)
        axes.set_ylabel(fit(y_name, height), fontsize=BODY, color=theme().ink, parse_math=False)
        axes.tick_params(which="both", colors=theme().quiet, labelsize=SMALL)
        axes.grid(color=theme().line, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_prop_cycle(color=theme().cycle, linestyle=("-", "--", "-.", ":", "-", "--"))
        for side, spine in axes.spines.items():
            spine.set(color=theme().line, visible=side in ("left", "bottom"))
        return axes

    def arrow(self, start: tuple[float, float], end: tuple[float, float], bend: str = "arc3,rad=0", colour: str | None = None) -> None:
        """An arrow between two points in inches."""
        self.figure.add_artist(FancyArrowPatch(
            self.at(*start), self.at(*end), connectionstyle=bend, arrowstyle="-|>", mutation_scale=16, color=colour or theme().quiet,
            linewidth=1.6, transform=self.figure.transFigure, shrinkA=2, shrinkB=2,
        ))  # fmt: skip

    def _axes(self, left, down, width, height):
        return self.figure.add_axes((*self.at(left, down + height), width / self.width, height / self.height))


def legend(axes: Axes, **how) -> None:
    """What the curves or marks of `axes` are called."""
    for text in axes.legend(frameon=False, fontsize=SMALL, labelcolor=theme().ink, **how).get_texts():
        text.set_parse_math(False)


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
