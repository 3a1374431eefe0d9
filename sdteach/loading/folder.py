"""A checkpoint in a folder, as diffusers lays it out: what it must hold, and reading it."""

import json
import math
import re
from pathlib import Path

from ..files import data_of
from ..pictures import LARGEST

LAYOUT = data_of(__file__)
NUMBERS, LAYERS = 2**17, 128  # no number in a configuration is larger, and no network deeper
TEXT = 2**25  # bytes, of a file that is read as a whole; a tokenizer has four million
WEIGHTS = "[!.]*.safetensors"  # a Mac leaves a ._ file beside each that it copies
PICKLED = LAYOUT["pickled"]
WHY_NO_PICKLE = ("a pickle can run any program on the machine that opens it. Get the checkpoint as .safetensors, which most publishers "
                 "offer beside it, or convert it on a machine that has nothing to lose")  # fmt: skip


def read_folder(folder: Path, dtype):
    """The pipeline in `folder`, in `dtype`, with nothing but what lies there. Raises ValueError as `checked_index` does."""
    import diffusers
    import torch

    index = checked_index(folder)
    parts = _parts(index)
    kind = diffusers.StableDiffusionXLPipeline if "XL" in index["_class_name"] else diffusers.StableDiffusionPipeline
    weights = {part: [path.name for path in (folder / part).glob(WEIGHTS)] for part in parts}
    halves = [names for names in weights.values() if any(".fp16" in name for name in names)]
    _check_sizes(folder, parts, weights)
    only_halves = any(all(".fp16" in name for name in names) for names in halves)
    variant = "fp16" if only_halves or (halves and dtype != torch.float32) else None
    # Without these diffusers warns of what the folder says it does not have.
    optional = {"image_encoder"} if "XL" in index["_class_name"] else {"image_encoder", "safety_checker"}
    absent = dict.fromkeys(optional - {*parts}) | ({"requires_safety_checker": False} if "safety_checker" in optional - {*parts} else {})
    try:
        return kind.from_pretrained(str(folder), dtype=dtype, variant=variant, local_files_only=True, use_safetensors=True, **absent)
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        encoders = " or ".join(part for part in parts if "encoder" in part)
        raise ValueError(
            f"expected weights of the shape that config.json tells, got another in the {encoders}; fetch or copy it again"
        ) from error


def checked_index(folder: Path) -> dict:
    """What model_index.json says of `folder`.

    Raises ValueError, naming the file and the remedy, for a class that is not read here, a file that is missing, cut short or not
    JSON, numbers out of all measure, and weights that there are only as a pickle.
    """
    for file in (*folder.glob("*.*"), *folder.glob("*/*.*")):
        if file.suffix in (".json", ".txt") and file.stat().st_size > TEXT:
            raise ValueError(f"expected at most {TEXT:,} bytes in {file}, got {file.stat().st_size:,}; fetch or copy the file again")
    index = _json(folder / "model_index.json", "a diffusers folder")
    kind = index.get("_class_name")
    # Pipelines from a picture have the same parts, consistency models those of a Stable Diffusion.
    if not re.fullmatch("(StableDiffusion(XL)?|LatentConsistencyModel)(Img2Img)?Pipeline", str(kind)):
        raise ValueError(f"expected a StableDiffusionPipeline or a StableDiffusionXLPipeline, got a {kind}{made_for(kind)}")
    parts = _parts(index)
    needed = ("tokenizer", "text_encoder", "unet", "vae", "scheduler", *(("tokenizer_2", "text_encoder_2") if "XL" in kind else ()))
    if lacking := [part for part in needed if part not in parts]:
        refiner = "; a refiner only finishes what another checkpoint began" * (kind == "StableDiffusionXLImg2ImgPipeline")
        raise ValueError(f"expected a {kind} with {', '.join(needed)}, found no {', '.join(lacking)} in "
                         f"{folder / 'model_index.json'}{refiner}")  # fmt: skip
    for part in parts:
        file = folder / part / _description(folder, part)
        described = _json(file, f"a {part}")
        if not part.startswith("tokenizer"):
            _check_numbers(described, file)
        if file.name == "config.json":
            _check_weights(folder / part)
    return index


