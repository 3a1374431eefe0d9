"""The loaded parts of a Stable Diffusion, and where packaged data lies."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from os import environ
from pathlib import Path

import torch
from torch import nn

EMBEDDED = "picturebook"
# The pipelines of diffusers whose loop is this kit's; a latent consistency model is a Stable Diffusion distilled for few steps.
KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline")
# Checkpoints made for one task only, by the channels that their UNet takes in, and by the class that their folder names.
SPECIALISTS = {
    5: "depth to image", 7: "upscaling", 8: "editing by instructions", 9: "inpainting", "StableDiffusionInpaintPipeline": "inpainting",
    "StableDiffusionUpscalePipeline": "upscaling", "StableDiffusionLatentUpscalePipeline": "upscaling",
    "StableDiffusionDepth2ImgPipeline": "depth to image", "StableDiffusionInstructPix2PixPipeline": "editing by instructions",
    "StableDiffusionXLImg2ImgPipeline": "refining pictures", "StableDiffusionXLInpaintPipeline": "inpainting",
    "StableDiffusionXLInstructPix2PixPipeline": "editing by instructions",
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class StableDiffusion:
    """The parts of one checkpoint, ready on `device` in `dtype`.

    `image_encoder`, `feature_extractor` and `text_projection` are None where the checkpoint has none, as is
    `safety_checker`; `vocabulary` holds the words a small checkpoint was trained on, None for one that read the web.
    An XL checkpoint reads the prompt with two text towers: `tokenizer_2` and `text_encoder_2` are the second's, to which
    `text_projection` then belongs; `zeros_for_empty` says that it was trained with zeros where there is no negative prompt.
    """

    name: str
    tokenizer: object
    text_encoder: nn.Module
    text_projection: nn.Module | None
    image_encoder: nn.Module | None
    feature_extractor: object | None
    vae: nn.Module
    unet: nn.Module
    scheduler: object
    safety_checker: nn.Module | None
    vocabulary: frozenset[str] | None
    device: torch.device
    dtype: torch.dtype
    tokenizer_2: object | None = None
    text_encoder_2: nn.Module | None = None
    zeros_for_empty: bool = False

    def __repr__(self):
        sizes = ", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M" for name, part in self.networks.items())
        return f"StableDiffusion({self.name!r}, {sizes}, {self.device}, {str(self.dtype).removeprefix('torch.')})"

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What makes pictures, by name: the text tower or both, the VAE, the UNet."""
        parts = {name: getattr(self, name) for name in ("text_encoder", "text_encoder_2", "vae", "unet")}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def vae_scale_factor(self) -> int:
        """Picture pixels per latent pixel: 8 for every Stable Diffusion."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)


def data_folder(name: str) -> Path:
    """Where packaged data lies, `name` being "assets" or "lessons": in the wheel, else in the checkout."""
    packaged = Path(str(files("sdteach"))) / "_data" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / name


def load_model(
    name: str | Path | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> StableDiffusion:
    """Load a checkpoint: "picturebook" (the embedded one), a diffusers folder, or the id of one on the hub.

    Without a name, $SDTEACH_MODEL, else the embedded one. Without a device, CUDA if there is one, else the CPU.
    Without a dtype, float16 on CUDA and float32 elsewhere. Only a hub id ever touches the network.
    Raises ValueError for a name, device or dtype that cannot be used, saying what can.
    """
    device = _checked_device(device)
    dtype = _checked_dtype(dtype, device)
    name = str(name or environ.get("SDTEACH_MODEL") or EMBEDDED)
    source, local = _locate(name)
    with quiet():
        import diffusers

        try:
            index = diffusers.DiffusionPipeline.load_config(source, local_files_only=local)
            if (kind := index["_class_name"]) not in KINDS:
                raise ValueError(f"expected a {' or '.join(KINDS)}, got a {kind}{_made_for(kind)}")
            pipeline = getattr(diffusers, kind).from_pretrained(
                source, dtype=dtype, local_files_only=local, use_safetensors=True, **_absent_parts(index)
            )
            _check_towers(pipeline)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"cannot load {name!r}: {reason}. Tried {'the folder' if local else 'the hub'} {source}; "
                             f"load_model({EMBEDDED!r}) always works, without a network") from error  # fmt: skip
    unet, vae = pipeline.unet, pipeline.vae
    if unet.config.in_channels != vae.config.latent_channels:
        channels = unet.config.in_channels
        raise ValueError(f"cannot use {name!r}: expected a UNet with {vae.config.latent_channels} input channels, got "
                         f"{channels}{_made_for(channels)}")  # fmt: skip
    pipeline.to(device)
    return _assembled(name, pipeline, source, device, dtype)


def _check_towers(pipeline):
    """Raise ValueError unless the text towers are all there and make what the UNet reads."""
    parts, unet = pipeline.components, pipeline.unet.config
    if missing := [part for part in ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2") if parts.get(part, part) is None]:
        raise ValueError(f"expected a {type(pipeline).__name__} with all its parts, got one without {' and '.join(missing)}")
    towers = [parts[part].config for part in ("text_encoder", "text_encoder_2") if part in parts]
    width, read = sum(tower.hidden_size for tower in towers), unet.cross_attention_dim
    if {width} != ({read} if isinstance(read, int) else {*read}):
        raise ValueError(f"expected a UNet that reads texts {width} wide, as the text encoders make them, got one that reads {read}")
    if len(towers) == 2:
        told = towers[1].projection_dim + 6 * unet.addition_time_embed_dim
        if unet.projection_class_embeddings_input_dim != told:
            raise ValueError(f"expected a UNet that takes {told} numbers for the whole text and six sizes, got one that takes "
                             f"{unet.projection_class_embeddings_input_dim}")  # fmt: skip


def _assembled(name, pipeline, source, device, dtype):
    """The parts of a loaded pipeline. XL's autoencoder overflows in float16 and is kept in float32 then, as diffusers runs it."""
    parts = pipeline.components
    second = parts.get("text_encoder_2")
    if second is not None and dtype == torch.float16 and pipeline.vae.config.force_upcast:
        pipeline.vae.float()
    return StableDiffusion(
        name, pipeline.tokenizer, pipeline.text_encoder, _text_projection(second or pipeline.text_encoder, source, device, dtype),
        pipeline.image_encoder, pipeline.feature_extractor, pipeline.vae, pipeline.unet, pipeline.scheduler, parts.get("safety_checker"),
        _vocabulary(source), device, dtype, parts.get("tokenizer_2"), second,
        pipeline.config.get("force_zeros_for_empty_prompt", False),
    )  # fmt: skip


