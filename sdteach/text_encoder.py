"""Stage 2: tokens become text features, in CLIP's text tower (Radford et al., 2021); and pictures in its other one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .loading.memory import advised
from .model import StableDiffusion
from .records import Record, Tokens
from .tokenizer import tokenize


@dataclass(frozen=True, eq=False, repr=False)
class TextFeatures(Record):
    """`last_hidden_state` is what the UNet reads; `layers` are the token embeddings and each layer's output, before
    the final layer norm; `pooled` is the end token's vector; `projected` lies in the space CLIP shares with pictures,
    None where the checkpoint has no projection.

    Of an XL checkpoint's two towers `layers` are the first's, `pooled` and `projected` the second's, and the UNet reads the
    last layer but one of both side by side, and `projected` besides (Podell et al., 2023)."""

    tokens: Tokens
    last_hidden_state: Float[Tensor, "places features"]
    layers: Float[Tensor, "depth places width"]
    pooled: Float[Tensor, " pooled_width"]
    projected: Float[Tensor, " shared"] | None


def encode_text(model: StableDiffusion, tokens: Tokens | str) -> TextFeatures:
    """Run the text tower, or both, on tokens, or on a prompt, which is tokenized first. Raises ValueError for anything else, or
    for tokens of a checkpoint with one tower where there are two."""
    return encode_texts(model, [tokens if isinstance(tokens, Tokens) else tokenize(model, tokens)])[0]


@advised("the text tower")
@torch.no_grad()
def encode_texts(model: StableDiffusion, tokens: Sequence[Tokens]) -> list[TextFeatures]:
    """`encode_text` for several, all at once."""
    first = last = _tower(model, model.text_encoder, [text.ids for text in tokens], _mask(model, tokens))
    read = first.last_hidden_state
    if model.text_encoder_2 is not None:
        if any(text.second_ids is None for text in tokens):
            raise ValueError("expected tokens for two text towers, got those of a checkpoint with one; use tokenize(model, prompt)")
        last = _tower(model, model.text_encoder_2, [text.second_ids for text in tokens])
        read = torch.cat([first.hidden_states[-2], last.hidden_states[-2]], -1)
    # A tower that carries its own projection returns the projected vector first and no pooled one: that of the first end token.
    ends = [text.ids.argmax() for text in tokens]
    pooled = last.pooler_output if "pooler_output" in last else last.last_hidden_state[range(len(tokens)), ends]
    projected = model.text_projection(pooled) if model.text_projection is not None else [None] * len(tokens)
    layers = torch.stack(first.hidden_states, 1)
    return [TextFeatures(*text) for text in zip(tokens, read, layers, pooled, projected, strict=True)]


def _tower(model, tower, ids, mask=None):
    return tower(torch.from_numpy(np.stack(ids)).to(model.device), attention_mask=mask, output_hidden_states=True)


def _mask(model, tokens):
    """1 for the places that may be read, 0 for padding, for the few checkpoints that ask for it; else None."""
    if not getattr(model.text_encoder.config, "use_attention_mask", False):
        return None
    ends = torch.tensor([text.end for text in tokens], device=model.device)
    return (torch.arange(len(tokens[0].ids), device=model.device) <= ends[:, None]).long()


@advised("the image tower")
@torch.no_grad()
def image_features(model: StableDiffusion, picture: Image.Image) -> Float[Tensor, " shared"] | None:
    """The picture's vector in the space CLIP shares with texts; None where the checkpoint has no image tower."""
    if model.image_encoder is None or model.feature_extractor is None:
        return None
    pixels = model.feature_extractor(images=picture.convert("RGB"), return_tensors="pt").pixel_values
    return model.image_encoder(pixels.to(model.device, model.dtype)).image_embeds[0]


