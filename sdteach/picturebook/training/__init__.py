"""From nothing to `assets/picturebook`: draw, then train CLIP, the VAE and the UNet, then pack the folder."""

import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from safetensors.torch import save_model
from torch import nn
from transformers import CLIPTokenizer

from ...model import StableDiffusion
from ...pipeline import generate
from ..imagining import HELD_OUT_SEED
from . import autoencoding as vae
from . import contrast as clip
from . import seeing, unet
from .data import DrawnScenes, draw_scenes, to_tensor
from .folder import new_scheduler, pack
from .loop import fit, load_averaged
from .recipe import PRESETS, Recipe

__all__ = ["PRESETS", "STAGES", "USUAL_STAGES", "Recipe", "Watch", "train"]

SHEET_EVERY = 600.0  # seconds
SHEET = 12  # captions


@dataclass(frozen=True)
class Watch:
    """Whom the training shows what it does: the folder of a phase whose losses grew; a file, pictures and their captions."""

    losses: Callable[[Path], None] = lambda folder: None
    samples: Callable[[Path, list[np.ndarray], list[str]], None] = lambda file, pictures, captions: None


def train(work: Path, tokenizer: CLIPTokenizer, recipe: Recipe, stages=None, watch: Watch = Watch()) -> None:
    """Run the named `stages`, by default `USUAL_STAGES`, in the folder `work`; one that was cut off goes on where it was saved.

    The finished checkpoint lies in `work`/picturebook, a finished judge in `work`/judge. Where there is a GPU the
    arithmetic is bfloat16. Raises FileNotFoundError if an earlier stage is missing.

    Under `accelerate launch` the processes share every batch, on CPUs if there is no GPU; the main one alone draws, writes
    and packs, with the others waiting for as long as that takes.
    """
    gpu, several = torch.cuda.is_available(), int(os.environ.get("WORLD_SIZE", "1")) > 1
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(cpu=several and not gpu, mixed_precision="bf16" if gpu else "no", kwargs_handlers=[patience])
    workshop = Workshop(work, tokenizer, recipe, watch, accelerator)
    for name, stage in STAGES.items():
        if name in (stages or USUAL_STAGES):
            stage(workshop)


@dataclass(frozen=True, eq=False)
class Workshop:
    """Where one checkpoint is made: its folder, its recipe, and how a phase is run and its parts are found again."""

    work: Path
    tokenizer: CLIPTokenizer
    recipe: Recipe
    watch: Watch
    accelerator: Accelerator

    @property
    def device(self):
        return self.accelerator.device

    def scenes(self, name: str) -> DrawnScenes:
        recipe, grammar = self.recipe, self.recipe.grammar.taught()
        canvas, first_seed, objects = {
            "large": (128, 0, None),
            "small": (64, recipe.large_scenes, None),
            "single": (64, recipe.large_scenes + recipe.small_scenes, 1),
            "held_out": (128, HELD_OUT_SEED, None),
        }[name]
        with self.accelerator.main_process_first():
            return draw_scenes(self.work / name, getattr(recipe, f"{name}_scenes"), canvas, grammar, first_seed, objects)

    def run(self, name, objective, prepare, saved=lambda step, averaged: None):
        """Train the phase called `name` in the folder of that name; returns the averaged objective."""
        torch.manual_seed(self.recipe.seed)
        folder, phase = self.work / name, getattr(self.recipe, name)

        def shown(step, averaged):
            self.watch.losses(folder)
            saved(step, averaged)

        return fit(objective(), partial(prepare, batch=phase.batch), phase, folder, self.recipe.seed, self.accelerator, shown)

    def towers(self) -> nn.Module:
        return load_averaged(clip.ContrastiveObjective(), self.work / "clip").to(self.device)

    def autoencoder(self) -> nn.Module:
        """The VAE, told by which factor its latents must be scaled to have variance one; the decoder as far as it has come."""
        autoencoder = load_averaged(vae.AutoencodingObjective(self.recipe.vae_channels), self.work / "vae").vae
        if (self.work / "decoder" / "state.safetensors").exists():
            autoencoder = load_averaged(vae.DecodingObjective(autoencoder), self.work / "decoder").vae
        autoencoder = autoencoder.to(self.device)
        means, _ = unet.encode_pictures(autoencoder, self.scenes("held_out").pictures)
        autoencoder.register_to_config(scaling_factor=round(1 / means.float().std().item(), 5))
        return autoencoder

    def painting(self, name, size, guidance_scale, text_encoder, autoencoder):
        """For `run`: every ten minutes, and when a phase ends, a few held-out captions are painted by the UNet as it is."""
        captions, last = self.scenes("held_out").captions[:SHEET], time.monotonic()

        def saved(step, averaged):
            nonlocal last
            if step < getattr(self.recipe, name).steps and time.monotonic() - last < SHEET_EVERY:
                return
            model = StableDiffusion("picturebook in training", self.device, torch.float32, self.tokenizer, text_encoder, autoencoder,
                                    averaged.unet, new_scheduler())  # fmt: skip
            pictures = [generate(model, caption, "", 25, guidance_scale, 0, size, size, collect=()).pixels for caption in captions]
            self.watch.samples(self.work / name / f"samples_{step:06}.png", pictures, captions)
            last = time.monotonic()

        return saved


