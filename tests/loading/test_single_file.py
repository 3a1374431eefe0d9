"""One file with everything: each family is recognised, read as from its folder, and anything else is refused with the reason."""

import json

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import sdteach
from sdteach.loading import single_file
from sdteach.loading.folder import read_folder

from conftest import ROOT
from original_layout import FAMILIES, in_one_file, made, small_assets

CONFIGS = ROOT / "assets" / "configs"
NAMES = {"sd-2": "v2-1_768-ema.safetensors", "sd-2-base": "512-base-ema.safetensors", "sd-turbo": "sd_turbo.safetensors",
         "sdxl-turbo": "sd_xl_turbo_1.0.safetensors"}  # fmt: skip


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return small_assets(tmp_path_factory.mktemp("assets") / "assets")


@pytest.fixture
def small(assets, monkeypatch):
    monkeypatch.setattr(single_file, "data_folder", lambda _: assets)
    return assets


@pytest.fixture(scope="module")
def twins(assets, tmp_path_factory):
    """A family -> (its folder, the same in one file), made when first asked for."""
    there = {}

    def twin(family):
        if family not in there:
            folder = tmp_path_factory.mktemp(family)
            file = folder / NAMES.get(family, "model.safetensors")
            there[family] = folder / "folder", in_one_file(made(assets / "configs" / family, folder / "folder"), file)
        return there[family]

    return twin


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_read_as_its_folder_is(small, twins, family):
    folder, file = twins(family)
    assert single_file.family(file) == family
    one, other = single_file.read_file(file, torch.float32), read_folder(folder, torch.float32)
    assert type(one) is type(other)
    for name, part in other.components.items():
        if isinstance(part, torch.nn.Module):
            ours, theirs = getattr(one, name).state_dict(), part.state_dict()
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
            assert not getattr(one, name).training
        elif name.startswith("tokenizer"):
            assert getattr(one, name)("a red car", padding="max_length").input_ids == part("a red car", padding="max_length").input_ids
    assert type(one.scheduler) is type(other.scheduler)
    assert one.scheduler.config.prediction_type == ("v_prediction" if family == "sd-2" else "epsilon")


@pytest.mark.parametrize("family", ["sd-1", "sd-2"])
def test_a_file_paints_what_its_folder_paints(small, twins, family):
    folder, file = twins(family)
    one, other = (sdteach.load_model(source, device="cpu") for source in (file, folder))
    assert one.name == str(file)
    latents = [sdteach.generate(model, "a red car", steps=3, height=64, width=48).final_latents for model in (one, other)]
    assert np.array_equal(*latents)


def test_a_file_is_read_in_the_dtype_asked_for(small, twins, tmp_path):
    file = tmp_path / "full.safetensors"
    save_file({name: tensor.float() for name, tensor in load_file(twins("sd-1")[1]).items()}, file)
    for dtype in (torch.float16, torch.bfloat16):
        model = sdteach.load_model(file, device="cpu", dtype=dtype)
        assert {p.dtype for part in (model.unet, model.vae, model.text_encoder) for p in part.parameters()} == {dtype}


def test_what_tensors_do_not_tell_the_metadata_tells_or_it_is_assumed_aloud(small, twins, tmp_path):
    tensors = load_file(twins("sd-2")[1])
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    with pytest.warns(UserWarning, match="does not say which Stable Diffusion 2"):
        assert single_file.family(file) == "sd-2"
    save_file(tensors, file, {"modelspec.prediction_type": "epsilon", "ss_tag_frequency": "768 turbo"})
    assert single_file.family(file) == "sd-2-base"


def test_of_a_file_with_averages_what_was_trained_is_read_and_said_aloud(small, twins, tmp_path):
    folder, file = twins("sd-1")
    tensors, both = load_file(file), tmp_path / "pruned.safetensors"
    unet = {name: tensor for name, tensor in tensors.items() if name.startswith(single_file.UNET)}
    # As the makers' code flattens them: "model." is gone, and so are the dots.
    averages = {"model_ema." + name.removeprefix("model.").replace(".", ""): tensor + 1 for name, tensor in unet.items()}
    save_file(tensors | averages | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}, both)
    with pytest.warns(UserWarning, match=r"pruned\.safetensors holds its UNet twice.*what was trained is read"):
        read = single_file.read_file(both, torch.float32).unet.state_dict()
    expected = read_folder(folder, torch.float32).unet.state_dict()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in expected)
    save_file({name: tensor for name, tensor in (tensors | averages).items() if name not in unet}, both)
    assert "whose UNet's tensors begin with 'model.diffusion_model.'" in refused(both)


