"""One look for every figure: big type, quiet axes, colours that the colour-blind tell apart (Okabe & Ito, 2008)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, PAPER, QUIET, LINE = "#26232e", "#ffffff", "#6b6775", "#c9c5d0"
BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
TITLE, BODY, SMALL = 22.0, 14.0, 12.0


class Page:
    """A figure laid out in inches from its top left corner. Made without pyplot: nothing is shown or kept alive behind it."""

    def __init__(self, width: float, height: float, alt: str):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor=PAPER, layout="none")
        self.figure.set_label(alt)

    def at(self, left: float, down: float) -> tuple[float, float]:
        """Inches to fractions of the figure."""
        return left / self.width, 1 - down / self.height

    def text(self, left: float, down: float, text: str, size: float = BODY, colour: str = INK, **how) -> None:
        write(self.figure, *self.at(left, down), text, size, colour, **how)

    def picture(self, pixels, left: float, down: float, width: float, height: float, caption: str, **how) -> Axes:
        """A framed picture with its caption beneath; `how` goes to imshow."""
        axes = self.figure.add_axes((*self.at(left, down + height), width / self.width, height / self.height))
        axes.imshow(pixels, aspect="auto", **how)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=LINE, linewidth=0.8)
        write(axes, 0.5, -0.05, caption, SMALL, transform=axes.transAxes, ha="center", va="top")
        return axes


def write(target, x: float, y: float, text: str, size: float = BODY, colour: str = INK, **how) -> None:
    """Put `text` on a figure or axes exactly as it is: a dollar sign in a prompt is no formula."""
    target.text(x, y, text, fontsize=size, color=colour, parse_math=False, **{"ha": "left", "va": "center"} | how)
