"""The folder of the live page: its files, the checkpoint as ONNX, and what the page has to know of it."""

import hashlib
import json
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler
from jinja2 import ChoiceLoader, FileSystemLoader

from .. import __version__
from ..attention import cross_attention_layers
from ..files import write_whole
from ..model import PLACES, StableDiffusion
from ..player.page import TEMPLATES
from ..plots.style import DIVERGING
from ..vae import fitted_colours
from . import packages
from .export import Decodes, Predicts, Reads, to_onnx

LARGEST = 40_000_000  # bytes of the networks' weights that a phone may be asked to fetch and to run
SITE = Path(__file__).with_name("site")
SAMPLERS = (DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler)
# What a sampler may not be told, since the page's samplers do not know it.
FOREIGN = {
    "thresholding": False, "skip_prk_steps": True, "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False,
    "interpolation_type": "linear", "timestep_type": "discrete", "final_sigmas_type": "zero", "rescale_betas_zero_snr": False,
}  # fmt: skip


def write(model: StableDiffusion, folder: Path, archives: Path | None = None) -> int:
    """Write the live page of `model` into `folder`: static files for any web server. Returns how many bytes they are.

    `archives` is where the two npm packages lie that the page runs on, or are put (see `packages.files`). Raises ValueError, before any
    work, for a checkpoint that is too large for a browser, saying how large it is, or of a kind that the page does not know.
    """
    check(model)
    made = {f"vendor/{name}": data for name, data in packages.files(archives).items()}
    made |= {f"model/{name}": data for name, data in _checkpoint(model).items()}
    made |= {path.name: path.read_bytes() for path in SITE.glob("*.mjs")}
    templates = TEMPLATES.overlay(loader=ChoiceLoader([FileSystemLoader(SITE), TEMPLATES.loader]))
    colours = {name: mpl.colormaps[name](np.arange(256), bytes=True)[:, :3] for name in ("inferno", DIVERGING)}
    scales = {name: shades.ravel().tolist() for name, shades in colours.items()}
    facts = {"model": Path(model.name).name, "scales": scales, "generator": f"sdteach {__version__}"}
    made["index.html"] = templates.get_template("live.html").render(facts).encode()
    version = hashlib.sha256(b"".join(made[name] for name in sorted(made))).hexdigest()[:16]
    made["service.js"] = templates.get_template("service.js").render(files=sorted(made), version=version).encode()
    for name, data in made.items():
        write_whole(folder / name, data)
    return sum(map(len, made.values()))


def check(model: StableDiffusion) -> None:
    """Raise ValueError unless a browser can run the checkpoint, and the page knows its kind."""
    size = sum(2 * weight.numel() for name, part in model.networks.items() for weight in part.parameters())
    if model.vocabulary:
        size -= 2 * model.text_encoder.get_input_embeddings().weight.numel()
    if size > LARGEST:
        raise ValueError(f"expected a checkpoint of at most {LARGEST / 1e6:.0f} MB in half precision, which a phone can fetch and run, got "
                         f"{model.name} with {size / 1e6:,.0f} MB; `sdteach play` makes pages of runs of any checkpoint")  # fmt: skip
    unet = model.unet.config
    if model.text_encoder_2 is not None or unet.time_cond_proj_dim or getattr(model.text_encoder.config, "use_attention_mask", False):
        raise ValueError(f"expected a checkpoint of the kind of Stable Diffusion 1 or 2, got {model.name}, whose UNet reads more than one "
                         "text; `sdteach play` makes pages of its runs")  # fmt: skip
    if not samplers(model.scheduler):
        raise ValueError(f"expected a checkpoint that DDIM, PNDM or Euler can sample as the page does, got {model.name}, whose scheduler's "
                         "configuration asks for more; `sdteach play` makes pages of its runs")  # fmt: skip


def samplers(scheduler):
    """What the page's samplers have to know, by the name of the class."""
    made = [cls.from_config(scheduler.config) for cls in SAMPLERS]
    return {
        type(one).__name__: {
            "spacing": one.config.timestep_spacing, "steps_offset": one.config.steps_offset,
            "final_alpha_cumprod": float(getattr(one, "final_alpha_cumprod", 1)),
            "clip": one.config.clip_sample_range if one.config.get("clip_sample") else None,
        }
        for one in made if all(one.config.get(key, value) == value for key, value in FOREIGN.items())
    }  # fmt: skip


def _checkpoint(model):
    """The files of the model: its networks, its tokenizer, and what else the page has to know."""
    tokenizer, width, edge = model.tokenizer, model.text_encoder.config.hidden_size, model.unet.config.sample_size
    height, wide = (edge, edge) if isinstance(edge, int) else edge
    latents, known = torch.zeros(2, model.unet.config.in_channels, height, wide), samplers(model.scheduler)
    rows = sorted(_known(model)) if model.vocabulary else [*range(model.text_encoder.config.vocab_size)]
    layers = tuple(cross_attention_layers(model.unet))
    seen = {"latents": latents, "timestep": torch.tensor(500.0), "text": torch.zeros(2, PLACES, width)}
    places = {"rows": torch.zeros(1, PLACES, dtype=torch.long)}
    networks = {
        "text_encoder": to_onnx(Reads(model.text_encoder, torch.tensor(rows)), places, ("text",)),
        "unet": to_onnx(Predicts(model.unet), seen, ("output", *layers), batched=("latents", "text")),
        "decoder": to_onnx(Decodes(model.vae), {"latents": latents[:1]}, ("picture",)),
    }
    facts = {
        "name": Path(model.name).name, "places": PLACES, "latents": [*latents.shape[1:]], "factor": model.vae_scale_factor,
        "guidance_scale": model.guidance_scale, "velocity": model.scheduler.config.prediction_type == "v_prediction",
        "alphas_cumprod": model.scheduler.alphas_cumprod.tolist(), "samplers": known,
        "sampler": name if (name := type(model.scheduler).__name__) in known else next(iter(known)),
        "start": tokenizer.bos_token_id, "end": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id,
        "vocabulary": model.vocabulary and sorted(model.vocabulary), "rows": rows if model.vocabulary else None,
        "preview": fitted_colours(model).tolist(), "files": {name: len(data) for name, data in networks.items()},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as kept:
        tokenizer.save_pretrained(kept)
        words = {name: json.loads((Path(kept) / name).read_text("utf-8")) for name in ("tokenizer.json", "tokenizer_config.json")}
    texts = {"checkpoint.json": facts} | words
    return {f"{name}.onnx": data for name, data in networks.items()} | {
        name: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() for name, value in texts.items()
    }


def _known(model):
    """The ids of all that a small checkpoint has read: its words' pieces, marks, and what stands at start, end and padding."""
    tokenizer = model.tokenizer
    return {*tokenizer(" ".join([*model.vocabulary, ",", "."])).input_ids, tokenizer.pad_token_id}
