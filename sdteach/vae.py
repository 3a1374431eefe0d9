"""Stage 3: pictures to latents, which are a distribution, and back (Kingma & Welling, 2014; Rombach et al., 2022)."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .model import StableDiffusion
from .records import Record


@dataclass(frozen=True, eq=False, repr=False)
class LatentDistribution(Record):
    """A picture's normal distribution over latents and one sample of it, all scaled for the UNet (variance near 1)."""

    mean: Float[Tensor, "1 channels height width"]
    std: Float[Tensor, "1 channels height width"]
    latents: Float[Tensor, "1 channels height width"]


@torch.no_grad()
def image_to_latents(model: StableDiffusion, picture: Image.Image, seed: int | torch.Generator = 0) -> LatentDistribution:
    """Encode `picture`; `seed` fixes the sample, or is what it is drawn with. Height and width must be multiples of 8, else ValueError."""
    factor = model.vae_scale_factor
    if picture.width % factor or picture.height % factor:
        nearest = tuple(max(1, round(edge / factor)) * factor for edge in picture.size)
        raise ValueError(f"expected a picture whose edges are multiples of {factor}, got {picture.width} x {picture.height}; "
                         f"the nearest is picture.resize({nearest})")  # fmt: skip
    pixels = VaeImageProcessor(vae_scale_factor=factor).preprocess(picture.convert("RGB")).to(model.device, model.vae.dtype)
    posterior = model.vae.encode(pixels).latent_dist
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
    made = (posterior.mean, posterior.std, posterior.mean + posterior.std * noise)
    return LatentDistribution(*(part.to(model.dtype) * model.vae.config.scaling_factor for part in made))


def latents_to_image(model: StableDiffusion, latents: Float[Tensor | np.ndarray, "1 channels height width"]) -> Image.Image:
    """Decode latents that are scaled for the UNet. Raises ValueError for any other shape than (1, channels, h, w)."""
    channels = model.vae.config.latent_channels
    if latents.ndim != 4 or latents.shape[:2] != (1, channels):
        raise ValueError(f"expected latents of shape (1, {channels}, height/8, width/8), got {tuple(latents.shape)}")
    return latents_to_images(model, latents)[0]


@torch.no_grad()
def latents_to_images(model: StableDiffusion, latents: Float[Tensor | np.ndarray, "rows channels height width"]) -> list[Image.Image]:
    """Decode a batch of latents, all at once."""
    latents = torch.as_tensor(latents).to(model.device, model.vae.dtype)
    decoded = model.vae.decode(latents / model.vae.config.scaling_factor).sample
    return VaeImageProcessor(vae_scale_factor=model.vae_scale_factor).postprocess(decoded)
