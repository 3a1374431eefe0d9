"""One look for every figure: the style sheets beside this module, pages laid out in inches, text cut to its room.

`SDTEACH_THEME=dark` in the environment draws light on dark, for a dim room; "light" is the default.
"""

import base64
import warnings
from bisect import bisect_right
from collections import namedtuple
from contextlib import contextmanager
from functools import cache
from html import escape
from io import BytesIO
from os import environ
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D

WIDTH = 8.0  # inches, of the column that a notebook shows figures in
CSS = 96.0  # of a browser's pixels to the inch
DIVERGING = "PuOr"  # colormap around zero; `image.cmap` of the sheets goes from little to much
PIXELS = 2.2  # as wide in a browser, pixels are shown as they are, smaller ones as a smooth picture


# The colours of a style sheet: `chip` fills what is lit, `pale` what is not; `cycle`, "C0" .. "C5", tells curves and groups apart.
Theme = namedtuple("Theme", "ink paper quiet line pale chip cycle sheet")


def _theme(name):
    sheet = mpl.rc_params_from_file(Path(__file__).with_name(f"{name}.mplstyle"), use_default_template=False)
    keys = "text.color", "figure.facecolor", "xtick.color", "grid.color", "hatch.color", "patch.facecolor"
    return Theme(*(to_hex(sheet[key]) for key in keys), sheet["axes.prop_cycle"].by_key()["color"], sheet)


THEMES = {name: _theme(name) for name in ("light", "dark")}
TITLE, BODY, SMALL, DPI = (THEMES["light"].sheet[key] for key in ("axes.titlesize", "font.size", "legend.fontsize", "savefig.dpi"))


def theme():
    """The theme that $SDTEACH_THEME names. Raises ValueError if there is none of that name."""
    name = environ.get("SDTEACH_THEME") or "light"
    if name not in THEMES:
        raise ValueError(f"expected SDTEACH_THEME to be one of {', '.join(THEMES)}, got {name!r}")
    return THEMES[name]


@contextmanager
def styled(chosen=None):
    """Draw by the style sheet of a theme, by default that of $SDTEACH_THEME: for a `with`, or over a function."""
    with style.context(["default", (chosen or theme()).sheet]):
        yield


