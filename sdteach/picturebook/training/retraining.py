"""Picturebook taught on with pictures of one's own, in half a minute of one core."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import torch
from peft import LoraConfig
from torch import Tensor

from ...model import StableDiffusion, load_model
from .denoising import DenoisingObjective, noisy_pairs
from .live import Progress, learn
from .packing import new_scheduler

# Beside the layers of attention and the convolutions, matrices of rank 16 (Hu et al., 2022).
LORA = LoraConfig(r=16, lora_alpha=16, target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"])


def retrained(pictures: Tensor, captions: Sequence[str], steps: int, seed: int = 0) -> tuple[StableDiffusion, Iterator[Progress]]:
    """A picturebook of one's own, and its training, which goes on as it is asked for its progress.

    It learns from `pictures` (n, height, width, 3), uint8, and a caption for each, 16 a step: beside the UNet's weights, which stand
    still, what `LORA` says.
    """
    pupil = load_model("picturebook", device="cpu")
    pupil.unet.requires_grad_(False)
    torch.manual_seed(seed)
    pupil.unet.add_adapter(LORA)
    shown = SimpleNamespace(pictures=pictures, captions=captions)
    prepare = noisy_pairs(pupil.vae, pupil.text_encoder, pupil.tokenizer, shown, 16)
    return pupil, learn(DenoisingObjective(pupil.unet, new_scheduler()), prepare, steps, 5e-3, seed=seed)
