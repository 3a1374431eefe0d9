"""The checkpoint as a plain diffusers folder, laid out so that `StableDiffusionPipeline.from_pretrained` reads it bare."""

import json
import os
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil

from ...files import write_sums
from ...loading import quiet
from ..captions import vocabulary
from ..networks import NETWORKS
from ..world import Grammar


def new_scheduler() -> DDIMScheduler:
    """DDIM on SD's schedule, right with few steps as with many, where PNDM breaks below 20 (see RECIPE.md)."""
    return DDIMScheduler.from_config(NETWORKS["scheduler"])


def pack(folder: Path, grammar: Grammar, guidance_scale: float, tokenizer, towers, vae, unet) -> None:
    """Write the trained parts to `folder` in half precision, with the words they know, their usual guidance and a sum of every file.

    It is made beside `folder`, whose model_index.json goes first and comes last: who is killed leaves what was packed there before, or
    what nobody takes for a checkpoint, never a mixture of the two.
    """
    index, folder, packed = folder / "model_index.json", folder.with_name(f".{folder.name}.part"), folder
    with quiet():
        from diffusers import StableDiffusionPipeline
    edge = towers.image_encoder.config.image_size
    processor = CLIPImageProcessorPil(size=edge, crop_size=edge, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    StableDiffusionPipeline(
        vae, towers.text_encoder, tokenizer, unet, new_scheduler(), None, processor, towers.image_encoder, requires_safety_checker=False,
    ).to(dtype=torch.float16).save_pretrained(folder)  # fmt: skip
    for tower in ("text_encoder", "image_encoder"):
        # Loaded bare, transformers takes its dtype from here and diffusers takes float32: they must agree.
        path = folder / tower / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    save_file({"weight": towers.text_projection.weight.detach().half().contiguous()}, folder / "text_projection.safetensors")
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary(grammar)) + "\n")
    (folder / "sdteach.json").write_text(json.dumps({"guidance_scale": guidance_scale}) + "\n")
    write_sums(folder)
    index.unlink(missing_ok=True)
    copytree(folder, packed, copy_function=os.replace, ignore=ignore_patterns(index.name), dirs_exist_ok=True)
    (folder / index.name).replace(index)
    rmtree(folder)