def _made_for(kind):
    task = SPECIALISTS.get(kind)
    return f", made for {task} alone; inpainting and upscaling work with any text-to-image checkpoint, see lesson 08" if task else ""


def fingerprint(*parts: nn.Module) -> str:
    """A name for these weights: the sha256 of all parameters in half precision."""
    digest = hashlib.sha256()
    for part in parts:
        for parameter in part.parameters():
            digest.update(parameter.detach().to("cpu", torch.float16).numpy().tobytes())
    return digest.hexdigest()


def _checked_device(device):
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        checked = torch.device(wanted)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"expected a device that is here, one of {there}, got {wanted!r}") from error
    return checked


def _checked_dtype(dtype, device):
    allowed = (torch.float32, torch.float16, torch.bfloat16)
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if dtype not in allowed:
        raise ValueError(f"expected dtype to be one of {', '.join(map(str, allowed))}, got {dtype!r}")
    return dtype


def _locate(name):
    """(what diffusers loads, whether it is a folder)."""
    if name == EMBEDDED:
        return str(data_folder("assets") / EMBEDDED), True
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder), True
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not folder.parent.is_dir():
        return name, False
    raise ValueError(f"expected {EMBEDDED!r}, a folder that exists or a hub id like 'owner/name', got {name!r}")


def _absent_parts(index):
    """Parts that the folder says it does not have, so that diffusers does not warn of them."""
    absent = {part: None for part in ("safety_checker", "image_encoder") if index.get(part, [None])[0] is None}
    return absent | ({"requires_safety_checker": False} if "safety_checker" in absent else {})


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what diffusers and transformers say and draw of their own while they load; errors still come through."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    try:
        for log in logs:
            log.set_verbosity_error()
            log.disable_progress_bar()
        yield
    finally:
        for log, (verbosity, bar) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()


def _text_projection(text_encoder, source, device, dtype):
    if hasattr(text_encoder, "text_projection"):
        return text_encoder.text_projection
    path = Path(source) / "text_projection.safetensors"
    if not path.is_file():
        return None
    from safetensors.torch import load_file

    weight = load_file(path)["weight"]
    projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    projection.load_state_dict({"weight": weight})
    return projection.to(device, dtype).requires_grad_(False)


def _vocabulary(source):
    path = Path(source) / "vocabulary.txt"
    return frozenset(path.read_text("utf-8").split()) if path.is_file() else None