def _scenes(workshop):
    for name in ("large", "small", "single", "held_out"):
        workshop.scenes(name)


def _clip(workshop):
    scenes, held_out = workshop.scenes("large").to(workshop.device), workshop.scenes("held_out")
    towers = workshop.run("clip", clip.ContrastiveObjective, partial(clip.pairs, scenes, workshop.tokenizer)).cpu()
    ids = workshop.tokenizer(held_out.captions, padding="longest", return_tensors="pt").input_ids
    workshop.accelerator.print(f"clip: top-1 of {len(ids)} held-out scenes {clip.top1(towers, ids, to_tensor(held_out.pictures)):.1%}")


def _vae(workshop):
    scenes, held_out = workshop.scenes("large").to(workshop.device), workshop.scenes("held_out")
    objective = partial(vae.AutoencodingObjective, workshop.recipe.vae_channels)
    autoencoder = workshop.run("vae", objective, partial(vae.crops, scenes)).vae.cpu()
    psnr = vae.mean_psnr(autoencoder, held_out.pictures)
    workshop.accelerator.print(f"vae: {psnr:.2f} dB on {len(held_out.captions)} held-out scenes")


def _decoder(workshop):
    scenes, held_out = workshop.scenes("large").to(workshop.device), workshop.scenes("held_out")
    autoencoder = load_averaged(vae.AutoencodingObjective(workshop.recipe.vae_channels), workshop.work / "vae").vae
    autoencoder = workshop.run("decoder", partial(vae.DecodingObjective, autoencoder), partial(vae.crops_of_things, scenes)).vae.cpu()
    psnr = vae.mean_psnr(autoencoder, held_out.pictures)
    workshop.accelerator.print(f"decoder: {psnr:.2f} dB on {len(held_out.captions)} held-out scenes")


def _unet(workshop):
    text_encoder, autoencoder = workshop.towers().text_encoder, workshop.autoencoder()
    recipe, large = workshop.recipe, workshop.scenes("large")
    lessons = {
        "unet_single": workshop.scenes("single"),
        "unet_small": workshop.scenes("small"),
        "unet_large": large[: recipe.layout_scenes],
    }
    denoiser = unet.DenoisingObjective(unet.new_unet(recipe.unet_channels), new_scheduler())
    for name, scenes in lessons.items():
        prepare = partial(unet.noisy_pairs, autoencoder, text_encoder, workshop.tokenizer, scenes)
        painting = workshop.painting(name, scenes.pictures.shape[1], recipe.best_guidance, text_encoder, autoencoder)
        denoiser.load_state_dict(workshop.run(name, partial(deepcopy, denoiser), prepare, painting).state_dict())


def _guidance(workshop):
    text_encoder, autoencoder, recipe = workshop.towers().text_encoder, workshop.autoencoder(), workshop.recipe
    teacher = unet.DenoisingObjective(unet.new_unet(recipe.unet_channels), new_scheduler())
    teacher = load_averaged(teacher, workshop.work / "unet_large").unet.to(workshop.device)
    objective = partial(unet.GuidanceObjective, deepcopy(teacher), teacher, new_scheduler(), recipe.best_guidance)
    scenes = workshop.scenes("large")[: recipe.layout_scenes]
    prepare = partial(unet.latents_and_texts, autoencoder, text_encoder, workshop.tokenizer, scenes)
    workshop.run("unet_guidance", objective, prepare, workshop.painting("unet_guidance", 128, unet.USUAL, text_encoder, autoencoder))


def _pack(workshop):
    denoiser = unet.GuidanceObjective(unet.new_unet(workshop.recipe.unet_channels), nn.Identity(), new_scheduler(), 1.0)
    denoiser = load_averaged(denoiser, workshop.work / "unet_guidance").unet
    towers, autoencoder = workshop.towers().cpu(), workshop.autoencoder().cpu()
    if workshop.accelerator.is_main_process:
        pack(workshop.work / "picturebook", workshop.recipe.grammar, workshop.tokenizer, towers, autoencoder, denoiser)
    workshop.accelerator.wait_for_everyone()


def _judge(workshop):
    if (processes := workshop.accelerator.num_processes) > 1:  # its losses are means over things, of which rows have one or more
        raise ValueError(f"expected one process for the judge, got {processes}; train it without accelerate launch")
    judge = workshop.run("judge", seeing.SeeingObjective, partial(seeing.judge_batches, autoencoder=workshop.autoencoder())).cpu()
    save_model(judge.eyes.half(), workshop.work / "judge" / "judge.safetensors")


STAGES = {
    "scenes": _scenes, "clip": _clip, "vae": _vae, "decoder": _decoder, "unet": _unet, "guidance": _guidance, "pack": _pack,
    "judge": _judge,
}  # fmt: skip
USUAL_STAGES = tuple(STAGES)[:-1]  # the judge is trained apart from what it judges, and shipped once
