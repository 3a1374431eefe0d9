"""The loaded parts of a Stable Diffusion."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import environ
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size
from accelerate.utils.modeling import get_state_dict_offloaded_model
from torch import nn

from .checkpoints import EMBEDDED, find
from .folder import made_for, read_folder
from .memory import let_go, settle
from .single_file import read_file


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


def load_model(
    name: str | Path | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None, *, offload: bool = False
) -> StableDiffusion:  # fmt: skip
    """Load a checkpoint: "picturebook" (the embedded one), a diffusers folder, a .safetensors file with all parts in it, a known name
    (`sdteach checkpoints` lists them) or the id of one on the hub.

    Without a name, $SDTEACH_MODEL, else the embedded one. Without a device, CUDA if there is one, else the CPU.
    Without a dtype, float16 on CUDA and float32 elsewhere. Only a known name or a hub id ever touches the network, and only if the
    checkpoint is not on this machine. No pickle is read. Raises ValueError for a name, device or dtype that cannot be used, saying
    what can, and for a checkpoint that is not whole or not finite. Each call loads anew, a model of its own. Weights that do not fit on
    the device beside those of a model that is still held make room, or stay in the CPU's memory, as all do with `offload` (see
    `memory.settle`).
    """
    device = _checked_device(device)
    dtype = _checked_dtype(dtype, device)
    name = str(name or environ.get("SDTEACH_MODEL") or EMBEDDED)
    let_go()
    try:
        source = find(name)
        with quiet():
            pipeline = (read_folder if source.is_dir() else read_file)(source, dtype)
        _check_towers(pipeline)
        _check_latents(pipeline)
        _check_finite(pipeline)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"cannot load {name!r}: {_reason(error)}; load_model({EMBEDDED!r}) always works, without a network") from error
    unet, vae = pipeline.unet, pipeline.vae
    if unet.config.in_channels != vae.config.latent_channels:
        channels = unet.config.in_channels
        raise ValueError(f"cannot use {name!r}: expected a UNet with {vae.config.latent_channels} input channels, got "
                         f"{channels}{made_for(channels)}")  # fmt: skip
    # XL's autoencoder overflows in float16: it stays in float32 then, as diffusers runs it.
    if hasattr(pipeline, "text_encoder_2") and dtype == torch.float16 and vae.config.force_upcast:
        vae.float()
    settle([part for part in pipeline.components.values() if isinstance(part, nn.Module)], device, offload)
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


def _check_latents(pipeline):
    """Raise ValueError for latents or noise of another kind than the stages reckon with: the pictures would be wrong."""
    vae, scheduler, trained = pipeline.vae.config, type(pipeline.scheduler).__name__, pipeline.scheduler.config
    if shifted := [name for name in ("latents_mean", "latents_std", "shift_factor") if getattr(vae, name, None)]:
        raise ValueError(f"expected a VAE whose latents are multiplied by its scaling_factor alone, got one with {', '.join(shifted)} "
                         "besides; open it with diffusers itself")  # fmt: skip
    if not hasattr(pipeline.scheduler, "alphas_cumprod") or trained.get("use_flow_sigmas"):
        raise ValueError(f"expected a checkpoint trained on a schedule of betas, got one trained on flows or on noise levels (EDM), as its "
                         f"{scheduler} tells; open it with diffusers itself")  # fmt: skip
    if (predicts := trained.get("prediction_type")) not in ("epsilon", "v_prediction"):
        raise ValueError(f"expected a checkpoint that predicts epsilon or v_prediction, got {predicts!r}; open it with diffusers itself")


def _assembled(name, pipeline, source, device, dtype):
    """The parts of a loaded pipeline."""
    parts = pipeline.components
    second = parts.get("text_encoder_2")
    return StableDiffusion(
        name, pipeline.tokenizer, pipeline.text_encoder, _text_projection(second or pipeline.text_encoder, source, device, dtype),
        pipeline.image_encoder, pipeline.feature_extractor, pipeline.vae, pipeline.unet, pipeline.scheduler, parts.get("safety_checker"),
        _vocabulary(source), device, dtype, parts.get("tokenizer_2"), second,
        pipeline.config.get("force_zeros_for_empty_prompt", False),
    )  # fmt: skip


def fingerprint(*parts: nn.Module) -> str:
    """A name for these weights: the sha256 of all parameters in half precision."""
    digest = hashlib.sha256()
    for part in parts:
        weights = get_state_dict_offloaded_model(part) if hasattr(part, "_hf_hook") else part.state_dict()
        for name, _ in part.named_parameters():
            digest.update(weights[name].detach().to("cpu", torch.float16).numpy().tobytes())
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


def _reason(error):
    if should_reduce_batch_size(error):
        return "expected more memory to read it into; end other programs, or choose a smaller checkpoint or half precision"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _check_finite(pipeline):
    for name, part in pipeline.components.items():
        for tensor, values in getattr(part, "named_parameters", list)():
            if not torch.stack(values.aminmax()).isfinite().all():
                raise ValueError(f"expected finite weights, got NaN or infinity in {tensor} of the {name}; the file was damaged or "
                                 "converted badly: fetch it again, or load it with another dtype")  # fmt: skip


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
