"""The command: what it makes, what it says, and that a mistake never ends in a traceback."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import sdteach
from sdteach.classroom import results
from sdteach.cli import learning
from sdteach.picturebook import evaluation, training
from sdteach.picturebook.evaluation.measures import Measure
from sdteach.picturebook.evaluation.reading import shipped
from sdteach.picturebook.judge import Seen
from sdteach.pictures import back_projected

from conftest import ROOT, interrupted_after, random_folder


def test_generate_makes_the_picture_the_trace_and_the_sheet(sdteach_command, tmp_path, model):
    status, out, _ = sdteach_command("generate", "a red car below a yellow star", "--out", "new/car.png", "--trace", "run.safetensors",
                                     "--sheet", "sheet.png", "--steps", 3, "--seed", 4, "--device", "cpu")  # fmt: skip
    assert status == 0
    expected = sdteach.generate(model, "a red car below a yellow star", steps=3, seed=4).pixels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "car.png")), expected)
    assert np.array_equal(sdteach.Trace.load(tmp_path / "run.safetensors").pixels, expected)
    assert Image.open(tmp_path / "sheet.png").width > 1500
    assert "new/car.png" in out
    assert "run.safetensors" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "run.safetensors", "sheet.png"]


def test_record_keeps_a_light_run_with_a_picture_of_every_step(sdteach_command, tmp_path, random_folders):
    status, out, _ = sdteach_command("record", "a boat", "--out", "new/a.safetensors", "--model", random_folders["epsilon"], "--steps", 2,
                                     "--seed", 9, "--guidance-scale", 3, "--negative-prompt", "snow", "--height", 136, "--width", 168,
                                     "--scheduler", "DDIMScheduler", "--device", "cpu")  # fmt: skip
    assert status == 0
    trace = sdteach.Trace.load(tmp_path / "new" / "a.safetensors")
    assert (trace.prompt, trace.negative_prompt, trace.guidance_scale, trace.seed) == ("a boat", "snow", 3.0, 9)
    assert (trace.height, trace.width, trace.scheduler) == (136, 168, "DDIMScheduler")
    assert [step.preview.shape for step in trace.steps] == [(104, 128, 3)] * 2
    assert trace.heat_map("boat").shape == (17, 21)
    assert "new/a.safetensors  2 steps" in out


@pytest.mark.parametrize("out", ["a.png", "a", ".", "folder.safetensors"])
def test_record_needs_a_file_to_write(sdteach_command, tmp_path, out):
    (tmp_path / "folder.safetensors").mkdir()
    status, _, err = sdteach_command("record", "a boat", "--out", out)
    assert status
    assert "expected a file's name ending in .safetensors" in err


def test_every_option_reaches_the_run(sdteach_command, tmp_path, random_folders):
    status, _, _ = sdteach_command("generate", "a boat", "--out", "a.jpg", "--trace", "a.safetensors", "--model", random_folders["epsilon"],
                                   "--steps", 2, "--seed", 9, "--guidance-scale", 3, "--negative-prompt", "snow", "--height", 40, "--width",
                                   56, "--scheduler", "DDIMScheduler", "--device", "cpu")  # fmt: skip
    assert status == 0
    trace = sdteach.Trace.load(tmp_path / "a.safetensors")
    assert (trace.prompt, trace.negative_prompt, trace.seed, trace.guidance_scale) == ("a boat", "snow", 9, 3.0)
    assert (trace.height, trace.width, trace.scheduler, len(trace.steps)) == (40, 56, "DDIMScheduler", 2)
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


@pytest.mark.parametrize(("arguments", "hint"), [
    (["--out", "a.png", "--height", "100"], "the nearest is 96"), (["--out", "a.png", "--steps", "0"], "--steps"),
    (["--out", "a.png", "--seed", "-1"], "--seed"), (["--out", "a.png", "--scheduler", "Magic"], "EulerDiscreteScheduler"),
    (["--out", "a.png", "--model", "nowhere"], "picturebook"), (["--out", "a.png", "--device", "cuda:77"], "expected a device"),
    (["--out", "a.png", "--guidance-scale", "nan"], "--guidance-scale"), (["--out", "."], ".png"), (["--out", "a.xyz"], ".png"),
    (["--out", "a"], ".png"), (["--out", "file/a.png"], "cannot write"), (["--out", "a.png", "--sheet", "s.txt"], ".png"),
    (["--out", "a.png", "--trace", "file/t.safetensors"], "cannot write"), (["--out", "a.png", "--steps", "many"], "--steps"),
    ([], "--out"), (["--out", "new/a.xyz"], ".png"), (["--out", "a.png", "--html", "a.txt"], ".html"),
    (["--out", "a.png", "--html", "file/a.html"], "cannot write"),
    (["--out", "a.png", "--sheet", "./a.png"], "a file of its own"), (["--out", "a.png", "--nonsense"], "--nonsense"),
])  # fmt: skip
@pytest.mark.fault(16)
def test_a_mistake_is_explained_before_any_work(sdteach_command, tmp_path, arguments, hint):
    (tmp_path / "file").write_text("in the way")
    status, _, err = sdteach_command("generate", "a boat", *arguments)
    assert status not in (0, None)
    assert hint in " ".join(err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.fault(16)
def test_a_folder_that_may_not_be_written_to(sdteach_command, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    status, _, err = sdteach_command("generate", "a boat", "--out", "locked/a.png")
    assert status
    assert "cannot write" in err


@pytest.mark.fault(16)
def test_an_existing_picture_is_replaced_only_as_a_whole(sdteach_command, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("crash")))
    status, _, err = sdteach_command("generate", "a boat", "--out", "a.png", "--steps", 1)
    assert status == 1
    assert "crash" in err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("prompt", ["", "   ", "\U0001f697\U0001f984", "سيارة حمراء", "\x00\x1b[31m\x07", "a " * 50_000, "[bold]$x$</b>",
                                    "<script>alert(1)</script>"])  # fmt: skip
@pytest.mark.fault(4)
def test_any_prompt_works_and_is_shown_as_it_is(sdteach_command, tmp_path, prompt):
    status, _, err = sdteach_command("generate", "--out", "a.png", "--sheet", "s.png", "--steps", 1, "--", prompt)
    assert status == 0, err
    assert Image.open(tmp_path / "s.png").size[0] > 100
    assert "\x1b[31m" not in err


@pytest.mark.fault(3)
def test_notes_name_unknown_and_dropped_words(sdteach_command):
    status, _, err = sdteach_command("generate", "a zebra " + "red " * 80, "--out", "a.png", "--steps", 1)
    assert status == 0
    assert "zebra" in err
    assert "longer than 77" in err


@pytest.fixture
def given(tmp_path):
    """Files for the other tasks, in the folder where the command runs: a picture, a mask, a layout, and worse ones."""
    squares = np.random.default_rng(5).integers(0, 256, (9, 13, 3), np.uint8)
    picture = Image.fromarray(squares).resize((104, 72), Image.Resampling.BILINEAR)
    picture.save(tmp_path / "in.png")
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    picture.resize((1500, 1000)).save(tmp_path / "large.jpg")
    mask = np.zeros((72, 104), bool)
    mask[20:60, 24:80] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    picture.save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "layout.json").write_text('{"car": [0.5, 0.25, 1, 0.75]}')
    (tmp_path / "wrong.json").write_text('{"car": [0.5, 0.25, 0.1, 0.75]}')
    return picture, mask


def test_generate_from_a_picture(sdteach_command, given, model, tmp_path):
    picture, mask = given
    options = {"steps": 5, "seed": 3}
    commands = {
        "i.png": (("--image", "in.png", "--strength", 0.6), {"image": picture, "strength": 0.6}),
        "t.png": (("--image", "turned.png"), {"image": picture}),
        "l.png": (("--layout", "layout.json"), {"layout": {"car": (0.5, 0.25, 1.0, 0.75)}}),
    }
    for out, (arguments, same) in commands.items():
        status, _, err = sdteach_command("generate", "a red car", "--out", out, "--steps", 5, "--seed", 3, *arguments)
        assert status == 0, err
        assert np.array_equal(np.asarray(Image.open(tmp_path / out)), sdteach.generate(model, "a red car", **options, **same).pixels)
        assert "brought to" not in err
    sdteach_command("generate", "a red car", "--out", "m.png", "--steps", 5, "--seed", 3, "--image", "in.png", "--mask", "mask.png")
    painted = np.asarray(Image.open(tmp_path / "m.png"))
    free = sdteach.generate(model, "a red car", **options, image=picture, mask=mask).pixels
    assert np.array_equal(painted, np.where(mask[..., None], free, np.asarray(picture)))


@pytest.mark.parametrize(("arguments", "size", "note"), [
    (("--image", "large.jpg"), (160, 104), "large.jpg was 1500 x 1000, brought to 160 x 104"),
    (("--image", "large.jpg", "--height", 64), (128, 64), "brought to 128 x 64"),
    (("--image", "large.jpg", "--mask", "mask.png"), None, "expected a mask of the picture's shape, 1500 x 1000"),
])  # fmt: skip
def test_a_picture_is_brought_to_a_size_with_a_word_about_it(sdteach_command, given, tmp_path, arguments, size, note):
    status, _, err = sdteach_command("generate", "a car", "--out", "o.png", "--steps", 2, *arguments)
    assert note in err
    assert (Image.open(tmp_path / "o.png").size if status == 0 else None) == size


def test_a_picture_is_shrunk_by_lanczos(sdteach_command, given, model, tmp_path):
    assert sdteach_command("generate", "a car", "--out", "o.png", "--steps", 2, "--image", "large.jpg")[0] == 0
    shrunk = Image.open(tmp_path / "large.jpg").resize((160, 104), Image.Resampling.LANCZOS)
    expected = sdteach.generate(model, "a car", steps=2, image=shrunk).pixels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "o.png")), expected)


def test_too_little_memory_is_a_mistake_like_any_other(sdteach_command, monkeypatch):
    monkeypatch.setattr("sdteach.generate", mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried 7 GiB")))
    status, _, err = sdteach_command("generate", "a car", "--out", "o.png")
    assert status == 1
    assert "make a smaller picture" in err
    monkeypatch.setattr("sdteach.generate", mock.Mock(side_effect=RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="ours"):
        sdteach_command("generate", "a car", "--out", "o.png")


def test_a_compiled_unet_paints_the_same_and_is_compiled_once(isolated, sdteach_command, tmp_path):
    """With a compiler that only counts, in a process without the tests' guards, which it cannot read through; a UNet of one level, since
    it takes its time with every layer."""
    code = """
