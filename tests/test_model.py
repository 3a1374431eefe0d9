"""Loading: the parts, the refusals, the folder's contract, and that nothing is written or fetched."""

import json
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import diffusers
import numpy as np
import pytest
import torch
from safetensors import safe_open

import sdteach
from sdteach.files import damaged_files, data_folder

from conftest import PICTUREBOOK, random_folder


def test_the_environment_names_the_checkpoint(random_folders, monkeypatch):
    monkeypatch.setenv("SDTEACH_MODEL", str(random_folders["epsilon"]))
    assert sdteach.load_model(device="cpu").name == str(random_folders["epsilon"])
    monkeypatch.delenv("SDTEACH_MODEL")
    assert sdteach.load_model(device="cpu").name == "picturebook"


def test_the_parts(model):
    for part in ("tokenizer", "text_encoder", "vae", "unet", "scheduler", "image_encoder", "text_projection", "vocabulary"):
        assert getattr(model, part) is not None, part
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32
    assert {p.dtype for m in (model.text_encoder, model.vae, model.unet, model.text_projection) for p in m.parameters()} == {torch.float32}
    assert not any(m.training for m in (model.text_encoder, model.vae, model.unet))


@pytest.mark.parametrize("scheduler", [None, "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_on_a_cpu_the_picture_is_that_of_diffusers(random_folders, dtype, scheduler):
    """From the same noise: diffusers draws its own in half precision."""
    model = sdteach.load_model(random_folders["epsilon"], device="cpu", dtype=dtype)
    oracle = diffusers.StableDiffusionPipeline.from_pretrained(random_folders["epsilon"], dtype=dtype)
    if scheduler:
        oracle.scheduler = getattr(diffusers, scheduler).from_config(oracle.scheduler.config)
    noise = sdteach.initial_noise(model, 3).to(dtype)
    expected = oracle("a boat", negative_prompt="red", num_inference_steps=3, latents=noise, output_type="latent").images
    trace = sdteach.generate(model, "a boat", "red", 3, seed=3, scheduler=scheduler)
    assert np.array_equal(trace.final_latents, expected.float().numpy())
    assert trace.heat_map("boat").max() == 1


@pytest.mark.parametrize("name", ["no/such/folder", "./nowhere", "nonsense", "/nowhere"])
def test_names_that_are_nothing(name):
    with pytest.raises(ValueError, match=r"picturebook.*a folder that exists"):
        sdteach.load_model(name, device="cpu")


@pytest.mark.fault(1)
def test_a_hub_that_cannot_be_reached_is_named_with_the_way_out(isolated):
    code = """
import sdteach
try:
    sdteach.load_model("nobody/nothing", device="cpu")
except ValueError as error:
    print(error)
"""
    done = isolated(code)
    assert done.returncode == 0, done.stderr
    assert "cannot load 'nobody/nothing'" in done.stdout
    assert "load_model('picturebook') always works" in done.stdout


@pytest.mark.parametrize("device", ["cuda:99", "gpu", 3.5])
@pytest.mark.fault(5)
def test_devices_that_are_not_here(device):
    with pytest.raises(ValueError, match="expected a device"):
        sdteach.load_model(device=device)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, "half"])
@pytest.mark.fault(5)
def test_dtypes_that_do_not_fit(dtype):
    with pytest.raises(ValueError, match="expected dtype"):
        sdteach.load_model(device="cpu", dtype=dtype)


def test_a_broken_folder_says_which_and_why(tmp_path):
    folder = shutil.copytree(PICTUREBOOK, tmp_path / "broken")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken.*picturebook"):
        sdteach.load_model(folder, device="cpu")
    (folder / "model_index.json").unlink()
    with pytest.raises(ValueError, match=r"broken.*model_index"):
        sdteach.load_model(folder, device="cpu")