def _check_sizes(folder, parts, weights):
    """Raise ValueError for a network that is larger than its weights: transformers would make up what is missing, however large."""
    import torch
    import transformers

    for part in (part for part, (library, _) in parts.items() if library == "transformers" and weights[part]):
        kind = getattr(transformers, parts[part][1])
        with torch.device("meta"):
            told = sum(weight.numel() for weight in kind(kind.config_class.from_pretrained(folder / part)).parameters())
        if told > (there := sum((folder / part / name).stat().st_size for name in weights[part])):
            raise ValueError(f"expected {told:,} weights in {folder / part}, as config.json tells, got {there:,} bytes; fetch or copy it "
                             "again")  # fmt: skip


def made_for(kind: str | int | None) -> str:
    """A few words on the checkpoints that are made for one task, by their class or their UNet's channels; "" for others."""
    task = next((task for task, (mark, channels) in LAYOUT["specialists"].items() if kind == channels or mark in str(kind)), None)
    return f", made for {task} alone; inpainting and upscaling work with any text-to-image checkpoint, see lesson 08" if task else ""


def check_tensors(file: Path) -> None:
    """Raises ValueError, saying what to do, unless `file` is a whole safetensors file. Reads only its head."""
    from safetensors import SafetensorError, safe_open

    with file.open("rb") as opened:
        if opened.read(12) == b"version http":
            raise ValueError(f"expected weights in {file}, got the note that Git LFS leaves in their place; run: git lfs pull")
    try:
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"expected a whole safetensors file, got {file} of {file.stat().st_size:,} bytes, which is cut short, too long or "
                         f"damaged ({error}); fetch or copy it again") from error  # fmt: skip


def _parts(index):
    """The parts that there are, by name, and the library and the class of each."""
    options = {part for part, value in index.items() if part.startswith("_") or isinstance(value, bool) or value in (None, [None, None])}
    pairs = {part: value for part, value in index.items() if part not in options}
    for part, value in pairs.items():
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(name, str) for name in value):
            raise ValueError(f"expected a library and a class for the {part} in model_index.json, got {value}; fetch or copy it again")
    return pairs


def _description(folder, part):
    names = next(names for beginning, names in LAYOUT["descriptions"].items() if part.startswith(beginning))
    return next((name for name in names if (folder / part / name).is_file()), names[0])


def _json(path, whole):
    if not path.is_file():
        raise ValueError(f"expected {whole}, found no {path.name} in {path.parent}; fetch or copy the folder again")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON in {path}, got something else ({error}); fetch or copy the file again") from error
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object in {path}, got a {type(found).__name__}; fetch or copy the file again")
    return found


def _check_numbers(value, path, key=""):
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, path, name)
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, path, key)
    elif isinstance(value, int | float):
        most = LAYERS if "layers" in key else LARGEST if key in LAYOUT["edges"] else NUMBERS
        if most < abs(value) < math.inf:
            raise ValueError(f"expected {key} in {path} to be at most {most}, got {value:.3g}; fetch or copy the file again")


def _check_weights(folder):
    weights = {*folder.glob(WEIGHTS)}
    for index in folder.glob(f"{WEIGHTS}.index*.json"):
        weights |= {folder / name for name in _json(index, "an index").get("weight_map", {}).values()}
    if not weights:
        if pickled := [path.name for path in folder.iterdir() if path.suffix in PICKLED]:
            raise ValueError(f"expected .safetensors in {folder}, got only {', '.join(sorted(pickled))}: {WHY_NO_PICKLE}")
        raise ValueError(f"expected weights, found no .safetensors in {folder}; fetch or copy the folder again")
    for file in sorted(weights):
        if not file.is_file():
            raise ValueError(f"expected weights, found no {file.name} in {folder}; fetch or copy the folder again")
        check_tensors(file)
