"""Stage 5: cross-attention, where the words enter the picture (Vaswani et al., 2017; Rombach et al., 2022).

The text stands still while the picture forms, so its keys and values are computed once for a run. Each position of
the picture asks (query), each place of the prompt answers (key), and what is read is the answer's value.

What is read can be changed from outside, to see what it decides (Hertz et al., 2022):

>>> with masked_out(model, tokens.places("car"), region):
...     trace = sdteach.generate(model, prompt)
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, scaled_dot_product_attention

from .model import StableDiffusion

# Changes what one layer reads: (the layer's name, its grid, probabilities (rows, heads, positions, places)) -> probabilities.
Edit = Callable[[str, tuple[int, int], Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class KeysValues:
    """What one cross-attention `layer` makes of the text: per row of the batch and head, a key and a value for each place.

    `level` is the UNet's level on which it works, 0 the finest.
    `asked` are the keys once more, divided by sqrt(d) and transposed, for the scores: scaled before the product, since in
    half precision Q K^T overflows otherwise.
    """

    layer: Attention
    level: int
    key: Float[Tensor, "rows heads places d"]
    value: Float[Tensor, "rows heads places d"]
    asked: Float[Tensor, "rows heads d places"]


def cross_attention_layers(unet: torch.nn.Module) -> dict[str, Attention]:
    """The UNet's cross-attention modules by name, in the order in which they work: down, middle, up."""
    modules = getattr(unet, "_orig_mod", unet).named_modules()  # torch.compile wraps the UNet and renames all within
    found = {name: module for name, module in modules if isinstance(module, Attention) and module.is_cross_attention}
    return dict(sorted(found.items(), key=lambda item: ("down", "mid", "up").index(item[0].split("_")[0])))


def layer_grids(unet: torch.nn.Module, height: int, width: int) -> dict[str, tuple[int, int]]:
    """Height and width of what each cross-attention layer sees, for latents of `height` x `width`."""
    return {name: _grid(_level(unet, name), height, width) for name in cross_attention_layers(unet)}


def _level(unet, name):
    """How many times a layer's grid was halved: the way down starts at 0, the middle is as deep as its end."""
    deepest = len(unet.config.block_out_channels) - 1
    side, index = name.split(".")[:2]
    return {"down_blocks": int, "up_blocks": lambda block: deepest - int(block)}.get(side, lambda _: deepest)(index)


