"""What a known checkpoint is made of, told by its configs alone: no weights, no download."""

import json

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel

from ..attention import cross_attention_layers
from ..files import data_folder
from ..records import Record


class Sizes(Record):
    """`latents` are channels, height and width of the usual picture; `text_width` what the UNet reads at each place; `towers` the width
    and the depth of each text tower, `padding` what each tokenizer fills up with; `places` the number of cross-attention layers;
    `predicts` epsilon or v_prediction; `parameters` how many each part has; `gigabytes` what they take in float16.
    """

    latents: tuple[int, int, int]
    text_width: int
    towers: tuple[tuple[int, int], ...]
    padding: tuple[str, ...]
    places: int
    predicts: str
    parameters: dict[str, int]
    gigabytes: float


def sizes(family: str) -> Sizes:
    """Of a family whose configs are packaged: sd-1, sd-2, sd-turbo, sdxl and others. Raises ValueError for another."""
    folders = {folder.name: folder for folder in (data_folder("assets") / "configs").iterdir()}
    if family not in folders:
        raise ValueError(f"expected one of {', '.join(sorted(folders))}, got {family!r}")
    folder = folders[family]
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    with torch.device("meta"):  # shapes without numbers
        towers = {name: getattr(transformers, index[name][1])(transformers.CLIPTextConfig.from_pretrained(folder / name))
                  for name in ("text_encoder", "text_encoder_2") if index.get(name)}  # fmt: skip
        unet, vae = (kind.from_config(kind.load_config(folder / name))
                     for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)))  # fmt: skip
    scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / "scheduler")
    parameters = {name: part.num_parameters() for name, part in (towers | {"unet": unet, "vae": vae}).items()}
    return Sizes(
        (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size), unet.config.cross_attention_dim,
        tuple((tower.config.hidden_size, tower.config.num_hidden_layers) for tower in towers.values()),
        tuple(_padding(folder / name.replace("text_encoder", "tokenizer")) for name in towers), len(cross_attention_layers(unet)),
        scheduler.config.prediction_type, parameters, 2 * sum(parameters.values()) / 1e9,
    )  # fmt: skip


def _padding(folder):
    token = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["pad_token"]
    return token if isinstance(token, str) else token["content"]
