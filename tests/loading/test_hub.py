"""Fetching from a hub: known names, fallbacks, what is fetched, going on, and what is said when it cannot be done."""

import json
import shutil
from unittest import mock

import pytest

import sdteach
from sdteach.loading.hub import wanted
from sdteach.loading.names import EMBEDDED, KNOWN, find, hub_ids

from conftest import PICTUREBOOK
from fake_hub import fake_hub

MAKE = "import sys, sdteach; print(sdteach.generate(sdteach.load_model(device='cpu'), 'a red car', steps=1).image.size)"
FIND = "from sdteach.loading.names import find; print(find('sd-1.5'))"  # what load_model reads from
COMMAND = "import sys; from sdteach.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def published(tmp_path_factory, random_folders):
    """A repository as publishers leave it: two precisions, a pickle, a single file, pictures."""
    folder = shutil.copytree(random_folders["epsilon"], tmp_path_factory.mktemp("hub") / "published")
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        plain = folder / part / f"{name}.safetensors"
        shutil.copyfile(plain, folder / part / f"{name}.fp16.safetensors")
        (folder / part / f"{name}.bin").write_bytes(b"a pickle")
    (folder / "v1-5-pruned.safetensors").write_bytes(b"all in one" * 1000)
    (folder / "grid.png").write_bytes(b"a picture")
    (folder / "LICENSE.md").write_text("be kind")
    return folder


@pytest.fixture
def run(isolated, tmp_path):
    """Run the command, or other code, with a hub and a cache of its own -> the finished process."""

    def command(address, *arguments, code=COMMAND, **environment):
        return isolated(code, *arguments, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "cache"), COLUMNS="200",
                        HF_HUB_DISABLE_TELEMETRY="1", **environment)  # fmt: skip

    return command


