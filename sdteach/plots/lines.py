"""Numbers by time, by layer, by training step."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d

from .grids import Grid, sheet
from .style import BODY, SMALL, WIDTH, Page, as_array, fit, styled, theme, widest

# What a noise schedule holds: the field, its name, whether its axis is logarithmic.
SCHEDULE = (("betas", "beta, noise per step", "log"), ("alphas_cumprod", "cumulative alpha", "linear"),
            ("sigma", "sigma, noise level", "log"), ("snr", "signal-to-noise ratio", "log"))  # fmt: skip
PAPER = np.zeros((1, 1))  # of a cell with points


@styled()
def curves(x, named: Mapping[str, object], x_name: str, y_name: str, title: str) -> Figure:
    """One curve for each name over the same x. Raises ValueError unless every curve has one value for each x, at least one."""
    x, named = as_array(x), {name: as_array(values) for name, values in named.items()}
    lengths = {name: len(values) for name, values in named.items()}
    if {*lengths.values()} != {len(x) or None}:
        raise ValueError(f"expected curves with one value for each of {len(x)} x, at least one, got {lengths}")
    told = "; ".join(f"{name} from {values[0]:.4g} to {values[-1]:.4g}" for name, values in named.items())
    page = Page(WIDTH, 4.2, f"{y_name} by {x_name}, {x[0]:.4g} to {x[-1]:.4g}: {told}.", title)
    axes = page.panel(0.95, 0.65, 6.85, 2.9, x_name, y_name)
    axes.xaxis.get_major_locator().set_params(integer=x.dtype.kind == "i")
    for name, values in named.items():
        axes.plot(x, values, label=fit(name, 4.0, SMALL), marker="o" if len(x) < 15 else None, markersize=6)
    if len(named) > 1:
        axes.legend()
    return page


@styled()
def intervals(measures: Mapping[str, object], x_name: str, title: str) -> Figure:
    """Measures of 0..1 by name, each a dot at its `value` with its interval from `low` to `high`, one beneath the other.

    Raises ValueError if there is none.
    """
    if not measures:
        raise ValueError("expected at least one measure, got none")
    told = "; ".join(f"{name} {m.value:.2f} ({m.low:.2f} to {m.high:.2f})" for name, m in measures.items())
    names = [fit(name, 3.2) for name in measures]
    left, tall = 0.3 + widest(names), 0.38 * len(measures)
    page = Page(WIDTH, 1.3 + tall, f"{x_name}: {told}.", title)
    axes = page.panel(left, 0.6, 7.8 - left, tall, x_name, xlim=(0, 1), ylim=(len(measures) - 0.5, -0.5))
    axes.set_yticks(range(len(measures)), names, fontsize=BODY)
    axes.tick_params(axis="y", length=0, labelcolor=theme().ink)
    for row, measure in enumerate(measures.values()):
        axes.plot([measure.low, measure.value, measure.high], [row] * 3, "C0o-", markevery=[1], solid_capstyle="round")
        end, away, side = (measure.low, -8, "right") if measure.value > 0.5 else (measure.high, 8, "left")
        axes.annotate(f"{measure.value:.2f}", (end, row), (away, 0), textcoords="offset points", ha=side, va="center", fontsize=SMALL)
    return page


@styled()
def schedule_curves(schedules: Mapping[str, object]) -> Figure:
    """Noise schedules by name, each with betas, alphas_cumprod, sigma and snr: four panels on one time axis."""
    page = Page(WIDTH, 6.4, f"Noise schedules over the timesteps: {', '.join(schedules)}. The noise added at each step, what is left "
                            "of the picture, the noise level and the signal-to-noise ratio.", "From picture to noise")  # fmt: skip
    for index, (field, name, scale) in enumerate(SCHEDULE):
        axes = page.panel(0.9 + 4.0 * (index % 2), 0.65 + 2.9 * (index // 2), 2.95, 2.2, "timestep t", name, yscale=scale)
        for label, schedule in schedules.items():
            axes.plot(as_array(getattr(schedule, field)), label=fit(label, 2.0, SMALL))
        axes.yaxis.set(major_formatter="{x:g}", minor_formatter="")
        if scale == "linear" and len(schedules) > 1:
            axes.legend()
    return page


@styled()
def learning(progress, title: str) -> Figure:
    """A training as it goes: the loss of every step and its running mean, the one weight that is watched, and beneath what it makes.

    `progress` has `steps`, `losses`, `weight`, and `looks`: by step, points of the plane (n, 2) or a picture (height, width, 3).
    """
    losses, looks, recent = progress.losses, progress.looks, max(5, progress.steps // 30)
    told = f"loss {losses[0]:.3g} at first, {np.mean(losses[-recent:]):.3g} now" if losses else "not begun"
    grid = Grid([PAPER if look.ndim == 2 else look for look in looks.values()], [f"step {step}" if step else "before" for step in looks], 6,
                cell=1.31) if looks else None  # fmt: skip
    page = Page(WIDTH, 3.0 + (grid.height if grid else 0.0), f"Step {len(losses)} of {progress.steps}, {told}.", title)
    for left, name, values in ((0.85, "loss", losses), (4.85, "one weight", progress.weight)):
        axes = page.panel(left, 0.6, 2.95, 1.75, "step", name, xlim=(0, progress.steps))
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, linewidth=0.8, alpha=0.45)
        if values:
            axes.plot(steps, uniform_filter1d(np.asarray(values), recent, mode="nearest"), "C0-")
    if grid:
        _draw_clouds(grid.draw(page, 3.0), looks.values())
    return page


@styled()
def point_clouds(clouds: Sequence, captions: Sequence[str]) -> Figure:
    """Points of the plane (n, 2), standard deviation about 1, side by side with their captions; or the ways they went (steps, n, 2).

    Raises ValueError unless there is a caption for each cloud, at least one.
    """
    clouds = [*map(as_array, clouds)]
    grid = Grid([PAPER] * len(clouds), captions, 6)
    page, images = sheet(grid, f"{clouds[0].shape[-2]} points: {grid.told}")
    _draw_clouds(images, clouds)
    return page


def _draw_clouds(images, made):
    """In their cells of a grid, those that are points instead of pictures; of ways (steps, n, 2), lines that end in a point."""
    for image, points in zip(images, made, strict=True):
        if points.shape[-1] == 2:
            image.set_alpha(0)
            image.axes.set(xlim=(-3, 3), ylim=(-3, 3))
            if points.ndim == 3:
                image.axes.plot(*points.transpose(2, 0, 1), "-", color=theme().quiet, linewidth=0.8, zorder=0.5)
            image.axes.scatter(*points.reshape(-1, *points.shape[-2:])[-1].T, s=1.5, color="C0")
