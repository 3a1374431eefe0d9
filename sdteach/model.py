"""The loaded parts of a Stable Diffusion."""

import hashlib
import json
from dataclasses import dataclass
from os import environ
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size
from accelerate.utils.modeling import get_state_dict_offloaded_model
from PIL import Image
from torch import nn
from torch.func import functional_call

from .loading import quiet, uncollected
from .loading.folder import check_tensors, made_for, read_folder
from .loading.memory import let_go, settle
from .loading.names import EMBEDDED, find
from .loading.single_file import read_file

PLACES = 77  # of CLIP's text tower


@dataclass(frozen=True, eq=False, repr=False)
class StableDiffusion:
    """The parts of one checkpoint, ready on `device` in `dtype`.

    `image_encoder`, `feature_extractor` and `text_projection` are None where the checkpoint has none, as is
    `safety_checker`; `vocabulary` holds the words a small checkpoint was trained on, None for one that read the web.
    An XL checkpoint reads the prompt with two text towers: `tokenizer_2` and `text_encoder_2` are the second's, to which
    `text_projection` then belongs; `zeros_for_empty` says that it was trained with zeros where there is no negative prompt.
    `guidance_scale` is its usual one, 7.5 unless the folder's sdteach.json names another.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    tokenizer: object
    text_encoder: nn.Module
    vae: nn.Module
    unet: nn.Module
    scheduler: object
    tokenizer_2: object | None = None
    text_encoder_2: nn.Module | None = None
    text_projection: nn.Module | None = None
    image_encoder: nn.Module | None = None
    feature_extractor: object | None = None
    safety_checker: nn.Module | None = None
    vocabulary: frozenset[str] | None = None
    zeros_for_empty: bool = False
    guidance_scale: float = 7.5

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
    `loading.memory.settle`).
    """
    device = _checked_device(device)
    dtype = _checked_dtype(dtype, device)
    name = str(name or environ.get("SDTEACH_MODEL") or EMBEDDED)
    let_go()
    try:
        source = find(name)
        with uncollected(), quiet():
            pipeline = (read_folder if source.is_dir() else read_file)(source, dtype)
            model = _assembled(name, pipeline, source, device, dtype)
        _check_texts(model)
        _check_latents(model)
        _check_finite(pipeline)
        if name != EMBEDDED:  # whose sums are tested
            _check_runs(model)
    except Exception as error:  # whatever is in the files, some library meets it first
        raise ValueError(f"cannot load {name!r}: {_reason(error)}; load_model({EMBEDDED!r}) always works, without a network") from error
    settle([part for part in pipeline.components.values() if isinstance(part, nn.Module)], device, offload)
    return model


def _assembled(name, pipeline, source, device, dtype):
    """The parts of a loaded pipeline, and what lies beside them."""
    second, words, own = getattr(pipeline, "text_encoder_2", None), source / "vocabulary.txt", source / "sdteach.json"
    # XL's autoencoder overflows in float16: it stays in float32 then, as diffusers runs it.
    if second is not None and dtype == torch.float16 and pipeline.vae.config.force_upcast:
        pipeline.vae.float()
    return StableDiffusion(
        name, device, dtype, **pipeline.components,
        text_projection=getattr(second or pipeline.text_encoder, "text_projection", None)
        or _projection(source / "text_projection.safetensors", device, dtype),
        vocabulary=frozenset(words.read_text("utf-8").split()) if words.is_file() else None,
        zeros_for_empty=pipeline.config.get("force_zeros_for_empty_prompt", False),
        guidance_scale=_usual_guidance(own) if own.is_file() else 7.5,
    )  # fmt: skip


def _usual_guidance(file):
    scale = json.loads(file.read_text("utf-8"))["guidance_scale"]
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 <= scale <= 100:
        raise ValueError(f"expected guidance_scale in {file.name} to be a number from 0 to 100, got {scale!r:.40}")
    return float(scale)


def _projection(file, device, dtype):
    if not file.is_file():
        return None
    from safetensors.torch import load_file

    check_tensors(file)
    weight = load_file(file)["weight"]
    projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    projection.load_state_dict({"weight": weight})
    return projection.to(device, dtype).requires_grad_(False)


def _check_texts(model):
    """Raise ValueError unless the tokenizers and the text towers are all there, fit each other, and make what the UNet reads."""
    unet, towers = model.unet.config, [model.text_encoder, model.text_encoder_2][: 1 + (model.tokenizer_2 is not None)]
    for tokenizer, tower in zip((model.tokenizer, model.tokenizer_2), towers, strict=False):
        if tower.config.max_position_embeddings != PLACES:
            raise ValueError(f"expected a text encoder of {PLACES} places, got one of {tower.config.max_position_embeddings}")
        if tokenizer.model_max_length > 1000 * PLACES:  # transformers' number where the folder says none, as old ones do
            tokenizer.model_max_length = PLACES
        ids = tokenizer("a red car", padding="max_length", max_length=tokenizer.model_max_length).input_ids
        if len(ids) != PLACES or max(ids) >= tower.config.vocab_size:
            raise ValueError(f"expected a tokenizer that makes {PLACES} ids below {tower.config.vocab_size}, as the text encoder reads "
                             f"them, got {len(ids)} up to {max(ids)}")  # fmt: skip
    width, read = sum(tower.config.hidden_size for tower in towers), unet.cross_attention_dim
    if {width} != ({read} if isinstance(read, int) else {*read}):
        raise ValueError(f"expected a UNet that reads texts {width} wide, as the text encoders make them, got one that reads {read}")
    if not any(getattr(layer, "is_cross_attention", False) for layer in model.unet.modules()):
        raise ValueError("expected a UNet that reads the text by cross-attention, got one without such a layer")
    if len(towers) == 2:
        numbers = towers[1].config.projection_dim + 6 * unet.addition_time_embed_dim
        if unet.projection_class_embeddings_input_dim != numbers:
            raise ValueError(f"expected a UNet that takes {numbers} numbers for the whole text and six sizes, got one that takes "
                             f"{unet.projection_class_embeddings_input_dim}")  # fmt: skip


