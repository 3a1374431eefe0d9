"""A whole run on one sheet."""

import numpy as np
from matplotlib.figure import Figure

from ..records import Tokens
from ..trace import Trace
from .style import BLUE, BODY, GREEN, LINE, ORANGE, QUIET, SMALL, TITLE, bare, new_figure, write

WIDTH = 16.0
MARGIN = 0.45
PER_ROW = 10
CHIPS_PER_ROW = 14


def contact_sheet(trace: Trace) -> Figure:
    """From the prompt to the picture on one page: tokens, noise, the predicted picture at eight steps, a map per word.

    The parts that the trace does not hold are left out; previews come with `collect=(..., "preview")`.
    """
    frames = [step for step in trace.steps if step.preview is not None]
    words = list(range(len(trace.tokens.words))) if trace.steps and trace.steps[0].attention else []
    chip_rows = -(-(trace.tokens.end + 2) // CHIPS_PER_ROW)
    map_rows = -(-len(words) // PER_ROW)
    cell = (WIDTH - 2 * MARGIN) / PER_ROW
    tall = cell * trace.height / trace.width
    heights = [1.0, 0.45 + 0.85 * chip_rows, 0.45 + tall + 0.5, (0.45 + map_rows * (tall + 0.5)) if words else 0]
    figure = new_figure(WIDTH, sum(heights) + MARGIN, _alt(trace, frames, words))
    page = _Page(figure, sum(heights) + MARGIN)
    write(figure, *page.at(MARGIN, 0.55), f"“{_cut(trace.prompt, 90)}”", TITLE, fontweight="bold")
    page.move(heights[0])
    page.heading(f"The prompt becomes {trace.tokens.end + 1} tokens and padding to {len(trace.tokens.ids)} places")
    _chips(page, trace.tokens)
    page.move(heights[1])
    page.heading(f"{len(trace.steps)} steps of {trace.scheduler} take the noise away, guidance {trace.guidance_scale:g}, seed {trace.seed}")
    _filmstrip(page, trace, frames, cell, tall)
    page.move(heights[2])
    if words:
        page.heading("Where each word was read: cross-attention, all steps and layers, brightest = most")
        _maps(page, trace, words, cell, tall)
    return figure


class _Page:
    """Inches from the top left, which is how a page is laid out, to the figure's fractions."""

    def __init__(self, figure, height):
        self.figure, self.height, self.top = figure, height, 0.0

    def at(self, left, down):
        return left / WIDTH, 1 - (self.top + down) / self.height

    def move(self, down):
        self.top += down

    def heading(self, text):
        write(self.figure, *self.at(MARGIN, 0.15), text, BODY, QUIET)

    def picture(self, pixels, column, row_top, cell, tall, caption, **how):
        gap = 0.06
        left, bottom = self.at(MARGIN + column * cell + gap, row_top + tall - gap)
        axes = self.figure.add_axes((left, bottom, (cell - 2 * gap) / WIDTH, (tall - 2 * gap) / self.height))
        axes.imshow(pixels, aspect="auto", **how)
        bare(axes)
        write(axes, 0.5, -0.05, caption, SMALL, transform=axes.transAxes, ha="center", va="top")
        return axes


def _chips(page, tokens: Tokens):
    shown = [(_readable(piece), str(number)) for piece, number in zip(tokens.pieces, tokens.ids, strict=True)][: tokens.end + 1]
    shown[0], shown[-1] = ("start", shown[0][1]), ("end", shown[-1][1])
    padding = len(tokens.ids) - len(shown)
    shown += [(f"+ {padding}", "padding")] if padding else []
    cell = (WIDTH - 2 * MARGIN) / CHIPS_PER_ROW
    for index, (piece, number) in enumerate(shown):
        row, column = divmod(index, CHIPS_PER_ROW)
        middle, down = MARGIN + (column + 0.5) * cell, 0.6 + 0.85 * row
        special = index == 0 or index >= tokens.end
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#f2f0f5" if special else "#e3f0f8", "edgecolor": LINE if special else BLUE}
        write(page.figure, *page.at(middle, down), _cut(piece, 10), BODY, QUIET if special else "#003a5c", ha="center", bbox=box)
        write(page.figure, *page.at(middle, down + 0.36), number, SMALL, QUIET, ha="center")


def _filmstrip(page, trace, frames, cell, tall):
    column = 0
    if trace.steps and trace.steps[0].latents is not None:
        latents = trace.steps[0].latents[0, :3].transpose(1, 2, 0)
        page.picture(np.clip(latents / 6 + 0.5, 0, 1), 0, 0.4, cell, tall, "noise", interpolation="nearest")
        column = 1
    for step in frames:
        page.picture(step.preview, column, 0.4, cell, tall, f"t = {step.timestep:.0f}")
        column += 1
    axes = page.picture(trace.pixels, column, 0.4, cell, tall, "picture" if trace.complete else "interrupted")
    for spine in axes.spines.values():
        spine.set(color=GREEN if trace.complete else ORANGE, linewidth=2.5)


def _maps(page, trace, words, cell, tall):
    for index in words:
        row, column = divmod(index, PER_ROW)
        down = 0.4 + row * (tall + 0.5)
        axes = page.picture(
            trace.pixels.mean(2), column, down, cell, tall, _cut(trace.tokens.words[index], 14), cmap="gray", vmin=0, vmax=255
        )
        extent = (-0.5, trace.width - 0.5, trace.height - 0.5, -0.5)
        axes.imshow(
            trace.heat_map(index), cmap="inferno", alpha=0.72, extent=extent, aspect="auto", interpolation="bilinear", vmin=0, vmax=1
        )


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
