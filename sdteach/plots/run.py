"""A whole run: on one sheet, as a film, step by step."""

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from ..trace import Trace
from .attention import draw_heat
from .pictures import latent_colours
from .style import BODY, TITLE, Page, cut, fit, theme, width_of
from .tokens import CHIP, chip_rows, draw_chips

WIDTH = 16.0
MARGIN = 0.45
PER_ROW = 10
CELL = (WIDTH - 2 * MARGIN) / PER_ROW
CHIPS_PER_ROW = 14
FRAMES = 8  # of a run that has more previews


def contact_sheet(trace: Trace) -> Figure:
    """From the prompt to the picture on one page: tokens, noise, the predicted picture at eight steps, a map per word.

    The parts that the trace does not hold are left out; previews come with `collect=(..., "preview")`.
    """
    frames = _frames(trace)
    words = list(trace.tokens.words) if trace.steps and trace.steps[0].attention else []
    map_rows = -(-len(words) // PER_ROW)
    band = CELL * trace.height / trace.width + 0.5
    tokens_at = 1.0
    steps_at = tokens_at + 0.45 + CHIP * chip_rows(trace.tokens, CHIPS_PER_ROW)
    maps_at = steps_at + 0.45 + band
    page = Page(WIDTH, maps_at + (0.45 + map_rows * band if words else 0) + MARGIN, _alt(trace, frames, words))
    page.text(MARGIN, 0.55, f"“{fit(cut(trace.prompt, 90), WIDTH - 2 * MARGIN - 0.5, TITLE, 'bold')}”", TITLE, fontweight="bold")
    _heading(page, tokens_at, f"The prompt becomes {trace.tokens.end + 1} tokens and padding to {len(trace.tokens.ids)} places")
    draw_chips(page, MARGIN, tokens_at + 0.6, trace.tokens, CHIPS_PER_ROW)
    _heading(page, steps_at, f"{len(trace.steps)} steps of {trace.scheduler} take the noise away, "
                             f"guidance {trace.guidance_scale:g}, seed {trace.seed}")  # fmt: skip
    _filmstrip(page, steps_at + 0.4, trace, frames)
    if words:
        _heading(page, maps_at, "Where each word was read: cross-attention, the last quarter of the steps, brightest = most")
    for index, word in enumerate(words):
        row, column = divmod(index, PER_ROW)
        _map(page, column, maps_at + 0.4 + row * band, trace, index, word)
    return page.figure


def filmstrip(trace: Trace) -> Figure:
    """The run as a film: above, what the UNet saw; below, the picture it predicted. Eight of the steps with a preview.

    Raises ValueError for a trace without latents and previews.
    """
    frames = [step for step in _frames(trace) if step.latents is not None]
    if not frames:
        raise ValueError("expected a trace with latents and previews, got one without; run generate(..., collect=('latents', 'preview'))")
    tall = CELL * trace.height / trace.width
    above, below = "What the UNet sees: latents, three of their channels as colours", "The picture it predicts from them"
    width = 2 * MARGIN + max(CELL * (len(frames) + 1), width_of(above))
    page = Page(width, 1.5 + 2 * tall + 0.9, f"Film of {len(frames)} of {len(trace.steps)} steps of a run for “{cut(trace.prompt, 200)}”, "
                f"timesteps {', '.join(f'{step.timestep:.0f}' for step in frames)}: noise above, the predicted picture below.")  # fmt: skip
    _heading(page, 0.3, above)
    _heading(page, 1.2 + tall, below)
    for column, step in enumerate(frames):
        _cell(page, column, 0.6, trace, latent_colours(step.latents), f"t = {step.timestep:.0f}")
        _cell(page, column, 1.5 + tall, trace, step.preview, f"step {step.index + 1}")
    _cell(page, len(frames), 0.6, trace, latent_colours(trace.final_latents), "result")
    _cell(page, len(frames), 1.5 + tall, trace, trace.pixels, "decoded")
    return page.figure


def run_step(trace: Trace, index: int, preview: UInt8[np.ndarray, "_ _ 3"] | None = None) -> Figure:
    """One step of a run: what the UNet saw, the noise it named, the picture it predicted, as far as the trace holds them.

    `preview` is the predicted picture of a step for which the trace holds none.
    """
    step = trace.steps[index]
    preview = step.preview if preview is None else preview
    shown = [(latent_colours(step.latents), "latents, x_t")] if step.latents is not None else []
    shown += [(latent_colours(step.noise), "predicted noise")] if step.noise is not None else []
    shown += [(preview, "predicted picture")] if preview is not None else []
    shown.append((trace.pixels, "result"))
    title = f"step {index + 1} of {len(trace.steps)},  t = {step.timestep:.0f}"
    return _row(title, shown, f"{title}: {', '.join(name for _, name in shown)}")


def noised(picture, noisy) -> Figure:
    """A picture on its way into noise, as `schedule.forward_process` tells it: noised in its pixels, in its latents, these decoded."""
    kept = noisy.alpha_cumprod
    title = f"t = {noisy.timestep:g}    x_t = {kept**0.5:.3f} × x_0 + {(1 - kept) ** 0.5:.3f} × noise"
    shown = [(picture, "picture, x_0"), (noisy.pixels, "noise in its pixels"), (latent_colours(noisy.latents), "noise in its latents"),
             (noisy.decoded, "those latents, decoded")]  # fmt: skip
    return _row(title, shown, f"{title}. A picture, the same with noise in its pixels, its latents with noise, and those latents decoded.")


def _frames(trace):
    """At most eight of the steps with a preview, from the first to the last."""
    there = [step for step in trace.steps if step.preview is not None]
    return [there[index] for index in np.unique(np.linspace(0, len(there) - 1, FRAMES).round().astype(int))] if there else []


def _row(title, shown, alt):
    """Pictures and their names side by side beneath a title; the last one says in which shape all are shown."""
    tall = 2.6 * shown[-1][0].shape[0] / shown[-1][0].shape[1]
    page = Page(max(0.2 + 2.75 * len(shown), 0.3 + width_of(title, BODY + 2, "bold")), 1.05 + tall, alt)
    page.text(0.15, 0.32, title, BODY + 2, fontweight="bold")
    for column, (pixels, name) in enumerate(shown):
        page.picture(pixels, 0.15 + 2.75 * column, 0.6, 2.6, tall, name)
    return page.figure


def _heading(page, down, text):
    page.text(MARGIN, down + 0.15, text, BODY, theme().quiet)


def _cell(page, column, down, trace, pixels, caption, **how):
    """A picture of the run's shape in a cell of the grid that all rows share."""
    return page.picture(pixels, *_frame(column, down, trace), caption, **how)


def _frame(column, down, trace):
    """Left, down, width and height in inches of a cell's picture."""
    gap, tall = 0.06, CELL * trace.height / trace.width
    return MARGIN + column * CELL + gap, down + gap, CELL - 2 * gap, tall - 2 * gap


def _filmstrip(page, down, trace, frames):
    column = 0
    if trace.steps and trace.steps[0].latents is not None:
        _cell(page, 0, down, trace, latent_colours(trace.steps[0].latents), "noise")
        column = 1
    for step in frames:
        _cell(page, column, down, trace, step.preview, f"t = {step.timestep:.0f}")
        column += 1
    last = _cell(page, column, down, trace, trace.pixels, "picture" if trace.complete else "interrupted")
    for spine in last.axes.spines.values():
        spine.set(color=theme().cycle[2 if trace.complete else 1], linewidth=2.5)


def _map(page, column, down, trace, index, word):
    draw_heat(page, trace.pixels, trace.heat_map(index), *_frame(column, down, trace), cut(word, 40))


def _alt(trace, frames, words):
    parts = [f"Contact sheet of a run. Prompt: {cut(trace.prompt, 200)}. {trace.tokens.end + 1} tokens."]
    if frames:
        parts.append(f"The predicted picture at timesteps {', '.join(f'{step.timestep:.0f}' for step in frames)}, from blur to detail.")
    if words:
        parts.append(f"One attention map for each of the words {', '.join(trace.tokens.words)}.")
    return " ".join(parts)
