"""The loop: noise becomes a picture, step by step (Rombach et al., 2022)."""

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from numbers import Integral, Real

import diffusers
import numpy as np
import torch
from diffusers.schedulers import KarrasDiffusionSchedulers
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm.auto import tqdm

from .attention import cross_attention_layers, layer_grids
from .loading.memory import advised
from .model import StableDiffusion
from .pictures import LARGEST, Box, back_projected, box_mask, checked_layout
from .records import StepRecord
from .text_encoder import TextFeatures, encode_texts
from .tokenizer import tokenize
from .trace import Trace
from .unet import UNetStep, condition, corrected, drawn_to, predict
from .vae import image_to_latents, latents_to_image, latents_to_images, preview

# What `collect` may name, and the fields of a step that it keeps.
PARTS = {
    "latents": ("latents",),
    "noise": ("noise", "noise_text", "noise_uncond"),
    "x0": ("predicted_x0",),
    "attention": (),
    "attention_heads": (),
    "preview": ("predicted_x0",),
}
PREVIEWS = 8
DECODED = 256  # pixels of the longest edge of pictures that are decoded at every step while a run unfolds
MOST_DISTILLED = 8  # steps that a distilled checkpoint is made for
MOST_ATTENTION = 4 * 2**30  # bytes of attention maps that a trace may hold
IMAGE_STRENGTH, SMALL_STRENGTH = 0.8, 0.3
LAYOUT_SHARE, LAYOUT_STRENGTH = 0.3, 0.05  # of the steps that are drawn to a layout, and how far


@dataclass(frozen=True, eq=False, repr=False)
class DenoisingStep(UNetStep):
    """One call of the UNet in the loop: what it saw, what it said, and where the sampler went from there.

    `latents` are x_t as the UNet saw them, variance-preserving; `next_latents` is the sampler's own state after the step.
    `index` counts the calls from 0, of `calls` in all; `text` is the first prompt's.
    """

    index: int
    calls: int
    timestep: float
    latents: Float[Tensor, "rows channels height width"]
    next_latents: Float[Tensor, "rows channels height width"]
    text: TextFeatures


def denoise(
    model: StableDiffusion, prompt: str | TextFeatures, negative_prompt: str = "", steps: int = 50, guidance_scale: float = 7.5,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None, *,
    noise: Tensor | None = None, image: Image.Image | None = None, strength: float | None = None, mask: np.ndarray | None = None,
    small: Image.Image | None = None, layout: Mapping[str, Box] | None = None,
) -> Iterator[DenoisingStep]:  # fmt: skip
    """Denoise step by step, equal to diffusers' StableDiffusionPipeline to the last bit in float32 on a CPU.

    `scheduler` names a diffusers class, made by `from_config(model.scheduler.config)`. Some samplers call the UNet more
    often than `steps` (PNDM, Heun); each call is one step here. `height` and `width` are in pixels, by default those of a picture
    that is given, else what the checkpoint was trained on. `prompt` may be text features, such as `text_encoder.interpolate` makes.

    Other tasks are the same loop with one thing changed:

    - `noise`: another start than the seed's `initial_noise`, of its shape; the seed is then only what the sampler draws with.
    - `image`: start from this picture, noised as far as `strength` says, 0..1, and run only that share of the steps; 0.8 by
      default, 1 with a mask (SDEdit: Meng et al., 2022; equal to StableDiffusionImg2ImgPipeline).
    - `mask` (height, width), booleans, with `image`: paint anew only where it is True; after every step the rest is put back,
      noised as far as the step (equal to StableDiffusionInpaintPipeline). See `pictures.pasted_back`.
    - `small`: the picture shrinks to this one: at every step the predicted x0 is decoded, corrected by
      `pictures.back_projected`, and encoded again. The start is `small` enlarged, `strength` 0.3 by default.
    - `layout`: words of the prompt and their boxes (`pictures.checked_layout`): in the first steps the latents are drawn to where
      those words are read inside of their boxes (`unet.drawn_to`).

    Raises ValueError, before any work, for a value that cannot be used, naming the nearest that can.
    """
    task = _Task(noise, image, strength, mask, small, layout)
    return _denoise(model, _prepared(model, [prompt], [seed], negative_prompt, steps, guidance_scale, height, width, scheduler, task))


