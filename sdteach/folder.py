"""A checkpoint in a folder, as diffusers lays it out: what it must hold, and reading it."""

import json
from pathlib import Path

# The classes of folders that are read, and what each is read as: consistency models have the parts of a Stable Diffusion.
PIPELINES = {
    "StableDiffusionPipeline": "StableDiffusionPipeline", "LatentConsistencyModelPipeline": "StableDiffusionPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLPipeline",
}  # fmt: skip
# Checkpoints made for one task only, by the channels that their UNet takes in, and by the class that their folder names.
SPECIALISTS = {
    5: "depth to image", 7: "upscaling", 8: "editing by instructions", 9: "inpainting", "StableDiffusionInpaintPipeline": "inpainting",
    "StableDiffusionUpscalePipeline": "upscaling", "StableDiffusionLatentUpscalePipeline": "upscaling",
    "StableDiffusionDepth2ImgPipeline": "depth to image", "StableDiffusionInstructPix2PixPipeline": "editing by instructions",
    "StableDiffusionXLInpaintPipeline": "inpainting", "StableDiffusionXLInstructPix2PixPipeline": "editing by instructions",
    "StableDiffusionXLImg2ImgPipeline": "refining pictures",
}  # fmt: skip
# What a part's folder holds, apart from weights, by the beginning of its name; any of the alternatives will do.
DESCRIPTIONS = {
    "scheduler": ("scheduler_config.json",), "tokenizer": ("tokenizer.json", "vocab.json"),
    "feature_extractor": ("preprocessor_config.json",), "": ("config.json",),
}  # fmt: skip
PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
WHY_NO_PICKLE = ("a pickle can run any program on the machine that opens it. Get the checkpoint as .safetensors, which most publishers "
                 "offer beside it, or convert it on a machine that has nothing to lose")  # fmt: skip


def read_folder(folder: Path, dtype):
    """The pipeline in `folder`, in `dtype`, with nothing but what lies there. Raises ValueError as `checked_index` does."""
    import diffusers
    import torch

    index = checked_index(folder)
    kind = getattr(diffusers, PIPELINES[index["_class_name"]])
    weights = {part: [path.name for path in (folder / part).glob("*.safetensors")] for part in _parts(index)}
    halves = [part for part, names in weights.items() if any(".fp16" in name for name in names)]
    only_halves = any(all(".fp16" in name for name in weights[part]) for part in halves)
    variant = "fp16" if only_halves or (halves and dtype != torch.float32) else None
    try:
        return kind.from_pretrained(str(folder), dtype=dtype, variant=variant, local_files_only=True, use_safetensors=True,
                                    **_absent_parts(index))  # fmt: skip
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        encoders = " or ".join(part for part in _parts(index) if index[part][0] == "transformers" and "encoder" in part)
        raise ValueError(
            f"expected weights of the shape that config.json tells, got another in the {encoders}; fetch or copy it again"
        ) from error


def checked_index(folder: Path) -> dict:
    """What model_index.json says of `folder`.

    Raises ValueError, naming the file and the remedy, for a class that is not read here, a file that is missing, cut short or not
    JSON, and for weights that there are only as a pickle.
    """
    index = _json(folder / "model_index.json", "a diffusers folder")
    if not isinstance(kind := index.get("_class_name"), str) or kind not in PIPELINES:
        raise ValueError(f"expected a StableDiffusionPipeline or a StableDiffusionXLPipeline, got a {kind}{made_for(kind)}")
    needed = ("tokenizer", "text_encoder", "unet", "vae", "scheduler", *(("tokenizer_2", "text_encoder_2") if "XL" in kind else ()))
    if lacking := [part for part in needed if part not in _parts(index)]:
        raise ValueError(f"expected a {kind} with {', '.join(needed)}, found no {', '.join(lacking)} in {folder / 'model_index.json'}")
    for part in _parts(index):
        names = next(names for beginning, names in DESCRIPTIONS.items() if part.startswith(beginning))
        there = next((folder / part / name for name in names if (folder / part / name).is_file()), folder / part / names[0])
        _json(there, f"a {part}")
        if names == DESCRIPTIONS[""]:
            _check_weights(folder / part)
    return index


def made_for(kind: str | int) -> str:
    """A few words on the checkpoints that are made for one task, by their class or their UNet's channels; "" for others."""
    task = SPECIALISTS.get(kind) if isinstance(kind, str | int) else None
    return f", made for {task} alone; inpainting and upscaling work with any text-to-image checkpoint, see lesson 08" if task else ""


def check_tensors(file: Path) -> None:
    """Raises ValueError, saying what to do, unless `file` is a whole safetensors file. Reads only its head."""
    from safetensors import SafetensorError, safe_open

    try:
        with file.open("rb") as opened:
            pointer = opened.read(12) == b"version http"
        if pointer:
            raise ValueError(f"expected weights in {file}, got the note that Git LFS leaves in their place; run: git lfs pull")
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"expected a whole safetensors file, got {file} of {file.stat().st_size:,} bytes, which is cut short or damaged "
                         f"({error}); fetch or copy it again") from error  # fmt: skip


def _parts(index):
    """The parts that there are, in the order of the index."""
    return [part for part, value in index.items() if isinstance(value, list) and len(value) == 2 and value[0] is not None]


def _json(path, whole):
    if not path.is_file():
        raise ValueError(f"expected {whole}, found no {path.name} in {path.parent}; fetch or copy the folder again")
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got something else ({error}); fetch or copy the file again") from error
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object in {path}, got a {type(found).__name__}; fetch or copy the file again")
    return found


def _check_weights(folder):
    weights = {*folder.glob("*.safetensors")}
    for index in folder.glob("*.safetensors.index*.json"):
        weights |= {folder / name for name in _json(index, "an index").get("weight_map", {}).values()}
    if not weights:
        if pickled := [path.name for path in folder.iterdir() if path.suffix in PICKLED]:
            raise ValueError(f"expected .safetensors in {folder}, got only {', '.join(sorted(pickled))}: {WHY_NO_PICKLE}")
        raise ValueError(f"expected weights, found no .safetensors in {folder}; fetch or copy the folder again")
    for file in sorted(weights):
        if not file.is_file():
            raise ValueError(f"expected weights, found no {file.name} in {folder}; fetch or copy the folder again")
        check_tensors(file)


def _absent_parts(index):
    """Parts that the folder says it does not have, so that diffusers does not warn of them."""
    optional = ("image_encoder",) if "XL" in index["_class_name"] else ("safety_checker", "image_encoder")
    absent = {part: None for part in optional if index.get(part, [None])[0] is None}
    return absent | ({"requires_safety_checker": False} if "safety_checker" in absent else {})