def cosine_similarity(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """The cosine of the angle between every row of `a` and every row of `b`, in float32; 0 where a row is all zeros.

    >>> cosine_similarity(torch.eye(2), torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000],
            [0.8000]])

    Raises ValueError unless both are matrices of equally long rows.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected (n, d) and (m, d), got {tuple(a.shape)} and {tuple(b.shape)}; one vector v is v[None]")
    return torch.nn.functional.normalize(a.float()) @ torch.nn.functional.normalize(b.float()).T


def slerp(first: Float[Tensor, "n *d"], second: Float[Tensor, "n *d"], share: float) -> Float[Tensor, "n *d"]:
    """From every row of `first` (share 0) to that of `second` (share 1) along the arc between them (Shoemake, 1985).

    Halfway between two noises the mean is too short by the square root of two; the arc keeps what the UNet expects.

    >>> slerp(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]]), 0.5)
    tensor([[2.1213, 2.1213]])

    Raises ValueError for shapes that differ or a share outside 0..1.
    """
    if first.shape != second.shape or not 0 <= share <= 1:
        raise ValueError(f"expected two of one shape and a share from 0 to 1, got {tuple(first.shape)}, {tuple(second.shape)} and {share}")
    rows = [given.flatten(1).double() for given in (first, second)]
    cosines = torch.nn.functional.cosine_similarity(*rows).clamp(-1, 1)
    angle = cosines.arccos()[:, None]
    straight = angle.sin() < 1e-4  # along one line there is no arc
    weights = [torch.where(straight, part, (part * angle).sin() / angle.sin()) for part in (1 - share, share)]
    return (weights[0] * rows[0] + weights[1] * rows[1]).to(first).view_as(first)


def between(first: TextFeatures, second: TextFeatures, share: float) -> TextFeatures:
    """A text between two, by `slerp` at every place; the words and the places of words are the first one's."""
    told = f"{first.tokens.text} ({1 - share:.0%}), {second.tokens.text} ({share:.0%})"
    return TextFeatures(
        replace(first.tokens, text=told),
        slerp(first.last_hidden_state, second.last_hidden_state, share),
        slerp(first.layers.flatten(0, 1), second.layers.flatten(0, 1), share).view_as(first.layers),
        slerp(first.pooled[None], second.pooled[None], share)[0],
        None if first.projected is None else slerp(first.projected[None], second.projected[None], share)[0],
    )


@dataclass(frozen=True, eq=False, repr=False)
class WordCosines(Record):
    """The cosine of every word of one text with every word of another, in every layer (see `TextFeatures.layers`)."""

    values: Float[Tensor, "depth first second"]
    first: tuple[str, ...]
    second: tuple[str, ...]


def word_cosines(model: StableDiffusion, first: str, second: str) -> WordCosines:
    """Compare two texts word by word, layer by layer; a word of several pieces is their mean. Raises ValueError for one without words."""
    texts = encode_text(model, first), encode_text(model, second)
    if not all(text.tokens.words for text in texts):
        raise ValueError(f"expected two texts with at least one word each, got {first!r} and {second!r}")
    one, other = (
        torch.stack([text.layers[:, list(text.tokens.places(word))].mean(1) for word in range(len(text.tokens.words))], 1) for text in texts
    )
    values = torch.stack([cosine_similarity(a, b) for a, b in zip(one, other, strict=True)])
    return WordCosines(values, texts[0].tokens.words, texts[1].tokens.words)


def main_directions(vectors: Float[Tensor, "n d"], count: int = 2) -> tuple[Float[Tensor, "n {count}"], Float[Tensor, " {count}"]]:
    """Vectors along their `count` main directions (principal components), and the share of the variance along each.

    Raises ValueError for fewer than `count` + 1 vectors, which always lie in so few directions.
    """
    if len(vectors) <= count:
        raise ValueError(f"expected at least {count + 1} vectors, got {len(vectors)}; so few always lie in {count} directions")
    centred = vectors.float() - vectors.float().mean(0)
    u, lengths, _ = torch.linalg.svd(centred, full_matrices=False)
    return u[:, :count] * lengths[:count], lengths[:count] ** 2 / (lengths**2).sum().clamp(min=1e-12)


@torch.no_grad()
def self_attention(model: StableDiffusion, tokens: Tokens | str) -> Float[Tensor, "layers heads places places"]:
    """How much each place reads each other one in every layer of the text tower, summing to one; the tower is causal, so no
    place reads a later one. Taken from the queries and keys of the run itself (Vaswani et al., 2017, equation 1).
    """
    layers = [module for name, module in model.text_encoder.named_modules() if name.endswith("self_attn")]
    seen = []
    hooks = [part.register_forward_hook(lambda _, __, out: seen.append(out)) for layer in layers for part in (layer.q_proj, layer.k_proj)]
    try:
        tokens = encode_text(model, tokens).tokens
    finally:
        for hook in hooks:
            hook.remove()
    mask, maps = _mask(model, [tokens]), []
    for layer, *asked in zip(layers, seen[::2], seen[1::2], strict=True):
        query, key = (part[0].float().unflatten(-1, (layer.num_heads, -1)).transpose(0, 1) for part in asked)
        scores = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5
        hidden = torch.ones_like(scores).triu(1).bool()
        hidden = hidden if mask is None else hidden | (mask == 0)
        maps.append(scores.masked_fill(hidden, -torch.inf).softmax(-1))
    return torch.stack(maps)
