"""From nothing to `assets/picturebook`: draw, then train CLIP, its words, the VAE and the UNet, then pack the folder."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from shutil import disk_usage, rmtree

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from filelock import FileLock, Timeout
from safetensors.torch import save_model
from torch import nn
from transformers import CLIPTokenizer

from ...model import StableDiffusion
from ...pipeline import generate
from ..imagining import HELD_OUT_SEED
from . import autoencoding as vae
from . import binding, denoising, seeing
from . import contrast as clip
from .data import Drawing, DrawnScenes, all_painters, to_tensor
from .loop import fit, load_averaged
from .packing import new_scheduler, pack
from .recipe import PRESETS, Recipe

__all__ = ["PRESETS", "STAGES", "USUAL_STAGES", "Recipe", "Watch", "train"]

MEMORY = Path("/dev/shm")
SHEET_EVERY = 600.0  # seconds
SHEET = 12  # captions


@dataclass(frozen=True)
class Watch:
    """Whom the training shows what it does: the folder of a phase whose losses grew; a file, pictures and their captions."""

    losses: Callable[[Path], None] = lambda folder: None
    samples: Callable[[Path, list[np.ndarray], list[str]], None] = lambda file, pictures, captions: None


def train(work: Path, tokenizer: CLIPTokenizer, recipe: Recipe, stages=None, watch: Watch = Watch()) -> None:
    """Run the named `stages`, by default `USUAL_STAGES`, in the folder `work`; one that was cut off goes on where it was saved.

    The finished checkpoint lies in `work`/picturebook, a finished judge in `work`/judge. Raises FileNotFoundError if an earlier
    stage is missing, and ValueError if another training is at work in this folder, or if what lies there is another recipe's,
    another version's or damaged.

    Under `accelerate launch` the processes share every batch, on CPUs if there is no GPU; the main one alone draws, writes
    and packs, with the others waiting for as long as that takes.
    """
    on_cpus = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    accelerator = Accelerator(cpu=on_cpus, kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))])
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / ".lock", blocking=False) if accelerator.is_main_process else nullcontext(), all_painters() as painters:
            training = Training(work, tokenizer, recipe, watch, accelerator, painters)
            for name, stage in STAGES.items():
                if name in (stages or USUAL_STAGES):
                    stage(training)
    except Timeout:
        raise ValueError(
            f"expected a folder in which nothing else trains, got {work}; wait for the other training, or name a new one"
        ) from None


@dataclass(frozen=True, eq=False)
class Training:
    """Where one checkpoint is made: its folder, its recipe, and how a phase is run and its parts are found again."""

    work: Path
    tokenizer: CLIPTokenizer
    recipe: Recipe
    watch: Watch
    accelerator: Accelerator
    painters: ProcessPoolExecutor

    @cached_property
    def drawn(self) -> Path:
        """Where the scenes lie: in memory, if the recipe says so and there is room."""
        recipe, memory = self.recipe, MEMORY / f"sdteach-{sha256(str(self.work.resolve()).encode()).hexdigest()[:16]}"
        room = 4 * 128**2 * (recipe.large_scenes + recipe.small_scenes + recipe.single_scenes)
        fits = recipe.in_memory and MEMORY.is_dir() and (memory.exists() or disk_usage(MEMORY).free > room)
        return memory if fits else self.work

    @cached_property
    def scenes(self) -> dict[str, Drawing]:
        """All scenes, being drawn in the order in which they are needed."""
        recipe, grammar = self.recipe, self.recipe.grammar.taught()
        kinds = {
            "held_out": (128, HELD_OUT_SEED, None),
            "large": (128, 0, None),
            "single": (64, recipe.large_scenes + recipe.small_scenes, 1),
            "small": (64, recipe.large_scenes, None),
        }
        with self.accelerator.main_process_first():
            return {name: Drawing(self.drawn / name, getattr(recipe, f"{name}_scenes"), canvas, grammar, first_seed, objects,
                                  self.painters if self.accelerator.is_main_process else None)
                    for name, (canvas, first_seed, objects) in kinds.items()}  # fmt: skip

    @property
    def held_out(self) -> DrawnScenes:
        with self.accelerator.main_process_first():
            return self.scenes["held_out"].first(self.recipe.held_out_scenes)

    def of(self, name, prepare):
        """Prepare to learn from the scenes of this name: from those that are drawn, and anew whenever twice as many are."""
        drawing, known, draw = self.scenes[name], 0, None

        def grown(batch):
            nonlocal known, draw
            if known < drawing.count:
                (there,) = broadcast_object_list([drawing.drawn(min(self.recipe.first_scenes, drawing.count))])
                if there >= min(2 * known, drawing.count):
                    known, draw = there, prepare(drawing.first(there).to(self.accelerator.device), batch=batch)
            return draw()

        return lambda batch: partial(grown, batch)

    def run(self, name, objective, prepare, saved=lambda step, averaged, finished: None):
        """Train the phase called `name` in the folder of that name; returns the averaged objective.

        `objective` makes what is minimised, once the randomness of the phase has begun.
        """
        recipe, folder, phase = self.recipe, self.work / name, getattr(self.recipe, name)
        torch.manual_seed(recipe.seed)

        def shown(*state):
            self.watch.losses(folder)
            saved(*state)

        return fit(objective(), prepare(batch=phase.batch), phase, folder, recipe.seed, recipe.digest, self.accelerator, shown)

    def finished(self, name, objective):
        """`objective` as the phase called `name` left it."""
        return load_averaged(objective, self.work / name, self.recipe.digest)

    def towers(self) -> nn.Module:
        """CLIP, its text tower taught words."""
        towers = self.finished("clip", clip.ContrastiveObjective())
        towers.text_encoder = self.finished("words", binding.BindingObjective(towers.text_encoder)).text_encoder
        return towers.to(self.accelerator.device)

    def autoencoder(self) -> nn.Module:
        """The VAE, told by which factor its latents must be scaled to have variance one; the decoder as far as it has come."""
        autoencoder = self.finished("vae", vae.AutoencodingObjective(self.recipe.vae_channels)).vae
        if (self.work / "decoder" / "state.safetensors").exists():
            autoencoder = self.finished("decoder", vae.DecodingObjective(autoencoder)).vae
        autoencoder = autoencoder.to(self.accelerator.device)
        means, _ = denoising.encode_pictures(autoencoder, self.held_out.pictures)
        autoencoder.register_to_config(scaling_factor=round(1 / means.float().std().item(), 5))
        return autoencoder

    def painting(self, name, canvas, text_encoder, autoencoder):
        """For `run`: every ten minutes, and when a phase ends, a few held-out captions are painted by the UNet as it is."""
        captions, last = self.held_out.captions[:SHEET], time.monotonic()

        def saved(step, averaged, finished):
            nonlocal last
            if not finished and time.monotonic() - last < SHEET_EVERY:
                return
            model = StableDiffusion("picturebook in training", self.accelerator.device, torch.float32, self.tokenizer, text_encoder,
                                    autoencoder, averaged.unet, new_scheduler())  # fmt: skip
            pictures = [generate(model, caption, "", 25, self.recipe.guidance_scale, 0, canvas, canvas, collect=()).pixels
                        for caption in captions]  # fmt: skip
            self.watch.samples(self.work / name / f"samples_{step:06}.png", pictures, captions)
            last = time.monotonic()

        return saved


def _scenes(training):
    training.scenes  # noqa: B018 - being drawn from now on


def _clip(training):
    training.run("clip", clip.ContrastiveObjective, training.of("large", partial(clip.pairs, tokenizer=training.tokenizer)))
    _tell_top1(training, training.finished("clip", clip.ContrastiveObjective()))


def _words(training):
    text_encoder = training.finished("clip", clip.ContrastiveObjective()).text_encoder
    questions = partial(binding.questions, training.tokenizer, training.recipe.grammar.taught())
    training.run("words", partial(binding.BindingObjective, text_encoder), questions)
    _tell_top1(training, training.towers().cpu())


def _vae(training):
    objective = partial(vae.AutoencodingObjective, training.recipe.vae_channels)
    _tell_psnr(training, training.run("vae", objective, training.of("large", vae.crops)))


def _decoder(training):
    objective = partial(vae.DecodingObjective, training.finished("vae", vae.AutoencodingObjective(training.recipe.vae_channels)).vae)
    _tell_psnr(training, training.run("decoder", objective, training.of("large", vae.crops_of_things)))


def _tell_top1(training, towers):
    held_out = training.held_out
    ids = training.tokenizer(held_out.captions, padding="longest", return_tensors="pt").input_ids
    training.accelerator.print(f"clip: top-1 of {len(ids)} held-out scenes {clip.top1(towers, ids, to_tensor(held_out.pictures)):.1%}")


def _tell_psnr(training, objective):
    pictures = training.held_out.pictures
    training.accelerator.print(f"vae: {vae.mean_psnr(objective.vae.cpu(), pictures):.2f} dB on {len(pictures)} held-out scenes")


def _denoiser(training):
    return denoising.GroundedObjective(denoising.new_unet(training.recipe.unet_channels), new_scheduler())


def _unet(training):
    text_encoder, autoencoder, denoiser = training.towers().text_encoder, training.autoencoder(), partial(_denoiser, training)
    for name, scenes, canvas in (("unet_single", "single", 64), ("unet_small", "small", 64), ("unet_large", "large", 128)):
        pairs = training.of(scenes, partial(denoising.grounded_pairs, autoencoder, text_encoder, training.tokenizer))
        trained = training.run(name, denoiser, pairs, training.painting(name, canvas, text_encoder, autoencoder))
        denoiser = partial(nn.Module.train, trained)


def _pack(training):
    trained, towers, autoencoder = (
        training.finished("unet_large", _denoiser(training)),
        training.towers().cpu(),
        training.autoencoder().cpu(),
    )
    if training.accelerator.is_main_process:
        recipe = training.recipe
        pack(training.work / "picturebook", recipe.grammar, recipe.guidance_scale, training.tokenizer, towers, autoencoder, trained.unet)
        if training.drawn != training.work:
            rmtree(training.drawn)
    training.accelerator.wait_for_everyone()


def _judge(training):
    if (processes := training.accelerator.num_processes) > 1:  # its losses are means over things, of which rows have one or more
        raise ValueError(f"expected one process for the judge, got {processes}; train it without accelerate launch")
    judge = training.run("judge", seeing.SeeingObjective, partial(seeing.judge_batches, autoencoder=training.autoencoder())).cpu()
    save_model(judge.eyes.half(), training.work / "judge" / "judge.safetensors")


STAGES = {
    "scenes": _scenes, "clip": _clip, "words": _words, "vae": _vae, "decoder": _decoder, "unet": _unet, "pack": _pack, "judge": _judge,
}  # fmt: skip
USUAL_STAGES = tuple(STAGES)[:-1]  # the judge is trained apart from what it judges, and shipped once