def _check_latents(model):
    """Raise ValueError for latents or noise of another kind than the stages reckon with: the pictures would be wrong."""
    vae, scheduler, trained, channels = model.vae.config, model.scheduler, model.scheduler.config, model.unet.config.in_channels
    if channels != vae.latent_channels:
        raise ValueError(f"expected a UNet with {vae.latent_channels} input channels, got {channels}{made_for(channels)}")
    size = model.unet.config.sample_size
    edges = size if isinstance(size, list | tuple) else [size]
    if len(edges) not in (1, 2) or any(type(edge) is not int for edge in edges):
        raise ValueError(f"expected the UNet's sample_size to be a whole number, or a height and a width, got {size!r:.40}")
    if shifted := [name for name in ("latents_mean", "latents_std", "shift_factor") if getattr(vae, name, None)]:
        raise ValueError(f"expected a VAE whose latents are multiplied by its scaling_factor alone, got one with {', '.join(shifted)} "
                         "besides; open it with diffusers itself")  # fmt: skip
    if not hasattr(scheduler, "alphas_cumprod") or trained.get("use_flow_sigmas"):
        raise ValueError("expected a checkpoint trained on a schedule of betas, got one trained on flows or on noise levels (EDM), as its "
                         f"{type(scheduler).__name__} tells; open it with diffusers itself")  # fmt: skip
    if (predicts := trained.get("prediction_type")) not in ("epsilon", "v_prediction"):
        raise ValueError(f"expected a checkpoint that predicts epsilon or v_prediction, got {predicts!r}; open it with diffusers itself")
    if not ((scheduler.alphas_cumprod >= 0) & (scheduler.alphas_cumprod <= 1)).all() or not 0 < vae.scaling_factor < torch.inf:
        raise ValueError("expected betas between 0 and 1 and a scaling_factor above 0, got others; fetch or copy the scheduler's and the "
                         "VAE's configurations again")  # fmt: skip


def _check_runs(model):
    """Raise what the parts raise when they run on tensors that have a shape and no numbers, which costs next to nothing: whatever in the
    configurations does not fit the rest is met here, not in the middle of a picture."""

    def run(network, *inputs, **options):
        weights = {name: value.to("meta") for name, value in (*network.named_parameters(), *network.named_buffers())}
        return functional_call(network, weights, inputs, options)

    towers = [tower for tower in (model.text_encoder, model.text_encoder_2) if tower is not None]
    edge = 8 * model.vae_scale_factor
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        scheduler = type(model.scheduler).from_config(model.scheduler.config)
        scheduler.set_timesteps(20)
        latents = torch.zeros(1, model.unet.config.in_channels, 8, 8)
        scheduler.step(scheduler.scale_model_input(latents, scheduler.timesteps[0]), scheduler.timesteps[0], latents)
        seen = model.feature_extractor and model.feature_extractor(Image.new("RGB", (edge, edge)), return_tensors="pt").pixel_values
    with torch.no_grad(), torch.device("meta"):
        for tower in towers:
            torch.stack(run(tower, torch.zeros(1, PLACES, dtype=torch.long), output_hidden_states=True).hidden_states)
        if model.image_encoder is not None and seen is not None:
            run(model.image_encoder, seen.to("meta", model.dtype))
        texts = torch.empty(1, PLACES, sum(tower.config.hidden_size for tower in towers), dtype=model.dtype)
        whole = {"text_embeds": torch.empty(1, towers[-1].config.projection_dim, dtype=model.dtype), "time_ids": torch.empty(1, 6)}
        shapes = [tuple(made.sample.shape) for made in (
            run(model.unet, torch.empty(1, 4, 8, 8, dtype=model.dtype), torch.tensor(1), texts, added_cond_kwargs=whole),
            run(model.vae, torch.empty(1, 3, edge, edge, dtype=model.vae.dtype)),
        )]  # fmt: skip
    if shapes != [(1, 4, 8, 8), (1, 3, edge, edge)]:
        raise ValueError(f"expected a UNet and a VAE that give back the shape they are given, got {shapes}")


def _check_finite(pipeline):
    for name, part in pipeline.components.items():
        for tensor, values in getattr(part, "named_parameters", list)():
            if not torch.stack(values.aminmax()).isfinite().all():
                raise ValueError(f"expected finite weights, got NaN or infinity in {tensor} of the {name}; the file was damaged or "
                                 "converted badly: fetch it again, or load it with another dtype")  # fmt: skip


def _reason(error):
    if should_reduce_batch_size(error):
        return "expected more memory to read it into; end other programs, or choose a smaller checkpoint or half precision"
    said = (str(error).strip() or "no more is known").splitlines()[0]
    if isinstance(error, ValueError | OSError):
        return said
    return f"expected configurations and weights that fit each other, got {type(error).__name__}: {said}; fetch or copy it again"


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
