"""One loop, many tasks: what each of them changes of it. Text to image is the plain one.

`pipeline.Run` asks a task whether it can be done, where to `start`, what to do to the latents `before` and `after` every step, and
whether to `correct` what the UNet predicted in between. `run` is the Run, whose sampler, timesteps and generators the task works with.
"""

import math
from collections.abc import Mapping
from numbers import Real

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from .loading.memory import advised
from .model import StableDiffusion
from .pictures import back_projected, box_mask, check_shrinks, checked_layout
from .unet import Conditioning, Latents, Timestep, UNetStep, condition, output_and_attention, with_predicted_x0
from .vae import image_to_latents, latents_to_images

GUIDED_STEPS, GUIDANCE = 0.3, 0.05  # the fraction of the steps that a layout guides, and how far


def latent_shape(model: StableDiffusion, height: int, width: int) -> tuple[int, int, int, int]:
    """The shape of one picture's latents; height and width in pixels."""
    return 1, model.unet.config.in_channels, height // model.vae_scale_factor, width // model.vae_scale_factor


class TextToImage:
    """From noise to a picture: that of the seeds, or `noise` of that shape."""

    strength = own_size = None

    def __init__(self, noise=None):
        self.noise = noise

    def check(self, model, steps, height, width):
        """Raise ValueError if the task cannot be done in so many steps, at this size in pixels."""
        if self.noise is not None and tuple(self.noise.shape) != (shape := latent_shape(model, height, width)):
            raise ValueError(f"expected noise of {shape}, as initial_noise makes it, got {tuple(self.noise.shape)}")

    def start(self, run) -> Latents:
        """What to begin with."""
        return self.drawn(run) * run.sampler.init_noise_sigma

    def drawn(self, run):
        shape = latent_shape(run.model, run.height, run.width)
        noise = [torch.randn(shape, generator=generator) for generator in run.generators] if self.noise is None else [self.noise]
        return torch.cat(noise).to(run.model.device, run.model.dtype)

    def before(self, run, index, latents) -> Latents:
        """The sampler's latents before the step of this index."""
        return latents

    def correct(self, run, step, latents, timestep) -> UNetStep:
        """What the UNet said of the latents that it saw."""
        return step

    def after(self, run, index, latents) -> Latents:
        """The sampler's latents after the step of this index."""
        return latents

    def given(self):
        """What a trace keeps of the task."""
        return {}


class FromPicture(TextToImage):
    """Start from a picture, noised as far as `strength` says, and run only that fraction of the steps (SDEdit: Meng et al., 2022)."""

    usual_strength = 0.8

    def __init__(self, noise, image, strength):
        super().__init__(noise)
        if not isinstance(image, Image.Image):
            raise ValueError(f"expected a PIL image to start from, got {type(image).__name__}; Image.fromarray makes one of an array")
        self.image, self.strength = image.convert("RGB"), self.usual_strength if strength is None else strength
        if isinstance(strength, bool) or not isinstance(self.strength, Real) or not 0 < self.strength <= 1:
            raise ValueError("expected strength to be a number above 0 and up to 1 (1 keeps next to nothing of the image), "
                             f"got {strength!r}")  # fmt: skip
        self.own_size = image.height, image.width

    def check(self, model, steps, height, width):
        super().check(model, steps, height, width)
        if int(steps * self.strength) < 1:
            raise ValueError(f"expected strength x steps to make at least one step, got {self.strength:g} x {steps}; "
                             f"use at least {math.ceil(1 / self.strength)} steps")  # fmt: skip
        if self.image.size != (width, height):
            raise ValueError(f"expected an image of {width} x {height}, got {self.image.width} x {self.image.height}; "
                             f"image.resize({(width, height)}) makes it fit")  # fmt: skip

    def start(self, run):
        self.clean, self.noise = self.encoded(run), self.drawn(run)  # in the order of diffusers' draws
        return self.noised(run, 0)

    def encoded(self, run):
        return torch.cat([image_to_latents(run.model, self.image, generator).latents for generator in run.generators])

    def noised(self, run, index):
        """The picture's latents with the noise of the step of this index."""
        return run.sampler.add_noise(self.clean, self.noise, run.timesteps[index : index + 1])

    def given(self):
        return {"start": np.asarray(self.image), "strength": float(self.strength)}


class Inpaint(FromPicture):
    """Paint a picture anew only where `mask` (height, width) is True: after every step the rest is put back, noised as far as the step."""

    usual_strength = 1.0

    def __init__(self, noise, image, strength, mask):
        super().__init__(noise, image, strength)
        self.mask = np.asarray(mask)

    def check(self, model, steps, height, width):
        super().check(model, steps, height, width)
        if self.mask.dtype != bool or self.mask.shape != (height, width):
            raise ValueError(f"expected a mask of booleans ({height}, {width}), True where to paint anew, "
                             f"got {self.mask.dtype} {self.mask.shape}")  # fmt: skip
        factor = model.vae_scale_factor
        self.painted = torch.from_numpy(self.mask[::factor, ::factor])  # one pixel of each square speaks for it, as in diffusers
        if not self.painted.any():
            raise ValueError(f"expected a mask that is True somewhere, at least on {factor} x {factor} pixels, got one that covers nothing")

    def start(self, run):
        latents = super().start(run)
        for generator in run.generators:  # diffusers draws latents of the hidden picture too, though only nine-channel UNets read them
            torch.randn(self.clean.shape[1:], generator=generator)
        self.painted = self.painted.to(self.clean)
        return self.noise * run.sampler.init_noise_sigma if self.strength == 1 else latents

    def encoded(self, run):
        return super().encoded(run).contiguous()  # as diffusers lays them out here: convolutions of another layout round differently

    def after(self, run, index, latents):
        known = self.clean if index + 1 == len(run.timesteps) else self.noised(run, index + 1)
        return (1 - self.painted) * known + self.painted * latents

    def given(self):
        return super().given() | {"mask": self.mask}