import contextlib, sys, torch
from torch._dynamo.testing import CompileCounter
from sdteach.cli import main
real, command = torch.nn.Module.compile, sys.argv[1:]
for out in (["a.png"], ["b.png", "--trace", "run.safetensors"]):
    counter = CompileCounter()
    torch.nn.Module.compile = lambda part: real(part, backend=counter)
    sys.argv = ["sdteach", *command, "--out", *out]
    with contextlib.suppress(SystemExit):
        main()
    print(counter.frame_count)
"""
    folder = random_folder(
        tmp_path / "shallow", block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, attention_head_dim=2, mid_block_type=None,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
    )  # fmt: skip
    done = isolated(code, "generate", "a red car", "--steps", 3, "--model", folder, "--compile", "--device", "cpu")
    assert done.stdout.split("\n")[-2] == "1", done.stderr
    assert done.stdout.count("\n1\n") == 2
    expected = sdteach.generate(sdteach.load_model(folder, device="cpu"), "a red car", steps=3).pixels
    for picture in ("a.png", "b.png"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / picture)), expected)
    assert "layer by layer" in sdteach_command("generate", "a car", "--out", "c.png", "--compile", "--offload")[2]


@pytest.mark.parametrize("offload", [[], ["--offload"]])
def test_it_is_said_where_the_weights_are(sdteach_command, offload):
    status, _, err = sdteach_command("generate", "a red car", "--out", "a.png", "--steps", 1, "--device", "cpu", *offload)
    assert status == 0, err
    assert "1 steps on cpu, float32," + " weights in the CPU's memory," * len(offload) in err


@pytest.mark.parametrize(("arguments", "hint"), [
    (("a car", "--mask", "mask.png"), "expected --image with --mask"),
    (("a car", "--strength", 0.5), "expected an image with strength"),
    (("a car", "--image", "in.png", "--strength", 2), "--strength"),
    (("a car", "--image", "in.png", "--strength", 0), "above 0 and up to 1"),
    (("a car", "--image", "in.png", "--strength", 0.1), "use at least 10 steps"),
    (("a car", "--image", "text.png"), "text.png"),
    (("a car", "--image", "none.png"), "none.png"),
    (("a car", "--image", "in.png", "--mask", "photo.png"), "black and white"),
    (("a car", "--layout", "wrong.json"), "left, top, right, bottom"),
    (("a car", "--layout", "in.png"), "expected JSON"),
    (("a boat", "--layout", "layout.json"), "a word of the prompt"),
    (("a car", "--grid"), "--seeds or several prompts"),
    (("a car", "a boat"), "a folder for several pictures"),
    (("a car", "--seeds", ""), "such as 0-15"),
    (("a car", "--seeds", "3-1"), "such as 0-15"),
    (("a car", "--seeds", "a"), "such as 0-15"),
    (("a car", "--seeds", "-3"), "such as 0-15"),
    (("a car", "--seeds", "0-100000000"), "at most 10,000"),
    (("a car", "--seeds", "0-6000,10000-16000"), "at most 10,000"),
    (("a car", "--seeds", "0-8,9223372036854775808"), "below 2**63"),
    (("a car", "--seeds", "9" * 5000), "below 2**63"),
])  # fmt: skip
def test_what_does_not_go_together_is_explained(sdteach_command, given, tmp_path, arguments, hint):
    before = sorted(tmp_path.iterdir())
    status, _, err = sdteach_command("generate", *arguments, "--out", "o.png", "--steps", 5)
    assert status
    assert hint in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("out", ["many.png", "many.JPEG", "layout.json"])
def test_several_pictures_need_a_folder(sdteach_command, given, out):
    status, _, err = sdteach_command("generate", "a car", "--seeds", "1,2", "--out", out)
    assert status == 1
    assert "a folder for several pictures" in err


@pytest.mark.parametrize(("option", "file"), [("--trace", "a.safetensors"), ("--sheet", "a.png"), ("--html", "a.html"),
                                             ("--layout", "layout.json")])  # fmt: skip
def test_several_pictures_have_no_trace_sheet_or_layout(sdteach_command, given, option, file):
    status, _, err = sdteach_command("generate", "a car", "--seeds", "1,2", "--out", "many", option, file)
    assert status == 1
    assert f"one seed with {option}" in err


def test_generate_many(sdteach_command, given, model, tmp_path):
    arguments = ("generate", "a car", "a boat", "--seeds", "3,7-8,3", "--out", "many", "--steps", 2, "--image", "in.png", "--grid")
    status, out, _ = sdteach_command(*arguments)
    assert status == 0
    assert "6 pictures painted, 0 were there" in out
    files = sorted(path.name for path in (tmp_path / "many").iterdir())
    assert [name.rsplit("-", 1)[0] for name in files] == ["a-boat-3", "a-boat-7", "a-boat-8", "a-car-3", "a-car-7", "a-car-8", "grid.png"]
    alone = sdteach.generate(model, "a boat", steps=2, seed=7, image=given[0]).pixels
    assert np.abs(np.asarray(Image.open(tmp_path / "many" / files[1]), int) - alone).max() <= 1  # a batch rounds in its own way
    assert "0 pictures painted, 6 were there" in sdteach_command(*arguments)[1]


def test_upscale(sdteach_command, given, model, tmp_path):
    small = given[0].resize((26, 18), Image.Resampling.BOX)
    small.save(tmp_path / "small.png")
    status, out, err = sdteach_command("upscale", "small.png", "--out", "large.png", "--prompt", "a boat", "--steps", 10, "--seed", 3)
    assert status == 0, err
    assert "104 x 72 picture, from 26 x 18" in out
    trace = sdteach.generate(model, "a boat", steps=10, seed=3, guidance_scale=2.0, small=small, height=72, width=104)
    large = Image.open(tmp_path / "large.png")
    assert np.array_equal(np.asarray(large), np.asarray(back_projected(trace.image, small)))
    given[0].resize((25, 19)).save(tmp_path / "odd.png")
    status, out, err = sdteach_command("upscale", "odd.png", "--out", "odd_large.png", "--factor", 2, "--steps", 5)
    assert status == 0
    assert "odd.png was 25 x 19, brought to 24 x 20" in err
    assert Image.open(tmp_path / "odd_large.png").size == (48, 40)


@pytest.mark.parametrize(("arguments", "hint"), [
    (("none.png",), "none.png"), (("text.png",), "text.png"), (("large.jpg",), "a smaller --factor"),
    (("in.png", "--strength", 0), "above 0 and up to 1"), (("in.png", "--factor", 1), "factor"),
])  # fmt: skip
def test_upscale_explains_what_it_cannot_do(sdteach_command, given, tmp_path, arguments, hint):
    status, _, err = sdteach_command("upscale", *arguments, "--out", "o.png")
    assert status
    assert hint in err
    assert not (tmp_path / "o.png").exists()


def made_of(page):
    """How many steps of each run on a page have a decoded picture."""
    data = json.loads(page.read_text("utf-8").split('id="runs">')[1].split("</script>")[0])
    return [(run["caption"], sum("picture" in step for step in run["steps"])) for run in data["runs"]]


def test_the_page_of_a_run_is_made_at_once_or_later_from_its_file(sdteach_command, tmp_path, random_folders):
    status, out, _ = sdteach_command("generate", "a red car", "--out", "a.png", "--html", "new/a.html", "--trace", "a.safetensors",
                                     "--steps", 3, "--device", "cpu")  # fmt: skip
    assert status == 0
    assert "page, 0." in out
    assert made_of(tmp_path / "new" / "a.html") == [("the picture it predicts", 3)]
    assert all(step.preview is None for step in sdteach.Trace.load(tmp_path / "a.safetensors").steps)
    folder = random_folders["epsilon"]
    sdteach_command("generate", "a boat", "--out", "b.png", "--trace", "b.safetensors", "--model", folder, "--steps", 2, "--device", "cpu")
    for given, decoded in (((), [("the picture it predicts", 3)]), (("b.safetensors",), [("the latents it predicts, as colours", 3)]),
                           (("b.safetensors", "--model", folder), [("the picture it predicts", 3)])):  # fmt: skip
        status, out, err = sdteach_command("play", "a.safetensors", *given, "--out", "b.html", "--device", "cpu")
        assert (status, err) == (0, "")
        assert "b.html" in out
        assert made_of(tmp_path / "b.html") == [("the picture it predicts", 3), *decoded][: 1 + bool(given)]


@pytest.mark.parametrize(("arguments", "hint"), [
    (("none.safetensors", "--out", "a.html"), "none.safetensors"), (("in.png", "--out", "a.html"), "is not a trace"),
    (("in.png", "in.png", "in.png", "--out", "a.html"), "one run or two"), (("in.png", "--out", "a.png"), "ending in .html"),
    (("in.png", "--out", "in.png/a.html"), "cannot write"), (("in.png",), "--out"),
])  # fmt: skip
def test_play_explains_what_it_cannot_do(sdteach_command, given, tmp_path, arguments, hint):
    before = sorted(tmp_path.iterdir())
    status, _, err = sdteach_command("play", *arguments)
    assert status
    assert hint in err
    assert sorted(tmp_path.iterdir()) == before


def test_python_runs_the_package_as_the_command():
    done = subprocess.run([sys.executable, "-m", "sdteach", "generate", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--layout" in done.stdout


def test_the_command_tells_its_version(sdteach_command):
    assert sdteach_command("--version") == (0, f"sdteach {sdteach.__version__}\n", "")


def test_a_tilde_is_the_home_in_every_path(sdteach_command, monkeypatch, given, tmp_path, model):
    """As `--out=~/a.png` comes from most shells."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "in.png").rename(tmp_path / "home" / "in.png")
    status, _, err = sdteach_command("generate", "a car", "--out=~/new/a.png", "--trace=~/a.safetensors", "--html=~/a.html", "--steps", 2,
                                     "--image=~/in.png", "--model", "picturebook")  # fmt: skip
    assert status == 0, err
    assert sdteach_command("play", "~/a.safetensors", "--out", "~draft.html")[0] == 0
    assert {"a.html", "a.safetensors", "in.png", "new"} <= {path.name for path in (tmp_path / "home").iterdir()}
    assert not (tmp_path / "~").exists()
    assert (tmp_path / "~draft.html").exists()  # nobody's home, so a name


