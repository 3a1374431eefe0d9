"""The loop: noise becomes a picture, step by step (Rombach et al., 2022)."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from inspect import signature
from numbers import Integral, Real

import diffusers
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm.auto import tqdm

from .model import StableDiffusion
from .records import StepRecord
from .text_encoder import TextFeatures, encode_text
from .tokenizer import tokenize
from .trace import Trace
from .unet import UNetStep, condition, predict
from .vae import latents_to_image

# What `collect` may name, and the fields of a step that it keeps.
PARTS = {
    "latents": ("latents",),
    "noise": ("noise", "noise_text", "noise_uncond"),
    "x0": ("predicted_x0",),
    "attention": (),
    "preview": ("predicted_x0",),
}
PREVIEWS = 8


@dataclass(frozen=True, eq=False, repr=False)
class DenoisingStep(UNetStep):
    """One call of the UNet in the loop: what it saw, what it said, and where the sampler went from there.

    `latents` are x_t as the UNet saw them, variance-preserving; `next_latents` is the sampler's own state after the step.
    `index` counts the calls from 0, of `calls` in all.
    """

    index: int
    calls: int
    timestep: float
    latents: Float[Tensor, "1 channels height width"]
    next_latents: Float[Tensor, "1 channels height width"]
    text: TextFeatures


def denoise(
    model: StableDiffusion, prompt: str, negative_prompt: str = "", steps: int = 50, guidance_scale: float = 7.5,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None,
) -> Iterator[DenoisingStep]:  # fmt: skip
    """Denoise step by step, equal to diffusers' StableDiffusionPipeline to the last bit in float32 on a CPU.

    `scheduler` names a diffusers class, made by `from_config(model.scheduler.config)`. Some samplers call the UNet more
    often than `steps` (PNDM, Heun); each call is one step here. `height` and `width` are in pixels, by default what the
    checkpoint was trained on. Raises ValueError, before any work, for a value that cannot be used, naming the nearest
    that can.
    """
    sampler = _sampler(model, scheduler)
    steps, guidance_scale, seed = _checked(steps, guidance_scale, seed, sampler)
    height, width = picture_size(model, height, width)
    text, negative = (encode_text(model, tokenize(model, words)) for words in (prompt, negative_prompt))
    return _denoise(model, sampler, text, negative, steps, guidance_scale, seed, height, width)


@torch.no_grad()
def _denoise(model, sampler, text, negative, steps, guidance_scale, seed, height, width):
    sampler.set_timesteps(steps, device=model.device)
    factor, generator = model.vae_scale_factor, torch.Generator().manual_seed(seed)
    shape = (1, model.unet.config.in_channels, height // factor, width // factor)
    latents = torch.randn(shape, generator=generator).to(model.device, model.dtype) * sampler.init_noise_sigma
    conditioning = condition(model, text, negative, guidance_scale)
    understood = signature(sampler.step).parameters
    extra = {name: value for name, value in {"eta": 0.0, "generator": generator}.items() if name in understood}
    for index, timestep in enumerate(sampler.timesteps):
        seen = sampler.scale_model_input(latents, timestep)
        said = predict(model, seen, timestep, conditioning)
        latents = sampler.step(said.model_output, timestep, latents, **extra, return_dict=False)[0]
        yield DenoisingStep(**vars(said), index=index, calls=len(sampler.timesteps), timestep=float(timestep), latents=seen,
                            next_latents=latents, text=text)  # fmt: skip


def generate(
    model: StableDiffusion, prompt: str, negative_prompt: str = "", steps: int = 50, guidance_scale: float = 7.5,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None,
    collect: Collection[str] = ("latents", "noise", "x0", "attention"),
) -> Trace:  # fmt: skip
    """Make a picture of `prompt` and keep what `collect` names of every step; see `denoise` for the rest.

    "preview" decodes the predicted x0 of eight steps. Interrupted (Ctrl-C, a stopped cell), it returns the steps so far
    as a Trace that is not `complete`. Raises ValueError for a value that cannot be used.
    """
    unknown = set(collect) - set(PARTS) if not isinstance(collect, str) else {collect}
    if unknown:
        raise ValueError(f"expected collect to be a tuple of names out of {tuple(PARTS)}, got {collect!r}")
    run = denoise(model, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler)
    records, last, complete = [], None, True
    try:
        with tqdm(desc="denoising", unit="step", leave=False) as bar:
            for step in run:
                records.append(_record(step, collect))
                last, bar.total = step, step.calls
                bar.update()
    except KeyboardInterrupt:
        if last is None:
            raise
        complete = False
    final = last.next_latents if complete else last.predicted_x0
    image = withhold_unsafe(model, latents_to_image(model, final))
    return Trace(
        prompt, negative_prompt, model.name, scheduler or type(model.scheduler).__name__, float(guidance_scale), int(seed),
        image.height, image.width, complete, last.text.tokens, _numpy(last.text.last_hidden_state), _numpy(final),
        np.asarray(image), tuple(_with_previews(model, records, collect)),
    )  # fmt: skip


def _record(step, collect):
    """Copy what is wanted of a step to the CPU, where it no longer changes."""
    wanted = {name for part in collect for name in PARTS[part]}
    kept = {name: _numpy(getattr(step, name)) for name in wanted if getattr(step, name) is not None}
    if "attention" in collect:
        kept["attention"] = _attention(step.attention, step.text.tokens.end)
    return StepRecord(step.index, step.timestep, **kept)


def _numpy(tensor):
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def _attention(maps, end):
    """All layers' maps, the padding's rows summed into one. They travel to the CPU together: one copy instead of one a layer."""
    together = torch.cat([layer.flatten(1).T for layer in maps.values()])
    summed = _numpy(torch.cat([together[:, : end + 1], together[:, end + 1 :].sum(1, keepdim=True)], 1))
    ends = np.cumsum([layer[0].numel() for layer in maps.values()])
    parts = np.split(summed, ends[:-1])
    return {name: part.T.reshape(-1, *layer.shape[1:]) for (name, layer), part in zip(maps.items(), parts, strict=True)}


def _with_previews(model, records, collect):
    if "preview" not in collect:
        return records
    shown = set(np.linspace(0, len(records) - 1, PREVIEWS).round().astype(int).tolist())
    return [
        replace(record, preview=np.asarray(latents_to_image(model, torch.from_numpy(record.predicted_x0))))
        if record.index in shown else record
        for record in records
    ]  # fmt: skip


@torch.no_grad()
def withhold_unsafe(model: StableDiffusion, image: Image.Image) -> Image.Image:
    """The picture, or a card in its place that says so if the checkpoint's own safety checker objects."""
    if model.safety_checker is None:
        return image
    pixels = model.feature_extractor(images=image, return_tensors="pt").pixel_values.to(model.device, model.dtype)
    _, flagged = model.safety_checker(images=np.asarray(image, np.float32)[None] / 255, clip_input=pixels)
    if not flagged[0]:
        return image
    card = Image.new("RGB", image.size, (90, 90, 96))
    message = "withheld by the\ncheckpoint's\nsafety checker"
    ImageDraw.Draw(card).multiline_text((image.width / 2, image.height / 2), message, "white", anchor="mm", align="center",
                                        font_size=max(8, image.width // 14))  # fmt: skip
    return card


def picture_size(model: StableDiffusion, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width in pixels, the checkpoint's own where None. Raises ValueError naming the nearest allowed size."""
    factor, own = model.vae_scale_factor, model.unet.config.sample_size
    default = (own, own) if isinstance(own, int) else tuple(own)
    largest = 4096
    sizes = []
    for name, wanted, usual in (("height", height, default[0]), ("width", width, default[1])):
        edge = usual * factor if wanted is None else wanted
        if not _whole(edge) or edge % factor or not factor <= edge <= largest:
            finite = isinstance(edge, Real) and math.isfinite(edge)
            nearest = min(max(factor, round(edge / factor) * factor), largest) if finite else usual * factor
            raise ValueError(
                f"expected {name} to be a multiple of {factor} from {factor} to {largest}, got {edge!r}; the nearest is {nearest}"
            )
        sizes.append(int(edge))
    return tuple(sizes)


def _checked(steps, guidance_scale, seed, sampler):
    most = sampler.config.num_train_timesteps
    if not _whole(steps) or not 1 <= steps <= most:
        raise ValueError(f"expected steps to be a whole number from 1 to {most}, got {steps!r}")
    if isinstance(guidance_scale, bool) or not isinstance(guidance_scale, Real) or not 0 <= guidance_scale <= 100:
        raise ValueError(f"expected guidance_scale to be a number from 0 to 100 (1 is off, 7.5 usual), got {guidance_scale!r}")
    if not _whole(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"expected seed to be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return int(steps), float(guidance_scale), int(seed)


def _whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _sampler(model, name):
    """A scheduler of its own for each run, since schedulers remember."""
    if name is None:
        return type(model.scheduler).from_config(model.scheduler.config)
    # Distilled checkpoints' samplers do not list themselves as compatible; EDM's timesteps are no times of this schedule.
    usable = {cls.__name__ for cls in model.scheduler.compatibles} | {type(model.scheduler).__name__, "LCMScheduler", "TCDScheduler"}
    usable = sorted(usable - {"EDMEulerScheduler"})
    if name not in usable:
        raise ValueError(f"expected scheduler to be one of {', '.join(usable)}, got {name!r}")
    try:
        return getattr(diffusers, name).from_config(model.scheduler.config)
    except ImportError as error:
        raise ValueError(f"{name} needs a library that is not installed: {str(error).strip()}") from error
