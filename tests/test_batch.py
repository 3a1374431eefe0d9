"""Many pictures: files named after what made them, painted once, and the same however the work is shared."""

import os
import subprocess
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler
from PIL import Image

import sdteach
from sdteach import batch
from sdteach.batch import Order, paint_all
from sdteach.pipeline import generate_batch

from conftest import ROOT, random_folder

ORDERS = [Order(prompt, seed) for prompt in ("a red car", "Ein Schloß/../am See?!", "") for seed in (3, 5)]
SETTINGS = {"steps": 2, "height": 72, "width": 104}


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def painted(random_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, paint_all(random_model, ORDERS, folder, 4, **SETTINGS)


def test_each_order_has_its_file_in_its_place(random_model, painted):
    folder, files = painted
    assert sorted(file.name for file in files) == sorted(contents(folder))
    wanted = [image for part in (ORDERS[:4], ORDERS[4:]) for image in
              generate_batch(random_model, [order.prompt for order in part], [order.seed for order in part], **SETTINGS)]  # fmt: skip
    for file, image in zip(files, wanted, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(image))


def test_names_can_be_read_and_hold_nothing_that_a_path_would_take_for_more(painted):
    assert [file.name.rsplit("-", 1)[0] for file in painted[1]] == [
        "a-red-car-3", "a-red-car-5", "ein-schloß-am-see-3", "ein-schloß-am-see-5", "picture-3", "picture-5",
    ]  # fmt: skip
    assert all(file.parent == painted[0] for file in painted[1])


def test_what_is_there_is_not_painted_again(random_model, painted, monkeypatch):
    monkeypatch.setattr(batch, "generate_batch", None)
    assert paint_all(random_model, ORDERS, painted[0], 4, **SETTINGS) == painted[1]


def test_what_is_missing_is_painted_as_if_nothing_had_been_there(random_model, painted, tmp_path):
    for file in painted[1][1:]:
        (tmp_path / file.name).write_bytes(b"kept as it is" if file == painted[1][4] else file.read_bytes())
    paint_all(random_model, ORDERS, tmp_path, 4, **SETTINGS)
    assert contents(tmp_path) == contents(painted[0]) | {painted[1][4].name: b"kept as it is"}


def test_stopped_it_leaves_whole_pictures_and_goes_on(random_model, painted, tmp_path):
    write, left = batch.write_whole, iter(range(3))

    def stopped(path, data):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(path, data)

    with mock.patch.object(batch, "write_whole", stopped), pytest.raises(KeyboardInterrupt):
        paint_all(random_model, ORDERS, tmp_path, 4, **SETTINGS)
    whole = contents(painted[0])
    assert contents(tmp_path) == {file.name: whole[file.name] for file in painted[1][:3]}
    paint_all(random_model, ORDERS, tmp_path, 4, **SETTINGS)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("changed", [
    {"steps": 3}, {"height": 64}, {"width": 96}, {"guidance_scale": 7.0}, {"negative_prompt": "snow"}, {"scheduler": "DDIMScheduler"},
    {"image": Image.new("RGB", (104, 72))}, {"image": Image.new("RGB", (104, 72)), "strength": 0.5},
    {"image": Image.new("RGB", (104, 72), "red")}, {"image": Image.new("RGB", (104, 72)), "mask": np.ones((72, 104), bool)},
    {"image": Image.new("RGB", (104, 72)), "mask": np.eye(72, 104, dtype=bool)}, {"small": Image.new("RGB", (26, 18))},
])  # fmt: skip
def test_all_that_makes_a_picture_is_in_its_name(random_model, tmp_path, changed):
    names = [
        batch.picture_files(random_model, ORDERS, tmp_path, settings) for settings in (SETTINGS, SETTINGS | changed, SETTINGS | changed)
    ]
    assert names[1] == names[2]
    assert not {*names[0]} & {*names[1]}


def test_so_are_the_weights_and_the_usual_size_is_no_other(random_model, tmp_path):
    other = sdteach.load_model(random_folder(tmp_path / "other"), device="cpu")
    with torch.no_grad():
        next(other.unet.parameters())[0] += 1
    files = [batch.picture_files(model, ORDERS[:1], tmp_path, {"steps": 2}) for model in (random_model, other)]
    assert files[0] != files[1]
    assert files[0] == batch.picture_files(random_model, ORDERS[:1], tmp_path, {"steps": 2, "height": 72, "width": 72})


@pytest.mark.parametrize("usual", [{"guidance_scale": 7.5}, {"negative_prompt": "", "strength": None, "image": None}])
def test_what_is_usual_may_be_said_or_not(random_model, tmp_path, usual):
    said, unsaid = (batch.picture_files(random_model, ORDERS, tmp_path, settings) for settings in (SETTINGS | usual, SETTINGS))
    assert said == unsaid


def test_names_are_the_same_in_every_process(random_model, tmp_path):
    """What a checkpoint's scheduler leaves out, diffusers lists in the order of a set, another one in each process."""
    names = []
    for left_out in (["prediction_type", "timestep_spacing"], ["timestep_spacing", "prediction_type"]):
        scheduler = PNDMScheduler.from_config(random_model.scheduler.config)
        scheduler.register_to_config(_use_default_values=left_out)
        names.append(batch.picture_files(replace(random_model, scheduler=scheduler), ORDERS, tmp_path, SETTINGS))
    assert names[0] == names[1]


def test_a_batch_that_does_not_fit_is_halved(random_model, painted, tmp_path, monkeypatch):
    tried, generate = [], batch.generate_batch

    def cramped(model, prompts, seeds, **settings):
        tried.append(len(prompts))
        if len(prompts) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB")
        return generate(model, prompts, seeds, **settings)

    monkeypatch.setattr(batch, "generate_batch", cramped)
    files = paint_all(random_model, ORDERS, tmp_path, 6, **SETTINGS)
    assert tried == [6, 3, 3]
    for file, same in zip(files, painted[1], strict=True):
        assert np.abs(np.asarray(Image.open(file), int) - np.asarray(Image.open(same), int)).max() <= 1


def test_what_cannot_be_is_refused(random_model, tmp_path, monkeypatch):
    for size in (0, -1):
        with pytest.raises(ValueError, match="batch_size to be at least 1"):
            paint_all(random_model, ORDERS, tmp_path, size, **SETTINGS)
    with pytest.raises(TypeError, match="nonsense"):
        paint_all(random_model, ORDERS, tmp_path, nonsense=3)
    monkeypatch.setattr(batch, "generate_batch", mock.Mock(side_effect=torch.OutOfMemoryError(" out of memory.")))
    with pytest.raises(ValueError, match="memory for at least one picture"):
        paint_all(random_model, ORDERS, str(tmp_path), **SETTINGS)
    assert not contents(tmp_path)


def test_after_inpainting_the_rest_is_pasted_back(random_model, tmp_path):
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (72, 104, 3), np.uint8))
    mask = np.zeros((72, 104), bool)
    mask[20:50, 30:80] = True
    for file in paint_all(random_model, ORDERS[:2], tmp_path, image=picture, mask=mask, steps=2):
        made = np.asarray(Image.open(file))
        assert np.array_equal(made[~mask], np.asarray(picture)[~mask])
        assert (made[mask] != np.asarray(picture)[mask]).any(1).mean() > 0.9


def test_several_processes_paint_what_one_does(random_folders, tmp_path):
    words = ["generate", "a red car", "a blue boat", "--seeds", "0-3,7", "--steps", "2", "--model", random_folders["epsilon"], "--out"]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name, start in {"alone": [], "shared": launch}.items():
        command = [sys.executable, *start, "-m", "sdteach", *words, tmp_path / name]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert ("one of 2 shares" in done.stderr) == (name == "shared")
        assert done.stdout.count("10 pictures painted") == 1
    assert len(contents(tmp_path / "alone")) == 10
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")