@pytest.mark.fault(10)
def test_interrupted_it_keeps_what_it_has(sdteach_command, tmp_path):
    with interrupted_after(2):
        status, _, err = sdteach_command("generate", "a boat", "--out", "a.png", "--trace", "t.safetensors", "--steps", 5)
    assert status == 130
    assert "Stopped early" in err
    assert len(sdteach.Trace.load(tmp_path / "t.safetensors").steps) == 2


@pytest.fixture
def lab(sdteach_command, monkeypatch, tmp_path):
    """Run `sdteach lab` on two lessons that were run -> (status, stdout, stderr), what was started; nothing is."""
    lessons = tmp_path / "packaged"
    lessons.mkdir()
    for name in ("00_first", "01_second"):
        shown = nbformat.v4.new_output("stream", text="the answer to the prediction")
        cells = [nbformat.v4.new_markdown_cell("**Predict.** What?"), nbformat.v4.new_code_cell(name, outputs=[shown], execution_count=7)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), lessons / f"{name}.ipynb")
    (lessons / "exercises.toml").write_text("none")
    monkeypatch.setattr("sdteach.files.data_folder", {"lessons": lessons}.__getitem__)
    started = []

    def run(*arguments, status=0):
        def call(command, env):
            started.append(command)
            run.settings = env["JUPYTER_CONFIG_PATH"].split(os.pathsep)
            return status

        monkeypatch.setattr(subprocess, "call", call)
        started.clear()
        return sdteach_command("lab", *arguments), started

    return run


