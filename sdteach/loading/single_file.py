"""A checkpoint in one .safetensors file, with the tensors named as its makers named them (Rombach et al., 2022)."""

import json
import warnings
from pathlib import Path

from ..files import data_folder
from .folder import check_tensors, made_for
from .names import EMBEDDED

UNET = "model.diffusion_model."
# Tensors that only one family has, and the configurations in assets/configs that it needs; the second's must be 1024 wide.
MARKS = {
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": "sdxl",
    UNET + "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": "sd-2", UNET + "output_blocks.11.0.skip_connection.weight": "sd-1",
}  # fmt: skip


def read_file(file: Path, dtype):
    """The pipeline in `file`, in `dtype`, with the configurations and the tokenizer of the package.

    Raises ValueError, saying what to do, for a file that is cut short, that holds something else, or lacks a part.
    """
    import diffusers

    configs = data_folder("assets") / "configs" / family(file)
    kind = getattr(diffusers, json.loads((configs / "model_index.json").read_text())["_class_name"])
    try:
        return kind.from_single_file(str(file), config=str(configs), dtype=dtype, local_files_only=True, **tokenizers(configs))
    except Exception as error:  # diffusers says with an exception of its own which part is missing, and with others that tensors are
        tensors = isinstance(error, KeyError | NotImplementedError)
        if isinstance(error, OSError | ValueError | RuntimeError) and not tensors:
            raise
        lacking = "Tensors of its parts are missing." if tensors else str(error).splitlines()[0]
        raise ValueError(f"expected a whole checkpoint in {file.name}. {lacking} Get the full file, not a pruned one") from error


def family(file: Path) -> str:
    """Which of assets/configs fits `file`, by its tensors' names and shapes; the weights are not read.

    Tensors do not tell 2.x at 768 pixels (v-prediction) from its base at 512, nor what was distilled into a Turbo: that the file's
    metadata says, else its name, else the usual is assumed and said aloud. Raises ValueError for what is no Stable Diffusion.
    """
    from safetensors import safe_open

    check_tensors(file)
    with safe_open(file, "pt") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        said = [value for key, value in (tensors.metadata() or {}).items() if key.startswith("modelspec.")]
    unet = [name for name in shapes if name.startswith(UNET)]
    if not unet:
        raise ValueError(f"expected a whole checkpoint, whose UNet's tensors begin with {UNET!r}, got {file.name} with tensors such as "
                         f"{next(iter(shapes), 'nothing')!r}; a LoRA, a VAE or a UNet alone is only a part of one")  # fmt: skip
    found = next((kind for mark, kind in MARKS.items() if mark in shapes and (kind != "sd-2" or shapes[mark][-1] == 1024)), None)
    channels = shapes.get(UNET + "input_blocks.0.0.weight", [0, 4])[1]
    distilled = UNET + "time_embed.cond_proj.weight" in shapes
    if found is None or channels != 4 or distilled:
        other = "a consistency model" if distilled else f"a UNet of {channels} channels" if channels != 4 else f"{unet[0]!r} and others"
        raise ValueError(f"expected a Stable Diffusion 1.x, 2.x or XL in {file.name}, got {other}{made_for(channels)}; "
                         "load its diffusers folder or hub id if it has one")  # fmt: skip
    if any(name.startswith("model_ema.") for name in shapes):
        warnings.warn(f"{file.name} holds its UNet twice, as it was trained and averaged over the training (EMA); what was trained is "
                      "read, as diffusers does. A file named emaonly has the averages in its place", stacklevel=2)  # fmt: skip
    about = " ".join([file.name, *said]).lower()
    if "turbo" in about and found != "sd-1":
        return "sdxl-turbo" if found == "sdxl" else "sd-turbo"
    if found == "sd-2" and not any(mark in about for mark in ("768", "v_prediction", "v-pred")):
        if any(mark in about for mark in ("512", "base", "epsilon")):
            return "sd-2-base"
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
