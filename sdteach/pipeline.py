"""The loop: noise becomes a picture, step by step (Rombach et al., 2022)."""

import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from numbers import Integral, Real

import diffusers
import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from diffusers.schedulers import KarrasDiffusionSchedulers
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm.auto import tqdm

from .collecting import USUAL, check_attention, check_parts, decoded, record, some_decoded, to_numpy
from .loading.memory import advised
from .model import StableDiffusion
from .pictures import LARGEST, Boxes
from .records import StepRecord
from .tasks import TextToImage, latent_shape, task_for
from .text_encoder import TextFeatures, encode_texts
from .tokenizer import tokenize
from .trace import Trace
from .unet import Latents, UNetStep, condition, predict
from .vae import latents_to_image, latents_to_images, preview

DECODED = 256  # pixels of the longest edge of pictures that are decoded at every step while a run unfolds
MOST_DISTILLED = 8  # steps that a distilled checkpoint is made for


class DenoisingStep(UNetStep):
    """One call of the UNet in the loop: what it saw, what it said, and where the sampler went from there.

    `latents` are x_t as the UNet saw them, variance-preserving; `next_latents` is the sampler's own state after the step.
    `index` counts the calls from 0, of `calls` in all; `text` is the first prompt's.
    """

    index: int
    calls: int
    timestep: float
    latents: Latents
    next_latents: Latents
    text: TextFeatures


class Run:
    """A run made ready: all that stays the same from step to step, with a row for each prompt and seed, and the `latents` to begin with.

    Its sampler remembers where it is, so a run is denoised once. Raises ValueError, before any work, for what cannot be used.
    """

    def __init__(
        self, model, prompts, seeds, task, negative_prompt="", steps=50, guidance_scale=None, height=None, width=None,
        scheduler=None,
    ):  # fmt: skip
        self.model, self.task, self.sampler = model, task, _sampler(model, scheduler)
        self.seeds, self.negative_prompt = seeds, negative_prompt
        guidance_scale = model.guidance_scale if guidance_scale is None else guidance_scale
        _check_number("steps", steps, 1, self.sampler.config.num_train_timesteps)
        _check_number("guidance_scale", guidance_scale, 0, 100, Real, " (1 is off, 7.5 usual)")
        self.generators = [_generator(seed) for seed in seeds]
        _warn_if_distilled(model, steps, guidance_scale)
        self.height, self.width = picture_size(model, height, width, task.own_size)
        task.check(model, steps, self.height, self.width)
        _set_timesteps(self.sampler, int(steps), model.device)
        # Text features that are given stay as they are; prompts are read all at once, as diffusers does.
        tokens = [tokenize(model, prompt) for prompt in prompts if not isinstance(prompt, TextFeatures)]
        read = iter(encode_texts(model, tokens) if tokens else ())
        self.texts = [prompt if isinstance(prompt, TextFeatures) else next(read) for prompt in prompts]
        # As many as there are rows, though all are the same: a batch is read with other last bits than one, and diffusers reads a batch.
        negatives = encode_texts(model, [tokenize(model, negative_prompt)] * len(prompts))
        self.conditioning = condition(model, self.texts, negatives, float(guidance_scale))
        if negative_prompt.strip() and not self.conditioning.guided:
            warnings.warn(f"the negative prompt {negative_prompt!r} is not read, since guidance is off: it takes a guidance_scale above 1 "
                          "and a checkpoint that was not distilled with guidance", stacklevel=3)  # fmt: skip
        begin = 0
        if task.strength is not None:
            begin = (steps - int(steps * task.strength)) * self.sampler.order
            if hasattr(self.sampler, "set_begin_index"):
                self.sampler.set_begin_index(begin)
        self.timesteps = self.sampler.timesteps[begin:]
        self.latents = task.start(self)

    @torch.no_grad()
    def denoise(self, watch: bool = True) -> Iterator[DenoisingStep]:
        """The loop. Without `watch` its steps have no attention, and none is computed."""
        sampler, task, latents = self.sampler, self.task, self.latents
        drawn_with = self.generators if len(self.texts) > 1 else self.generators[0]
        options = {"eta": 0.0, "generator": drawn_with}
        options = {name: options[name] for name in options.keys() & signature(sampler.step).parameters}
        for index, timestep in enumerate(self.timesteps):
            with advised("the sampler"):
                latents = task.before(self, index, latents)
                seen = sampler.scale_model_input(latents, timestep)
                step = task.correct(self, predict(self.model, seen, timestep, self.conditioning, watch), seen, timestep)
                with _sampling(sampler):
                    latents = sampler.step(step.model_output, timestep, latents, **options, return_dict=False)[0]
                latents = task.after(self, index, latents)
            yield DenoisingStep(**vars(step), index=index, calls=len(self.timesteps), timestep=float(timestep), latents=seen,
                                next_latents=latents, text=self.texts[0])  # fmt: skip

    def trace(self, records: Sequence[StepRecord], last: DenoisingStep, complete: bool) -> Trace:
        """What the run leaves behind after its `last` step: the picture, or, if it is not complete, the last predicted one."""
        final, seen = last.next_latents if complete else last.predicted_x0, None if complete else records[-1].preview
        predicted = seen is not None and Image.fromarray(seen).resize((self.width, self.height))
        picture, text = withhold_unsafe(self.model, predicted or latents_to_image(self.model, final)), self.texts[0]
        return Trace(
            text.tokens.text, self.negative_prompt, self.model.name, type(self.sampler).__name__, self.conditioning.guidance_scale,
            int(self.seeds[0]), picture.height, picture.width, complete, text.tokens, to_numpy(text.last_hidden_state),
            to_numpy(final), np.asarray(picture), tuple(records), **self.task.given(),
        )  # fmt: skip