def test_lab_opens_jupyterlab_on_a_copy_of_the_lessons(lab, tmp_path):
    (status, out, _), started = lab()
    assert status == 0
    assert "2 lessons copied, 0 kept" in " ".join(out.split())
    copies = {path.name: nbformat.read(path, 4) for path in (tmp_path / "sdteach-lessons").iterdir()}
    assert sorted(copies) == ["00_first.ipynb", "01_second.ipynb", "before_and_after.ipynb"]
    assert [cell.source for cell in copies["01_second.ipynb"].cells] == ["**Predict.** What?", "01_second"]
    assert [cell.source for cell in copies["before_and_after.ipynb"].cells] == [cell.source for cell in results.sheet().cells]
    assert started == [[sys.executable, "-m", "jupyterlab", "sdteach-lessons/00_first.ipynb"]]


def test_lab_copies_nothing_that_answers_a_prediction(lab, tmp_path):
    lab()
    for path in (tmp_path / "sdteach-lessons").iterdir():
        nbformat.validate(nbformat.read(path, 4))
        assert "the answer" not in path.read_text()
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        assert cells
        assert all((cell.outputs, cell.execution_count) == ([], None) for cell in cells)
    assert "the answer" in (tmp_path / "packaged" / "00_first.ipynb").read_text()


