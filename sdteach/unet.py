"""Stage 6: one guided noise prediction, taken apart (Ho et al., 2020; Ho & Salimans, 2022)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .attention import KeysValues, keys_values, reading
from .model import StableDiffusion
from .records import Record
from .schedule import alpha_cumprod_at
from .text_encoder import TextFeatures


@dataclass(frozen=True, eq=False, repr=False)
class UNetStep(Record):
    """What one look at x_t says. `noise` is the guided prediction; `noise_uncond` is None where guidance is off.

    `model_output` is the guided output as the sampler takes it: the noise itself, or for a v-prediction checkpoint the
    velocity. `predicted_x0` are the clean latents it implies. `attention` maps each cross-attention layer to its
    probabilities for the prompt, averaged over heads: (places, h, w), summing to one over the places.
    """

    noise_uncond: Float[Tensor, "1 channels height width"] | None
    noise_text: Float[Tensor, "1 channels height width"]
    noise: Float[Tensor, "1 channels height width"]
    predicted_x0: Float[Tensor, "1 channels height width"]
    model_output: Float[Tensor, "1 channels height width"]
    attention: dict[str, Float[Tensor, "places _ _"]]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The text as the UNet reads it: one row for the prompt, and before it one for the negative prompt if guided.

    `guidance_embedding` is for checkpoints distilled for few steps, which take the scale as an input; else None.
    """

    embeddings: Float[Tensor, "rows places features"]
    keys_values: dict[str, KeysValues]
    guidance_scale: float
    guidance_embedding: Float[Tensor, "1 size"] | None

    @property
    def guided(self) -> bool:
        return len(self.embeddings) == 2


@torch.no_grad()
def condition(model: StableDiffusion, text: TextFeatures, negative: TextFeatures | None, guidance_scale: float) -> Conditioning:
    """Prepare the text for the UNet. Guidance is on if the scale is above 1, unless the UNet takes the scale as input.

    Raises ValueError if guidance is on and there is no negative text; that of the empty prompt is the usual one.
    """
    guided = guidance_scale > 1 and model.unet.config.time_cond_proj_dim is None
    if guided and negative is None:
        raise ValueError("expected text features of a negative prompt for guidance above 1, got None; use encode_text(model, '')")
    rows = [negative.last_hidden_state, text.last_hidden_state] if guided else [text.last_hidden_state]
    embeddings = torch.stack(rows)
    return Conditioning(embeddings, keys_values(model.unet, embeddings), float(guidance_scale), _guidance_embedding(model, guidance_scale))


def unet_step(
    model: StableDiffusion, latents: Float[Tensor, "1 channels height width"], timestep: int | float | Tensor,
    text: TextFeatures, negative: TextFeatures | None = None, guidance_scale: float = 7.5,
) -> UNetStep:  # fmt: skip
    """Predict the noise in `latents`: x_t as the UNet sees it, variance-preserving (through scale_model_input).

    guided = uncond + guidance_scale (text - uncond): Ho & Salimans, 2022, equation 6, with w + 1 written as one number.
    """
    return predict(model, latents, timestep, condition(model, text, negative, guidance_scale))


@torch.no_grad()
def predict(model: StableDiffusion, latents: Tensor, timestep: int | float | Tensor, conditioning: Conditioning) -> UNetStep:
    """`unet_step` for text that is prepared already, as the loop prepares it once for all steps."""
    batch = torch.cat([latents] * 2) if conditioning.guided else latents
    with reading(conditioning.keys_values, latents.shape[2:], len(latents)) as attention:
        output = model.unet(batch, timestep, encoder_hidden_states=conditioning.embeddings,
                            timestep_cond=conditioning.guidance_embedding, return_dict=False)[0]  # fmt: skip
    uncond, text = output.chunk(2) if conditioning.guided else (None, output)
    guided = uncond + conditioning.guidance_scale * (text - uncond) if conditioning.guided else text
    kept = alpha_cumprod_at(model.scheduler, timestep).to(latents)
    noises = [None if part is None else _noise(model, part, latents, kept) for part in (uncond, text, guided)]
    predicted_x0 = (latents - (1 - kept) ** 0.5 * noises[2]) / kept**0.5
    return UNetStep(*noises, predicted_x0, guided, attention)


def _noise(model, output, latents, kept):
    """The noise that an output stands for, whatever the checkpoint was trained to predict (v: Salimans & Ho, 2022)."""
    kind = model.scheduler.config.prediction_type
    if kind == "epsilon":
        return output
    if kind == "v_prediction":
        return kept**0.5 * output + (1 - kept) ** 0.5 * latents
    raise ValueError(f"expected a checkpoint that predicts epsilon or v_prediction, got {kind!r}")


def _guidance_embedding(model, guidance_scale):
    """Checkpoints distilled for few steps take the guidance scale as an input (Meng et al., 2023)."""
    size = model.unet.config.time_cond_proj_dim
    if size is None:
        return None
    from diffusers import StableDiffusionPipeline

    scale = torch.tensor([guidance_scale - 1])
    return StableDiffusionPipeline.get_guidance_scale_embedding(None, scale, embedding_dim=size).to(model.device, model.dtype)