def _grid(level, height, width):
    """Each level has half the edges of the last, rounded up."""
    return -(-height // 2**level), -(-width // 2**level)


@torch.no_grad()
def keys_values(unet: torch.nn.Module, text: Float[Tensor, "rows places features"]) -> dict[str, KeysValues]:
    """Every cross-attention layer's keys and values of the text, by the layer's name."""
    projected = {}
    for name, layer in cross_attention_layers(unet).items():
        read = layer.norm_encoder_hidden_states(text) if layer.norm_cross else text
        key, value = _split_heads(layer, layer.to_k(read)), _split_heads(layer, layer.to_v(read))
        projected[name] = KeysValues(layer, _level(unet, name), key, value, (key * key.shape[-1] ** -0.5).transpose(-1, -2).contiguous())
    return projected


@contextmanager
def reading(text: Mapping[str, KeysValues], grid: tuple[int, int], prompts: int, watch: bool = True) -> Iterator[dict[str, Tensor]]:
    """Let the UNet read `text` and record what it reads while it runs inside the `with`.

    Yields a dict that fills as the layers run: name -> probabilities (rows, heads, places, height, width) of the last
    `prompts` rows of the batch, the ones with a prompt, in float32. They sum to one over the places. `grid` is the
    height and width of the latents. Without `watch` the dict stays empty and nothing is computed for it. On the way out the
    UNet is as it was, whatever happened; RuntimeError if some layer was not seen.
    """
    before = {name: given.layer.processor for name, given in text.items()}
    maps = {}
    try:
        for name, given in text.items():
            given.layer.set_processor(_Reader(name, given, _grid(given.level, *grid), prompts, watch, _edits(before[name]), maps))
        yield maps
    finally:
        for name, given in text.items():
            given.layer.set_processor(before[name])
    if watch and (missing := text.keys() - maps.keys()):
        raise RuntimeError(f"expected to see {len(text)} cross-attention layers at work, saw nothing of {sorted(missing)}; "
                           "this version of diffusers runs its attention in another way")  # fmt: skip


class _Reader:
    """An attention processor: diffusers' own computation on given keys and values, the probabilities taken beside it."""

    def __init__(self, name, given, grid, prompts, watch, edits, maps):
        self.name, self.given, self.grid, self.prompts, self.watch, self.edits, self.maps = name, given, grid, prompts, watch, edits, maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        query = _split_heads(attn, attn.to_q(hidden_states))
        read = scaled_dot_product_attention(query, self.given.key, self.given.value)
        if self.watch or self.edits:
            # softmax(Q K^T / sqrt(d))
            probabilities = (query[-self.prompts :] @ self.given.asked[-self.prompts :]).softmax(-1, dtype=torch.float32)
            for edit in self.edits:
                probabilities = edit(self.name, self.grid, probabilities)
            if self.edits:
                edited = probabilities.to(read.dtype) @ self.given.value[-self.prompts :]
                read = torch.cat([read[: -self.prompts], edited])
            if self.watch:
                self.maps[self.name] = probabilities.transpose(2, 3).unflatten(3, self.grid)
        out = attn.to_out[1](attn.to_out[0](read.transpose(1, 2).flatten(2).to(query.dtype)))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor


def _split_heads(attn, features):
    """(batch, positions, heads * d) -> (batch, heads, positions, d)."""
    return features.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


@contextmanager
def edited(model: StableDiffusion, edit: Edit) -> Iterator[None]:
    """Inside the `with`, the prompt's rows read what `edit` makes of their probabilities; the negative prompt's read as ever.

    Edits add up, the first entered first. On the way out the UNet is as it was, whatever happened.
    """
    layers = cross_attention_layers(model.unet)
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.set_processor(_Edited(edit, before[name]))
        yield
    finally:
        for name, layer in layers.items():
            layer.set_processor(before[name])


class _Edited:
    """Stands in a layer for its processor until `reading` takes the edit from it."""

    def __init__(self, edit, before):
        self.edit, self.before = edit, before

    def __call__(self, *_, **__):
        raise RuntimeError(
            "expected the UNet to run in unet_step, denoise or generate while its attention is edited, got a call from elsewhere"
        )


def _edits(processor):
    return [*_edits(processor.before), processor.edit] if isinstance(processor, _Edited) else []


def reweighted(model: StableDiffusion, places: Collection[int], factor: float):
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


def masked_out(model: StableDiffusion, places: Collection[int], region: Bool[np.ndarray, "height width"]):
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
    sizes = region.shape, tuple(edge // model.vae_scale_factor for edge in region.shape)  # in latents, if given in latents or in pixels

    def less(name, grid, probabilities):
        if grid not in [_grid(_level(model.unet, name), *size) for size in sizes]:
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


def layout_kept(model: StableDiffusion, layout: Sequence[Mapping[str, Tensor]], share: float = 0.8):
    """A context in which a run reads its prompt where another run read that one's: a word swapped, the layout kept.

    `layout` holds `attention_heads` of every step of the other run; both need the same seed, steps and size, and each word
    of one prompt must stand at the place of its counterpart in the other. The first `share` of the calls follow it, the rest
    are free (prompt-to-prompt: Hertz et al., 2022, "word swap"). Raises ValueError for a share outside 0..1, and inside the
    `with` for a run that does not fit; warns of one that ended too early to fit.

    >>> layout = [step.attention_heads for step in sdteach.denoise(model, "a red car", seed=3)]
    >>> with layout_kept(model, layout):
    ...     trace = sdteach.generate(model, "a blue car", seed=3)
    """
    if not isinstance(share, Real) or not 0 <= share <= 1:
        raise ValueError(f"expected a share of the calls from 0 to 1, got {share!r}")
    return _following(model, layout, share)


@contextmanager
def _following(model, layout, share):
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
        if call >= share * len(layout):
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