def test_lab_keeps_what_was_changed(lab, tmp_path):
    lab("mine/deep")
    (tmp_path / "mine" / "deep" / "01_second.ipynb").write_text("my answers")
    (tmp_path / "mine" / "deep" / "before_and_after.ipynb").write_text("my tests")
    (tmp_path / "mine" / "deep" / "00_first.ipynb").unlink()
    (status, out, _), started = lab("mine/deep")
    assert status == 0
    assert "1 lessons copied, 1 kept" in " ".join(out.split())
    assert (tmp_path / "mine" / "deep" / "01_second.ipynb").read_text() == "my answers"
    assert (tmp_path / "mine" / "deep" / "before_and_after.ipynb").read_text() == "my tests"
    assert nbformat.read(tmp_path / "mine" / "deep" / "00_first.ipynb", 4).cells[1].source == "00_first"
    assert started[0][3] == "mine/deep/00_first.ipynb"


@pytest.mark.parametrize(("arguments", "folder", "options"), [
    (["mine", "--no-browser", "--port", "8899"], "mine", ["--no-browser", "--port", "8899"]),
    (["mine", "--ServerApp.token=a b"], "mine", ["--ServerApp.token=a b"]),
    (["--no-browser", "--port", "8899"], "sdteach-lessons", ["--no-browser", "--port", "8899"]),
    (["--no-browser"], "sdteach-lessons", ["--no-browser"]), (["--port=1"], "sdteach-lessons", ["--port=1"]),
])  # fmt: skip
def test_lab_passes_other_options_on(lab, tmp_path, arguments, folder, options):
    (status, _, err), started = lab(*arguments)
    assert status == 0, err
    assert started == [[sys.executable, "-m", "jupyterlab", f"{folder}/00_first.ipynb", *options]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["packaged", folder])