@dataclass(frozen=True, eq=False)
class _Task:
    """What of the loop is changed, as `denoise` tells it."""

    noise: Tensor | None = None
    image: Image.Image | None = None
    strength: float | None = None
    mask: np.ndarray | None = None
    small: Image.Image | None = None
    layout: Mapping[str, Box] | None = None


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run starts from: a sampler with its timesteps set, a text, a negative one and a seed for each row, and what is changed."""

    sampler: object
    timesteps: Tensor
    texts: Sequence[TextFeatures]
    seeds: Sequence[int]
    negatives: Sequence[TextFeatures]
    guidance_scale: float
    height: int
    width: int
    task: _Task


def _prepared(model, prompts, seeds, negative_prompt, steps, guidance_scale, height, width, scheduler, task):
    sampler = _sampler(model, scheduler)
    steps, guidance_scale, seeds = _checked(steps, guidance_scale, seeds, sampler)
    _warn_if_distilled(model, steps, guidance_scale)
    task = _checked_task(task, steps)
    given = task.image
    height, width = picture_size(model, *(edge if edge is not None or given is None else own for edge, own in
                                          ((height, given and given.height), (width, given and given.width))))  # fmt: skip
    task = _fitted_task(model, task, height, width)
    texts = _texts(model, prompts)
    for word in task.layout or ():
        texts[0].tokens.places(word)
    sampler.set_timesteps(steps, device=model.device)
    begin = 0
    if task.image is not None:
        begin = (steps - int(steps * task.strength)) * sampler.order
        if hasattr(sampler, "set_begin_index"):
            sampler.set_begin_index(begin)
    # As many as there are rows, though all are the same: a batch is read with other last bits than one, and diffusers reads a batch.
    negatives = encode_texts(model, [tokenize(model, negative_prompt)] * len(texts))
    return _Run(sampler, sampler.timesteps[begin:], texts, seeds, negatives, guidance_scale, height, width, task)


def _texts(model, prompts):
    """What the prompts say, read all at once, as diffusers does; text features stay as they are."""
    tokens = [tokenize(model, prompt) for prompt in prompts if not isinstance(prompt, TextFeatures)]
    read = iter(encode_texts(model, tokens) if tokens else ())
    return [prompt if isinstance(prompt, TextFeatures) else next(read) for prompt in prompts]


@torch.no_grad()
def _denoise(model, run, watch=True):
    sampler, task, rows = run.sampler, run.task, len(run.texts)
    generators = [torch.Generator().manual_seed(seed) for seed in run.seeds]
    latents, put_back = _start(model, run, generators)
    conditioning = condition(model, run.texts, run.negatives, run.guidance_scale)
    draw = _drawing(model, run)
    understood = signature(sampler.step).parameters
    drawn_with = generators if rows > 1 else generators[0]
    extra = {name: value for name, value in {"eta": 0.0, "generator": drawn_with}.items() if name in understood}
    for index, timestep in enumerate(run.timesteps):
        with advised("the sampler"):
            latents = draw(latents, index, timestep)
            seen = sampler.scale_model_input(latents, timestep)
            said = predict(model, seen, timestep, conditioning, watch)
            if task.small is not None:
                said = corrected(model, said, seen, timestep, _agreeing(model, said.predicted_x0, task.small))
            latents = sampler.step(said.model_output, timestep, latents, **extra, return_dict=False)[0]
            latents = put_back(latents, index)
        yield DenoisingStep(**vars(said), index=index, calls=len(run.timesteps), timestep=float(timestep), latents=seen,
                            next_latents=latents, text=run.texts[0])  # fmt: skip


def _start(model, run, generators):
    """The latents to begin with, and what happens to them after each step. The order of the draws is diffusers'."""
    sampler, task, begin = run.sampler, run.task, run.timesteps[:1].repeat(len(generators))
    clean = None
    if task.image is not None:
        clean = torch.cat([image_to_latents(model, task.image, generator).latents for generator in generators])
        if task.mask is not None:  # as diffusers lays them out in memory then: convolutions of another layout round differently
            clean = clean.contiguous()
    drawn = [task.noise] if task.noise is not None else [_noise(model, run.height, run.width, generator) for generator in generators]
    noise = torch.cat(drawn).to(model.device, model.dtype)
    if clean is None or (task.mask is not None and task.strength == 1):
        latents = noise * sampler.init_noise_sigma
    else:
        latents = sampler.add_noise(clean, noise, begin)
    if task.mask is None:
        return latents, lambda latents, _: latents
    for generator in generators:  # diffusers draws latents of the hidden picture too, though only nine-channel UNets read them
        torch.randn(clean.shape[1:], generator=generator)
    painted = torch.from_numpy(_latent_mask(task.mask, clean.shape[2:]))[None, None].to(clean)

    def put_back(latents, index):
        last = index + 1 == len(run.timesteps)
        known = clean if last else sampler.add_noise(clean, noise, run.timesteps[index + 1 : index + 2])
        return (1 - painted) * known + painted * latents

    return latents, put_back


