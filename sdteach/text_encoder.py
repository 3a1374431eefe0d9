"""Stage 2: tokens become text features, in CLIP's text tower (Radford et al., 2021); and pictures in its other one."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .model import StableDiffusion
from .records import Record, Tokens
from .tokenizer import tokenize


@dataclass(frozen=True, eq=False, repr=False)
class TextFeatures(Record):
    """`last_hidden_state` is what the UNet reads; `layers` are the token embeddings and each layer's output, before
    the final layer norm; `pooled` is the end token's vector; `projected` lies in the space CLIP shares with pictures,
    None where the checkpoint has no projection."""

    tokens: Tokens
    last_hidden_state: Float[Tensor, "places features"]
    layers: Float[Tensor, "depth places features"]
    pooled: Float[Tensor, " features"]
    projected: Float[Tensor, " shared"] | None


@torch.no_grad()
def encode_text(model: StableDiffusion, tokens: Tokens | str) -> TextFeatures:
    """Run the text tower on tokens, or on a prompt, which is tokenized first. Raises ValueError for anything else."""
    if not isinstance(tokens, Tokens):
        tokens = tokenize(model, tokens)
    ids = torch.from_numpy(tokens.ids)[None].to(model.device)
    mask = None
    if getattr(model.text_encoder.config, "use_attention_mask", False):
        mask = (torch.arange(ids.shape[1], device=ids.device) <= tokens.end)[None].long()
    out = model.text_encoder(ids, attention_mask=mask, output_hidden_states=True)
    # A tower that carries its own projection returns the projected vector first and no pooled one.
    pooled = out.pooler_output if "pooler_output" in out else out.last_hidden_state[:, tokens.end]
    projected = model.text_projection(pooled)[0] if model.text_projection is not None else None
    return TextFeatures(tokens, out.last_hidden_state[0], torch.cat(out.hidden_states), pooled[0], projected)


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
