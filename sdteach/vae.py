"""Stage 3: pictures to latents, which are a distribution, and back (Kingma & Welling, 2014; Rombach et al., 2022)."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from .memory import advised, in_float32, tiled_if_needed
from .model import StableDiffusion
from .records import Record


@dataclass(frozen=True, eq=False, repr=False)
class LatentDistribution(Record):
    """A picture's normal distribution over latents and one sample of it, all scaled for the UNet (variance near 1)."""

    mean: Float[Tensor, "1 channels height width"]
    std: Float[Tensor, "1 channels height width"]
    latents: Float[Tensor, "1 channels height width"]


@advised("the VAE's encoder")
@torch.no_grad()
def image_to_latents(model: StableDiffusion, picture: Image.Image, seed: int | torch.Generator = 0) -> LatentDistribution:
    """Encode `picture`; `seed` fixes the sample, or is what it is drawn with. Height and width must be multiples of 8, else ValueError."""
    factor = model.vae_scale_factor
    if picture.width % factor or picture.height % factor:
        nearest = tuple(max(1, round(edge / factor)) * factor for edge in picture.size)
        raise ValueError(f"expected a picture whose edges are multiples of {factor}, got {picture.width} x {picture.height}; "
                         f"the nearest is picture.resize({nearest})")  # fmt: skip
    pixels = VaeImageProcessor(vae_scale_factor=factor).preprocess(picture.convert("RGB")).to(model.device, model.vae.dtype)
    posterior = tiled_if_needed(model.vae, lambda: model.vae.encode(pixels)).latent_dist
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


@advised("the VAE's decoder")
@torch.no_grad()
def latents_to_images(model: StableDiffusion, latents: Float[Tensor | np.ndarray, "rows channels height width"]) -> list[Image.Image]:
    """Decode a batch of latents, all at once.

    A picture that is not finite in half precision is decoded once more in float32, which is said aloud. Raises ValueError for latents
    that are not finite, as a text tower or a UNet leaves them that half precision is too narrow for.
    """
    latents = torch.as_tensor(latents).to(model.device, model.vae.dtype)
    if not latents.isfinite().all():
        raise ValueError(f"expected finite latents, got NaN or infinity: the text tower or the UNet left the range of {model.dtype}; "
                         f"load the model with dtype={'torch.bfloat16 or ' * (model.dtype == torch.float16)}torch.float32")  # fmt: skip
    decoded = _decoded(model.vae, latents / model.vae.config.scaling_factor)
    if not decoded.isfinite().all():
        if model.vae.dtype == torch.float32:
            raise ValueError("expected a finite picture from the VAE, got NaN or infinity; the latents are far from any picture's")
        warnings.warn(f"the VAE left the range of {model.vae.dtype}: the picture would be black, decoded again in float32", stacklevel=3)
        with in_float32(model.vae, model.device):
            decoded = _decoded(model.vae, latents.float() / model.vae.config.scaling_factor)
    return VaeImageProcessor(vae_scale_factor=model.vae_scale_factor).postprocess(decoded)


def _decoded(vae, latents):
    """Of several pictures there may be fewer at once, so only one alone is worth tiles."""
    return (tiled_if_needed(vae, lambda: vae.decode(latents)) if len(latents) == 1 else vae.decode(latents)).sample
