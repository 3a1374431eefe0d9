"""A whole run: on one sheet, as a film, step by step."""

import numpy as np
from matplotlib.figure import Figure

from ..trace import Trace
from .channels import latent_colours
from .chips import chip_rows, draw_chips
from .grids import Grid, Pixels, sheet
from .overlays import heated
from .style import BODY, TITLE, WIDTH, Page, cut, fit, styled, theme

FRAMES = 8  # of a run that has more previews
ACROSS = 5


@styled()
def contact_sheet(trace: Trace) -> Figure:
    """From the prompt to the picture on one page: tokens, noise, the predicted picture at eight steps, a map per word.

    The parts that the trace does not hold are left out; previews come with `collect=(..., "preview")`.
    """
    frames, words, count = _frames(trace), trace.tokens.words if trace.layers else (), trace.tokens.end + 1
    film = [(latent_colours(step.latents), "noise") for step in trace.steps[:1] if step.latents is not None]
    film += [(step.preview, f"t = {step.timestep:.0f}") for step in frames]
    film.append((trace.pixels, "picture" if trace.complete else "interrupted"))
    settings = f"{len(trace.steps)} steps of {trace.scheduler} take the noise away, guidance {trace.guidance_scale:g}, seed {trace.seed}"
    maps = [(heated(trace.pixels, trace.heat_map(index)), cut(word, 40)) for index, word in enumerate(words)]
    parts = {settings: film, "Where each word was read, in the last quarter of the steps; brightest = most": maps}
    grids = {heading: Grid(*zip(*shown, strict=True), ACROSS) for heading, shown in parts.items() if shown}
    alt = [f"Contact sheet of a run. Prompt: {cut(trace.prompt, 200)}. {count} tokens."]
    alt += [f"The predicted picture at timesteps {_times(frames)}, from blur to detail."] if frames else []
    alt += [f"One attention map for each of the words {', '.join(words)}."] if words else []
    down = 1.0 + chip_rows(trace.tokens)
    page = Page(WIDTH, down + sum(0.4 + grid.height for grid in grids.values()), " ".join(alt))
    page.write(0.15, 0.3, f"“{fit(cut(trace.prompt, 90), WIDTH - 0.6, TITLE, 'bold')}”", TITLE, fontweight="bold")
    page.write(0.15, 0.7, f"The prompt becomes {count} tokens and padding to {len(trace.tokens.ids)} places", BODY, theme().quiet)
    draw_chips(page, 1.1, trace.tokens)
    for heading, grid in grids.items():
        page.write(0.15, down + 0.2, heading, BODY, theme().quiet)
        grid.draw(page, down + 0.4)
        down += 0.4 + grid.height
    page.axes[len(film) - 1].spines[:].set(color="C2" if trace.complete else "C1", linewidth=2.5)
    return page


@styled()
def filmstrip(trace: Trace) -> Figure:
    """The run as a film: above, what the UNet saw; below, the picture it predicted. Eight of the steps with a preview.

    Raises ValueError for a trace without latents and previews.
    """
    frames = [step for step in _frames(trace) if step.latents is not None]
    if not frames:
        raise ValueError("expected a trace with latents and previews, got one without; run generate(..., collect=('latents', 'preview'))")
    film = [(latent_colours(step.latents), f"t = {step.timestep:.0f}", step.preview, f"step {step.index + 1}") for step in frames]
    film.append((latent_colours(trace.final_latents), "result", trace.pixels, "decoded"))
    across = min(ACROSS, len(film))
    film += [(None, "") * 2] * (-len(film) % across)
    bands = [film[first : first + across] for first in range(0, len(film), across)]
    cells = [frame[row : row + 2] for band in bands for row in (0, 2) for frame in band]
    grid = Grid(*zip(*cells, strict=True), across, ["the UNet sees", "it predicts"] * len(bands))
    return sheet(grid, f"Film of {len(frames)} of {len(trace.steps)} steps of a run for “{cut(trace.prompt, 200)}”, timesteps "
                       f"{_times(frames)}: noise above, the predicted picture below.")[0]  # fmt: skip


@styled()
def run_step(trace: Trace, index: int, preview: Pixels | None = None) -> Figure:
    """One step of a run: what the UNet saw, the noise it named, the picture it predicted, as far as the trace holds them.

    `preview` is the predicted picture of a step for which the trace holds none.
    """
    step = trace.steps[index]
    latents = {"latents, x_t": step.latents, "predicted noise": step.noise}
    shown = {name: latent_colours(values) for name, values in latents.items() if values is not None}
    if (predicted := step.preview if preview is None else preview) is not None:
        shown["predicted picture"] = predicted
    return _row(shown | {"result": trace.pixels}, f"step {index + 1} of {len(trace.steps)},  t = {step.timestep:.0f}")


@styled()
def noised(picture, noisy) -> Figure:
    """A picture on its way into noise, as `schedule.forward_process` tells it: noised in its pixels, in its latents, these decoded."""
    alpha = noisy.alpha_cumprod
    shown = {"picture, x_0": picture, "noise in its pixels": noisy.pixels, "noise in its latents": latent_colours(noisy.latents),
             "those latents, decoded": noisy.decoded}  # fmt: skip
    return _row(shown, f"t = {noisy.timestep:g}    x_t = {alpha**0.5:.3f} × x_0 + {(1 - alpha) ** 0.5:.3f} × noise")


def _row(named, title):
    return sheet(Grid([*named.values()], [*named]), ", ".join(named), title)[0]


def spread(steps):
    """At most `FRAMES` of the steps, from the first to the last."""
    return [steps[round(index)] for index in np.linspace(0, len(steps) - 1, min(FRAMES, len(steps)))]


def _frames(trace):
    return spread([step for step in trace.steps if step.preview is not None])


def _times(frames):
    return ", ".join(f"{step.timestep:.0f}" for step in frames)