def denoise(
    model: StableDiffusion, prompt: str | TextFeatures, negative_prompt: str = "", steps: int = 50, guidance_scale: float | None = None,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None, *,
    noise: Tensor | None = None, image: Image.Image | None = None, strength: float | None = None, mask: np.ndarray | None = None,
    small: Image.Image | None = None, layout: Boxes | None = None,
) -> Iterator[DenoisingStep]:  # fmt: skip
    """Denoise step by step, equal to diffusers' StableDiffusionPipeline to the last bit in float32 on a CPU.

    `scheduler` names a diffusers class, made by `from_config(model.scheduler.config)`. Some samplers call the UNet more
    often than `steps` (PNDM, Heun); each call is one step here. `guidance_scale` is by default the model's. `height` and `width` are
    in pixels, by default those of a picture that is given, else what the checkpoint was trained on. `prompt` may be text features,
    such as `text_encoder.interpolate` makes.

    Other tasks are the same loop with one thing changed:

    - `noise`: another start than the seed's `initial_noise`, of its shape; the seed is then only what the sampler draws with.
    - `image`: start from this picture, noised as far as `strength` says, 0..1, and run only that fraction of the steps; 0.8 by
      default, 1 with a mask (SDEdit: Meng et al., 2022; equal to StableDiffusionImg2ImgPipeline).
    - `mask` (height, width), booleans, with `image`: paint anew only where it is True; after every step the rest is put back,
      noised as far as the step (equal to StableDiffusionInpaintPipeline). See `pictures.pasted_back`.
    - `small`: the picture shrinks to this one: at every step the predicted x0 is decoded, corrected by
      `pictures.back_projected`, and encoded again. The start is `small` enlarged, `strength` 0.3 by default.
    - `layout`: words of the prompt and their boxes (`pictures.checked_layout`): in the first steps the latents are drawn to where
      those words are read inside of their boxes (`tasks.layout_guidance`).

    Raises ValueError, before any work, for a value that cannot be used, naming the nearest that can.
    """
    task = task_for(noise, image, strength, mask, small, layout)
    return Run(model, [prompt], [seed], task, negative_prompt, steps, guidance_scale, height, width, scheduler).denoise()