def weights(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


def test_prefetch_makes_a_folder_that_needs_no_network(run, published, tmp_path, monkeypatch):
    with fake_hub({KNOWN["sd-1.5"].hub_id: published}) as (address, requests):
        done = run(address, "prefetch", "sd-1.5", "--to", "for-class")
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "for-class"
        assert weights(folder) == ["text_encoder/model.fp16.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
                                   "vae/diffusion_pytorch_model.fp16.safetensors"]  # fmt: skip
        assert not list(folder.rglob("*.bin"))
        assert not (folder / "grid.png").exists()
        assert (folder / "LICENSE.md").exists()
        assert str(folder) in done.stdout
        assert requests
    monkeypatch.setattr("socket.socket.connect", mock.Mock(side_effect=AssertionError("no network in the classroom")))
    assert sdteach.generate(sdteach.load_model(folder, device="cpu"), "a red car", steps=1).image.size == (72, 72)


def test_a_known_name_is_fetched_once_and_then_found_without_asking(run, published, tmp_path):
    with fake_hub({KNOWN["sd-1.5"].hub_id: published}) as (address, requests):
        made = run(address, code=MAKE, SDTEACH_MODEL="sd-1.5")
        assert made.stdout.strip() == "(72, 72)", made.stderr
        assert requests
        requests.clear()
        found = run(address, code=FIND)
        assert found.stdout.strip() == str(next((tmp_path / "cache").glob("hub/*/snapshots/*"))), found.stderr
        assert requests == []
    listed = run(address, "checkpoints")
    (row,) = (line.split() for line in listed.stdout.splitlines() if line.split()[:2] == ["sd-1.5", "about"])
    assert "yes" in row


@pytest.mark.fault(1)
def test_the_fallback_is_taken_once_and_said_aloud(run, published):
    with fake_hub({KNOWN["sd-1.5"].fallback: published}) as (address, _):
        done = run(address, "prefetch", "sd-1.5", "--to", "copy")
    assert done.returncode == 0, done.stderr
    assert f"{KNOWN['sd-1.5'].hub_id}: the hub has nothing public of that name" in done.stderr
    assert f"Took {KNOWN['sd-1.5'].fallback} in its place" in done.stderr


@pytest.mark.parametrize(("status", "hint"), [(404, "nothing public of that name"), (401, "accepted first"), (503, "answered 503")])
@pytest.mark.fault(1)
def test_a_hub_that_refuses_both_is_told_in_a_sentence(run, status, hint):
    both = {KNOWN["sd-2.1"].hub_id: status, KNOWN["sd-2.1"].fallback: status}
    with fake_hub(both) as (address, _):
        done = run(address, "prefetch", "sd-2.1", "--to", "copy", code=f"import time; time.sleep = lambda _: None; {COMMAND}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert all(hub_id in done.stderr for hub_id in both)
    assert hint in done.stderr


def test_a_fetch_that_broke_off_goes_on_and_what_is_there_is_kept(run, published, tmp_path):
    broken, lacking = "unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"
    with fake_hub({"some/model": published}, broken_off=[broken]) as (address, requests):
        assert run(address, "prefetch", "some/model", "--to", "copy").returncode == 0
        assert (tmp_path / "copy" / broken).read_bytes() == (published / broken).read_bytes()
        (tmp_path / "copy" / lacking).unlink()
        requests.clear()
        done = run(address, "prefetch", "some/model", "--to", "copy")
    assert done.returncode == 0, done.stderr
    assert [path.split("/", 5)[-1] for method, path in requests if method == "GET" and "resolve" in path] == [lacking]


def test_a_fetch_that_fails_on_the_way_never_takes_files_of_another(run, published, tmp_path):
    gone = shutil.copytree(published, tmp_path / "gone")
    with fake_hub({KNOWN["sd-1.5"].hub_id: gone, KNOWN["sd-1.5"].fallback: published}, missing=["vae/config.json"]) as (address, requests):
        done = run(address, "prefetch", "sd-1.5", "--to", "copy")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert KNOWN["sd-1.5"].hub_id in done.stderr
    assert not any(KNOWN["sd-1.5"].fallback in path for _, path in requests)


def test_a_folder_with_another_checkpoint_is_left_alone(run, published, tmp_path):
    (tmp_path / "copy" / "unet").mkdir(parents=True)
    (tmp_path / "copy" / "unet" / "other.safetensors").write_bytes(b"0")
    with fake_hub({"some/model": published}) as (address, _):
        done = run(address, "prefetch", "some/model", "--to", "copy")
    assert done.returncode == 1
    assert "name another folder" in done.stderr
    assert [path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()] == ["other.safetensors"]


def test_a_full_disk_is_said_before_the_fetch(run, published, tmp_path):
    code = "import shutil; shutil.disk_usage = lambda _: shutil._ntuple_diskusage(1, 1, 10)\n" + COMMAND
    with fake_hub({"some/model": published}) as (address, requests):
        done = run(address, "prefetch", "some/model", "--to", "copy", code=code)
    assert done.returncode == 1
    assert "GB of free disk" in done.stderr
    assert not any("resolve" in path for _, path in requests)


def test_a_disk_that_fills_up_on_the_way(run, published):
    code = """
import errno, huggingface_hub
def full(*_, **__): raise OSError(errno.ENOSPC, "No space left on device")
huggingface_hub.snapshot_download = full
""" + COMMAND  # fmt: skip
    with fake_hub({"some/model": published}) as (address, _):
        done = run(address, "prefetch", "some/model", "--to", "copy", code=code)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr


def test_a_repository_of_pickles_is_refused_before_any_of_it_is_fetched(run, published, tmp_path):
    pickles = shutil.copytree(published, tmp_path / "pickles", ignore=shutil.ignore_patterns("*.safetensors"))
    with fake_hub({"some/model": pickles}) as (address, requests):
        done = run(address, "prefetch", "some/model", "--to", "copy")
    assert done.returncode == 1
    assert "a pickle can run any program" in done.stderr
    assert not any("resolve" in path for _, path in requests)


def test_a_repository_that_is_no_pipeline(run, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "lora.safetensors").write_bytes(b"0")
    with fake_hub({"some/lora": tmp_path / "lora"}) as (address, _):
        done = run(address, "prefetch", "some/lora", "--to", "copy")
    assert done.returncode == 1
    assert "no model_index.json among its 1 files" in done.stderr


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network(run, environment):
    done = run("https://huggingface.co", "generate", "a car", "--out", "a.png", "--model", "sd-1.5", **environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{KNOWN['sd-1.5'].hub_id} and {KNOWN['sd-1.5'].fallback}" in done.stderr
    assert "HF_HUB_OFFLINE" in done.stderr if environment else "cannot be reached" in done.stderr


@pytest.mark.parametrize("name", ["nonsense", "a/b/c", "models/v1.safetensors", "models/v1.ckpt", EMBEDDED])
def test_prefetch_wants_a_name_of_the_hub(run, name):
    done = run("http://127.0.0.1:9", "prefetch", name)
    assert done.returncode == 1
    assert "sd-turbo" in done.stderr
    assert hub_ids(name) == ()


def test_what_is_wanted_of_a_repository():
    files = ["model_index.json", "unet/config.json", "unet/m.safetensors", "unet/m.fp16.safetensors", "unet/m.non_ema.safetensors",
             "unet/m.bin", "unet/m.msgpack", "vae/m.safetensors", "vae/config.json", "vae_1_0/m.safetensors", "tokenizer/merges.txt",
             "README.md", "LICENSE", "sd.safetensors", "text_encoder/m-00001-of-2.fp16.safetensors", "text_encoder/model.onnx"]  # fmt: skip
    assert list(wanted(dict.fromkeys(files, 1))) == [
        "model_index.json", "unet/config.json", "unet/m.fp16.safetensors", "vae/m.safetensors", "vae/config.json", "tokenizer/merges.txt",
        "LICENSE", "text_encoder/m-00001-of-2.fp16.safetensors",
    ]  # fmt: skip


def test_known_checkpoints_say_all_there_is_to_say():
    for name, one in KNOWN.items():
        assert hub_ids(name) == (one.hub_id, one.fallback)
        assert one.hub_id != one.fallback
        assert 1 < one.gigabytes < 10
        assert one.edge in (512, 768, 1024)
        assert one.licence
        assert one.differs


@pytest.mark.fault(1)
def test_a_folder_goes_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PICTUREBOOK, tmp_path / "sd-1.5")
    assert json.loads((find("sd-1.5") / "model_index.json").read_text())
