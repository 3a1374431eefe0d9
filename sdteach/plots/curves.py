"""Numbers by time, by layer, by training step."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d

from .style import BODY, SMALL, TITLE, Page, as_array, fit, legend, theme, width_of

# What a noise schedule holds: the field, its name, whether its axis is logarithmic.
SCHEDULE = (("betas", "beta, noise per step", False), ("alphas_cumprod", "cumulative alpha", False),
            ("sigma", "sigma, noise level", True), ("snr", "signal-to-noise ratio", True))  # fmt: skip


def curves(x, named: Mapping[str, object], x_name: str, y_name: str, title: str) -> Figure:
    """One curve for each name over the same x. Raises ValueError unless every curve has one value for each x, at least one."""
    x, named = as_array(x), {name: as_array(values) for name, values in named.items()}
    if not named or not len(x) or any(len(values) != len(x) for values in named.values()):
        lengths = {name: len(values) for name, values in named.items()}
        raise ValueError(f"expected curves with one value for each of {len(x)} x, at least one, got {lengths}")
    told = "; ".join(f"{name} from {values[0]:.4g} to {values[-1]:.4g}" for name, values in named.items())
    page = Page(8.0, 4.7, f"{title}. {y_name} by {x_name}, {x[0]:.4g} to {x[-1]:.4g}: {told}.")
    page.text(0.3, 0.4, title, TITLE, fontweight="bold")
    axes = page.panel(1.1, 0.85, 6.6, 3.05, x_name, y_name)
    axes.xaxis.get_major_locator().set_params(integer=x.dtype.kind == "i")
    for name, values in named.items():
        axes.plot(x, values, label=fit(name, 4.0, SMALL), linewidth=2.5, marker="o" if len(x) < 15 else None)
    if len(named) > 1:
        legend(axes)
    return page.figure


def intervals(measures: Mapping[str, object], x_name: str, title: str) -> Figure:
    """Measures of 0..1 by name, each a dot at its `value` with its interval from `low` to `high`, one beneath the other.

    Raises ValueError if there is none.
    """
    if not measures:
        raise ValueError("expected at least one measure, got none")
    told = "; ".join(f"{name} {m.value:.2f} ({m.low:.2f} to {m.high:.2f})" for name, m in measures.items())
    left = 0.5 + max(width_of(fit(name, 4.6)) for name in measures)
    page = Page(left + 5.6, 1.7 + 0.42 * len(measures), f"{title}. {x_name}: {told}.")
    page.text(0.3, 0.4, title, TITLE, fontweight="bold")
    axes = page.panel(left, 0.75, 5.2, 0.42 * len(measures), x_name, "", xlim=(0, 1), ylim=(len(measures) - 0.5, -0.5))
    axes.set_yticks(range(len(measures)), [fit(name, 4.6) for name in measures], fontsize=BODY, color=theme().ink, parse_math=False)
    axes.tick_params(axis="y", length=0)
    for row, measure in enumerate(measures.values()):
        axes.plot([measure.low, measure.high], [row, row], color=theme().cycle[0], linewidth=3.0, linestyle="-", solid_capstyle="round")
        axes.plot(measure.value, row, marker="o", color=theme().cycle[0], markersize=11, linestyle="")
        end, away, side = (measure.low, -9, "right") if measure.value > 0.5 else (measure.high, 9, "left")
        axes.annotate(f"{measure.value:.2f}", (end, row), (away, 0), textcoords="offset points", ha=side, va="center", fontsize=SMALL,
                      color=theme().ink)  # fmt: skip
    return page.figure


def loss_curve(steps: Sequence[int], losses: Sequence[float], name: str) -> Figure:
    """Mean losses of a training by step. Raises ValueError unless there is one loss for each step."""
    return curves(steps, {"loss": losses}, "step", "loss", name)


def schedule_curves(schedules: Mapping[str, object]) -> Figure:
    """Noise schedules by name, each with betas, alphas_cumprod, sigma and snr: four panels on one time axis."""
    page = Page(11.0, 8.0, f"Noise schedules over the timesteps: {', '.join(schedules)}. The noise added at each step, what is kept "
                           "of the picture, the noise level and the signal-to-noise ratio.")  # fmt: skip
    page.text(0.3, 0.4, "From picture to noise", TITLE, fontweight="bold")
    for index, (field, name, logarithmic) in enumerate(SCHEDULE):
        axes = page.panel(1.1 + 5.3 * (index % 2), 0.85 + 3.6 * (index // 2), 4.2, 2.75, "timestep t", name)
        for label, schedule in schedules.items():
            axes.plot(as_array(getattr(schedule, field)), label=fit(label, 3.0, SMALL), linewidth=2.5)
        if logarithmic:
            axes.set_yscale("log")
        if not index and len(schedules) > 1:
            legend(axes)
    return page.figure


def learning(progress, title: str) -> Figure:
    """A training as it goes: the loss of every step and its running mean, the one weight that is watched, and beneath what it makes.

    `progress` has `steps`, `losses`, `weight`, and `looks`: by step, points of the plane (n, 2) or a picture (height, width, 3).
    """
    steps, looks, recent = range(1, len(progress.losses) + 1), [*progress.looks.items()], max(5, progress.steps // 30)
    told = f"loss {progress.losses[0]:.3g} at first, {np.mean(progress.losses[-recent:]):.3g} now" if progress.losses else "not begun"
    page = Page(11.0, 3.7 + 2.0 * bool(looks), f"{title}: step {len(progress.losses)} of {progress.steps}, {told}.")
    page.text(0.3, 0.4, title, TITLE, fontweight="bold")
    for left, name, values in ((1.0, "loss", progress.losses), (6.7, "one weight", progress.weight)):
        axes = page.panel(left, 0.85, 3.9, 1.95, "step", name, xlim=(0, progress.steps))
        axes.plot(steps, values, linewidth=0.8, alpha=0.45, linestyle="-")
        if values:
            axes.plot(
                steps, uniform_filter1d(np.asarray(values), recent, mode="nearest"), linewidth=2.5, color=theme().cycle[0], linestyle="-"
            )
    for index, (step, made) in enumerate(looks):
        left, edge, caption = 0.3 + 1.78 * index, 1.6, f"step {step}" if step else "before"
        if made.ndim == 2:
            _cloud(page, made, left, 3.75, edge, caption)
        else:
            page.picture(made, left, 3.75, edge, edge, caption, aspect="equal")
    return page.figure


def point_clouds(clouds: Sequence, captions: Sequence[str]) -> Figure:
    """Points of the plane (n, 2), standard deviation about 1, side by side with their captions.

    Raises ValueError unless there is a caption for each cloud, at least one.
    """
    if not len(clouds) == len(captions) > 0:
        raise ValueError(f"expected as many captions as clouds, at least one, got {len(captions)} and {len(clouds)}")
    page = Page(0.4 + 1.78 * len(clouds), 2.2, f"{len(clouds[0])} points: {'; '.join(captions)}")
    for index, (points, caption) in enumerate(zip(clouds, captions, strict=True)):
        _cloud(page, as_array(points), 0.3 + 1.78 * index, 0.15, 1.6, caption)
    return page.figure


def _cloud(page, points, left, down, edge, caption):
    axes = page.picture(np.zeros((1, 1)), left, down, edge, edge, caption, alpha=0.0).axes
    axes.set(xlim=(-3, 3), ylim=(-3, 3))
    axes.scatter(*points.T, s=2, color=theme().cycle[0])
