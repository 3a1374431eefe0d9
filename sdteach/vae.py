"""Stage 3: pictures to latents, which are a distribution, and back (Kingma & Welling, 2014; Rombach et al., 2022)."""

import warnings
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor, nn

from .loading.memory import advised, in_float32, range_advice, tiled_if_needed
from .model import StableDiffusion
from .pictures import Pixels
from .records import Record

Latents = Float[Tensor, "1 channels height width"]
Given = Float[Tensor | np.ndarray, "1 channels height width"]


class LatentDistribution(Record):
    """A picture's normal distribution over latents and one sample of it, all scaled for the UNet (variance near 1)."""

    mean: Latents
    std: Latents
    latents: Latents


@advised("the VAE's encoder")
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
    values = (posterior.mean, posterior.std, posterior.mean + posterior.std * noise)
    return LatentDistribution(*(value.to(model.dtype) * model.vae.config.scaling_factor for value in values))


def latents_to_image(model: StableDiffusion, latents: Given) -> Image.Image:
    """Decode latents that are scaled for the UNet. Raises ValueError for any other shape than (1, channels, h, w)."""
    _check_one(model, latents)
    return latents_to_images(model, latents)[0]


@advised("the VAE's decoder")
def latents_to_images(model: StableDiffusion, latents: Float[Tensor | np.ndarray, "rows channels height width"]) -> list[Image.Image]:
    """Decode a batch of latents, all at once.

    A picture that is not finite in half precision is decoded once more in float32, which is said aloud. Raises ValueError for latents
    that are not finite, as a text tower or a UNet leaves them that half precision is too narrow for.
    """
    latents = torch.as_tensor(latents).to(model.device, model.vae.dtype)
    if not latents.isfinite().all():
        raise ValueError(f"expected finite latents, got NaN or infinity: the text tower or the UNet left the range of {model.dtype}; "
                         f"{range_advice(model)}")  # fmt: skip
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


@torch.no_grad()
def copies(vae: nn.Module, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures of one size as they come back from the means of their latents."""
    processor, scale = VaeImageProcessor(), vae.config.scaling_factor
    latents = vae.encode(processor.preprocess([*pictures]).to(vae.device, vae.dtype)).latent_dist.mean * scale
    return processor.postprocess(vae.decode(latents / scale).sample)


def to_signed(pixels: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Pixels of 0..255 as -1..1, as networks read them."""
    return pixels.float() / 127.5 - 1


def to_pixels(signed: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """What lies in -1..1 as pixels of 0..255; the rest is cut off, as on any screen."""
    return ((signed.float() + 1) * 127.5).round().clamp(0, 255).byte()


_COLOURS = WeakKeyDictionary()  # of each VAE what `preview` has fitted; a VAE that is let go of takes it along


def preview(model: StableDiffusion, latents: Given) -> Pixels:
    """About the picture that latents decode to, at an eighth of its size, in a thousandth of the time: for a live view of every step.

    Red, green and blue are each a weighted sum of the channels and a constant. The weights are least squares on one picture that the
    VAE decodes from smooth random latents when it is first asked: where it is trained on, its colours are still those it had then.
    Raises ValueError for any other shape than (1, channels, h, w).

    >>> widgets.live(plots.picture_grid([preview(model, step.predicted_x0)], [""]) for step in sdteach.denoise(model, "a red car"))
    """
    _check_one(model, latents)
    if model.vae not in _COLOURS:
        _COLOURS[model.vae] = fitted_colours(model)
    colours = _with_one(latents) @ _COLOURS[model.vae].to(getattr(latents, "device", "cpu"))
    return colours.nan_to_num().round().clamp(0, 255).byte().cpu().numpy()


def fitted_colours(model):
    """The weights of `preview`, (channels + 1, 3). On smooth random latents the colours are nearer to true runs' than on pictures of
    coloured squares, and vary less; one decoded picture is enough (tests/benchmarks/preview.py)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, model.vae.config.latent_channels, 16, 16, generator=generator)
    latents = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bicubic")
    decoded = latents_to_image(model, latents)
    seen = np.asarray(decoded.reduce(model.vae_scale_factor), np.float32)
    return torch.linalg.lstsq(_with_one(latents).flatten(0, 1), torch.from_numpy(seen).flatten(0, 1)).solution


def _with_one(latents):
    """(1, channels, height, width) -> (height, width, channels + 1), the last one 1, in float32."""
    places = torch.as_tensor(latents)[0].float().movedim(0, -1)
    return torch.cat([places, torch.ones_like(places[..., :1])], -1)


def _check_one(model, latents):
    channels = model.vae.config.latent_channels
    if latents.ndim != 4 or latents.shape[:2] != (1, channels):
        raise ValueError(f"expected latents of shape (1, {channels}, height/8, width/8), got {tuple(latents.shape)}")
