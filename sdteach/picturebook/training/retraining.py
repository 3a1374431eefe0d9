"""Picturebook taught on with pictures of one's own, in half a minute of one core."""

from collections.abc import Iterator

import torch
from peft import LoraConfig

from ...model import StableDiffusion, load_model
from .data import DrawnScenes
from .denoising import DenoisingObjective, noisy_pairs
from .live import Progress, learn
from .packing import new_scheduler


def retrained(scenes: DrawnScenes, steps: int, seed: int = 0) -> tuple[StableDiffusion, Iterator[Progress]]:
    """A picturebook of one's own, and its training on these scenes and their captions, which goes on as it is asked for its progress.

    Beside the UNet's weights, which stand still, matrices of rank 16 learn (LoRA: Hu et al., 2022), from 16 scenes a step.
    """
    pupil = load_model("picturebook", device="cpu")
    pupil.unet.requires_grad_(False)
    torch.manual_seed(seed)
    pupil.unet.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]))
    prepare = noisy_pairs(pupil.vae, pupil.text_encoder, pupil.tokenizer, scenes, 16)
    return pupil, learn(DenoisingObjective(pupil.unet, new_scheduler()), prepare, steps, 5e-3, seed=seed)
