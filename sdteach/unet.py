"""Stage 6: one guided noise prediction, taken apart (Ho et al., 2020; Ho & Salimans, 2022; Ronneberger et al., 2015)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .attention import KeysValues, attached, keys_values, reading
from .loading.memory import advised
from .model import StableDiffusion
from .records import Record
from .schedule import signal_and_spread
from .text_encoder import TextFeatures
from .vectors import main_directions

Latents = Float[Tensor, "rows channels height width"]
Timestep = int | float | Tensor


class UNetStep(Record):
    """What one look at x_t says. `noise` is the guided prediction; `noise_uncond` is None where guidance is off.

    `model_output` is the guided output as the sampler takes it: the noise itself, or for a v-prediction checkpoint the
    velocity. `predicted_x0` are the clean latents it implies. `attention_heads` maps each cross-attention layer to its
    probabilities for the prompt, (heads, places, h, w), summing to one over the places; `attention` is their mean over
    the heads, (places, h, w). There is one row, or of a batch one for each prompt; a batch is not watched and has no attention.
    """

    noise_uncond: Latents | None
    noise_text: Latents
    noise: Latents
    predicted_x0: Latents
    model_output: Latents
    attention_heads: dict[str, Float[Tensor, "_ places _ _"]]

    @property
    def attention(self) -> dict[str, Float[Tensor, "places _ _"]]:
        # The places lie side by side in memory: the mean is taken with them last, which is several times as fast.
        return {name: heads.movedim(1, -1).mean(0).movedim(-1, 0) for name, heads in self.attention_heads.items()}


class Conditioning(Record):
    """The text as the UNet reads it: a row for each prompt, and before them, if guided, as many for the negative prompt.

    `prompts` counts the rows with a prompt. `projected` are the texts' vectors that an XL checkpoint's UNet takes besides;
    `guidance_embedding` is for checkpoints distilled for few steps, which take the scale as an input; else None.
    """

    embeddings: Float[Tensor, "rows places features"]
    projected: Float[Tensor, "rows shared"] | None
    keys_values: dict[str, KeysValues]
    prompts: int
    guidance_scale: float
    guidance_embedding: Float[Tensor, "rows size"] | None

    @property
    def guided(self) -> bool:
        return len(self.embeddings) > self.prompts


@advised("the text's keys and values")
def condition(
    model: StableDiffusion, texts: Sequence[TextFeatures], negatives: Sequence[TextFeatures] | None, guidance_scale: float
) -> Conditioning:
    """Prepare texts for the UNet, and as many negative ones. Guidance is on if the scale is above 1, unless the UNet takes the scale
    as input.

    Raises ValueError if guidance is on and there is no negative text; that of the empty prompt is the usual one.
    """
    guided = guidance_scale > 1 and model.unet.config.time_cond_proj_dim is None
    if guided and negatives is None:
        raise ValueError("expected text features of a negative prompt for guidance above 1, got None; use encode_text(model, '')")
    rows = [*(_unsaid(model, negative) for negative in negatives), *texts] if guided else texts
    embeddings = torch.stack([text.last_hidden_state for text in rows])
    projected = torch.stack([text.projected for text in rows]) if model.unet.config.addition_embed_type == "text_time" else None
    return Conditioning(embeddings, projected, keys_values(model.unet, embeddings), len(texts), float(guidance_scale),
                        _guidance_embedding(model, guidance_scale, len(rows)))  # fmt: skip


def _unsaid(model, negative):
    """The negative text as the checkpoint was trained to have it: of nothing, an XL checkpoint reads zeros."""
    if negative.tokens.text or not model.zeros_for_empty:
        return negative
    return replace(negative, last_hidden_state=torch.zeros_like(negative.last_hidden_state), projected=torch.zeros_like(negative.projected))


def unet_step(
    model: StableDiffusion, latents: Float[Tensor, "1 channels height width"], timestep: Timestep,
    text: TextFeatures, negative: TextFeatures | None = None, guidance_scale: float | None = None,
) -> UNetStep:  # fmt: skip
    """Predict the noise in `latents`: x_t as the UNet sees it, variance-preserving (through scale_model_input).

    guided = uncond + guidance_scale (text - uncond): Ho & Salimans, 2022, equation 6, with w + 1 written as one number.
    """
    scale = model.guidance_scale if guidance_scale is None else guidance_scale
    return predict(model, latents, timestep, condition(model, [text], negative and [negative], scale))


@advised("the UNet")
def predict(model: StableDiffusion, latents: Latents, timestep: Timestep, conditioning: Conditioning, watch: bool = True) -> UNetStep:
    """`unet_step` for texts that are prepared already, as the loop prepares them once for all steps.

    Without `watch` the step has no attention, and none is computed. Of a batch it must not be watched.
    """
    rows = torch.cat([latents] * 2) if conditioning.guided else latents
    output, attention = output_and_attention(model, rows, timestep, conditioning, watch)
    uncond, text = output.chunk(2) if conditioning.guided else (None, output)
    guided = uncond + conditioning.guidance_scale * (text - uncond) if conditioning.guided else text
    signal, spread = signal_and_spread(model, latents, timestep)
    if _velocity(model):  # which tells the clean latents even where there is nothing but noise, and no signal to divide by
        predicted_x0 = signal * latents - spread * guided
        noises = (None if output is None else signal * output + spread * latents for output in (uncond, text, guided))
    else:
        predicted_x0, noises = (latents - spread * guided) / signal, (uncond, text, guided)
    return UNetStep(*noises, predicted_x0, guided, {name: maps[0] for name, maps in attention.items()})


def output_and_attention(
    model: StableDiffusion, latents: Latents, timestep: Timestep, conditioning: Conditioning, watch: bool = True
) -> tuple[Latents, dict[str, Tensor]]:
    """The UNet's own answer for a row of latents for each text, and what it read (see `attention.reading`).

    An XL checkpoint is also told the text in one vector, and the sizes of the picture: as if it had been this large before it was
    cropped (at 0, 0) and is to be this large (Podell et al., 2023, section 2.2).
    """
    added = None
    if conditioning.projected is not None:
        height, width = (edge * model.vae_scale_factor for edge in latents.shape[2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(latents)).to(latents)
        added = {"text_embeds": conditioning.projected, "time_ids": sizes}
    with reading(model.unet, conditioning.keys_values, tuple(latents.shape[2:]), conditioning.prompts, watch) as attention:
        output = model.unet(latents, timestep, encoder_hidden_states=conditioning.embeddings, added_cond_kwargs=added,
                            timestep_cond=conditioning.guidance_embedding, return_dict=False)[0]  # fmt: skip
    return output, attention


def with_predicted_x0(model: StableDiffusion, step: UNetStep, latents: Latents, timestep: Timestep, x0: Latents) -> UNetStep:
    """The step as if it had predicted `x0`: its noise, and its output in the checkpoint's own terms, follow from that."""
    signal, spread = signal_and_spread(model, latents, timestep)
    noise = (latents - signal * x0) / spread
    output = signal * noise - spread * x0 if _velocity(model) else noise
    return replace(step, noise=noise, predicted_x0=x0, model_output=output)