def _drawing(model, run):
    """What moves the latents before each step: for a layout, towards its boxes while the picture has not yet taken shape."""
    if not run.task.layout:
        return lambda latents, *_: latents
    factor, tokens, unguided = model.vae_scale_factor, run.texts[0].tokens, condition(model, run.texts, None, 1.0)
    layout = {tokens.places(word): torch.from_numpy(box_mask(box, run.height // factor, run.width // factor))
              for word, box in run.task.layout.items()}  # fmt: skip

    def draw(latents, index, timestep):
        if index >= LAYOUT_SHARE * len(run.timesteps):
            return latents
        seen = run.sampler.scale_model_input(latents, timestep)
        moved = drawn_to(model, seen, timestep, unguided, layout, LAYOUT_STRENGTH)
        # The sampler's own latents are as many times longer as it shortens them for the UNet.
        return latents + (moved - seen) / run.sampler.scale_model_input(torch.ones_like(latents), timestep)

    return draw


def _agreeing(model, x0, small):
    """Predicted latents changed so that their picture shrinks to `small`."""
    return torch.cat([image_to_latents(model, back_projected(image, small)).mean for image in latents_to_images(model, x0)])


def initial_noise(model: StableDiffusion, seed: int, height: int | None = None, width: int | None = None) -> Tensor:
    """The noise that a run of this seed starts from, (1, channels, height/8, width/8), drawn on the CPU; sizes in pixels."""
    return _noise(model, *picture_size(model, height, width), torch.Generator().manual_seed(seed))


def _noise(model, height, width, generator):
    factor = model.vae_scale_factor
    return torch.randn((1, model.unet.config.in_channels, height // factor, width // factor), generator=generator)


@advised("what is kept of the run")
def generate(
    model: StableDiffusion, prompt: str | TextFeatures, negative_prompt: str = "", steps: int = 50, guidance_scale: float = 7.5,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None,
    collect: Collection[str] = ("latents", "noise", "x0", "attention"), *,
    noise: Tensor | None = None, image: Image.Image | None = None, strength: float | None = None, mask: np.ndarray | None = None,
    small: Image.Image | None = None, layout: Mapping[str, Box] | None = None,
) -> Trace:  # fmt: skip
    """Make a picture of `prompt` and keep what `collect` names of every step; see `denoise` for the rest.

    "attention" keeps what each step read, the mean over the heads; "attention_heads" all of them (see `attention_bytes`).
    "preview" decodes the predicted x0 of eight steps. Interrupted (Ctrl-C, a stopped cell), it returns the steps so far as a Trace
    that is not `complete`. Raises ValueError for a value that cannot be used, or for more attention than fits.
    """
    unknown = set(collect) - set(PARTS) if not isinstance(collect, str) else {collect}
    if unknown:
        raise ValueError(f"expected collect to be a tuple of names out of {tuple(PARTS)}, got {collect!r}")
    task = _Task(noise, image, strength, mask, small, layout)
    run = _prepared(model, [prompt], [seed], negative_prompt, steps, guidance_scale, height, width, scheduler, task)
    _check_attention(model, run, collect)
    watch = any(part.startswith("attention") for part in collect)
    records, last, complete = [], None, True
    try:
        with tqdm(desc="denoising", total=len(run.timesteps), unit="step", leave=False) as bar:
            for step in _denoise(model, run, watch):
                records.append(_record(step, collect))
                last = step
                bar.update()
    except KeyboardInterrupt:
        if last is None:
            raise
        complete = False
    return _trace(model, run, negative_prompt, _previewed(model, records) if "preview" in collect else records, last, complete)


def _trace(model, run, negative_prompt, records, last, complete):
    """What the run leaves behind after its `last` step: the picture, or, if it is not complete, the last predicted one."""
    final, seen = last.next_latents if complete else last.predicted_x0, None if complete else records[-1].preview
    predicted = seen is not None and Image.fromarray(seen).resize((run.width, run.height))
    picture = withhold_unsafe(model, predicted or latents_to_image(model, final))
    return Trace(
        last.text.tokens.text, negative_prompt, model.name, type(run.sampler).__name__, run.guidance_scale, run.seeds[0],
        picture.height, picture.width, complete, last.text.tokens, _numpy(last.text.last_hidden_state), _numpy(final),
        np.asarray(picture), tuple(records), **_given(run.task),
    )  # fmt: skip


def unfold(
    model: StableDiffusion, prompt: str | TextFeatures, negative_prompt: str = "", steps: int = 50, guidance_scale: float = 7.5,
    seed: int = 0, height: int | None = None, width: int | None = None, scheduler: str | None = None,
) -> Iterator[Trace]:  # fmt: skip
    """The run as it grows: after each step a Trace of the steps so far, each with its preview. The last one is what `generate` makes.

    Previews are decoded, or, of pictures with an edge above 256 pixels, where that takes its time, fitted colours (`vae.preview`).
    Every trace is valid, so whoever stops taking them has a run that was stopped. Raises as `generate` does, before any work.
    """
    collect = ("latents", "noise", "x0", "attention")
    run = _prepared(model, [prompt], [seed], negative_prompt, steps, guidance_scale, height, width, scheduler, _Task())
    _check_attention(model, run, collect)
    seen = _decoded if max(run.height, run.width) <= DECODED else _sketched

    def grow():
        records = []
        for step in _denoise(model, run):
            records.append(seen(model, _record(step, collect)))
            yield _trace(model, run, negative_prompt, records, step, len(records) == step.calls)

    return grow()


def _given(task):
    """What a trace keeps of the task."""
    pictures = {name: given and np.asarray(given.convert("RGB")) for name, given in (("start", task.image), ("small", task.small))}
    return {**pictures, "mask": task.mask, "strength": task.strength, "layout": task.layout}


def generate_batch(
    model: StableDiffusion, prompts: Sequence[str | TextFeatures], seeds: Sequence[int], negative_prompt: str = "", steps: int = 50,
    guidance_scale: float = 7.5, height: int | None = None, width: int | None = None, scheduler: str | None = None, *,
    image: Image.Image | None = None, strength: float | None = None, mask: np.ndarray | None = None, small: Image.Image | None = None,
) -> list[Image.Image]:  # fmt: skip
    """Make a picture of each prompt with its seed, all in one batch through the same loop; see `denoise` for the rest.

    Equal to the pipelines of diffusers for as many prompts and generators. Raises ValueError unless there is one seed for each
    prompt, at least one.
    """
    if not len(prompts) == len(seeds) > 0 or isinstance(prompts, str):
        raise ValueError(f"expected as many prompts as seeds, at least one, got {prompts!r:.80} and {seeds!r:.80}")
    task = _Task(image=image, strength=strength, mask=mask, small=small)
    run = _prepared(model, prompts, seeds, negative_prompt, steps, guidance_scale, height, width, scheduler, task)
    for step in _denoise(model, run, watch=False):
        last = step.next_latents
    return [withhold_unsafe(model, image) for image in latents_to_images(model, last)]


def attention_bytes(model: StableDiffusion, places: int, calls: int, height: int, width: int) -> dict[str, int]:
    """How many bytes each way to collect attention keeps of a run with `calls` of the UNet: all steps, all heads.

    `places` are those of the prompt that are kept: the start token, the pieces, the end token, and one for all the padding.
    """
    factor = model.vae_scale_factor
    grids, layers = layer_grids(model.unet, height // factor, width // factor), cross_attention_layers(model.unet)
    once = sum(4 * places * math.prod(grid) for grid in grids.values())
    heads = sum(4 * places * math.prod(grid) * layers[name].heads for name, grid in grids.items())
    return {"attention": once * calls, "attention_heads": heads * calls}


def _check_attention(model, run, collect):
    needed = attention_bytes(model, run.texts[0].tokens.end + 2, len(run.timesteps), run.height, run.width)
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


def _previewed(model, records):
    shown = set(np.linspace(0, len(records) - 1, PREVIEWS).round().astype(int).tolist())
    return [_decoded(model, record) if record.index in shown else record for record in records]


def _decoded(model, record):
    return replace(record, preview=np.asarray(latents_to_image(model, record.predicted_x0)))


def _sketched(model, record):
    return replace(record, preview=preview(model, record.predicted_x0))


def with_previews(model: StableDiffusion, trace: Trace) -> Trace:
    """The run with a preview of every step that holds its predicted x0, decoded by the model that made the run.

    Raises ValueError for a model whose latents have other channels.
    """
    steps = (step if step.preview is not None or step.predicted_x0 is None else _decoded(model, step) for step in trace.steps)
    return replace(trace, steps=tuple(steps))


@advised("the safety checker")
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
    sizes = []
    for name, wanted, usual in (("height", height, default[0]), ("width", width, default[1])):
        edge = usual * factor if wanted is None else wanted
        if not _whole(edge) or edge % factor or not factor <= edge <= LARGEST:
            finite = isinstance(edge, Real) and math.isfinite(edge)
            nearest = min(max(factor, round(edge / factor) * factor), LARGEST) if finite else usual * factor
            raise ValueError(
                f"expected {name} to be a multiple of {factor} from {factor} to {LARGEST}, got {edge!r}; the nearest is {nearest}"
            )
        sizes.append(int(edge))
    return tuple(sizes)


def _checked(steps, guidance_scale, seeds, sampler):
    most = sampler.config.num_train_timesteps
    if not _whole(steps) or not 1 <= steps <= most:
        raise ValueError(f"expected steps to be a whole number from 1 to {most}, got {steps!r}")
    if isinstance(guidance_scale, bool) or not isinstance(guidance_scale, Real) or not 0 <= guidance_scale <= 100:
        raise ValueError(f"expected guidance_scale to be a number from 0 to 100 (1 is off, 7.5 usual), got {guidance_scale!r}")
    for seed in seeds:
        if not _whole(seed) or not 0 <= seed < 2**63:
            raise ValueError(f"expected seed to be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return int(steps), float(guidance_scale), [int(seed) for seed in seeds]


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


def _checked_task(task, steps):
    """The task with its default strength. Raises ValueError for a strength that makes no step, or what lacks its picture."""
    if task.small is not None and (task.image is not None or task.mask is not None):
        raise ValueError("expected small, or image and mask, got both; a small picture is enlarged and then the image itself")
    if task.image is None and task.small is None:
        if task.mask is not None or task.strength is not None:
            missing = "mask" if task.mask is not None else "strength"
            raise ValueError(f"expected an image with {missing}, got none; without one, all is painted from noise")
        return task
    usual = SMALL_STRENGTH if task.small is not None else IMAGE_STRENGTH if task.mask is None else 1.0
    strength = usual if task.strength is None else task.strength
    if isinstance(strength, bool) or not isinstance(strength, Real) or not 0 < strength <= 1:
        raise ValueError(f"expected strength to be a number above 0 and up to 1 (1 keeps next to nothing of the image), got {strength!r}")
    if int(steps * strength) < 1:
        raise ValueError(f"expected strength x steps to make at least one step, got {strength:g} x {steps}; "
                         f"use at least {math.ceil(1 / strength)} steps")  # fmt: skip
    if task.image is not None and not isinstance(task.image, Image.Image):
        raise ValueError(f"expected image to be a PIL image, got {type(task.image).__name__}; Image.fromarray makes one of an array")
    return replace(task, strength=float(strength))


def _fitted_task(model, task, height, width):
    """The task with its small picture enlarged to be the image. Raises ValueError for what is not of the run's size."""
    if task.layout is not None:
        task = replace(task, layout=checked_layout(task.layout))
    channels, factor = model.unet.config.in_channels, model.vae_scale_factor
    if task.noise is not None and tuple(task.noise.shape) != (1, channels, height // factor, width // factor):
        raise ValueError(f"expected noise of {(1, channels, height // factor, width // factor)}, as initial_noise makes it, "
                         f"got {tuple(task.noise.shape)}")  # fmt: skip
    if task.small is not None:
        if width % task.small.width or width * task.small.height != height * task.small.width:
            raise ValueError(f"expected a small picture that goes a whole number of times into {width} x {height}, got "
                             f"{task.small.width} x {task.small.height}; give height and width")  # fmt: skip
        return replace(task, image=task.small.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    if task.image is None:
        return task
    if task.image.size != (width, height):
        raise ValueError(f"expected an image of {width} x {height}, got {task.image.width} x {task.image.height}; "
                         f"image.resize({(width, height)}) makes it fit")  # fmt: skip
    task = replace(task, image=task.image.convert("RGB"))
    if task.mask is not None:
        given = np.asarray(task.mask)
        if given.dtype != bool or given.shape != (height, width):
            raise ValueError(f"expected a mask of booleans ({height}, {width}), True where to paint anew, got {given.dtype} {given.shape}")
        if not _latent_mask(given, (height // factor, width // factor)).any():
            raise ValueError(f"expected a mask that is True somewhere, at least on {factor} x {factor} pixels, got one that covers nothing")
    return task


def _latent_mask(mask, shape):
    """A mask in latents: one pixel of each square speaks for it, as in diffusers."""
    rows, columns = (edge // count for edge, count in zip(mask.shape, shape, strict=True))
    return mask[::rows, ::columns].astype(np.float32)


def _whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


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
