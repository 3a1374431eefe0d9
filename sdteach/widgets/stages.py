"""The explorers of the lessons, a function for each."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from .. import plots
from ..records import Tokens
from ..trace import Trace
from .explorer import Explorer, TextExplorer


def token_explorer(tokenize: Callable[[str], Tokens], prompt: str) -> TextExplorer:
    """Type a prompt and see its tokens."""
    return TextExplorer(lambda typed: plots.token_chips(tokenize(typed)), {"prompt": prompt})


def vector_explorer(compare: Callable[[str, str], object], first: str, second: str) -> TextExplorer:
    """Type two prompts and see the cosine of every word with every other, layer by layer.

    `compare` gives `values` (layers, words of the first, words of the second) and the words, `first` and `second`.
    """

    def draw(one, other):
        cosines = compare(one, other)
        return Explorer(
            lambda layer: plots.heat_table(
                cosines.values[layer], cosines.first, cosines.second, f"Layer {layer}", "cosine similarity", -1.0
            ),
            {"layer": range(len(cosines.values))},
        )

    return TextExplorer(draw, {"first": first, "second": second})


def vae_explorer(decode: Callable[..., Image.Image], first, second, steps: int = 13) -> Explorer:
    """Walk from the latents of one picture straight to those of another, and decode what lies between."""

    def draw(share):
        latents = (1 - share) * first + share * second
        return plots.picture_grid([plots.latent_colours(latents), np.asarray(decode(latents))], ["latents", f"{share:.0%} of the way"])

    return Explorer(draw, {"share": [round(share, 3) for share in np.linspace(0, 1, steps).tolist()]})


def latent_explorer(decode: Callable[..., Image.Image], latents, amounts: Sequence[float] = (-3, -2, -1, 0, 1, 2, 3)) -> Explorer:
    """Operate on latents: add an amount to one channel in the middle of the picture, and decode."""
    height, width = latents.shape[2:]
    middle = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)

    def draw(channel, amount):
        edited = latents + 0.0
        edited[:, channel, *middle] += amount
        return plots.picture_grid(
            [plots.latent_colours(edited), np.asarray(decode(edited))], ["latents", f"channel {channel}: {amount:+g}"]
        )

    return Explorer(draw, {"channel": range(latents.shape[1]), "amount": amounts})


def noise_explorer(forward_process: Callable[..., object], picture: Image.Image, timesteps: Sequence[int]) -> Explorer:
    """Slide over the forward process of a picture: in pixels, in latents, and the formula with its numbers.

    `forward_process(picture, timestep)` is that of `sdteach.schedule`.
    """
    pixels = np.asarray(picture.convert("RGB"))
    return Explorer(lambda timestep: plots.noised(pixels, forward_process(picture, timestep)), {"timestep": timesteps})


def run_scrubber(trace: Trace, decode: Callable[..., Image.Image] | None = None) -> Explorer:
    """Play a run step by step, or drag to any of its steps.

    `decode` makes the predicted picture of the steps for which the trace holds none; without it they show none.
    """

    def draw(step):
        record = trace.steps[step - 1]
        missing = record.preview is None and record.predicted_x0 is not None and decode
        return plots.run_step(trace, step - 1, np.asarray(decode(record.predicted_x0)) if missing else None)

    return Explorer(draw, {"step": range(1, len(trace.steps) + 1)}, playing=True)
