"""The map of the pipeline that stands at the head of every lesson."""

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import BODY, SMALL, Page, theme

# Name, what comes out of it, the middle of its box in inches; the order is that of the data.
STAGES = {
    "tokenizer": ("ids", 2.2, 0.5),
    "text encoder": ("77 vectors", 4.4, 0.5),
    "noise": ("latents of noise", 2.2, 1.9),
    "cross-attention": ("what is read", 6.6, 0.5),
    "UNet": ("", 6.6, 1.9),
    "VAE decoder": ("picture", 8.9, 1.9),
}
ARROWS = (("tokenizer", "text encoder"), ("text encoder", "cross-attention"), ("noise", "UNet"), ("cross-attention", "UNet"),
          ("UNet", "VAE decoder"))  # fmt: skip
WIDE, TALL = 1.75, 0.66


def pipeline_map(*lit: str) -> Figure:
    """The way from the prompt to the picture, the stages named in `lit` brought out. Raises ValueError for one not in STAGES."""
    if unknown := set(lit) - set(STAGES):
        raise ValueError(f"expected stages out of {', '.join(STAGES)}, got {', '.join(sorted(unknown))}")
    here = f" You are here: {', '.join(lit)}." if lit else ""
    alt = (
        "Map of the pipeline. The prompt goes through tokenizer and text encoder; the seed makes noise; the UNet takes the noise "
        f"away step by step, reading the text by cross-attention; the VAE decoder makes the picture.{here}"
    )
    page = Page(10.0, 2.85, alt)
    page.text(0.1, 0.5, "“prompt”", BODY)
    page.text(0.35, 1.9, "seed", BODY)
    page.arrow((1.0, 0.5), (_left("tokenizer"), 0.5))
    page.arrow((0.9, 1.9), (_left("noise"), 1.9))
    for first, second in ARROWS:
        (_, x, y), (_, x2, y2) = STAGES[first], STAGES[second]
        page.arrow(*(((x, y + TALL / 2 + 0.27), (x, y2 - TALL / 2)) if x == x2 else ((x + WIDE / 2, y), (x2 - WIDE / 2, y2))))
    # The loop: out of the UNet's foot and back into it.
    page.arrow((7.2, 1.9 + TALL / 2), (6.0, 1.9 + TALL / 2), "arc3,rad=-0.55")
    page.text(5.95, 2.55, "step by step, less noise", SMALL, theme().quiet, ha="right")
    for name, (result, x, y) in STAGES.items():
        chosen = name in lit
        left, bottom = page.at(x - WIDE / 2, y + TALL / 2)
        page.figure.add_artist(FancyBboxPatch(
            (left, bottom), WIDE / page.width, TALL / page.height, "round,pad=0,rounding_size=0.01", transform=page.figure.transFigure,
            figure=page.figure, facecolor=theme().cycle[0] if chosen else theme().pale, edgecolor=theme().line, linewidth=1.0,
        ))  # fmt: skip
        page.text(x, y, name, BODY, theme().paper if chosen else theme().ink, ha="center", fontweight="bold" if chosen else "normal")
        page.text(x, y + TALL / 2 + 0.15, result, SMALL, theme().quiet, ha="center")
    return page.figure


def _left(name):
    return STAGES[name][1] - WIDE / 2