@pytest.mark.parametrize("theirs", [[], ["/etc/theirs", "/opt/theirs"]])
def test_lab_adds_to_the_settings_of_jupyterlab_that_are_there(lab, monkeypatch, theirs):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", os.pathsep.join(theirs))
    lab()
    assert lab.settings[1:] == theirs
    assert json.loads((Path(lab.settings[0]) / "labconfig" / "page_config.json").read_text())["disabledExtensions"]


def test_lab_ends_as_jupyterlab_ended(lab):
    assert lab(status=3)[0][0] == 3


@pytest.mark.parametrize("folder", ["packaged", "./packaged/", "link", "other/../packaged"])
def test_lab_leaves_the_lessons_themselves_alone(lab, tmp_path, folder):
    (tmp_path / "link").symlink_to("packaged")
    (tmp_path / "other").mkdir()
    (status, _, err), started = lab(folder)
    assert status == 1
    assert "expected a folder of your own" in " ".join(err.split())
    assert not started


@pytest.mark.parametrize("folder", ["file", "file/mine", pytest.param(
    "locked", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
)])  # fmt: skip
def test_lab_needs_a_folder_that_may_be_written_to(lab, tmp_path, folder):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "locked").mkdir(mode=0o500)
    (status, _, err), started = lab(folder)
    assert status
    assert "cannot write" in err
    assert not started
    assert (tmp_path / "file").read_text() == "in the way"


