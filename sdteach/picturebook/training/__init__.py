"""From nothing to `assets/picturebook`: draw, then train CLIP, the VAE and the UNet, then pack the folder."""

from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import CLIPTokenizer

from . import clip, unet, vae
from .data import HELD_OUT_SEED, draw_scenes, to_tensor
from .folder import new_scheduler, pack
from .loop import fit, load_averaged
from .recipe import Recipe

STAGES = ("scenes", "clip", "vae", "unet", "pack")


def train(work: Path, tokenizer: CLIPTokenizer, recipe: Recipe, stages=STAGES, mixed_precision: str = "no") -> None:
    """Run the named `stages` in order in the folder `work`; a stage that was cut off goes on where it was saved.

    The finished checkpoint lies in `work`/picturebook. Raises FileNotFoundError if an earlier stage is missing.
    """
    accelerator = Accelerator(mixed_precision=mixed_precision)
    large = draw_scenes(work / "large", recipe.large_scenes, 128)
    small = draw_scenes(work / "small", recipe.small_scenes, 64, first_seed=recipe.large_scenes)
    single = draw_scenes(work / "single", recipe.single_scenes, 64, first_seed=recipe.large_scenes + recipe.small_scenes, objects=1)
    held_out = draw_scenes(work / "held_out", recipe.held_out_scenes, 128, first_seed=HELD_OUT_SEED)
    unseen = to_tensor(held_out.pictures)
    if "clip" in stages:
        torch.manual_seed(recipe.seed)
        batches = partial(clip.pairs, large, tokenizer, recipe.clip.batch)
        towers = fit(clip.ContrastiveObjective(), batches, recipe.clip, work / "clip", recipe.seed, accelerator).cpu()
        ids = tokenizer(held_out.captions, padding="longest", return_tensors="pt").input_ids
        print(f"clip: top-1 of {len(unseen)} held-out scenes {clip.top1(towers, ids, unseen):.1%}")
    if "vae" in stages:
        torch.manual_seed(recipe.seed)
        batches = partial(vae.crops, large, recipe.vae.batch)
        autoencoder = fit(vae.AutoencodingObjective(), batches, recipe.vae, work / "vae", recipe.seed, accelerator).cpu()
        print(f"vae: {vae.psnr(autoencoder.vae, unseen):.2f} dB on {len(unseen)} held-out scenes")
    if "unet" in stages:
        torch.manual_seed(recipe.seed)
        towers, autoencoder, denoiser = _towers(work), _autoencoder(work, held_out), _denoiser()
        text_encoder, autoencoder = towers.text_encoder.to(accelerator.device), autoencoder.to(accelerator.device)
        lessons = {"unet_single": single, "unet_small": small, "unet_large": large[: recipe.layout_scenes]}
        for name, scenes in lessons.items():
            phase = getattr(recipe, name)
            batches = partial(unet.noisy_pairs, autoencoder, text_encoder, tokenizer, scenes, phase.batch)
            denoiser = fit(denoiser, batches, phase, work / name, recipe.seed, accelerator)
    if "pack" in stages:
        denoiser = load_averaged(_denoiser(), work / "unet_large")
        pack(work / "picturebook", tokenizer, _towers(work), _autoencoder(work, held_out), denoiser.unet)


def _towers(work):
    return load_averaged(clip.ContrastiveObjective(), work / "clip")


def _autoencoder(work, held_out):
    """The VAE, told by which factor its latents must be scaled to have variance one."""
    autoencoder = load_averaged(vae.AutoencodingObjective(), work / "vae").vae
    means, _ = unet.encode_pictures(autoencoder, held_out.pictures)
    autoencoder.register_to_config(scaling_factor=round(1 / means.float().std().item(), 5))
    return autoencoder


def _denoiser():
    return unet.DenoisingObjective(unet.new_unet(), new_scheduler())
