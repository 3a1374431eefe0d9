"""Folders: what is missing, cut short, misshapen or pickled is named with the remedy, and the variants that publishers use are read."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

import sdteach
from sdteach.loading.folder import checked_index

from conftest import random_folder

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path, random_folders):
    return shutil.copytree(random_folders["epsilon"], tmp_path / "copy")


def refused(folder):
    with pytest.raises(ValueError, match="cannot load") as caught:
        sdteach.load_model(folder, device="cpu")
    assert "load_model('picturebook') always works" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model_index.json", UNET, "unet/config.json", "vae/diffusion_pytorch_model.safetensors",
                                  "text_encoder/model.safetensors", "tokenizer/tokenizer.json",
                                  "scheduler/scheduler_config.json"])  # fmt: skip
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    told = refused(folder)
    assert str(folder / name).removesuffix(name.split("/")[-1]).rstrip("/") in told
    assert "again" in told


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "version https://git-lfs.github.com/spec/v1"])
def test_what_is_not_json_is_named(folder, name, text):
    (folder / name).write_text(text)
    assert f"in {folder / name}" in refused(folder)


@pytest.mark.parametrize("name", ["model_index.json", "vocabulary.txt", "unet/config.json", "tokenizer/tokenizer.json"])
def test_a_text_larger_than_any_is_named_unread(folder, name):
    (folder / name).touch()
    os.truncate(folder / name, 2**33)
    assert f"expected at most 33,554,432 bytes in {folder / name}, got 8,589,934,592" in refused(folder)


@pytest.mark.parametrize(("number", "told"), [
    ({"intermediate_size": 100_000}, r"expected 15,[\d,]+ weights in .*text_encoder, as config\.json tells, got 4,[\d,]+ bytes"),
    ({"num_hidden_layers": 0}, "configurations and weights that fit each other"),
])  # fmt: skip
def test_a_tower_that_is_too_large_for_its_weights_or_has_no_layers_is_refused(folder, number, told):
    """The large one before it takes memory."""
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | number))
    assert re.search(told, refused(folder))


@pytest.mark.parametrize("size", [[[]], [], None, True, "x", [8, 8, 8]])
def test_a_size_of_latents_that_is_none_is_refused(folder, size):
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": size}))
    assert f"sample_size to be a whole number, or a height and a width, got {size!r}" in refused(folder)


@pytest.mark.parametrize("scale", [True, None, "3", [], float("nan"), -0.5, 101, 10**400])
def test_a_usual_guidance_that_is_no_number_from_0_to_100_is_refused(folder, scale):
    (folder / "sdteach.json").write_text(json.dumps({"guidance_scale": scale}))
    assert "expected guidance_scale in sdteach.json to be a number from 0 to 100, got " + repr(scale)[:40] in refused(folder)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999, 1.001])
def test_weights_that_are_cut_short_or_too_long_are_named(folder, share):
    whole = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes((whole + whole)[: int(share * len(whole))])
    told = refused(folder)
    assert f"got {folder / UNET} of {int(share * len(whole)):,} bytes, which is cut short, too long or damaged" in told


def test_what_git_lfs_left_is_named(folder):
    (folder / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize(("wrong", "hint"), [(lambda weight: weight[:1], "shape"), (lambda weight: weight * torch.nan, "NaN"),
                                             (lambda weight: weight + torch.inf, "infinity")])  # fmt: skip
def test_weights_of_a_wrong_shape_or_not_finite_are_named(folder, part, wrong, hint):
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name in tensors if tensors[name].ndim == 2)
    save_file(tensors | {name: wrong(tensors[name]).contiguous()}, file, {"format": "pt"})
    told = refused(folder)
    assert hint in told
    assert (name.split(".")[-2] if part != "text_encoder" or hint != "shape" else part) in told


def test_weights_that_do_not_fit_the_dtype_say_so(folder):
    tensors = load_file(folder / UNET)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"] + 1e6}, folder / UNET, {"format": "pt"})
    assert sdteach.load_model(folder, device="cpu").dtype == torch.float32
    with pytest.raises(ValueError, match=r"conv_in\.bias of the unet.*another dtype"):
        sdteach.load_model(folder, device="cpu", dtype=torch.float16)


def test_pickled_weights_are_never_read(folder):
    UNet2DConditionModel.from_pretrained(folder, subfolder="unet").save_pretrained(folder / "unet", safe_serialization=False)
    (folder / UNET).unlink()
    told = refused(folder)
    assert "a pickle can run any program" in told
    assert "diffusion_pytorch_model.bin" in told


@pytest.mark.parametrize("kind", ["FluxPipeline", "StableDiffusion3Pipeline", "PixArtAlphaPipeline", None, ["my_pipeline", "Mine"], 7])
def test_other_classes_are_refused_by_name(folder, kind):
    index = json.loads((folder / "model_index.json").read_text()) | {"_class_name": kind}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert f"expected a StableDiffusionPipeline or a StableDiffusionXLPipeline, got a {kind}" in refused(folder)


def test_an_index_that_lacks_a_part(folder):
    index = json.loads((folder / "model_index.json").read_text()) | {"unet": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert "found no unet" in refused(folder)


def test_a_part_with_code_of_its_own_is_never_run(folder):
    index = json.loads((folder / "model_index.json").read_text()) | {"unet": ["mine", "UNet"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "mine.py").write_text("open('opened', 'w')\nclass UNet: pass\n")
    refused(folder)
    assert not list(folder.rglob("opened"))


def test_half_precision_variants_and_a_mixture_are_read(folder):
    whole = sdteach.load_model(folder, device="cpu")
    halves = {name: tensor.half() for name, tensor in load_file(folder / UNET).items()}
    save_file(halves, folder / UNET.replace(".safetensors", ".fp16.safetensors"), {"format": "pt"})
    assert torch.equal(sdteach.load_model(folder, device="cpu").unet.conv_in.weight, whole.unet.conv_in.weight)
    (folder / UNET).unlink()
    mixed = sdteach.load_model(folder, device="cpu")
    assert torch.equal(mixed.unet.conv_in.weight, whole.unet.conv_in.weight.half().float())
    assert torch.equal(mixed.vae.encoder.conv_in.weight, whole.vae.encoder.conv_in.weight)


def test_weights_in_several_files_are_read_and_a_missing_one_is_named(folder):
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    (folder / UNET).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="200KB")
    shards = sorted((folder / "unet").glob("*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(sdteach.load_model(folder, device="cpu").unet.conv_in.weight, unet.conv_in.weight)
    shards[-1].unlink()
    assert f"found no {shards[-1].name}" in refused(folder)


def test_a_consistency_model_is_read_as_a_stable_diffusion(tmp_path):
    folder = random_folder(tmp_path, time_cond_proj_dim=16)
    index = json.loads((folder / "model_index.json").read_text()) | {"_class_name": "LatentConsistencyModelPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert checked_index(folder)["_class_name"] == "LatentConsistencyModelPipeline"
    model = sdteach.load_model(folder, device="cpu")
    assert sdteach.generate(model, "a car", steps=2, scheduler="LCMScheduler").pixels.shape == (72, 72, 3)


@pytest.mark.parametrize(("part", "changed", "told"), [
    ("vae", {"latents_mean": [0.1] * 4, "latents_std": [2.0] * 4}, "got one with latents_mean, latents_std besides"),
    ("vae", {"shift_factor": 0.0609}, "got one with shift_factor besides"),
    ("scheduler", {"_class_name": "EDMEulerScheduler"}, r"noise levels \(EDM\), as its EDMEulerScheduler tells"),
    ("scheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "on flows .* FlowMatchEulerDiscreteScheduler"),
    ("scheduler", {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction"}, "on flows"),
    ("scheduler", {"prediction_type": "sample"}, "got 'sample'"),
])  # fmt: skip
def test_latents_and_noise_of_another_kind_are_refused_and_never_make_a_wrong_picture(folder, part, changed, told):
    config = folder / part / ("config.json" if part == "vae" else "scheduler_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    index = json.loads((folder / "model_index.json").read_text())
    if part == "scheduler":
        index["scheduler"][1] = changed.get("_class_name", index["scheduler"][1])
        (folder / "model_index.json").write_text(json.dumps(index))
    assert re.search(told, refused(folder))


@pytest.mark.parametrize("scaling_factor", [0.13025, 1.5305])
def test_a_vae_of_another_scale_is_equal_to_diffusers(folder, diffusers_latents, picture, scaling_factor):
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": scaling_factor}))
    model = sdteach.load_model(folder, device="cpu")
    options = dict(steps=3, guidance_scale=3.0, seed=2, collect=())
    trace = sdteach.generate(model, "a red car", image=picture, strength=0.7, **options)
    asked = dict(prompt="a red car", image=picture, strength=0.7, num_inference_steps=3, guidance_scale=3.0, seed=2)
    expected = diffusers_latents(folder, cls=StableDiffusionImg2ImgPipeline, **asked)
    assert np.array_equal(trace.final_latents, expected.numpy())
    shown = diffusers_latents(folder, cls=StableDiffusionImg2ImgPipeline, output_type="pil", **asked)
    assert np.array_equal(trace.pixels, np.asarray(shown[0]))


def changed(file, **values):
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


@pytest.mark.parametrize(("file", "values", "told"), [
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, r"num_train_timesteps in .* at most 131072, got 1e\+09"),
    ("text_encoder/config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers in .* at most 128"),
    ("unet/config.json", {"freq_shift": [-1]}, "that fit each other, got TypeError"),
    ("scheduler/scheduler_config.json", {"beta_end": 7.5}, "betas between 0 and 1"),
    ("vae/config.json", {"scaling_factor": 0}, "a scaling_factor above 0"),
    ("tokenizer/tokenizer_config.json", {"eos_token": [0]}, "that fit each other, got TypeError"),
    ("tokenizer/tokenizer_config.json", {"model_max_length": 60}, "a tokenizer that makes 77 ids .* got 60"),
    ("text_encoder/config.json", {"max_position_embeddings": 60}, "of the shape that config.json tells"),
    ("model_index.json", {"image_encoder": 1}, "a class for the image_encoder"),
    ("model_index.json", {"image_encoder": [1, 2]}, "a class for the image_encoder"),
    ("tokenizer/tokenizer_config.json", {"model_max_length": ...}, None),
])  # fmt: skip
def test_numbers_and_words_that_cannot_be_are_refused_before_anything_is_made_of_them(folder, file, values, told):
    changed(folder / file, **values)
    if told:
        assert re.search(told, refused(folder))
    else:
        assert len(sdteach.tokenize(sdteach.load_model(folder, device="cpu"), "a red car").ids) == 77


def test_a_projection_that_is_cut_short_is_named(folder):
    save_file({"weight": torch.zeros(8, 24)}, folder / "text_projection.safetensors")
    assert sdteach.encode_text(sdteach.load_model(folder, device="cpu"), "a red car").projected.shape == (8,)
    (folder / "text_projection.safetensors").write_bytes((folder / "text_projection.safetensors").read_bytes()[:50])
    assert "text_projection.safetensors of 50 bytes, which is cut short" in refused(folder)


def test_what_a_mac_leaves_beside_each_file_is_passed_over(folder):
    for path in [*folder.rglob("*.safetensors"), *folder.rglob("*.json")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7Mac OS X")
    (folder / "unet" / "._diffusion_pytorch_model.safetensors.index.json").write_bytes(b"\0\5\x16\7")
    (folder / "unet" / "._diffusion_pytorch_model.fp16.safetensors").write_bytes(b"\0\5\x16\7")
    assert sdteach.load_model(folder, device="cpu").unet.conv_in.weight.shape[1] == 4


def test_a_folder_that_names_the_pipeline_from_a_picture_has_the_same_parts(folder, random_model):
    changed(folder / "model_index.json", _class_name="StableDiffusionImg2ImgPipeline")
    assert torch.equal(sdteach.load_model(folder, device="cpu").unet.conv_in.weight, random_model.unet.conv_in.weight)


def test_a_refiner_is_told_from_a_whole_checkpoint(family_folder, tmp_path):
    folder = shutil.copytree(family_folder("xl"), tmp_path / "refiner")
    changed(folder / "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline", tokenizer=[None, None], text_encoder=[None, None])
    assert "found no tokenizer, text_encoder" in (told := refused(folder))
    assert "a refiner only finishes" in told
