"""The explorers of the lessons, a function for each."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
from PIL import Image

from .. import plots
from ..records import Tokens
from ..trace import Trace
from .explorer import Explorer, LiveExplorer, TextExplorer
from .region import RegionExplorer


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
        return _decoded(decode, (1 - share) * first + share * second, f"{share:.0%} of the way")

    return Explorer(draw, {"share": [round(share, 3) for share in np.linspace(0, 1, steps).tolist()]})


def latent_explorer(decode: Callable[..., Image.Image], latents, amounts: Sequence[float] = (-3, -2, -1, 0, 1, 2, 3)) -> Explorer:
    """Operate on latents: add an amount to one channel in the middle of the picture, and decode."""
    middle = [slice(edge // 4, edge - edge // 4) for edge in latents.shape[2:]]

    def draw(channel, amount):
        edited = latents + 0.0
        edited[:, channel, *middle] += amount
        return _decoded(decode, edited, f"channel {channel}: {amount:+g}")

    return Explorer(draw, {"channel": range(latents.shape[1]), "amount": amounts})


def _decoded(decode, latents, told):
    return plots.picture_grid([plots.latent_colours(latents), np.asarray(decode(latents))], ["latents", told])


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


def attention_explorer(trace: Trace) -> LiveExplorer:
    """Where a word was read: choose the word, the step, the layer, the head and how strongly the map covers the picture.

    Step 0 stands for the last quarter of the run. Heads can be chosen if the trace holds `attention_heads`. Raises ValueError
    for a trace without attention of its steps, or without words.
    """
    first = trace.steps[0]
    maps = first.attention or first.attention_heads
    if not maps or not trace.tokens.words:
        raise ValueError("expected a trace of at least one word with attention, run generate(..., collect=('attention',))")
    words, grids = named_words(trace), {layer: values.shape[-2:] for layer, values in maps.items()}
    layers = {"all layers": None} | {name: {layer: 1.0} for layer, name in plots.layer_names(grids).items()}
    by_head = (first.attention_heads or {}).values()
    heads = {"mean": None} | {f"head {head}": head for head in range(min(map(len, by_head), default=0))}

    def draw(word, step, layer, head, strength):
        steps = None if step == 0 else [step - 1]
        heat = trace.heat_map(words[word], steps, layers[layer], heads[head])
        when = "last quarter" if step == 0 else f"step {step}, t = {trace.steps[step - 1].timestep:.0f}"
        return plots.heat_maps([trace.pixels], [heat], [f"“{word}”, {when}; {layer}, {head}"], strength=strength)

    choices = {"word": [*words], "step": range(len(trace.steps) + 1), "layer": [*layers], "head": [*heads],
               "strength": [0.0, 0.25, 0.5, 0.75, 1.0]}  # fmt: skip
    return LiveExplorer(draw, choices, {"strength": 0.75})


def named_words(trace):
    """The index of every word; those that stand there twice are numbered."""
    every = trace.tokens.words
    return {f"{word} ({every[: index + 1].count(word)})" if every.count(word) > 1 else word: index for index, word in enumerate(every)}


def region_explorer(trace: Trace, paint: Callable[..., Trace], region: tuple[int, int, int, int] | None = None) -> RegionExplorer:
    """Choose a region of a run's picture and see it painted anew: a box, or, if the trace holds attention, where a word was read.

    `paint(mask=mask)` runs the whole loop for (height, width) booleans, True where to paint. `region` is the first box: left, top,
    right, bottom in pixels.
    """
    maps = {name: trace.heat_map(index) for name, index in named_words(trace).items()} if trace.layers else {}
    return RegionExplorer(trace.pixels, lambda mask: paint(mask=mask).pixels, maps, region)


def skip_mixer(
    scaled: Callable[[Mapping[int, float]], AbstractContextManager], paint: Callable[[], Trace], levels: int,
    factors: Sequence[float] = (0.0, 0.5, 1.0, 1.5),
) -> LiveExplorer:  # fmt: skip
    """Turn the skip connections of every level up and down; level 0 is the finest.

    `paint()` runs the whole loop, inside of `scaled({level: factor})`, that of `sdteach.edits.skips_scaled`. The picture of
    untouched skips stays beside.
    """
    untouched = paint().pixels
    names = {f"level {level}": level for level in range(levels)}

    def draw(**chosen):
        with scaled({names[name]: factor for name, factor in chosen.items()}):
            trace = paint()
        told = "skips × " + ", ".join(f"{factor:g}" for factor in chosen.values())
        return plots.picture_grid([untouched, trace.pixels], ["untouched", told])

    return LiveExplorer(draw, dict.fromkeys(names, factors), {"level 0": 1.0 if 1.0 in factors else factors[-1]})


def guidance_dial(paint: Callable[..., Trace], scales: Sequence[float] = (1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0)) -> LiveExplorer:
    """Turn guidance up and down. `paint(guidance_scale=scale)` runs the whole loop; the first scale's picture stays beside."""
    first = paint(guidance_scale=scales[0]).pixels

    def draw(scale):
        shown = [first, first if scale == scales[0] else paint(guidance_scale=scale).pixels]
        return plots.picture_grid(shown, [f"guidance {scales[0]:g}", f"guidance {scale:g}"])

    return LiveExplorer(draw, {"scale": scales}, {"scale": scales[-1]})