def test_train_leaves_loss_curves_and_sample_sheets(sdteach_command, monkeypatch, tmp_path):
    """Of the stages that draw both; that all of them train is seen in tests/picturebook."""
    monkeypatch.setattr(training, "Watch", partial(training.Watch, captions=1))
    narrow = replace(training.PRESETS["cpu"], vae_channels=(16,) * 4, unet_channels=(32,) * 3)
    monkeypatch.setitem(training.PRESETS, "cpu", narrow)
    stages = [word for stage in ("scenes", "clip", "words", "vae", "unet") for word in ("--stage", stage)]
    status, out, err = sdteach_command("train", tmp_path / "run", "--share", "0.00005", *stages)
    assert status == 0, err
    assert "clip: top-1" in out
    assert "sdteach evaluate" not in out  # nothing was packed
    for phase in ("clip", "words", "vae", "unet_single", "unet_small", "unet_large"):
        assert Image.open(tmp_path / "run" / phase / "losses.png").width > 800
    for phase in ("unet_single", "unet_large"):
        (sheet,) = (tmp_path / "run" / phase).glob("samples_*.png")
        assert Image.open(sheet).width > 200  # one picture


def test_train_says_where_the_checkpoint_is_and_what_comes_next(sdteach_command, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(training, "train", lambda *given: asked.append(given))
    for stages, told in (((), True), (("--stage", "unet", "--stage", "pack"), True), (("--stage", "clip"), False)):
        status, out, _ = sdteach_command("train", "run", "--preset", "accelerator", *stages)
        assert status == 0
        assert ("run/picturebook  the checkpoint; now: sdteach evaluate --model run/picturebook" in out) == told
    assert [[*(given[3] or ())] for given in asked] == [[], ["unet", "pack"], ["clip"]]
    assert asked[0][2] is training.PRESETS["accelerator"]


def test_the_command_knows_the_stages_and_presets_that_there_are():
    assert [*learning.Stage] == [*training.STAGES]
    assert [*learning.Preset] == [*training.PRESETS]


def test_train_refuses_what_it_does_not_know(sdteach_command, tmp_path):
    for arguments, hint in ((["--stage", "gan"], "'scenes', 'clip'"), (["--preset", "tpu"], "accelerator"), (["--share", "7"], "--share")):
        status, _, err = sdteach_command("train", tmp_path / "run", *arguments)
        assert status != 0
        assert hint in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command", [[], ["generate"], ["play"], ["upscale"], ["record"], ["doctor"], ["train"], ["lab"], ["prefetch"], ["checkpoints"]]
)
def test_help_has_examples(command):
    code = "from sdteach.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True)
    assert "Example" in done.stdout or not command
    assert "torch" not in done.stderr


