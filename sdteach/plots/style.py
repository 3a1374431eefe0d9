"""One look for every figure: big type, quiet axes, colours that the colour-blind tell apart (Okabe & Ito, 2008)."""

from matplotlib.figure import Figure
from matplotlib.text import Text

INK, PAPER, QUIET, LINE = "#26232e", "#ffffff", "#6b6775", "#c9c5d0"
BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
TITLE, BODY, SMALL = 22.0, 14.0, 12.0


def new_figure(width: float, height: float, alt: str) -> Figure:
    """A figure of `width` x `height` inches, without pyplot, so that nothing is shown or kept alive behind it."""
    figure = Figure(figsize=(width, height), facecolor=PAPER, layout="none")
    figure.set_label(alt)
    return figure


def write(target, x: float, y: float, text: str, size: float = BODY, colour: str = INK, **how) -> Text:
    """Put `text` on a figure or axes exactly as it is: a dollar sign in a prompt is no formula."""
    how = {"ha": "left", "va": "center"} | how
    return target.text(x, y, text, fontsize=size, color=colour, parse_math=False, **how)


def bare(axes) -> None:
    """A picture's axes: no ticks, a hairline frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=LINE, linewidth=0.8)
