"""The doctor on sound and on broken installs: what it finds, what it advises, and how it ends."""

import json
import shutil
import webbrowser
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from sdteach.classroom import doctor
from sdteach.classroom.doctor import LOOKS, examine

from conftest import PICTUREBOOK, ROOT


def found(*looks):
    """Findings by what they are about, of some looks alone."""
    return {finding.about: finding for look in looks for finding in LOOKS[look]()}


@pytest.fixture
def only(monkeypatch):
    """The command looks at nothing but these, so that a test is quick and says what it is about."""
    return lambda *looks: monkeypatch.setattr(doctor, "LOOKS", {look: LOOKS[look] for look in looks})


def versions(monkeypatch, **others):
    real = doctor.version

    def version(name):
        if others.get(name, "") is None:
            raise PackageNotFoundError(name)
        return others.get(name) or real(name)

    monkeypatch.setattr(doctor, "version", version)


def test_a_sound_install_draws_a_picture(sdteach_command):
    status, out, err = sdteach_command("doctor")
    assert status == 0, out + err
    for expected in ("Python", "torch", "diffusers", "device", "memory", "checkpoint", "widgets", "this folder", "drew 128 x 128"):
        assert expected in out
    assert "to mend" not in out


def test_one_json_object_for_a_lab(sdteach_command, only, monkeypatch):
    only("Python", "packages", "this folder")
    status, out, _ = sdteach_command("doctor", "--json")
    told = json.loads(out)
    assert (status, told["works"]) == (0, True)
    assert {"Python", "torch", "this folder"} <= {finding["about"] for finding in told["findings"]}
    assert not any(finding["remedy"] for finding in told["findings"] if finding["ok"])
    versions(monkeypatch, torch="1.0")
    status, out, _ = sdteach_command("doctor", "--json")
    assert (status, json.loads(out)["works"]) == (1, False)


def test_what_is_missing_or_too_old_is_named(sdteach_command, only, monkeypatch):
    only("packages")
    versions(monkeypatch, torch="1.0", rich=None)
    status, out, _ = sdteach_command("doctor")
    assert status == 1
    assert "torch: run: pip install 'torch>=2.10'" in out
    assert "rich: run: pip install 'rich>=13.9'" in out
    assert "2 to mend" in out


def test_a_version_above_the_floor_is_told_and_no_fault(sdteach_command, only, monkeypatch):
    only("packages")
    versions(monkeypatch, numpy="2.9.1", torch="2.13.0+cu130")
    status, out, _ = sdteach_command("doctor")
    assert status == 0
    assert "2.9.1, tested with 2.4.6" in out
    assert "2.13.0+cu130" in out
    assert "tested with 2.13.0" not in out


def test_voila_is_only_for_the_demo(sdteach_command, only, monkeypatch):
    only("packages")
    monkeypatch.setattr(doctor, "requires", lambda name: ["rich>=13.9", 'voila>=0.5; extra == "classroom"', 'none-such; extra == "test"'])
    versions(monkeypatch, voila=None)
    status, out, _ = sdteach_command("doctor")
    assert status == 0
    assert "voila: for a class, run: pip install 'voila>=0.5'" in out
    assert "All that is needed works." in out
    assert "none-such" not in out


