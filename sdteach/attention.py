"""Stage 5: cross-attention, where the words enter the picture (Vaswani et al., 2017; Rombach et al., 2022).

The text stands still while the picture forms, so its keys and values are computed once for a run. Each position of
the picture asks (query), each place of the prompt answers (key), and what is read is the answer's value. `edits` changes
what is read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from threading import RLock
from weakref import WeakKeyDictionary

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.hooks import RemovableHandle

from .records import Record


class KeysValues(Record):
    """What one cross-attention `layer` makes of the text: per row of the batch and head, a key and a value for each place.

    `before` is the layer of the same block in which the picture reads itself, if there is one; `level` the UNet's level on which both
    work, 0 the finest. `scaled_key` are the keys once more, divided by sqrt(d) and transposed, for the scores: scaled before the
    product, since in half precision Q K^T overflows otherwise.
    """

    layer: Attention
    before: Attention | None
    level: int
    key: Float[Tensor, "rows heads places d"]
    value: Float[Tensor, "rows heads places d"]
    scaled_key: Float[Tensor, "rows heads d places"]


def _uncompiled(unet):
    """torch.compile wraps a UNet and renames all within."""
    return getattr(unet, "_orig_mod", unet)


def cross_attention_layers(unet: torch.nn.Module) -> dict[str, Attention]:
    """The UNet's cross-attention modules by name, in the order in which they work: down, middle, up."""
    modules = _uncompiled(unet).named_modules()
    found = {name: module for name, module in modules if isinstance(module, Attention) and module.is_cross_attention}
    return dict(sorted(found.items(), key=lambda item: ("down", "mid", "up").index(item[0].split("_")[0])))


def layer_grids(unet: torch.nn.Module, height: int, width: int) -> dict[str, tuple[int, int]]:
    """Height and width of what each cross-attention layer sees, for latents of `height` x `width`."""
    return {name: _grid(_level(unet, name), height, width) for name in cross_attention_layers(unet)}


def _level(unet, name):
    """How many times a layer's grid was halved: the way down starts at 0, the middle is as deep as its end."""
    deepest, (side, index, *_) = len(unet.config.block_out_channels) - 1, name.split(".")
    if side == "mid_block":
        return deepest
    return int(index) if side == "down_blocks" else deepest - int(index)


def _grid(level, height, width):
    """Each level has half the edges of the last, rounded up."""
    return -(-height // 2**level), -(-width // 2**level)


@torch.no_grad()
def keys_values(unet: torch.nn.Module, text: Float[Tensor, "rows places features"]) -> dict[str, KeysValues]:
    """Every cross-attention layer's keys and values of the text, by the layer's name."""
    projected = {}
    for name, layer in cross_attention_layers(unet).items():
        read = layer.norm_encoder_hidden_states(text) if layer.norm_cross else text
        key, value = (_by_head(layer, project, read) for project in (layer.to_k, layer.to_v))
        scaled_key = (key * key.shape[-1] ** -0.5).transpose(-1, -2).contiguous()
        before = getattr(_uncompiled(unet).get_submodule(name.rpartition(".")[0]), "attn1", None)
        projected[name] = KeysValues(layer, before, _level(unet, name), key, value, scaled_key)
    return projected


_TURNS = WeakKeyDictionary()  # of each UNet whose turn it is


@contextmanager
def attached(
    unet: torch.nn.Module, processors: Mapping[Attention, Callable] | None = None, hooks: Iterable[Callable[[], RemovableHandle]] = ()
) -> Iterator[None]:
    """Inside the `with`, what `processors` make of attention layers' own stands in their place, and `hooks` are registered.

    Whatever happens, the UNet is as it was on the way out. Meanwhile it is this thread's and others wait for their turn: what hangs
    on a UNet would change their pictures too.
    """
    with _TURNS.setdefault(_uncompiled(unet), RLock()), ExitStack() as letting_go:
        for layer, made_of in (processors or {}).items():
            letting_go.callback(layer.set_processor, layer.processor)
            layer.set_processor(made_of(layer.processor))
        for register in hooks:
            letting_go.enter_context(register())
        yield


@contextmanager
def reading(
    unet: torch.nn.Module, text: Mapping[str, KeysValues], grid: tuple[int, int], prompts: int, watch: bool = True
) -> Iterator[dict[str, Tensor]]:
    """Let the UNet read `text` and record what it reads while it runs inside the `with`.

    Yields a dict that fills as the layers run: name -> probabilities (rows, heads, places, height, width) of the last
    `prompts` rows of the batch, the ones with a prompt, in float32. They sum to one over the places. `grid` is the
    height and width of the latents. Without `watch` the dict stays empty and nothing is computed for it. On the way out the
    UNet is as it was, whatever happened; RuntimeError if some layer was not seen.
    """
    maps = {}
    own = {each.before: _Own for each in text.values() if type(getattr(each.before, "processor", None)) is AttnProcessor2_0}
    readers = {each.layer: partial(_Reader, name, each, _grid(each.level, *grid), prompts, maps if watch else None)
               for name, each in text.items()}  # fmt: skip
    with attached(unet, own | readers):
        yield maps
    if watch and (missing := text.keys() - maps.keys()):
        raise RuntimeError(f"expected to see {len(text)} cross-attention layers at work, saw nothing of {sorted(missing)}; "
                           "this version of diffusers runs its attention in another way")  # fmt: skip


@dataclass(eq=False)
class _Reader:
    """An attention processor: diffusers' own computation on given keys and values, the probabilities taken beside it."""

    name: str
    text: KeysValues
    grid: tuple[int, int]
    prompts: int
    maps: dict | None
    before: object

    def __call__(self, attn, hidden_states, *_, **__):
        query = _by_head(attn, attn.to_q, hidden_states)
        read = scaled_dot_product_attention(query, self.text.key, self.text.value)
        edits = getattr(self.before, "edits", ())
        if self.maps is not None or edits:
            # softmax(Q K^T / sqrt(d))
            probabilities = (query[-self.prompts :] @ self.text.scaled_key[-self.prompts :]).softmax(-1, dtype=torch.float32)
            for edit in edits:
                probabilities = edit(self.name, self.grid, probabilities)
            if edits:
                read = torch.cat([read[: -self.prompts], probabilities.to(read.dtype) @ self.text.value[-self.prompts :]])
            if self.maps is not None:
                self.maps[self.name] = probabilities.transpose(2, 3).unflatten(3, self.grid)
        return _written(attn, read)


class _Own:
    """What diffusers' AttnProcessor2_0 does where the picture reads itself, without its questions at every call."""

    def __init__(self, _):
        pass

    def __call__(self, attn, hidden_states, *_, **__):
        parts = (_by_head(attn, project, hidden_states) for project in (attn.to_q, attn.to_k, attn.to_v))
        return _written(attn, scaled_dot_product_attention(*parts))


for _processor in (_Reader, _Own):  # diffusers asks for it at every call of every layer; found once, it takes a third of the time
    _processor.__call__.__signature__ = signature(_processor.__call__)


def _written(attn, read):
    """What the heads have read, side by side, through the layer's last projection; the dropout behind it is for training only."""
    return attn.to_out[0](read.transpose(1, 2).flatten(2))


def _by_head(attn, project, features):
    """A projection of features (batch, positions, width) as (batch, heads, positions, d)."""
    return project(features).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