def test_other_pipelines_are_refused(tmp_path, random_folders):
    folder = shutil.copytree(random_folders["epsilon"], tmp_path / "flux")
    index = json.loads((folder / "model_index.json").read_text()) | {"_class_name": "FluxPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"expected a StableDiffusionPipeline or .* got a FluxPipeline"):
        sdteach.load_model(folder, device="cpu")


@pytest.mark.parametrize(("channels", "task"), [(5, "depth"), (7, "upscaling"), (8, "instructions"), (9, "inpainting"), (6, "got 6")])
def test_a_checkpoint_made_for_one_task_is_recognised_by_its_unet(tmp_path, channels, task):
    with pytest.raises(ValueError, match=rf"expected a UNet with 4 input channels, got {channels}.*{task if channels != 6 else ''}"):
        sdteach.load_model(random_folder(tmp_path, in_channels=channels), device="cpu")


@pytest.mark.parametrize(("kind", "task"), [
    ("StableDiffusionInpaintPipeline", "inpainting"), ("StableDiffusionUpscalePipeline", "upscaling"),
    ("StableDiffusionDepth2ImgPipeline", "depth"), ("StableDiffusionInstructPix2PixPipeline", "instructions"),
])  # fmt: skip
def test_a_checkpoint_made_for_one_task_is_recognised_by_its_folder(tmp_path, random_folders, kind, task):
    shutil.copytree(random_folders["epsilon"], tmp_path / "made")
    index = tmp_path / "made" / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', f'"{kind}"'))
    with pytest.raises(ValueError, match=rf"got a {kind}, made for .*{task}.*lesson 08"):
        sdteach.load_model(tmp_path / "made", device="cpu")


def test_a_picture_needs_neither_what_draws_nor_what_trains(isolated):
    code = """
import sys, sdteach
sdteach.generate(sdteach.load_model(device="cpu"), "a red car", steps=1)
print([name for name in ("matplotlib", "ipywidgets", "IPython", "sdteach.plots", "sdteach.picturebook") if name in sys.modules])
"""
    assert isolated(code).stdout.strip() == "[]"


def test_the_folders_contract():
    sizes = sum(path.stat().st_size for path in data_folder("assets").rglob("*") if path.is_file())
    assert sizes < 48 * 2**20
    for path in PICTUREBOOK.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}, path  # noqa: SIM118
    for tower in ("text_encoder", "image_encoder"):
        assert json.loads((PICTUREBOOK / tower / "config.json").read_text())["dtype"] == "float32"
    scheduler = json.loads((PICTUREBOOK / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["_class_name"] == "DDIMScheduler"
    expected = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "skip_prk_steps": True}
    assert {name: scheduler[name] for name in expected} == expected
    index = json.loads((PICTUREBOOK / "model_index.json").read_text())
    assert index["text_encoder"][1] == "CLIPTextModel"
    assert index["image_encoder"][1] == "CLIPVisionModelWithProjection"


def test_the_checkpoint_is_whole_and_damage_is_found(tmp_path):
    assert damaged_files(PICTUREBOOK) == []
    folder = shutil.copytree(PICTUREBOOK, tmp_path / "copy")
    (folder / "vocabulary.txt").write_text("a\n")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert sorted(damaged_files(folder)) == ["scheduler/scheduler_config.json", "vocabulary.txt"]
    (folder / "SHA256SUMS").unlink()
    assert damaged_files(folder) == ["SHA256SUMS"]


@pytest.mark.fault(15)
def test_two_processes_share_a_read_only_checkpoint_without_network_or_home(tmp_path, isolated):
    """Nothing is written: not to the checkpoint, not to the folder they run in, not to a home."""
    folder = shutil.copytree(PICTUREBOOK, tmp_path / "read-only")
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = [(path, path.stat().st_mtime_ns) for path in paths]
    code = "import sys, sdteach; print(sdteach.generate(sdteach.load_model(sys.argv[1], device='cpu'), 'a red car', steps=2).image.size)"
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: isolated(code, folder, HOME="/nonexistent", XDG_CACHE_HOME="/nonexistent"), range(2)))
    for run in runs:
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip() == "(128, 128)"
    assert [(path, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")]] == before
    assert [path.name for path in tmp_path.iterdir()] == ["read-only"]
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