def test_a_package_that_is_not_there_at_all(isolated):
    """Torch cannot be imported, in a process of its own: no traceback, and the rest is looked at."""
    done = isolated(
        "import sys; sys.modules['torch'] = None; from sdteach.cli import main; sys.argv = ['sdteach', 'doctor', '--json']; main()"
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    findings = {finding["about"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "torch" in findings["device"]["found"]
    assert not findings["device"]["ok"]
    assert findings["checkpoint"]["ok"]


def test_not_installed_at_all(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: (_ for _ in ()).throw(PackageNotFoundError))
    assert not found("packages")["sdteach"].ok


def test_a_damaged_checkpoint_is_named_by_its_file(sdteach_command, only, monkeypatch, tmp_path):
    shutil.copytree(PICTUREBOOK, tmp_path / "assets" / "picturebook")
    (tmp_path / "lessons").mkdir()
    weights = tmp_path / "assets" / "picturebook" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(doctor, "data_folder", lambda name: tmp_path / name)
    only("data", "a picture")
    status, out, _ = sdteach_command("doctor")
    assert status == 1
    assert "damaged: vae/diffusion_pytorch_model.safetensors" in " ".join(out.split())
    assert "2 to mend" in out  # the lessons lack, too
    (tmp_path / "assets" / "picturebook" / "SHA256SUMS").unlink()
    assert "SHA256SUMS" in found("data")["checkpoint"].found


def test_a_folder_that_cannot_be_written_to(sdteach_command, only, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    only("this folder")
    status, out, _ = sdteach_command("doctor")
    assert status == 1
    assert "Permission denied" in " ".join(out.split())
    assert "--out" in out


def test_a_full_disk_and_a_full_memory(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("Usage", "total used free")(2**40, 2**40, 2**20))
    assert not found("this folder")["this folder"].ok
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("Memory", "total available")(2**32, 2**29))
    assert found("memory")["memory"].found == "0.5 of 4.0 GiB free"
    assert not found("memory")["memory"].ok


@pytest.mark.parametrize(("name", "ok", "told"), [
    (None, True, "not set"), ("picturebook", True, "embedded"), ("no-such-model", False, "expected 'picturebook', a folder"),
    ("nobody/nothing", False, "not on this machine"), ("sd-turbo", False, "not on this machine"),
    (str(ROOT / "tests"), False, "no model_index.json"), (str(PICTUREBOOK), True, "whole"),
    (str(PICTUREBOOK / "unet" / "diffusion_pytorch_model.safetensors"), True, "whole"),
    ("weights.ckpt", False, "pickle"), ("cut.safetensors", False, "cut short"),
])  # fmt: skip
def test_what_sdteach_model_names(monkeypatch, tmp_path, name, ok, told):
    """Seen from the files alone: nothing is loaded and nothing fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sdteach.loading.names.fetched", lambda ids: pytest.fail("nothing is fetched"))
    Path("weights.ckpt").write_bytes(b"a pickle")
    Path("cut.safetensors").write_bytes((99).to_bytes(8, "little") + b"{}")
    monkeypatch.setenv("SDTEACH_MODEL", name) if name else monkeypatch.delenv("SDTEACH_MODEL", raising=False)
    finding = found("SDTEACH_MODEL")["SDTEACH_MODEL"]
    assert finding.ok is ok
    assert told in finding.found
    assert finding.needed
    assert ok or finding.remedy


def test_without_a_browser_the_lab_still_opens(sdteach_command, only, monkeypatch):
    def nothing():
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr("webbrowser.get", nothing)
    only("browser")
    status, out, _ = sdteach_command("doctor")
    assert status == 0
    assert "--no-browser" in out


def test_widgets_fit_and_jupyterlab_sees_them(monkeypatch):
    assert found("widgets")["widgets"].ok
    with monkeypatch.context() as patch:
        patch.setattr("jupyter_core.paths.jupyter_path", lambda *parts: ["/nowhere"])
        assert "not seen by JupyterLab" in found("widgets")["widgets"].found
    for wrong, told in (("1.0", "jupyterlab_widgets 1.0"), (None, "jupyterlab_widgets missing")):
        with monkeypatch.context() as patch:
            versions(patch, jupyterlab_widgets=wrong)
            finding = found("widgets")["widgets"]
            assert not finding.ok
            assert told in finding.found


def test_a_card_that_torch_cannot_use_is_told(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    finding = found("device")["NVIDIA card"]
    assert (finding.ok, finding.needed) == (False, False)
    assert "CUDA build" in finding.remedy


def test_a_look_that_fails_is_a_finding_like_any_other(monkeypatch):
    monkeypatch.setattr(doctor, "LOOKS", {"the moon": lambda: (_ for _ in ()).throw(RuntimeError("hidden by clouds"))})
    (finding,) = examine()
    assert (finding.about, finding.ok, finding.found) == ("the moon", False, "RuntimeError: hidden by clouds")
