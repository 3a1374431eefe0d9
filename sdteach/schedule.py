"""Stage 4: how much noise at which time (Ho et al., 2020; Nichol & Dhariwal, 2021)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from .model import StableDiffusion
from .records import Record
from .vae import image_to_latents, latents_to_image


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule(Record):
    """The forward process by timestep: x_t = sqrt(alphas_cumprod) x_0 + sqrt(1 - alphas_cumprod) noise.

    `sigma` is the same noise level for a sample that is not scaled down, x_0 + sigma noise; `snr` is 1 / sigma^2.
    """

    betas: Float[Tensor, " timesteps"]
    alphas_cumprod: Float[Tensor, " timesteps"]
    sigma: Float[Tensor, " timesteps"]
    snr: Float[Tensor, " timesteps"]


def noise_schedule(model: StableDiffusion) -> NoiseSchedule:
    """The schedule that the model was trained on, one value for each of its (1000) timesteps."""
    kept = model.scheduler.alphas_cumprod
    return NoiseSchedule(model.scheduler.betas, kept, ((1 - kept) / kept).sqrt(), kept / (1 - kept))


def add_noise(model: StableDiffusion, latents: Tensor, noise: Tensor, timestep: int | float) -> Tensor:
    """Jump from clean latents to x_t in one formula (Ho et al., 2020, equation 4); latents and noise of one shape.

    Raises ValueError for shapes that differ or a timestep outside 0 .. 999.
    """
    if latents.shape != noise.shape:
        raise ValueError(f"expected noise of the latents' shape {tuple(latents.shape)}, got {tuple(noise.shape)}")
    kept = alpha_cumprod_at(model.scheduler, timestep).to(latents)
    return kept**0.5 * latents + (1 - kept) ** 0.5 * noise.to(latents)


@dataclass(frozen=True, eq=False, repr=False)
class Noised(Record):
    """A picture at one time of the forward process: with noise in its pixels, in its latents, and those latents decoded."""

    timestep: float
    alpha_cumprod: float
    pixels: UInt8[np.ndarray, "height width 3"]
    latents: Float[Tensor, "1 channels _ _"]
    decoded: UInt8[np.ndarray, "height width 3"]


def forward_process(model: StableDiffusion, picture: Image.Image, timestep: int | float, seed: int = 0) -> Noised:
    """Carry a picture to `timestep` by `add_noise`, once as pixels (-1..1) and once as latents, both with the noise of `seed`."""
    generator = torch.Generator().manual_seed(seed)
    latents = image_to_latents(model, picture).mean
    noisy = add_noise(model, latents, torch.randn(latents.shape, generator=generator), timestep)
    clean = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 127.5 - 1
    pixels = add_noise(model, clean, torch.randn(clean.shape, generator=generator), timestep)
    return Noised(float(timestep), float(alpha_cumprod_at(model.scheduler, timestep)), _bytes(pixels), noisy,
                  np.asarray(latents_to_image(model, noisy)))  # fmt: skip


def _bytes(pixels):
    """Pixels of -1..1 as 0..255; what lies outside is cut off, as on any screen."""
    return ((pixels.numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def alpha_cumprod_at(scheduler, timestep: int | float | Tensor) -> Float[Tensor, ""]:
    """The cumulative alpha at a timestep; between two, sigma is interpolated, as samplers with float timesteps do."""
    t, last = float(timestep), len(scheduler.alphas_cumprod) - 1
    if not 0 <= t <= last:
        raise ValueError(f"expected a timestep from 0 to {last}, got {t:g}")
    if t == int(t):
        return scheduler.alphas_cumprod[int(t)]
    kept = np.asarray(scheduler.alphas_cumprod.cpu(), np.float64)
    sigma = np.interp(t, np.arange(last + 1), np.sqrt((1 - kept) / kept))
    return torch.tensor(1 / (1 + sigma**2), dtype=scheduler.alphas_cumprod.dtype)