def refused(file, **options):
    with pytest.raises(ValueError, match="cannot load") as caught:
        sdteach.load_model(file, device="cpu", **options)
    assert "load_model('picturebook') always works" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("tensor", "hint"), [
    ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA, a VAE or a UNet alone"),
    ("double_blocks.0.img_attn.norm.key_norm.scale", "a LoRA, a VAE or a UNet alone"),
    ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "got 'model.diffusion_model.double_blocks"),
    ("model.diffusion_model.time_embed.cond_proj.weight", "a consistency model"),
    ("conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias", "a LoRA, a VAE"),
])  # fmt: skip
def test_other_files_are_refused_by_name(tmp_path, tensor, hint):
    save_file({tensor: torch.zeros(2, 2), "model.other": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert hint in refused(tmp_path / "other.safetensors")


def test_a_file_made_for_one_task_is_refused_with_the_task(tmp_path):
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, tmp_path / "paint.safetensors")
    assert "made for inpainting alone" in refused(tmp_path / "paint.safetensors")


def test_a_file_that_lacks_a_part_says_which(small, twins, tmp_path):
    tensors = load_file(twins("sd-1")[1])
    for beginning, part in (("first_stage_model", "AutoencoderKL"), ("cond_stage_model", "CLIPTextModel"),
                            ("model.diffusion_model.output_blocks.3", "Tensors of its parts")):  # fmt: skip
        save_file({name: value for name, value in tensors.items() if not name.startswith(beginning)}, tmp_path / "part.safetensors")
        assert part in refused(tmp_path / "part.safetensors")


def test_damage_is_found(small, twins, tmp_path):
    file, whole = tmp_path / "damaged.safetensors", twins("sd-1")[1].read_bytes()
    for damaged in (b"", whole[:1000], whole[:-1000], b"<html>404</html>", b"\xff" * 100):
        file.write_bytes(damaged)
        assert "expected a whole safetensors file" in refused(file)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265146304\n")
    assert "git lfs pull" in refused(file)
    tensors = load_file(twins("sd-1")[1])
    for wrong, hint in ((torch.zeros(3, 3), "shape"), (torch.full((128, 32), torch.nan), "NaN")):
        save_file(tensors | {"model.diffusion_model.time_embed.0.weight": wrong}, file)
        assert hint in refused(file)


@pytest.mark.parametrize("ending", ["ckpt", "pt", "bin", "pth"])
def test_a_pickle_is_refused_unread_with_the_reason(tmp_path, ending):
    trap = tmp_path / f"model.{ending}"
    trap.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    assert "a pickle can run any program" in refused(trap)
    assert not (tmp_path / "opened").exists()


# The published sizes of the parts: the configurations in assets are those of the real checkpoints.
PARAMETERS = {
    "sd-1": (859_520_964, 83_653_863, 123_060_480), "sd-2": (865_910_724, 83_653_863, 340_387_840),
    "sdxl": (2_567_463_684, 83_653_863, 123_060_480, 694_659_840),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_configurations_are_those_of_the_published_checkpoints(family):
    configs = CONFIGS / family
    kind = "sdxl" if "xl" in family else "sd-1" if family == "sd-1" else "sd-2"
    with torch.device("meta"):
        parts = [getattr(diffusers, name).from_config(json.loads((configs / part / "config.json").read_text()))
                 for part, name in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL"))]  # fmt: skip
        parts.append(CLIPTextModel(CLIPTextConfig.from_pretrained(configs / "text_encoder")))
        if kind == "sdxl":
            parts.append(CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(configs / "text_encoder_2")))
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts) == PARAMETERS[kind]