def test_evaluate_prints_a_table_or_one_json_object_and_draws_sheets(sdteach_command, monkeypatch, tmp_path):
    """Of measures made up: that the real ones are right is seen in tests/picturebook."""
    values = {name: 0.5 + index / 1000 for index, name in enumerate([*evaluation.GOALS, "relation", "guidance_1"])}
    measures = {name: Measure(value, value - 0.12345, value + 0.1, 9) for name, value in values.items()}
    measures["no_case"] = Measure(*[float("nan")] * 3, 0)
    nothing = Seen((), "plain", "flat")
    painted = [evaluation.Painted("one_object", "a red car", np.full((64, 64, 3), shade, np.uint8), nothing) for shade in range(4)]
    result = evaluation.Evaluation(measures, tuple(painted), ("three_objects", "styles"))
    asked = []
    monkeypatch.setattr(evaluation, "evaluate", lambda *given: asked.append(given) or result)
    status, out, err = sdteach_command("evaluate", "--json", "--guidance-scale", 3, "--sheets", tmp_path / "sheets")
    assert status == 0, err
    assert asked[0][2] == 3
    told = json.loads(out)
    assert list(told) == [*measures, "intervals", "cases", "left_out"]
    assert {name: told[name] for name in measures} == values | {"no_case": None}
    assert told["intervals"]["vae_psnr"] == [0.3765, 0.6]
    assert told["cases"] == dict.fromkeys(values, 9) | {"no_case": 0}
    assert told["left_out"] == ["three_objects", "styles"]
    samples, worst = (Image.open(tmp_path / "sheets" / f"{name}.png").width for name in ("samples", "worst"))
    assert 2 * 220 <= samples < worst  # every third of four prompts beside all four, which show no car
    status, out, _ = sdteach_command("evaluate")
    assert status == 0
    assert all(name in out for name in measures)
    assert "at most 5%" in out
    assert "three_objects, styles" in out


def test_evaluate_tells_of_attention_in_tables_or_as_one_json_object(sdteach_command, monkeypatch, tmp_path):
    told = json.loads((ROOT / "assets" / "attention.json").read_text("utf-8"))
    truth = shipped()
    asked = []
    monkeypatch.setattr("sdteach.picturebook.evaluation.reading.attention_truth", lambda *arguments: asked.append(arguments) or truth)
    status, out, err = sdteach_command("evaluate", "--attention", "--json", "--guidance-scale", "3")
    assert status == 0, err
    assert json.loads(out) == told
    assert asked[0][2] == 3
    status, out, _ = sdteach_command("evaluate", "--attention")
    assert status == 0
    for text in (
        "DAAM",
        truth.best,
        "word and later less control",
        "up 16 × 16 (2)",
        f"{truth.drawn[-1, 0]:.2f}",
        f"{truth.gone['word'].value:.3f}",
    ):
        assert text in out
    status, _, err = sdteach_command("evaluate", "--attention", "--sheets", tmp_path)
    assert status == 1
    assert "--sheets or --attention" in err
