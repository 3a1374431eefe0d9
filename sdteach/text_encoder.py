"""Stage 2: tokens become text features, in CLIP's text tower (Radford et al., 2021); and pictures in its other one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from . import vectors
from .loading.memory import advised
from .model import StableDiffusion
from .records import Record, Tokens
from .tokenizer import tokenize


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


def _tower(model, tower, ids, mask=None, **told):
    return tower(torch.from_numpy(np.stack(ids)).to(model.device), attention_mask=mask, output_hidden_states=True, **told)


def _mask(model, tokens):
    """1 for the places that may be read, 0 for padding, for the few checkpoints that ask for it; else None."""
    if not getattr(model.text_encoder.config, "use_attention_mask", False):
        return None
    ends = torch.tensor([text.end for text in tokens], device=model.device)
    return (torch.arange(len(tokens[0].ids), device=model.device) <= ends[:, None]).long()


@advised("the image tower")
def image_features(model: StableDiffusion, picture: Image.Image) -> Float[Tensor, " shared"] | None:
    """The picture's vector in the space CLIP shares with texts; None where the checkpoint has no image tower."""
    if model.image_encoder is None or model.feature_extractor is None:
        return None
    pixels = model.feature_extractor(images=picture.convert("RGB"), return_tensors="pt").pixel_values
    return model.image_encoder(pixels.to(model.device, model.dtype)).image_embeds[0]


def interpolate(first: TextFeatures, second: TextFeatures, weight: float) -> TextFeatures:
    """A text between two, by `slerp` at every place; the words and the places of words are the first one's."""
    mixed = {}
    for name, start in vars(first).items():
        if isinstance(start, Tensor):
            ends = (vector.reshape(-1, vector.shape[-1]) for vector in (start, getattr(second, name)))
            mixed[name] = vectors.slerp(*ends, weight).view_as(start)
    text = f"{first.tokens.text} ({1 - weight:.0%}), {second.tokens.text} ({weight:.0%})"
    return replace(first, tokens=replace(first.tokens, text=text), **mixed)


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
    means = [torch.stack(text.tokens.by_word(text.layers), 1) for text in texts]
    values = torch.stack([vectors.cosine_similarity(*layers) for layers in zip(*means, strict=True)])
    return WordCosines(values, *(text.tokens.words for text in texts))


@advised("the text tower")
def self_attention(model: StableDiffusion, tokens: Tokens | str) -> Float[Tensor, "layers heads places places"]:
    """How much each place reads each other one in every layer of the text tower, summing to one; the tower is causal, so no
    place reads a later one (Vaswani et al., 2017, equation 1). What transformers' plain attention tells, which says what it reads.
    """
    tower, tokens = model.text_encoder, tokens if isinstance(tokens, Tokens) else tokenize(model, tokens)
    usual = tower.config._attn_implementation
    tower.set_attn_implementation("eager")
    try:
        maps = _tower(model, tower, [tokens.ids], _mask(model, [tokens]), output_attentions=True).attentions
    finally:
        tower.set_attn_implementation(usual)
    return torch.cat(maps).float()