@advised("what is kept of the run")
def generate(
    model: StableDiffusion, prompt: str | TextFeatures, negative_prompt: str = "", steps: int = 50, guidance_scale: float | None = None,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None,
    collect: Collection[str] = USUAL, *,
    noise: Tensor | None = None, image: Image.Image | None = None, strength: float | None = None, mask: np.ndarray | None = None,
    small: Image.Image | None = None, layout: Boxes | None = None,
) -> Trace:  # fmt: skip
    """Make a picture of `prompt` and keep what `collect` names of every step; see `denoise` for the rest.

    "attention" keeps what each step read, the mean over the heads; "attention_heads" all of them (see `collecting.attention_bytes`).
    "preview" decodes the predicted x0 of eight steps. Interrupted (Ctrl-C, a stopped cell), it returns the steps so far as a Trace
    that is not `complete`. Raises ValueError for a value that cannot be used, or for more attention than fits.
    """
    check_parts(collect)
    task = task_for(noise, image, strength, mask, small, layout)
    run = Run(model, [prompt], [seed], task, negative_prompt, steps, guidance_scale, height, width, scheduler)
    check_attention(run, collect)
    records, last, complete = [], None, True
    try:
        steps = run.denoise(watch=any(part.startswith("attention") for part in collect))
        for step in tqdm(steps, "denoising", len(run.timesteps), leave=False, unit="step"):
            records.append(record(step, collect))
            last = step
    except KeyboardInterrupt:
        if last is None:
            raise
        complete = False
    return run.trace(some_decoded(model, records) if "preview" in collect else records, last, complete)


def unfold(model: StableDiffusion, prompt: str | TextFeatures, *, seed: int = 0, **settings) -> Iterator[Trace]:
    """The run as it grows: after each step a Trace of the steps so far, each with its preview. The last one is what `generate` makes.

    `settings` are `negative_prompt`, `steps`, `guidance_scale`, `height`, `width` and `scheduler`, as in `generate`. Previews are
    decoded, or, of pictures with an edge above 256 pixels, where that takes its time, fitted colours (`vae.preview`). Every trace is
    valid, so whoever stops taking them has a run that was stopped. Raises as `generate` does, before any work.
    """
    run = Run(model, [prompt], [seed], TextToImage(), **settings)
    check_attention(run, USUAL)

    def grow():
        records = []
        for step in run.denoise():
            kept = record(step, USUAL)
            small = max(run.height, run.width) <= DECODED
            records.append(decoded(model, kept) if small else replace(kept, preview=preview(model, step.predicted_x0)))
            yield run.trace(records, step, len(records) == step.calls)

    return grow()


def generate_batch(
    model: StableDiffusion, prompts: Sequence[str | TextFeatures], seeds: Sequence[int], negative_prompt: str = "", steps: int = 50,
    guidance_scale: float | None = None, height: int | None = None, width: int | None = None, scheduler: str | None = None, *,
    image: Image.Image | None = None, strength: float | None = None, mask: np.ndarray | None = None, small: Image.Image | None = None,
) -> list[Image.Image]:  # fmt: skip
    """Make a picture of each prompt with its seed, all in one batch through the same loop; see `denoise` for the rest.

    Equal to the pipelines of diffusers for as many prompts and generators. Raises ValueError unless there is one seed for each
    prompt, at least one.
    """
    if not len(prompts) == len(seeds) > 0 or isinstance(prompts, str):
        raise ValueError(f"expected as many prompts as seeds, at least one, got {prompts!r:.80} and {seeds!r:.80}")
    task = task_for(None, image, strength, mask, small, None)
    *_, last = Run(model, prompts, seeds, task, negative_prompt, steps, guidance_scale, height, width, scheduler).denoise(watch=False)
    return [withhold_unsafe(model, image) for image in latents_to_images(model, last.next_latents)]


def initial_noise(model: StableDiffusion, seed: int, height: int | None = None, width: int | None = None) -> Tensor:
    """The noise that a run of this seed starts from, (1, channels, height/8, width/8), drawn on the CPU; sizes in pixels."""
    return torch.randn(latent_shape(model, *picture_size(model, height, width)), generator=_generator(seed))


def _generator(seed):
    _check_number("seed", seed, 0, 2**32 - 1)  # torch's generator on the CPU tells no others apart
    return torch.Generator().manual_seed(int(seed))


@advised("the safety checker")
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