class Page(Figure):
    """A figure laid out in inches from its top left corner: all numbers here are. `alt` tells after its title what it shows.

    A notebook shows it as an `<img>` with that text, by the style sheet that it was made with. Made without pyplot: nothing is
    kept alive behind it.
    """

    def __init__(self, width, height, alt, title=""):
        super().__init__(figsize=(width, height), dpi=100, layout="none")
        self.set_label(f"{title}. {alt}" if title else alt)
        self.theme, self.inches = theme(), Affine2D().scale(1, -1).translate(0, height) + self.dpi_scale_trans
        if title:
            self.write(0.15, 0.25, title, TITLE, fontweight="bold")

    def draw(self, renderer):
        with styled(self.theme):
            super().draw(renderer)

    def html(self):
        """The picture with its own bytes in it, two pixels for each of the browser's, as wide as its column at most."""
        self.savefig(data := BytesIO(), format="webp", dpi=2 * CSS, pil_kwargs={"quality": 85, "method": 2})
        return (f'<img alt="{escape(self.get_label())}" style="max-width:100%" width="{self.get_figwidth() * CSS:.0f}" '
                f'src="data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}">')  # fmt: skip

    _repr_html_ = html

    def write(self, left, down, text, size=BODY, colour=None, room=WIDTH, ha="left", **how):
        """Text in a place, cut where it would leave the page, or its `room`; `how` goes to matplotlib's Text."""
        if "rotation" not in how:
            beyond = self.get_figwidth() - left
            room = min(room, {"left": beyond, "right": left, "center": 2 * min(left, beyond)}[ha] - 0.05)
        self.text(left, down, fit(text, room, size, how.get("fontweight", "normal")), transform=self.inches, fontsize=size, color=colour,
                  ha=ha, va="center", **how)  # fmt: skip

    def picture(self, pixels, left, down, width, height, caption="", **how):
        """A framed picture with its caption beneath; `how` goes to imshow. It is smooth unless its pixels are large."""
        axes = self.panel(left, down, width, height, xticks=[], yticks=[])
        seen = "lanczos" if width * CSS < PIXELS * pixels.shape[1] else "nearest"
        image = axes.imshow(pixels, **{"interpolation": seen} | how)
        axes.grid(False)
        axes.spines[:].set_visible(True)
        axes.annotate(
            fit(caption, width, SMALL), (0.5, 0), (0, -5), "axes fraction", "offset points", fontsize=SMALL, ha="center", va="top"
        )
        return image

    def scale(self, image, left, down, height, name):
        """The colour scale of a picture, upright, with its name and units."""
        bar = self.colorbar(image, cax=self.panel(left, down, 0.14, height))
        bar.set_label(fit(name, height + 0.1, SMALL), size=SMALL)

    def panel(self, left, down, width, height, x_name="", y_name="", **how):
        """Axes, for curves with names and units; `how` goes to `Axes.set`."""
        wide, high = self.get_size_inches()
        axes = self.add_axes((left / wide, 1 - (down + height) / high, width / wide, height / high))
        axes.set(xlabel=fit(x_name, width), ylabel=fit(y_name, height), **how)
        return axes

    def arrow(self, start, end, bend="arc3", colour=None):
        """An arrow between two points in inches."""
        self.add_artist(FancyArrowPatch(start, end, connectionstyle=bend, arrowstyle="-|>", mutation_scale=14, linewidth=1.6, shrinkA=2,
                                        shrinkB=2, color=colour or theme().quiet, transform=self.inches))  # fmt: skip

    def lay(self, patch):
        """Put a patch whose numbers are inches between the page and what is written on it."""
        patch.set(transform=self.inches, zorder=-1)
        self.add_artist(patch)


def as_array(values):
    """Numbers as float numpy, from whatever holds them: a record's array, or a stage's tensor on any device."""
    return np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values)


def bright(colours):
    """Whether black can be read on colours (..., 3) of 0..1: their relative luminance."""
    return colours**2.2 @ (0.2126, 0.7152, 0.0722) > 0.18


def cut(text, length):
    """Text on one line, with an ellipsis where it was too long."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= length else text[: length - 1] + "…"


@cache
def width_of(line, size=BODY, weight="normal"):
    """How many inches a line takes, with a twentieth to spare for what the screen's grid does to letters."""
    with warnings.catch_warnings(action="ignore"):  # of letters that the font has not
        return 1.05 * text_to_path.get_text_width_height_descent(line, FontProperties(size=size, weight=weight), False)[0] / 72


def widest(lines, size=BODY, weight="normal"):
    """How many inches the widest of the lines takes; 0 of none."""
    return max((width_of(line, size, weight) for line in lines), default=0.0)


def fit(text, inches, size=BODY, weight="normal"):
    """Text with an ellipsis where it was wider than so many inches."""
    if widest(text.split("\n"), size, weight) <= inches:
        return text
    fitting = bisect_right(range(len(text)), inches, key=lambda length: width_of(text[:length] + "…", size, weight))
    return text[: max(fitting - 1, 0)] + "…"


def wrapped(text, inches, size, weight="normal"):
    """Text in lines of at most so many inches."""
    fitting = (lines for length in range(len(text), 0, -1) if widest(lines := wrap(text, length), size, weight) <= inches)
    return next(fitting, [text])


def first_free(spots, width, height, taken):
    """Of spots for a label so large, (left, middle, ...), the first on which no other stands, else the first; it is taken then.

    `taken` are the left end, the right end and the middle of each label that stands.
    """
    free = (spot for spot in spots if not any(abs(spot[1] - middle) < height and spot[0] < end and start < spot[0] + width
                                              for start, end, middle in taken))  # fmt: skip
    left, middle, *_ = found = next(free, spots[0])
    taken.append((left, left + width, middle))
    return found
