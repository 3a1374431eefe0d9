"""Changing the UNet from outside, to see what decides the picture: what is read of the words, and what crosses its skips.

>>> with masked_out(model, tokens.places("car"), region):
...     trace = sdteach.generate(model, prompt)

Each is a context; on the way out the UNet is as it was, whatever happened. They add up, the first entered first. Other threads'
runs on the same model wait until then.
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from math import isfinite
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from .attention import attached, cross_attention_layers, layer_grids
from .model import StableDiffusion
from .pictures import Mask
from .unet import up_levels

# Changes what one layer reads: (the layer's name, its grid, probabilities (rows, heads, positions, places)) -> probabilities.
Edit = Callable[[str, tuple[int, int], Tensor], Tensor]


def edited(model: StableDiffusion, edit: Edit) -> AbstractContextManager:
    """A context in which the prompt's rows read what `edit` makes of their probabilities; the negative prompt's read as ever.

    RuntimeError inside the `with` for a call of the UNet itself, past the stages.
    """
    return attached(model.unet, dict.fromkeys(cross_attention_layers(model.unet).values(), partial(_Edited, edit)))


class _Edited:
    """Stands in a layer for its processor until `attention.reading` takes the edits from it."""

    def __init__(self, edit, before):
        self.edits = (*getattr(before, "edits", ()), edit)

    def __call__(self, *_, **__):
        raise RuntimeError(
            "expected the UNet to run in unet_step, denoise or generate while its attention is edited, got a call from elsewhere"
        )


def reweighted(model: StableDiffusion, places: Collection[int], factor: float) -> AbstractContextManager:
    """A context in which some places of the prompt are read `factor` times as much, and the others as before.

    The probabilities no longer sum to one: that is the point (Hertz et al., 2022, "attention re-weighting"). Raises
    ValueError for places that there are not or a factor that is no finite number.
    """
    chosen = _checked_places(model, places)
    if not isinstance(factor, Real) or not isfinite(factor):
        raise ValueError(f"expected a finite number as the factor (1 changes nothing), got {factor!r}")

    def more(_, __, probabilities):
        scale = torch.ones(probabilities.shape[-1], device=probabilities.device)
        scale[chosen] = float(factor)
        return probabilities * scale

    return edited(model, more)


def masked_out(model: StableDiffusion, places: Collection[int], region: Mask) -> AbstractContextManager:
    """A context in which a region of the picture cannot read some places of the prompt; what it reads of the others grows.

    `region` is a mask in pixels of the picture or of the latents; at a coarser level a position belongs to it if any part
    does. As if the scores there were minus infinity. Raises ValueError for places that there are not or for all of them, and
    inside the `with` for a picture of another size.
    """
    chosen = _checked_places(model, places)
    if len(set(chosen)) == model.tokenizer.model_max_length:
        raise ValueError("expected some places to be left for the region to read, got all of them; leave place 0, the start token")
    region = np.asarray(region)
    if region.ndim != 2 or region.dtype != bool:
        raise ValueError(f"expected a region as a mask of booleans (height, width), got {region.dtype} {region.shape}")
    mask = torch.from_numpy(region).float()[None]
    in_latents = (edge // model.vae_scale_factor for edge in region.shape)
    fitting = [layer_grids(model.unet, *size) for size in (region.shape, in_latents)]

    def less(name, grid, probabilities):
        if grid not in [grids[name] for grids in fitting]:
            raise ValueError(f"expected a region of the picture's size or its latents', got {region.shape} where {name} sees {grid}")
        inside = adaptive_max_pool2d(mask, grid).flatten().to(probabilities.device, torch.bool)
        hidden = torch.zeros(probabilities.shape[2:], dtype=torch.bool, device=probabilities.device)
        hidden[:, chosen] = inside[:, None]
        left = probabilities.masked_fill(hidden, 0.0)
        total = left.sum(-1, keepdim=True)
        if not total.all():
            raise ValueError("expected some places to be left for the region to read, got all of them hidden by several edits together")
        return left / total

    return edited(model, less)


def layout_kept(model: StableDiffusion, layout: Sequence[Mapping[str, Tensor]], fraction: float = 0.8) -> AbstractContextManager:
    """A context in which a run reads its prompt where another run read that one's: a word swapped, the layout kept.

    `layout` holds `attention_heads` of every step of the other run; both need the same seed, steps and size, and each word
    of one prompt must stand at the place of its counterpart in the other. The first `fraction` of the calls, 0..1, follow it, the
    rest are free (prompt-to-prompt: Hertz et al., 2022, "word swap"). Raises ValueError for a fraction outside 0..1, and inside the
    `with` for a run that does not fit; warns of one that ended too early to fit.

    >>> layout = [step.attention_heads for step in sdteach.denoise(model, "a red car", seed=3)]
    >>> with layout_kept(model, layout):
    ...     trace = sdteach.generate(model, "a blue car", seed=3)
    """
    if not isinstance(fraction, Real) or not 0 <= fraction <= 1:
        raise ValueError(f"expected a fraction of the calls from 0 to 1, got {fraction!r}")
    return _following(model, layout, fraction)


@contextmanager
def _following(model, layout, fraction) -> Iterator[None]:
    calls = dict.fromkeys(cross_attention_layers(model.unet), 0)

    def again(name, grid, probabilities):
        call, calls[name] = calls[name], calls[name] + 1
        if call >= len(layout):
            raise ValueError(f"expected a run of {len(layout)} calls of the UNet, as many as the layout has, got more; "
                             "use the same steps, and a new `with` for each run")  # fmt: skip
        kept, heads, places = torch.as_tensor(layout[call][name]), *probabilities.shape[1::2]
        if kept.shape != (heads, places, *grid):
            raise ValueError(f"expected a run like the layout's, (heads, places, height, width) = {tuple(kept.shape)} in {name}, got "
                             f"{(heads, places, *grid)}; use the same height and width, and attention_heads of `denoise`")  # fmt: skip
        if call >= fraction * len(layout):
            return probabilities
        return kept.flatten(2).transpose(1, 2)[None].to(probabilities)

    with edited(model, again):
        yield
    if short := {made for made in calls.values() if 0 < made < len(layout)}:
        warnings.warn(f"the run made {min(short)} calls of the UNet, its layout has {len(layout)}: unless it was stopped on purpose, "
                      "its timesteps were not the layout's; use the same steps", stacklevel=3)  # fmt: skip


def _checked_places(model, places):
    most = model.tokenizer.model_max_length
    chosen = list(places)
    if not chosen or not all(isinstance(place, Integral) and 0 <= place < most for place in chosen):
        raise ValueError(
            f"expected places of the prompt from 0 to {most - 1}, at least one, as tokens.places(word) gives them, got {places!r}"
        )
    return chosen


def skips_scaled(model: StableDiffusion, factors: Mapping[int, float]) -> AbstractContextManager:
    """A context in which what crosses from the way down to the way up at a level is multiplied by its factor: 0 mutes it.

    Level 0 is the finest. Raises ValueError for a level that there is not, a factor that is no finite number, or a compiled UNet.
    """
    levels = up_levels(model.unet)
    if wrong := {
        level: factor for level, factor in factors.items() if level not in levels or not isinstance(factor, Real) or not isfinite(factor)
    }:
        raise ValueError(f"expected a finite factor for levels out of {sorted(levels)}, got {wrong}")

    def scaled(factor, _, positional, named):
        skips = tuple(skip * factor for skip in named["res_hidden_states_tuple"])
        return positional, named | {"res_hidden_states_tuple": skips}

    return attached(model.unet, hooks=[
        partial(levels[level].register_forward_pre_hook, partial(scaled, factor), with_kwargs=True) for level, factor in factors.items()
    ])  # fmt: skip