def picture_size(model: StableDiffusion, height: int | None, width: int | None, given: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width in pixels, where None those that are `given`, else the checkpoint's own. Raises ValueError naming the nearest
    allowed size."""
    factor = model.vae_scale_factor
    usual = given or [edge * factor for edge in np.broadcast_to(model.unet.config.sample_size, 2).tolist()]
    size = {"height": usual[0] if height is None else height, "width": usual[1] if width is None else width}
    for name, edge in size.items():
        if not _is_a(Integral, edge) or edge % factor or not factor <= edge <= LARGEST:
            nearest = isinstance(edge, Real) and math.isfinite(edge) and min(max(factor, round(edge / factor) * factor), LARGEST)
            raise ValueError(f"expected {name} to be an int, a multiple of {factor} from {factor} to {LARGEST}, got {edge!r}"
                             + f"; the nearest is {nearest}" * bool(nearest))  # fmt: skip
    return int(size["height"]), int(size["width"])


def _is_a(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_number(name, value, low, high, kind=Integral, usual=""):
    if not _is_a(kind, value) or not low <= value <= high:
        whole = "whole " * (kind is Integral)
        raise ValueError(f"expected {name} to be a {whole}number from {low} to {high}{usual}, got {value!r}")


def _warn_if_distilled(model, steps, guidance_scale):
    """Checkpoints distilled for few steps are told by what their folder says of the sampler (Turbo: Sauer et al., 2023) or by a UNet
    that takes the guidance scale as an input (consistency models: Luo et al., 2023)."""
    trained, embedded = model.scheduler.config, model.unet.config.time_cond_proj_dim is not None
    euler = type(model.scheduler).__name__ in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
    turbo = euler and trained.timestep_spacing == "trailing" and trained.prediction_type == "epsilon"
    guided = guidance_scale > 1 and not embedded
    if (turbo or embedded) and (steps > MOST_DISTILLED or guided):
        wanted, made_for = ("steps=4", "few steps") if embedded else ("steps=4, guidance_scale=1", "few steps without guidance")
        warnings.warn(f"expected {wanted} or near it, since {model.name} was distilled for {made_for}, got steps={steps}, "
                      f"guidance_scale={guidance_scale:g}; pictures may be harsh or blurred", stacklevel=4)  # fmt: skip


def _sampler(model, name):
    """A scheduler of its own for each run, since schedulers remember."""
    if name is None:
        return type(model.scheduler).from_config(model.scheduler.config)
    # Distilled checkpoints' samplers list no others as compatible, nor others them; EDM's timesteps are no times of this schedule.
    usable = {kind.name for kind in KarrasDiffusionSchedulers} | {type(model.scheduler).__name__, "LCMScheduler", "TCDScheduler"}
    usable = sorted(usable - {"EDMEulerScheduler"})
    if name not in usable:
        raise ValueError(f"expected scheduler to be one of {', '.join(usable)}, got {name!r}")
    try:
        return getattr(diffusers, name).from_config(model.scheduler.config)
    except ImportError as error:
        raise ValueError(f"{name} needs a library that is not installed: {str(error).strip()}") from error


@contextmanager
def _sampling(sampler):
    """Schedulers of diffusers fail in many ways on what they were not made for."""
    try:
        yield
    except Exception as error:
        if should_reduce_batch_size(error):
            raise
        raise ValueError(f"expected a scheduler that works on this checkpoint's schedule, in so many steps, got {type(sampler).__name__}, "
                         f"which fails: {str(error) or type(error).__name__}; choose another, or other steps") from error  # fmt: skip


def _set_timesteps(sampler, steps, device):
    """Raise ValueError for more steps than the sampler spreads over the times of the training, naming the most that it does."""

    def fits(count):
        try:
            sampler.set_timesteps(count, device=device)
        except Exception:
            return False
        return sampler.timesteps.min() >= 0 and sampler.timesteps.max() < sampler.config.num_train_timesteps

    if fits(steps):
        return
    most = next(filter(fits, range(steps - 1, 0, -1)), None)
    if most is None:
        with _sampling(sampler):
            sampler.set_timesteps(steps, device=device)
    raise ValueError(f"expected at most {most} steps, as many as {type(sampler).__name__} can spread over the times that this checkpoint "
                     f"was trained on, got {steps}; choose fewer, or another scheduler")  # fmt: skip