def _velocity(model):
    """Whether the checkpoint predicts v = sqrt(alphas_cumprod) noise - sqrt(1 - alphas_cumprod) x_0 (Salimans & Ho, 2022)."""
    kind = model.scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):  # a scheduler that was put in after loading
        raise ValueError(f"expected a checkpoint that predicts epsilon or v_prediction, got {kind!r}; load it again")
    return kind == "v_prediction"


def _guidance_embedding(model, guidance_scale, rows):
    """Checkpoints distilled for few steps take the guidance scale as an input (Meng et al., 2023)."""
    size = model.unet.config.time_cond_proj_dim
    if size is None:
        return None
    from diffusers import StableDiffusionPipeline

    scale = torch.tensor([guidance_scale - 1] * rows)
    return StableDiffusionPipeline.get_guidance_scale_embedding(None, scale, embedding_dim=size).to(model.device, model.dtype)


class GuidancePlane(Record):
    """The plane through three predictions of the noise: without the text (the origin), with it, and the noise that is true.

    Numbers are distances between noises, divided by the length of the true one. The text pushes by `push` along the first axis;
    guidance goes on in that direction, to `guidance_scale` * `push`. `truth` is where the true noise lies, `best_scale` the
    guidance that comes nearest to it.
    """

    push: float
    guidance_scale: float
    truth: tuple[float, float]
    best_scale: float


