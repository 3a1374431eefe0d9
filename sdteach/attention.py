"""Stage 5: cross-attention, where the words enter the picture (Vaswani et al., 2017; Rombach et al., 2022).

The text stands still while the picture forms, so its keys and values are computed once for a run. Each position of
the picture asks (query), each place of the prompt answers (key), and what is read is the answer's value.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, eq=False)
class KeysValues:
    """What one cross-attention `layer` makes of the text: per row of the batch and head, a key and a value for each place.

    `asked` are the keys once more, divided by sqrt(d) and transposed, for the scores: scaled before the product, since in
    half precision Q K^T overflows otherwise.
    """

    layer: Attention
    key: Float[Tensor, "rows heads places d"]
    value: Float[Tensor, "rows heads places d"]
    asked: Float[Tensor, "rows heads d places"]


def cross_attention_layers(unet: torch.nn.Module) -> dict[str, Attention]:
    """The UNet's cross-attention modules by name, in the order in which they are defined."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, Attention) and module.is_cross_attention}


@torch.no_grad()
def keys_values(unet: torch.nn.Module, text: Float[Tensor, "rows places features"]) -> dict[str, KeysValues]:
    """Every cross-attention layer's keys and values of the text, by the layer's name."""
    projected = {}
    for name, layer in cross_attention_layers(unet).items():
        read = layer.norm_encoder_hidden_states(text) if layer.norm_cross else text
        key, value = _split_heads(layer, layer.to_k(read)), _split_heads(layer, layer.to_v(read))
        projected[name] = KeysValues(layer, key, value, (key * key.shape[-1] ** -0.5).transpose(-1, -2).contiguous())
    return projected


@contextmanager
def reading(text: Mapping[str, KeysValues], grid: tuple[int, int], watched: int) -> Iterator[dict[str, Tensor]]:
    """Let the UNet read `text` and record what it reads while it runs inside the `with`.

    Yields a dict that fills as the layers run: name -> probabilities (places, height, width), averaged over heads and
    over the last `watched` rows of the batch, the ones with the prompt. They sum to one over the places. `grid` is the
    height and width of the latents. On the way out the UNet is as it was, whatever happened; RuntimeError if some
    layer was not seen.
    """
    before = {name: given.layer.processor for name, given in text.items()}
    maps = {}
    try:
        for name, given in text.items():
            given.layer.set_processor(_Reader(name, given, grid, watched, maps))
        yield maps
    finally:
        for name, given in text.items():
            given.layer.set_processor(before[name])
    if missing := text.keys() - maps.keys():
        raise RuntimeError(f"expected to see {len(text)} cross-attention layers at work, saw nothing of {sorted(missing)}; "
                           "this version of diffusers runs its attention in another way")  # fmt: skip


class _Reader:
    """An attention processor: diffusers' own computation on given keys and values, the probabilities taken beside it."""

    def __init__(self, name, given, grid, watched, maps):
        self.name, self.given, self.grid, self.watched, self.maps = name, given, grid, watched, maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        query = _split_heads(attn, attn.to_q(hidden_states))
        self.maps[self.name] = self._probabilities(query[-self.watched :])
        read = scaled_dot_product_attention(query, self.given.key, self.given.value)
        out = attn.to_out[1](attn.to_out[0](read.transpose(1, 2).flatten(2).to(query.dtype)))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor

    def _probabilities(self, query):
        """softmax(Q K^T / sqrt(d)) in float32."""
        scores = query @ self.given.asked[-self.watched :]
        places = scores.softmax(-1, dtype=torch.float32).mean((0, 1)).T
        return places.view(-1, *_grid_of(places.shape[1], self.grid))


def _split_heads(attn, features):
    """(batch, positions, heads * d) -> (batch, heads, positions, d)."""
    return features.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _grid_of(positions, grid):
    """Height and width of the level with so many positions: each level has half the edge of the last, rounded up."""
    height, width = grid
    while height * width > positions:
        height, width = -(-height // 2), -(-width // 2)
    return height, width
