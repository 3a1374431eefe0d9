"""What a training run leaves behind."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from .style import BLUE, BODY, INK, LINE, QUIET, TITLE, Page


def loss_curve(steps: Sequence[int], losses: Sequence[float], name: str) -> Figure:
    """Mean losses by training step, both on their own scale. Raises ValueError unless there is one loss for each step."""
    if len(steps) != len(losses) or not steps:
        raise ValueError(f"expected as many losses as steps, at least one, got {len(losses)} and {len(steps)}")
    page = Page(8.0, 4.5, f"Loss of {name} by step: from {losses[0]:.4g} at step {steps[0]} to {losses[-1]:.4g} at step {steps[-1]}")
    page.text(0.9, 0.35, name, TITLE, fontweight="bold")
    axes = page.figure.add_axes((*page.at(0.9, 3.75), 6.7 / page.width, 2.95 / page.height))
    axes.plot(steps, losses, color=BLUE, linewidth=2.0, marker="o" if len(steps) == 1 else None)
    axes.set_xlabel("step", fontsize=BODY, color=INK)
    axes.set_ylabel("loss", fontsize=BODY, color=INK)
    axes.tick_params(colors=QUIET, labelsize=BODY - 2)
    axes.grid(color=LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(color=LINE, visible=side in ("left", "bottom"))
    return page.figure