def guidance_plane(step: UNetStep, noise: Float[Tensor, "1 channels height width"], guidance_scale: float) -> GuidancePlane:
    """See one guided step beside the `noise` that was really added. Raises ValueError for a step without
    guidance or whose two texts are the same, or for no noise of its shape."""
    if step.noise_uncond is None:
        raise ValueError("expected a guided step, got one without guidance; use guidance_scale above 1")
    if noise.shape != step.noise.shape or not noise.any():
        raise ValueError(f"expected the noise that was added, {tuple(step.noise.shape)} and not all 0, got {tuple(noise.shape)}")
    hint, missing = ((other - step.noise_uncond).flatten().double() for other in (step.noise_text, noise.to(step.noise)))
    if hint.norm() < 1e-5 * missing.norm():
        raise ValueError("expected a text that pushes the noise away from the negative one, got two that read the same")
    unit, push = hint / hint.norm(), hint.norm()
    along = missing @ unit
    size = noise.double().norm()
    across = (missing - along * unit).norm()
    return GuidancePlane(float(push / size), float(guidance_scale), (float(along / size), float(across / size)), float(along / push))


@contextmanager
def feature_maps(model: StableDiffusion) -> Iterator[dict[str, Tensor]]:
    """Watch the UNet's levels while it runs inside the `with`.

    Yields a dict that fills in the order of the work: "in", "down 0" (the finest) and on, "middle", and back to "up 0": what
    each level made before it changed the resolution, a copy (channels, height, width) for the prompt's row. What "down" made
    also crosses over to "up" of the same level. Raises ValueError for a compiled UNet, which runs past what watches it.
    """
    unet, levels, seen = model.unet, up_levels(model.unet), {}

    def keep(name, _, __, out):
        rows = out if isinstance(out, Tensor) else out[0]
        seen[name] = rows[-1].detach().clone()

    parts = {"in": unet.conv_in, "middle": unet.mid_block}
    for side, blocks in {"down": dict(enumerate(unet.down_blocks)), "up": levels}.items():
        parts |= {f"{side} {level}": (getattr(block, "attentions", None) or block.resnets)[-1] for level, block in blocks.items()}
    with attached(unet, hooks=[partial(part.register_forward_hook, partial(keep, name)) for name, part in parts.items() if part]):
        yield seen


def up_levels(unet: nn.Module) -> dict[int, nn.Module]:
    """The blocks of the way up by their level, 0 the finest. Raises ValueError for a compiled UNet, which runs past what hangs on it."""
    if hasattr(unet, "_orig_mod") or unet._compiled_call_impl is not None:
        raise ValueError("expected a UNet that can be looked into, got a compiled one; load the model again, without torch.compile")
    return dict(zip(range(len(unet.up_blocks) - 1, -1, -1), unet.up_blocks, strict=True))


def feature_colours(features: Float[Tensor, "channels height width"]) -> Float[Tensor, "3 height width"]:
    """The three main directions of a feature map as red, green and blue, 0..1: places that look alike to the UNet get one colour."""
    channels, height, width = features.shape
    if channels < 3 or height * width < 3:
        raise ValueError(f"expected at least three channels and three positions, got {tuple(features.shape)}")
    values, _ = main_directions(features.flatten(1).T, 3)
    low, high = values.quantile(0.02, 0), values.quantile(0.98, 0)
    return ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).T.unflatten(1, (height, width))
