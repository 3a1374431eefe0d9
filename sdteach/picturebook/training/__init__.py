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
from transformers import CLIPTokenizer

from ...model import StableDiffusion
from ...pictures import psnr
from ...pipeline import generate
from ...records import Record
from ..evaluation.measures import copied
from ..imagining import HELD_OUT_SEED
from . import autoencoding, binding, contrast, denoising, seeing
from .data import Drawing, DrawnScenes, all_painters
from .loop import fit, load_averaged
from .packing import new_scheduler, pack
from .recipe import PRESETS as PRESETS
from .recipe import Recipe

MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Watch:
    """Whom the training shows what it does: the folder of a phase whose losses grew; a file, pictures and their captions.

    A loss is the mean of `log_every` steps. States are saved every `save_every` seconds, and every `paint_every` and when a phase
    of the UNet ends so many held-out `captions` are painted.
    """

    losses: Callable[[Path], None] = lambda folder: None
    samples: Callable[[Path, list[np.ndarray], list[str]], None] = lambda file, pictures, captions: None
    log_every: int = 100
    save_every: float = 60.0
    paint_every: float = 600.0
    captions: int = 12


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


class Training(Record):
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
        recipe, memory = self.recipe, MEMORY / f"sdteach-{sha256(bytes(self.work.resolve())).hexdigest()[:16]}"
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
        drawing = self.scenes[name]

        def batches(batch):
            known = 0
            while True:
                if known < drawing.count:
                    (there,) = broadcast_object_list([drawing.drawn(min(self.recipe.first_scenes, drawing.count))])
                    if there >= min(2 * known, drawing.count):
                        known, draw = there, prepare(drawing.first(there).to(self.accelerator.device), batch=batch)
                yield draw()

        return lambda batch: batches(batch).__next__

    def new(self, name):
        """What the phase called `name` minimises, untrained but for what earlier phases leave to it."""
        match name:
            case "clip":
                return contrast.ContrastiveObjective()
            case "words":
                return binding.BindingObjective(self.finished("clip").text_encoder)
            case "vae":
                return autoencoding.AutoencodingObjective(self.recipe.vae_channels)
            case "decoder":
                return autoencoding.DecodingObjective(self.finished("vae").vae)
            case "judge":
                return seeing.SeeingObjective()
        return denoising.GroundedObjective(denoising.new_unet(self.recipe.unet_channels), new_scheduler())

    def finished(self, name):
        """What the phase called `name` minimised, as it left it. The randomness of another phase goes by it."""
        with torch.random.fork_rng(()):
            return load_averaged(self.new(name), self.work / name, self.recipe.digest)

    def run(self, name, prepare, after=None, saved=lambda step, averaged, finished: None):
        """Train the phase called `name` in the folder of that name, from where the phase `after` ended; returns the average."""
        recipe, folder, phase = self.recipe, self.work / name, getattr(self.recipe, name)
        torch.manual_seed(recipe.seed)
        objective = self.finished(after).train() if after else self.new(name)

        def shown(*state):
            self.watch.losses(folder)
            saved(*state)

        return fit(objective, prepare(batch=phase.batch), phase, folder, recipe.seed, recipe.digest, self.accelerator, shown,
                   self.watch.log_every, self.watch.save_every)  # fmt: skip

    def towers(self):
        """CLIP, its text tower taught words."""
        towers = self.finished("clip")
        towers.text_encoder = self.finished("words").text_encoder
        return towers.to(self.accelerator.device)

    def autoencoder(self):
        """The VAE, told by which factor its latents must be scaled to have variance one; the decoder as far as it has come."""
        decoder = (self.work / "decoder" / "state.safetensors").exists()
        vae = self.finished("decoder" if decoder else "vae").vae.to(self.accelerator.device)
        means, _ = denoising.encode_pictures(vae, self.held_out.pictures)
        vae.register_to_config(scaling_factor=round(1 / means.float().std().item(), 5))
        return vae

    def painting(self, name, canvas, text_encoder, vae):
        """For `run`: now and then, and when a phase ends, a few held-out captions are painted by the UNet as it is."""
        captions, last = self.held_out.captions[: self.watch.captions], time.monotonic()

        def saved(step, averaged, finished):
            nonlocal last
            if finished or time.monotonic() - last >= self.watch.paint_every:
                model = StableDiffusion("picturebook in training", self.accelerator.device, torch.float32, self.tokenizer, text_encoder,
                                        vae, averaged.unet, new_scheduler())  # fmt: skip
                pictures = [generate(model, caption, "", 25, self.recipe.guidance_scale, 0, canvas, canvas, collect=()).pixels
                            for caption in captions]  # fmt: skip
                self.watch.samples(self.work / name / f"samples_{step:06}.png", pictures, captions)
                last = time.monotonic()

        return saved


def _clip(training):
    training.run("clip", training.of("large", partial(contrast.pairs, tokenizer=training.tokenizer)))
    _tell_top1(training, training.finished("clip"))


def _words(training):
    training.run("words", partial(binding.questions, training.tokenizer, training.recipe.grammar.taught()))
    _tell_top1(training, training.towers().cpu())


def _tell_top1(training, towers):
    nearest = contrast.nearest(towers, training.tokenizer, training.held_out)
    right = (nearest == torch.arange(len(nearest))).float().mean()
    training.accelerator.print(f"clip: top-1 of {len(nearest)} held-out scenes {right:.1%}")


def _vae(training, name="vae", crops=autoencoding.crops):
    trained, pictures = training.run(name, training.of("large", crops)).cpu(), training.held_out.pictures.numpy()
    decibels = np.mean([psnr(picture, copied(trained, picture)) for picture in pictures])
    training.accelerator.print(f"vae: {decibels:.2f} dB on {len(pictures)} held-out scenes")


def _unet(training):
    text_encoder, vae, before = training.towers().text_encoder, training.autoencoder(), None
    for name, scenes, canvas in (("unet_single", "single", 64), ("unet_small", "small", 64), ("unet_large", "large", 128)):
        pairs = training.of(scenes, partial(denoising.grounded_pairs, vae, text_encoder, training.tokenizer))
        training.run(name, pairs, before, training.painting(name, canvas, text_encoder, vae))
        before = name


def _pack(training):
    recipe, parts = training.recipe, (training.towers().cpu(), training.autoencoder().cpu(), training.finished("unet_large").unet)
    if training.accelerator.is_main_process:
        pack(training.work / "picturebook", recipe.grammar, recipe.guidance_scale, training.tokenizer, *parts)
        if training.drawn != training.work:
            rmtree(training.drawn)
    training.accelerator.wait_for_everyone()


def _judge(training):
    if (processes := training.accelerator.num_processes) > 1:  # its losses are means over things, of which rows have one or more
        raise ValueError(f"expected one process for the judge, got {processes}; train it without accelerate launch")
    sights = partial(seeing.judge_batches, autoencoder=training.autoencoder(), painters=training.painters)
    judge = training.run("judge", sights).cpu()
    save_model(judge.eyes.half(), training.work / "judge" / "judge.safetensors")


STAGES = {
    "scenes": lambda training: training.scenes, "clip": _clip, "words": _words, "vae": _vae,
    "decoder": partial(_vae, name="decoder", crops=autoencoding.crops_of_things),
    "unet": _unet, "pack": _pack, "judge": _judge,
}  # fmt: skip
USUAL_STAGES = tuple(STAGES)[:-1]  # the judge is trained apart from what it judges, and shipped once
