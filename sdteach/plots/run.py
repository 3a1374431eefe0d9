"""A whole run on one sheet."""

import numpy as np
from matplotlib.figure import Figure

from ..records import Tokens
from ..trace import Trace
from .style import BLUE, BODY, GREEN, LINE, ORANGE, QUIET, SMALL, TITLE, Page

WIDTH = 16.0
MARGIN = 0.45
PER_ROW = 10
CELL = (WIDTH - 2 * MARGIN) / PER_ROW
CHIPS_PER_ROW = 14


def contact_sheet(trace: Trace) -> Figure:
    """From the prompt to the picture on one page: tokens, noise, the predicted picture at eight steps, a map per word.

    The parts that the trace does not hold are left out; previews come with `collect=(..., "preview")`.
    """
    frames = [step for step in trace.steps if step.preview is not None]
    words = list(trace.tokens.words) if trace.steps and trace.steps[0].attention else []
    chip_rows, map_rows = -(-(trace.tokens.end + 2) // CHIPS_PER_ROW), -(-len(words) // PER_ROW)
    band = CELL * trace.height / trace.width + 0.5
    tokens_at = 1.0
    steps_at = tokens_at + 0.45 + 0.85 * chip_rows
    maps_at = steps_at + 0.45 + band
    page = Page(WIDTH, maps_at + (0.45 + map_rows * band if words else 0) + MARGIN, _alt(trace, frames, words))
    page.text(MARGIN, 0.55, f"“{_cut(trace.prompt, 90)}”", TITLE, fontweight="bold")
    _heading(page, tokens_at, f"The prompt becomes {trace.tokens.end + 1} tokens and padding to {len(trace.tokens.ids)} places")
    _chips(page, tokens_at + 0.6, trace.tokens)
    _heading(page, steps_at, f"{len(trace.steps)} steps of {trace.scheduler} take the noise away, "
                             f"guidance {trace.guidance_scale:g}, seed {trace.seed}")  # fmt: skip
    _filmstrip(page, steps_at + 0.4, trace, frames)
    if words:
        _heading(page, maps_at, "Where each word was read: cross-attention, all steps and layers, brightest = most")
    for index, word in enumerate(words):
        row, column = divmod(index, PER_ROW)
        _map(page, column, maps_at + 0.4 + row * band, trace, index, word)
    return page.figure


def _heading(page, down, text):
    page.text(MARGIN, down + 0.15, text, BODY, QUIET)


def _cell(page, column, down, trace, pixels, caption, **how):
    """A picture of the run's shape in a cell of the grid that all rows share."""
    gap, tall = 0.06, CELL * trace.height / trace.width
    return page.picture(pixels, MARGIN + column * CELL + gap, down + gap, CELL - 2 * gap, tall - 2 * gap, caption, **how)


def _chips(page, down, tokens: Tokens):
    shown = [(_readable(piece), str(number)) for piece, number in zip(tokens.pieces, tokens.ids, strict=True)][: tokens.end + 1]
    shown[0], shown[-1] = ("start", shown[0][1]), ("end", shown[-1][1])
    padding = len(tokens.ids) - len(shown)
    shown += [(f"+ {padding}", "padding")] if padding else []
    for index, (piece, number) in enumerate(shown):
        row, column = divmod(index, CHIPS_PER_ROW)
        middle, line = MARGIN + (column + 0.5) * (WIDTH - 2 * MARGIN) / CHIPS_PER_ROW, down + 0.85 * row
        special = index == 0 or index >= tokens.end
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#f2f0f5" if special else "#e3f0f8", "edgecolor": LINE if special else BLUE}
        page.text(middle, line, _cut(piece, 10), BODY, QUIET if special else "#003a5c", ha="center", bbox=box)
        page.text(middle, line + 0.36, number, SMALL, QUIET, ha="center")


def _filmstrip(page, down, trace, frames):
    column = 0
    if trace.steps and trace.steps[0].latents is not None:
        latents = trace.steps[0].latents[0, :3].transpose(1, 2, 0)
        _cell(page, 0, down, trace, np.clip(latents / 6 + 0.5, 0, 1), "noise", interpolation="nearest")
        column = 1
    for step in frames:
        _cell(page, column, down, trace, step.preview, f"t = {step.timestep:.0f}")
        column += 1
    axes = _cell(page, column, down, trace, trace.pixels, "picture" if trace.complete else "interrupted")
    for spine in axes.spines.values():
        spine.set(color=GREEN if trace.complete else ORANGE, linewidth=2.5)


def _map(page, column, down, trace, index, word):
    axes = _cell(page, column, down, trace, trace.pixels.mean(2), _cut(word, 14), cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, trace.width - 0.5, trace.height - 0.5, -0.5)
    how = {"cmap": "inferno", "alpha": 0.72, "vmin": 0, "vmax": 1, "aspect": "auto", "interpolation": "bilinear"}
    axes.imshow(trace.heat_map(index), extent=extent, **how)


def _readable(piece):
    """Byte-pair pieces as a reader expects them: the end-of-word sign goes, a piece inside a word keeps a hyphen."""
    return piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}-"


def _cut(text, length):
    text = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _alt(trace, frames, words):
    parts = [f"Contact sheet of a run. Prompt: {_cut(trace.prompt, 200)}. {trace.tokens.end + 1} tokens."]
    if frames:
        parts.append(f"The predicted picture at timesteps {', '.join(f'{step.timestep:.0f}' for step in frames)}, from blur to detail.")
    if words:
        parts.append(f"One attention map for each of the words {', '.join(trace.tokens.words)}.")
    return " ".join(parts)
