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

from .attention import cross_attention_layers, layer_grids
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
    "attention_heads": (),
    "attention_sum": (),
    "preview": ("predicted_x0",),
}
PREVIEWS = 8
MOST_ATTENTION = 4 * 2**30  # bytes of attention maps that a trace may hold


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
    return _denoise(model, _prepared(model, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler))


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run starts from: a sampler with its timesteps set, the texts, the noise's seed and the picture's size."""

    sampler: object
    text: TextFeatures
    negative: TextFeatures
    guidance_scale: float
    seed: int
    height: int
    width: int


def _prepared(model, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler):
    sampler = _sampler(model, scheduler)
    steps, guidance_scale, seed = _checked(steps, guidance_scale, seed, sampler)
    height, width = picture_size(model, height, width)
    text, negative = (encode_text(model, tokenize(model, words)) for words in (prompt, negative_prompt))
    sampler.set_timesteps(steps, device=model.device)
    return _Run(sampler, text, negative, guidance_scale, seed, height, width)


@torch.no_grad()
def _denoise(model, run):
    factor, generator, sampler = model.vae_scale_factor, torch.Generator().manual_seed(run.seed), run.sampler
    shape = (1, model.unet.config.in_channels, run.height // factor, run.width // factor)
    latents = torch.randn(shape, generator=generator).to(model.device, model.dtype) * sampler.init_noise_sigma
    conditioning = condition(model, run.text, run.negative, run.guidance_scale)
    understood = signature(sampler.step).parameters
    extra = {name: value for name, value in {"eta": 0.0, "generator": generator}.items() if name in understood}
    for index, timestep in enumerate(sampler.timesteps):
        seen = sampler.scale_model_input(latents, timestep)
        said = predict(model, seen, timestep, conditioning)
        latents = sampler.step(said.model_output, timestep, latents, **extra, return_dict=False)[0]
        yield DenoisingStep(**vars(said), index=index, calls=len(sampler.timesteps), timestep=float(timestep), latents=seen,
                            next_latents=latents, text=run.text)  # fmt: skip


def generate(
    model: StableDiffusion, prompt: str, negative_prompt: str = "", steps: int = 50, guidance_scale: float = 7.5,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None,
    collect: Collection[str] = ("latents", "noise", "x0", "attention"),
) -> Trace:  # fmt: skip
    """Make a picture of `prompt` and keep what `collect` names of every step; see `denoise` for the rest.

    "attention" keeps what each step read, the mean over the heads; "attention_heads" all of them; "attention_sum" only the sum
    over the steps (see `attention_bytes`). "preview" decodes the predicted x0 of eight steps. Interrupted (Ctrl-C, a stopped
    cell), it returns the steps so far as a Trace that is not `complete`. Raises ValueError for a value that cannot be used, or
    for more attention than fits.
    """
    unknown = set(collect) - set(PARTS) if not isinstance(collect, str) else {collect}
    if unknown:
        raise ValueError(f"expected collect to be a tuple of names out of {tuple(PARTS)}, got {collect!r}")
    run = _prepared(model, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler)
    _check_attention(model, run, collect)
    records, last, summed, complete = [], None, None, True
    try:
        with tqdm(desc="denoising", unit="step", leave=False) as bar:
            for step in _denoise(model, run):
                records.append(_record(step, collect))
                if "attention_sum" in collect:
                    maps = _together(step.attention, step.text.tokens.end)
                    summed = maps if summed is None else summed + maps
                last, bar.total = step, step.calls
                bar.update()
    except KeyboardInterrupt:
        if last is None:
            raise
        complete = False
    final = last.next_latents if complete else last.predicted_x0
    image = withhold_unsafe(model, latents_to_image(model, final))
    return Trace(
        prompt, negative_prompt, model.name, scheduler or type(model.scheduler).__name__, run.guidance_scale, run.seed,
        image.height, image.width, complete, last.text.tokens, _numpy(last.text.last_hidden_state), _numpy(final),
        np.asarray(image), tuple(_with_previews(model, records, collect)),
        None if summed is None else _by_layer(summed, last.attention),
    )  # fmt: skip


def attention_bytes(model: StableDiffusion, places: int, calls: int, height: int, width: int) -> dict[str, int]:
    """How many bytes each way to collect attention keeps of a run with `calls` of the UNet: all steps, their sum, all heads.

    `places` are those of the prompt that are kept: the start token, the pieces, the end token, and one for all the padding.
    """
    factor = model.vae_scale_factor
    grids, layers = layer_grids(model.unet, height // factor, width // factor), cross_attention_layers(model.unet)
    once = sum(4 * places * math.prod(grid) for grid in grids.values())
    heads = sum(4 * places * math.prod(grid) * layers[name].heads for name, grid in grids.items())
    return {"attention": once * calls, "attention_sum": once, "attention_heads": heads * calls}


def _check_attention(model, run, collect):
    needed = attention_bytes(model, run.text.tokens.end + 2, len(run.sampler.timesteps), run.height, run.width)
    if (total := sum(size for name, size in needed.items() if name in collect)) > MOST_ATTENTION:
        told = ", ".join(f"{name!r} {size / 2**20:,.0f} MiB" for name, size in needed.items())
        raise ValueError(f"expected to keep at most {MOST_ATTENTION / 2**20:,.0f} MiB of attention, got {total / 2**20:,.0f} MiB; "
                         f"this run needs for {told}: collect less of it, or make fewer steps or a smaller picture")  # fmt: skip


def _record(step, collect):
    """Copy what is wanted of a step to the CPU, where it no longer changes."""
    wanted = {name for part in collect for name in PARTS[part]}
    kept = {name: _numpy(getattr(step, name)) for name in wanted if getattr(step, name) is not None}
    for name in {"attention", "attention_heads"} & set(collect):
        maps = getattr(step, name)
        kept[name] = _by_layer(_together(maps, step.text.tokens.end), maps)
    return StepRecord(step.index, step.timestep, **kept)


def _numpy(tensor):
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def _together(maps, end):
    """All layers' maps one beneath the other, (places, height, width) or (heads, places, height, width), as (positions, places),
    the padding's places summed into one. So they travel to the CPU in one copy instead of one a layer."""
    rows = torch.cat([layer.movedim(-3, -1).flatten(0, -2) for layer in maps.values()])
    return torch.cat([rows[:, : end + 1], rows[:, end + 1 :].sum(1, keepdim=True)], 1)


def _by_layer(together, maps):
    """What `_together` joined, on the CPU and layer by layer again."""
    shapes = {name: layer.movedim(-3, -1).shape[:-1] for name, layer in maps.items()}
    parts = np.split(_numpy(together), np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    return {name: np.moveaxis(part.reshape(*shape, -1), -1, -3) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


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
