"""The folder of the live page: its files, the checkpoint as ONNX, and what the page has to know of it."""

import hashlib
import json
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler
from jinja2 import ChoiceLoader, FileSystemLoader

from ..attention import cross_attention_layers
from ..files import write_whole
from ..model import PLACES, StableDiffusion
from ..player.page import TEMPLATES, coloured
from ..plots.style import DIVERGING
from ..vae import fitted_colours
from . import export, packages

LARGEST = 40_000_000  # bytes of weights, in half precision, that a phone may be asked to fetch and to run
UNREAD = 64  # rows of the table that stand for all those that a small checkpoint never read
SITE = Path(__file__).with_name("site")
# What else a scheduler's configuration may ask for, the page's samplers do not know.
KNOWN = dict(
    thresholding=False, skip_prk_steps=True, use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False,
    interpolation_type="linear", timestep_type="discrete", final_sigmas_type="zero", rescale_betas_zero_snr=False,
)  # fmt: skip


def write(model: StableDiffusion, folder: Path, archives: Path | None = None) -> int:
    """Write the live page of `model` into `folder`: static files for any web server. Returns how many bytes they are.

    `archives` is where the two npm packages lie that the page runs on, or are put (see `packages.files`). Raises ValueError, before any
    work, for a checkpoint that is too large for a browser, saying how large it is, or of a kind that the page does not know.
    """
    check(model)
    name = Path(model.name).name
    scales = {scale: coloured(np.arange(256), scale).ravel().tolist() for scale in ("inferno", DIVERGING)}
    templates = TEMPLATES.overlay(loader=ChoiceLoader([FileSystemLoader(SITE), TEMPLATES.loader]))
    page = templates.get_template("live.html").render(model=name, scales=scales)
    files = (
        {f"vendor/{file}": data for file, data in packages.files(archives).items()}
        | {f"model/{file}": data for file, data in _checkpoint(model, name).items()}
        | {file.name: file.read_bytes() for file in SITE.glob("*.mjs")}
        | {"index.html": page.encode(), "way.mjs": templates.get_template("way.mjs").render().encode()}
    )
    version = hashlib.sha256(b"".join(files.values())).hexdigest()
    files["service.js"] = templates.get_template("service.js").render(files=[*files], version=version).encode()
    for file, data in files.items():
        write_whole(folder / file, data)
    return sum(map(len, files.values()))


def check(model: StableDiffusion) -> None:
    """Raise ValueError unless a browser can run the checkpoint, and the page knows its kind."""
    size = 2 * sum(weight.numel() for part in model.networks.values() for weight in part.parameters())
    if model.vocabulary:
        size -= 2 * model.text_encoder.get_input_embeddings().weight.numel()
    reads_more = model.text_encoder_2 or model.unet.config.time_cond_proj_dim or getattr(model.text_encoder.config, "use_attention_mask", 0)
    wrong = (
        f"{size / 1e6:,.0f} MB of weights, where a phone can fetch and run {LARGEST / 1e6:.0f}" if size > LARGEST
        else "a UNet that reads more than one text" if reads_more
        else "" if samplers(model.scheduler) else "a scheduler whose configuration the page's DDIM, PNDM and Euler do not know"
    )  # fmt: skip
    if wrong:
        raise ValueError(f"expected a small checkpoint of the kind of Stable Diffusion 1 or 2, got {model.name} with {wrong}; "
                         "`sdteach play` makes pages of the runs of any checkpoint")  # fmt: skip


def samplers(scheduler) -> dict[str, dict]:
    """The configurations of the samplers that the page has, as far as it knows what they ask for, by the name of the class."""
    kinds = (DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler)
    made = {cls.__name__: dict(cls.from_config(scheduler.config).config) for cls in kinds}
    return {cls.__name__: made[cls.__name__] for cls in kinds
            if all(made[cls.__name__][key] == KNOWN[key] for key in KNOWN.keys() & signature(cls).parameters)}  # fmt: skip


def _checkpoint(model, name):
    """The files of the model: its networks, its tokenizer, and what else the page has to know."""
    tokenizer, tower, own = model.tokenizer, model.text_encoder, type(model.scheduler).__name__
    rows = [*range(tower.config.vocab_size)]
    if model.vocabulary:  # its words' pieces, marks, what stands at start, end and padding; and some that it never read, for all others
        read = {*tokenizer(" ".join([*model.vocabulary, ",", "."])).input_ids, tokenizer.pad_token_id}
        rows = [*read, *[row for row in rows if row not in read][:UNREAD]]
    latents = torch.zeros(2, model.unet.config.in_channels, *2 * [model.unet.config.sample_size])
    seen = {"latents": latents, "timestep": torch.tensor(500.0), "text": torch.zeros(2, PLACES, tower.config.hidden_size)}
    outputs = ("output", *cross_attention_layers(model.unet))
    networks = {
        "text_encoder": export.to_onnx(export.with_rows(tower, rows), export.read,
                                       {"rows": torch.zeros(1, PLACES, dtype=torch.long)}, ("text",)),
        "unet": export.to_onnx(model.unet, export.predict, seen, outputs, "latents", "text"),
        "decoder": export.to_onnx(model.vae, export.decode, {"latents": latents[:1]}, ("picture",)),
    }  # fmt: skip
    known = samplers(model.scheduler)
    facts = {
        "name": name, "places": PLACES, "latents": latents.shape[1:], "factor": model.vae_scale_factor, "rows": rows,
        "guidance_scale": model.guidance_scale, "velocity": model.scheduler.config.prediction_type == "v_prediction",
        "alphas_cumprod": model.scheduler.alphas_cumprod.tolist(), "samplers": known, "sampler": own if own in known else next(iter(known)),
        "start": tokenizer.bos_token_id, "end": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id,
        "vocabulary": model.vocabulary and sorted(model.vocabulary), "unread": UNREAD, "preview": fitted_colours(model).tolist(),
        "files": {file: len(data) for file, data in networks.items()},
    }  # fmt: skip
    texts = {"checkpoint.json": json.dumps(facts), "tokenizer.json": tokenizer.backend_tokenizer.to_str()}
    return {f"{file}.onnx": data for file, data in networks.items()} | {file: text.encode() for file, text in texts.items()}
