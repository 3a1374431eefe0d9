"""Stage 4: how much noise at which time (Ho et al., 2020; Nichol & Dhariwal, 2021)."""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .model import StableDiffusion
from .pictures import Pixels
from .records import Record
from .vae import image_to_latents, latents_to_image, to_pixels, to_signed


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
    alphas_cumprod = model.scheduler.alphas_cumprod
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return NoiseSchedule(model.scheduler.betas, alphas_cumprod, ((1 - alphas_cumprod) / alphas_cumprod).sqrt(), snr)


def add_noise(model: StableDiffusion, latents: Tensor, noise: Tensor, timestep: int | float) -> Tensor:
    """Jump from clean latents to x_t in one formula (Ho et al., 2020, equation 4); latents and noise of one shape.

    Raises ValueError for shapes that differ or a timestep outside 0 .. 999.
    """
    if latents.shape != noise.shape:
        raise ValueError(f"expected noise of the latents' shape {tuple(latents.shape)}, got {tuple(noise.shape)}")
    signal, spread = signal_and_spread(model, latents, timestep)
    return signal * latents + spread * noise.to(latents)


def signal_and_spread(
    model: StableDiffusion, latents: Tensor, timestep: int | float | Tensor
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What clean latents and noise are multiplied by in x_t: sqrt(alphas_cumprod), sqrt(1 - alphas_cumprod), as the latents lie."""
    alpha_prod_t = alpha_cumprod_at(model.scheduler, timestep).to(latents)
    return alpha_prod_t**0.5, (1 - alpha_prod_t) ** 0.5


class Noised(Record):
    """A picture at one time of the forward process: with noise in its pixels, in its latents, and those latents decoded."""

    timestep: float
    alpha_cumprod: float
    pixels: Pixels
    latents: Float[Tensor, "1 channels _ _"]
    decoded: Pixels


def forward_process(model: StableDiffusion, picture: Image.Image, timestep: int | float, seed: int = 0) -> Noised:
    """Carry a picture to `timestep` by `add_noise`, once as pixels (-1..1) and once as latents, both with the noise of `seed`."""
    generator = torch.Generator().manual_seed(seed)
    latents = image_to_latents(model, picture).mean
    noisy = add_noise(model, latents, torch.randn(latents.shape, generator=generator), timestep)
    clean = to_signed(torch.from_numpy(np.array(picture.convert("RGB"))))
    pixels = to_pixels(add_noise(model, clean, torch.randn(clean.shape, generator=generator), timestep)).numpy()
    alpha_prod_t, decoded = float(alpha_cumprod_at(model.scheduler, timestep)), np.asarray(latents_to_image(model, noisy))
    return Noised(float(timestep), alpha_prod_t, pixels, noisy, decoded)


def alpha_cumprod_at(scheduler, timestep: int | float | Tensor) -> Float[Tensor, ""]:
    """The cumulative alpha at a timestep; between two, sigma is interpolated, as samplers with float timesteps do."""
    t, last = float(timestep), len(scheduler.alphas_cumprod) - 1
    if not 0 <= t <= last:
        raise ValueError(f"expected a timestep from 0 to {last}, got {t:g}")
    if t == int(t):
        return scheduler.alphas_cumprod[int(t)]
    alphas_cumprod = np.asarray(scheduler.alphas_cumprod.cpu(), np.float64)
    sigma = np.interp(t, np.arange(last + 1), np.sqrt((1 - alphas_cumprod) / alphas_cumprod))
    return torch.tensor(1 / (1 + sigma**2), dtype=scheduler.alphas_cumprod.dtype)
