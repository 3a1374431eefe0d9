"""The map of the pipeline that stands at the head of every lesson, and the UNet's levels as a U."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..files import data_of
from .style import BODY, SMALL, WIDTH, Page, as_array, styled, theme

MAP = data_of(__file__)
STAGES = MAP["stages"]


@styled()
def pipeline_map(*lit: str) -> Figure:
    """The way from the prompt to the picture, the stages named in `lit` brought out. Raises ValueError for one not in STAGES."""
    if unknown := set(lit) - set(STAGES):
        raise ValueError(f"expected stages out of {', '.join(STAGES)}, got {', '.join(sorted(unknown))}")
    page = Page(WIDTH, 2.75, (
        "Map of the pipeline. The prompt goes through tokenizer and text encoder; the seed makes noise; step by step the UNet, reading the "
        "text by cross-attention inside it, predicts the noise and the sampler takes some of it away; the VAE decoder makes the picture."
        + (f" You are here: {', '.join(lit)}." if lit else "")))  # fmt: skip
    page.write(0.06, 0.4, "“prompt”")
    page.write(0.37, 1.5, "seed")
    for arrow in MAP["arrows"]:
        page.arrow(*arrow)
    page.write(5.2, 2.5, "step by step", SMALL, theme().quiet, ha="center")
    for name, (result, left, top, width, height) in STAGES.items():
        fill, ink, weight = ("C0", theme().paper, "bold") if name in lit else (theme().pale, theme().ink, "normal")
        box = "round,pad=0,rounding_size=0.06"
        page.lay(FancyBboxPatch((left, top), width, height, box, facecolor=fill, edgecolor=theme().line))
        page.write(left + width / 2, top + height - 0.25, name, BODY, ink, ha="center", fontweight=weight)
        page.write(left + width / 2, top + height + 0.12, result, SMALL, theme().quiet, ha="center")
    return page


@styled()
def unet_map(features: Mapping[str, object], colours: Callable[[object], object]) -> Figure:
    """The levels of a UNet as a U: on the left the way down, on the right the way up, and what crosses over between them.

    `features` are those of `unet.feature_maps`; `colours(features)` makes three of the channels (3, height, width), 0..1.
    """
    shapes = {name: as_array(values).shape for name, values in features.items()}
    edges = [max(1.05, 1.75 * 0.72**level) for level in range(sum(name.startswith("down") for name in features))]
    *tops, bottom = np.cumsum([0.95, *(edge + 0.62 for edge in edges)]).tolist()
    told = "; ".join(f"{name}: {' by '.join(map(str, shape))}" for name, shape in shapes.items())
    page = Page(WIDTH, bottom + 1.4, f"Its levels as a U, channels by height by width. {told}. What a level makes on the way down "
                                     "crosses over to the way up.", "The UNet at work")  # fmt: skip

    def draw(name, left, top, edge):
        picture = np.moveaxis(as_array(colours(features[name])), 0, -1)
        page.picture(picture, left, top, edge, edge, " × ".join(map(str, shapes[name])), interpolation="nearest")

    for level, (top, edge) in enumerate(zip(tops, edges, strict=True)):
        left, right, middle = 0.4 + 0.45 * level, WIDTH - 0.4 - 0.45 * level - edge, top + edge / 2
        draw(f"down {level}", left, top, edge)
        draw(f"up {level}", right, top, edge)
        page.arrow((left + edge + 0.1, middle), (right - 0.1, middle), colour="C0")
        page.write(WIDTH / 2, middle - 0.14, f"skip, level {level}", SMALL, "C0", ha="center")
        into, out = left + edge / 2, right + edge / 2
        if level:
            page.arrow((into, top - 0.36), (into, top - 0.04))
            page.arrow((out, top - 0.04), (out, top - 0.36))
    if "middle" in features:
        draw("middle", WIDTH / 2 - 0.52, bottom, 1.05)
        page.arrow((into, bottom - 0.3), (WIDTH / 2 - 0.57, bottom + 0.52), "arc3,rad=0.25")
        page.arrow((WIDTH / 2 + 0.57, bottom + 0.52), (out, bottom - 0.3), "arc3,rad=0.25")
        page.write(WIDTH / 2, bottom - 0.14, "middle", SMALL, theme().quiet, ha="center")
    page.write(0.4, 0.7, "down: what is there?", BODY, theme().quiet)
    page.write(WIDTH - 0.4, 0.7, "up: where is it?", BODY, theme().quiet, ha="right")
    return page
