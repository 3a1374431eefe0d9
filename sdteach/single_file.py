"""A checkpoint in one .safetensors file, with the tensors named as its makers named them (Rombach et al., 2022)."""

import json
import warnings
from pathlib import Path

from .checkpoints import EMBEDDED
from .files import data_folder
from .folder import check_tensors, made_for

# What diffusers recognises, and the configurations in assets/configs that it needs.
FAMILIES = {"v1": "sd-1", "v2": "sd-2", "xl_base": "sdxl"}
TASKS = {"inpainting": 9, "inpainting_v2": 9, "xl_inpaint": 9, "instruct-pix2pix": 8, "upscale": 7}
UNET, DISTILLED = "model.diffusion_model.", "model.diffusion_model.time_embed.cond_proj.weight"


def read_file(file: Path, dtype):
    """The pipeline in `file`, in `dtype`, with the configurations and the tokenizer of the package.

    Raises ValueError, saying what to do, for a file that is cut short, that holds something else, or lacks a part.
    """
    import diffusers
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    configs = data_folder("assets") / "configs" / family(file)
    kind = getattr(diffusers, json.loads((configs / "model_index.json").read_text())["_class_name"])
    try:
        return kind.from_single_file(str(file), config=str(configs), dtype=dtype, local_files_only=True, **tokenizers(configs))
    except (SingleFileComponentError, NotImplementedError, KeyError) as error:  # the latter two where single tensors are missing
        lacking = str(error).splitlines()[0] if isinstance(error, SingleFileComponentError) else "Tensors of its parts are missing."
        raise ValueError(f"expected a whole checkpoint in {file.name}. {lacking} Get the full file, not a pruned one") from error


def family(file: Path) -> str:
    """Which of assets/configs fits `file`, by its tensors' names and shapes; the weights are not read.

    Tensors do not tell 2.x at 768 pixels (v-prediction) from its base at 512, nor what was distilled into a Turbo: that the file's
    metadata says, else its name, else the usual is assumed and said aloud. Raises ValueError for what is no Stable Diffusion.
    """
    import torch
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from safetensors import safe_open

    check_tensors(file)
    with safe_open(file, "pt") as tensors:
        shapes = {name: torch.empty(tensors.get_slice(name).get_shape(), device="meta") for name in tensors.keys()}  # noqa: SIM118
        told = [value for key, value in (tensors.metadata() or {}).items() if key.startswith("modelspec.")]
    if not any(name.startswith(UNET) for name in shapes):
        example = next(iter(shapes), "nothing")
        raise ValueError(f"expected a whole checkpoint, whose UNet's tensors begin with {UNET!r}, got {file.name} with tensors such as "
                         f"{example!r}; a LoRA, a VAE or a UNet alone is only a part of one")  # fmt: skip
    kind = infer_diffusers_model_type(shapes)
    if kind not in FAMILIES or DISTILLED in shapes:
        known = "a consistency model" if DISTILLED in shapes else kind
        raise ValueError(f"expected a Stable Diffusion 1.x, 2.x or XL in {file.name}, got {known}{made_for(TASKS.get(kind))}; "
                         "load its diffusers folder or hub id if it has one")  # fmt: skip
    found, about = FAMILIES[kind], " ".join([file.name, *told]).lower()
    if "turbo" in about and found != "sd-1":
        return "sdxl-turbo" if found == "sdxl" else "sd-turbo"
    if found == "sd-2":
        base, full = (any(mark in about for mark in marks) for marks in (("512", "base", "epsilon"), ("768", "v_prediction", "v-pred")))
        if base and not full:
            return "sd-2-base"
        if not full:
            warnings.warn(f"{file.name} does not say which Stable Diffusion 2 it is; taken for the one at 768 pixels. If its pictures are "
                          "noise, rename it to end in -512-base.safetensors", stacklevel=2)  # fmt: skip
    return found


def tokenizers(configs: Path) -> dict:
    """The embedded tokenizer, which is the one that every Stable Diffusion has, filling up with what the family in the folder
    `configs` fills up with; by the name of each of its tokenizers."""
    from transformers import CLIPTokenizer

    shipped = data_folder("assets") / EMBEDDED / "tokenizer"
    options = {path.parent.name: json.loads(path.read_text()) for path in configs.glob("tokenizer*/tokenizer_config.json")}
    return {name: CLIPTokenizer.from_pretrained(shipped, pad_token=given["pad_token"]) for name, given in options.items()}
