"""Stage 6: the UNet's levels as a U, and guidance as arrows."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from .style import BODY, SMALL, TITLE, Page, as_array, theme


def unet_map(features: Mapping[str, object], colours: Callable[[object], object], title: str = "The UNet at work") -> Figure:
    """The levels of a UNet as a U: on the left the way down, on the right the way up, and what crosses over between them.

    `features` are those of `unet.feature_maps`; `colours(features)` makes three of the channels (3, height, width), 0..1.
    """
    levels = sum(name.startswith("down") for name in features)
    tall = {level: max(1.1, 2.1 * 0.72**level) for level in range(levels)}
    tops = {level: 1.15 + sum(tall[above] + 0.75 for above in range(level)) for level in range(levels)}
    page = Page(9.6, tops[levels - 1] + tall[levels - 1] + 2.25, _unet_alt(features, title))
    page.text(0.3, 0.4, title, TITLE, fontweight="bold")
    lit = theme().cycle[0]
    for level, (top, edge) in enumerate(zip(tops.values(), tall.values(), strict=True)):
        inset = 0.55 * level
        left, right = 0.5 + inset, 9.1 - inset - edge
        for name, at in ((f"down {level}", left), (f"up {level}", right)):
            _level(page, features[name], colours, at, top, edge)
        page.arrow((left + edge + 0.1, top + edge / 2), (right - 0.1, top + edge / 2), colour=lit)
        page.text(4.8, top + edge / 2 - 0.17, f"skip, level {level}", SMALL, lit, ha="center")
        if level:
            page.arrow((left + edge / 2 - 0.45, top - 0.42), (left + edge / 2 - 0.45, top - 0.06))
            page.arrow((right + edge / 2 + 0.45, top - 0.06), (right + edge / 2 + 0.45, top - 0.42))
    bottom = tops[levels - 1] + tall[levels - 1] + 0.65
    if "middle" in features:
        _level(page, features["middle"], colours, 4.8 - 0.55, bottom, 1.1)
        page.arrow((left + edge / 2, bottom - 0.3), (4.15, bottom + 0.55), "arc3,rad=0.25")
        page.arrow((5.45, bottom + 0.55), (right + edge / 2, bottom - 0.3), "arc3,rad=0.25")
        page.text(4.8, bottom - 0.15, "middle", SMALL, theme().quiet, ha="center")
    page.text(0.5, 0.95, "down: what is there?", BODY, theme().quiet)
    page.text(9.1, 0.95, "up: where is it?", BODY, theme().quiet, ha="right")
    return page.figure


def _level(page, features, colours, left, down, edge):
    channels, height, width = as_array(features).shape
    picture = np.moveaxis(as_array(colours(features)), 0, -1)
    size = edge * width / max(height, width), edge * height / max(height, width)
    page.picture(picture, left + (edge - size[0]) / 2, down + (edge - size[1]) / 2, *size)
    page.text(left + edge / 2, down + edge + 0.15, f"{channels} × {height} × {width}", SMALL, ha="center")


def _unet_alt(features, title):
    told = "; ".join(f"{name}: {' by '.join(map(str, as_array(values).shape))}" for name, values in features.items())
    return (
        f"{title}: its levels as a U, channels by height by width. {told}. What a level makes on the way down crosses over to the way up."
    )


def guidance_arrows(plane) -> Figure:
    """What the text pushes the predicted noise towards, as `unet.guidance_plane` tells it, and where the true noise is."""
    x, y = plane.truth
    far = plane.guidance_scale * plane.push
    page = Page(9.4, 5.2, f"Guidance as arrows. Without the text at zero; the text pushes by {plane.push:.3f} of the noise's length; "
                f"guidance {plane.guidance_scale:g} goes on to {far:.3f}. The true noise lies at {x:.3f}, {y:.3f}; guidance "
                f"{plane.best_scale:.1f} comes nearest to it.")  # fmt: skip
    page.text(0.3, 0.4, "Guidance goes on in the direction of the text", TITLE, fontweight="bold")
    axes = page.panel(1.1, 0.9, 7.9, 3.4, "along the push of the text", "across it")
    axes.axhline(0, color=theme().line, linewidth=1.0)
    how = {"length_includes_head": True, "width": 0.012 * y, "head_width": 0.05 * y, "head_length": 0.03 * max(far, x), "zorder": 3}
    axes.arrow(0, 0, far, 0, color=theme().cycle[1], **how)
    axes.arrow(0, 0, plane.push, 0, color=theme().cycle[0], **how)
    axes.plot([x, x], [0, y], color=theme().quiet, linestyle=":", linewidth=1.5)
    marks = (((0, 0), "o", theme().ink, "without the text", 14, -18), ((plane.push, 0), "o", theme().cycle[0], "with it", 0, 22),
             ((far, 0), "s", theme().cycle[1], f"guided, × {plane.guidance_scale:g}", -8, 22),
             ((x, y), "*", theme().cycle[2], f"the true noise (nearest at × {plane.best_scale:.1f})", 14, -4))  # fmt: skip
    for point, marker, colour, name, right, up in marks:
        axes.plot(*point, marker=marker, color=colour, markersize=13, linestyle="", zorder=4)
        axes.annotate(name, point, (right, up), textcoords="offset points", fontsize=BODY, color=theme().ink, parse_math=False,
                      ha="right" if right < 0 else "left", va="center")  # fmt: skip
    axes.set(xlim=(min(-0.06 * far, 1.3 * min(x, 0.0)), 1.12 * max(far, x)), ylim=(-0.22 * y, 1.2 * y))
    return page.figure
