"""Small checkpoints of each family with random weights, twice: as diffusers lays them out, and in one file as their makers did."""

import json
import re
import shutil

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from conftest import PICTUREBOOK, ROOT

SMALL = {"block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 32, "sample_size": 8}
TEXT = {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "num_hidden_layers": 2}
# What is smaller than in assets/configs, by family and part; what a family is recognised by stays.
WIDE = {"unet": SMALL | {"attention_head_dim": [1, 1, 2, 2], "cross_attention_dim": 1024}, "text_encoder": TEXT | {"hidden_size": 1024}}
XL = {
    "unet": SMALL | {"block_out_channels": [32, 32, 64], "attention_head_dim": [1, 1, 2], "cross_attention_dim": 96,
                     "projection_class_embeddings_input_dim": 64 + 6 * 256},
    "text_encoder": TEXT, "text_encoder_2": TEXT | {"hidden_size": 64, "projection_dim": 64, "num_hidden_layers": 10},
}  # fmt: skip
FAMILIES = {
    "sd-1": {"unet": SMALL, "text_encoder": TEXT}, "sd-2": WIDE, "sd-2-base": WIDE, "sd-turbo": WIDE, "sdxl": XL, "sdxl-turbo": XL,
}  # fmt: skip
VAE = {"block_out_channels": [32, 32, 32, 32], "sample_size": 64}


def small_assets(folder):
    """A folder of packaged data, with the configurations made small."""
    shutil.copytree(ROOT / "assets" / "configs", folder / "configs")
    (folder / "picturebook").symlink_to(PICTUREBOOK)
    for family, parts in FAMILIES.items():
        for part, smaller in ({"vae": VAE} | parts).items():
            path = folder / "configs" / family / part / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | smaller))
    return folder


def made(configs, folder):
    """A pipeline with random weights after the configurations of a family, saved in `folder` by diffusers.

    In half precision, as they are published: read in any other, they are copied to where memory is aligned. Weights that are used where
    they lie in a file give sums that differ in the last bits with where that is.
    """
    torch.manual_seed(7)
    index = json.loads((configs / "model_index.json").read_text())
    parts = {}
    for part, (library, kind) in ((part, value) for part, value in index.items() if isinstance(value, list) and value[0]):
        config = next((configs / part).glob("*config.json"))
        if part.startswith("tokenizer"):
            pad = json.loads(config.read_text())["pad_token"]
            parts[part] = transformers.CLIPTokenizer.from_pretrained(PICTUREBOOK / "tokenizer", pad_token=pad)
        elif library == "diffusers":
            parts[part] = getattr(diffusers, kind).from_config(json.loads(config.read_text()))
        else:
            parts[part] = getattr(transformers, kind)(transformers.CLIPTextConfig.from_pretrained(configs / part)).eval()
    optional = {} if "tokenizer_2" in parts else {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, index["_class_name"])(**parts, **optional)
    pipeline.to(torch.float16).save_pretrained(folder)
    return pipeline


def in_one_file(pipeline, path):
    """Write what is in the pipeline as its makers would have."""
    tensors = {f"model.diffusion_model.{_unet(name, pipeline.unet)}": value for name, value in pipeline.unet.state_dict().items()}
    tensors |= dict(_vae(pipeline.vae.state_dict()))
    if hasattr(pipeline, "text_encoder_2"):
        tensors |= _clip(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
        tensors |= _open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
    elif pipeline.unet.config.cross_attention_dim == 1024:
        tensors |= _open_clip(pipeline.text_encoder, "cond_stage_model.model.")
    else:
        tensors |= _clip(pipeline.text_encoder, "cond_stage_model.transformer.")
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def _renamed(name, *pairs):
    for old, new in pairs:
        name = re.sub(old, new, name)
    return name


def _unet(name, unet):
    per_level = unet.config.layers_per_block + 1
    if found := re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name):
        side, level, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        last = "samplers" in kind
        place = per_level * level + (per_level - 1 if last else layer) + (side == "down")
        upsampler = 1 + ("Cross" in unet.config.up_block_types[level]) if kind == "upsamplers" else None
        slot = {"resnets": 0, "attentions": 1, "downsamplers": 0}.get(kind, upsampler)
        rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        name = f"{'input' if side == 'down' else 'output'}_blocks.{place}.{slot}.{rest}"
    name = _renamed(name, (r"mid_block\.resnets\.0", "middle_block.0"), (r"mid_block\.attentions\.0", "middle_block.1"),
                    (r"mid_block\.resnets\.1", "middle_block.2"), ("time_embedding.linear_1", "time_embed.0"),
                    ("time_embedding.linear_2", "time_embed.2"), ("add_embedding.linear_1", "label_emb.0.0"),
                    ("add_embedding.linear_2", "label_emb.0.2"), (r"^conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"),
                    (r"^conv_out", "out.2"))  # fmt: skip
    if "transformer_blocks" in name:
        return name
    return _renamed(name, (r"\.norm1\.", ".in_layers.0."), (r"\.conv1\.", ".in_layers.2."), (r"\.norm2\.", ".out_layers.0."),
                    (r"\.conv2\.", ".out_layers.3."), ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"))  # fmt: skip


def _vae(state):
    deepest = max(int(name.split(".")[2]) for name in state if name.startswith("decoder.up_blocks"))
    for name, value in state.items():
        place = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{deepest - int(found[1])}", name)
        place = _renamed(place, (r"down_blocks", "down"), (r"mid_block\.resnets\.0", "mid.block_1"),
                         (r"mid_block\.resnets\.1", "mid.block_2"), (r"mid_block\.attentions\.0", "mid.attn_1"),
                         (r"resnets", "block"), (r"downsamplers\.0", "downsample"),
                         (r"upsamplers\.0", "upsample"), ("group_norm", "norm"), (r"to_([qkv])\.", r"\1."), (r"to_out\.0", "proj_out"),
                         ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"))  # fmt: skip
        linear = "attn_1" in place and place.endswith("weight") and value.ndim == 2
        yield f"first_stage_model.{place}", value[:, :, None, None] if linear else value


def _clip(encoder, prefix):
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": value for name, value in encoder.state_dict().items()}


def _open_clip(encoder, prefix):
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    tensors = {}
    for name, value in state.items():
        if ".q_proj." in name:
            joined = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            tensors[_layer(name.replace("q_proj.", "in_proj_"))] = joined
        elif name == "text_projection.weight":
            tensors["text_projection"] = value.T
        elif not re.search(r"[kv]_proj", name):
            tensors[_layer(name)] = value
    tensors.setdefault("text_projection", torch.eye(state["embeddings.token_embedding.weight"].shape[1]).half())
    return {prefix + name: value for name, value in tensors.items()}


def _layer(name):
    return _renamed(name, (r"encoder\.layers\.", "transformer.resblocks."), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                    ("fc1", "c_fc"), ("fc2", "c_proj"), ("self_attn", "attn"), ("final_layer_norm", "ln_final"),
                    (r"embeddings\.token_embedding", "token_embedding"),
                    (r"embeddings\.position_embedding\.weight", "positional_embedding"))  # fmt: skip
