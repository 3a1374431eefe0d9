"""Points in a plane: texts, and the two directions of guidance."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from .style import SMALL, WIDTH, Page, as_array, cut, first_free, fit, styled, theme, widest, width_of

HIGH, AWAY = 15, 11  # points of type: a line of a label, and how far it stands from its mark


@styled()
def prompt_map(points, labels: Sequence[str], groups: Sequence[str], shares: Sequence[float]) -> Figure:
    """Texts as points in a plane (n, 2), each group in its colour and shape; `shares` of the variance that the axes hold."""
    points = as_array(points)
    if not len(points) == len(labels) == len(groups) > 0:
        raise ValueError(f"expected a label and a group for each point, at least one, got {len(points)}, {len(labels)}, {len(groups)}")
    kinds = list(dict.fromkeys(groups))
    told = "; ".join(f"{name} at {x:.2f}, {y:.2f}" for name, (x, y) in zip(labels, points.tolist(), strict=True))
    page = Page(WIDTH, 6.4, f"{len(labels)} texts in the plane of their two main directions, in {len(kinds)} groups: "
                            f"{', '.join(kinds)}. {told}.", "A map of prompts")  # fmt: skip
    axes = page.panel(0.85, 1.05, 7.0, 4.7, *(f"direction {i} ({share:.0%} of the variance)" for i, share in enumerate(shares, 1)))
    # The legend stands in one row if it can, else in two.
    across = len(kinds) if len(kinds) * (0.8 + widest(kinds, SMALL)) < 7.0 else -(-len(kinds) // 2)
    for index, kind in enumerate(kinds):
        chosen = points[[group == kind for group in groups]]
        axes.plot(*chosen.T, linestyle="", marker="osD^v*"[index % 6], label=fit(kind, 7.0 / across - 0.8, SMALL))
    axes.margins(0.1, 0.1)
    axes.autoscale_view()
    texts = [fit(cut(label, 60), 2.5, SMALL) for label in labels]
    for (right, up), point, text in zip(_label_places(axes, points, texts), points, texts, strict=True):
        line = {"arrowstyle": "-", "color": theme().quiet, "linewidth": 0.6, "relpos": (0 if right else 1, 0.5), "shrinkA": 0}
        axes.annotate(text, point, (AWAY if right else -AWAY, up), textcoords="offset points", ha="left" if right else "right", va="center",
                      fontsize=SMALL, arrowprops=line if abs(up) > HIGH else None)  # fmt: skip
    axes.legend(ncols=across, loc="lower left", bbox_to_anchor=(0, 1))
    return page


def _label_places(axes, points, texts):
    """Whether each label stands to the right of its point, and how many points of type above it: on no other label or mark."""
    scale = 72 / axes.figure.dpi
    places, (page_width, page_height) = axes.transData.transform(points) * scale, axes.figure.bbox.size * scale
    taken, found = [(x - 7, x + 10, y) for x, y in places], {}
    for index in places[:, 1].argsort():
        (x, y), width = places[index], 72 * width_of(texts[index], SMALL)
        spots = [(left, y + up, right, up) for up in sorted(range(-400, 401), key=abs) if 50 < y + up < page_height - 80
                 for right, left in ((True, x + AWAY), (False, x - AWAY - width)) if 64 < left < page_width - width]  # fmt: skip
        *_, right, up = first_free(spots, width + 3, HIGH, taken)
        found[index] = right, up
    return [found[index] for index in range(len(texts))]


@styled()
def guidance_arrows(plane) -> Figure:
    """What the text pushes the predicted noise towards, as `unet.guidance_plane` tells it, and where the true noise is."""
    x, y = plane.truth
    far = plane.guidance_scale * plane.push
    page = Page(WIDTH, 4.4, f"Without the text at zero; the text pushes by {plane.push:.3f} of the noise's length; guidance "
                f"{plane.guidance_scale:g} goes on to {far:.3f}. The true noise lies at {x:.3f}, {y:.3f}; guidance {plane.best_scale:.1f} "
                "comes nearest to it.", "Guidance goes on in the direction of the text")  # fmt: skip
    axes = page.panel(0.95, 0.65, 6.85, 3.1, "along the push of the text", "across it")
    axes.axhline(0, color=theme().line, linewidth=1.0)
    axes.plot([x, x], [0, y], color=theme().quiet, linestyle=":", linewidth=1.5)
    marks = {f"guided, × {plane.guidance_scale:g}": (far, 0, "s", "C1"), "with the text": (plane.push, 0, "o", "C0"),
             "without the text": (0, 0, "o", "C5"), f"the true noise (nearest at × {plane.best_scale:.1f})": (x, y, "*", "C2")}  # fmt: skip
    for name, (along, across, marker, colour) in marks.items():
        axes.plot(along, across, marker=marker, color=colour, markersize=12, zorder=4)
        up, side = (18, "center") if along else (-18, "right")
        axes.annotate(name, (along, across), (0, up), textcoords="offset points", ha=side, va="center")
        if along and not across:
            axes.annotate("", (along, 0), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.5, "shrinkA": 0})
    left, right = min(0.0, x), max(far, x)
    axes.set(xlim=(left - 0.35 * (right - left), right + 0.15 * (right - left)), ylim=(-0.22 * y, 1.25 * y))
    return page