class Enlarge(FromPicture):
    """Paint a picture that shrinks to the `small` one: start from it enlarged, and at every step decode the predicted x0, correct it
    by `pictures.back_projected`, and encode it again."""

    usual_strength = 0.3

    def __init__(self, noise, small, strength):
        super().__init__(noise, small, strength)
        self.small, self.own_size = self.image, None

    def check(self, model, steps, height, width):
        check_shrinks(width, height, self.small)
        self.image = self.small.resize((width, height), Image.Resampling.BICUBIC)
        super().check(model, steps, height, width)

    def correct(self, run, step, latents, timestep):
        agreeing = [back_projected(image, self.small) for image in latents_to_images(run.model, step.predicted_x0)]
        x0 = torch.cat([image_to_latents(run.model, image).mean for image in agreeing])
        return with_predicted_x0(run.model, step, latents, timestep, x0)

    def given(self):
        return super().given() | {"small": np.asarray(self.small)}


class Layout:
    """Any other task, in whose first steps the latents are moved to where some words are read inside of their boxes."""

    def __init__(self, task, layout):
        self.task, self.layout = task, checked_layout(layout)

    def __getattr__(self, name):
        return getattr(self.task, name)

    def start(self, run):
        places, edges = run.texts[0].tokens.places, latent_shape(run.model, run.height, run.width)[2:]
        self.regions = {places(word): torch.from_numpy(box_mask(box, *edges)) for word, box in self.layout.items()}
        self.unguided = condition(run.model, run.texts, None, 1.0)
        return self.task.start(run)

    def before(self, run, index, latents):
        if index >= GUIDED_STEPS * len(run.timesteps):
            return latents
        timestep = run.timesteps[index]
        seen, unit = (run.sampler.scale_model_input(given, timestep) for given in (latents, torch.ones_like(latents)))
        moved = layout_guidance(run.model, seen, timestep, self.unguided, self.regions, GUIDANCE)
        return latents + (moved - seen) / unit  # the sampler's own latents are as many times longer as it shortens them for the UNet

    def given(self):
        return self.task.given() | {"layout": self.layout}


@advised("the UNet, drawn to a layout")
def layout_guidance(
    model: StableDiffusion, latents: Latents, timestep: Timestep, conditioning: Conditioning,
    layout: Mapping[tuple[int, ...], Bool[Tensor, "_ _"]], strength: float,
) -> Latents:  # fmt: skip
    """Latents moved a little, so that what is read at some places of the prompt is read inside of a region.

    For each entry of `layout`, places and a mask, the fraction of the reading that happens outside is squared (Chen et al., 2024,
    "backward guidance"), averaged over layers and entries, and lessened along the gradient; of that the step is `strength`
    standard deviations. `conditioning` is that of one prompt without guidance. Layers that see fewer than 4 x 4 positions are
    left out; ValueError if that leaves none.
    """
    with torch.enable_grad():
        moving = latents.detach().float().requires_grad_()
        _, attention = output_and_attention(model, moving.to(latents.dtype), timestep, conditioning)
        outside = []
        for maps in attention.values():
            mean = maps[0].mean(0)
            if min(mean.shape[1:]) < 4:
                continue
            for places, mask in layout.items():
                region = adaptive_max_pool2d(mask.float()[None], mean.shape[1:])[0].to(mean)
                read = mean[list(places)].sum(0)
                outside.append((1 - (read * region).sum() / read.sum()) ** 2)
        if not outside:
            raise ValueError(f"expected latents of at least 4 x 4 for a layout, got {latents.shape[2]} x {latents.shape[3]}; "
                             "make a larger picture")  # fmt: skip
        gradient = torch.autograd.grad(torch.stack(outside).mean(), moving)[0]
    return (latents - strength * gradient / gradient.std().clamp(min=1e-12)).to(latents.dtype)


def task_for(noise, image, strength, mask, small, layout):
    """The task that `pipeline.denoise` is asked for. Raises ValueError for what does not go together or cannot be used."""
    if small is not None and (image is not None or mask is not None):
        raise ValueError("expected small, or image and mask, got both; a small picture is enlarged and then the image itself")
    if image is None and small is None and (mask is not None or strength is not None):
        missing = "mask" if mask is not None else "strength"
        raise ValueError(f"expected an image with {missing}, got none; without one, all is painted from noise")
    if small is not None:
        task = Enlarge(noise, small, strength)
    elif mask is not None:
        task = Inpaint(noise, image, strength, mask)
    else:
        task = TextToImage(noise) if image is None else FromPicture(noise, image, strength)
    return task if layout is None else Layout(task, layout)
