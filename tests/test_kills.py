"""Who is killed at work, by a signal that can be caught or by one that cannot, leaves whole files or none."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from conftest import ROOT

AT_WORK = {
    "many": (signal.SIGKILL, "generate", "a red car", "--seeds", "0-9999", "--steps", "1", "--out", "many"),
    "one": (signal.SIGTERM, "generate", "a red car", "--steps", "900", "--out", "one.png", "--trace", "one.safetensors"),
    "measured": (signal.SIGTERM, "evaluate", "--json", "--sheets", "sheets"),
}  # fmt: skip
PACKING = """
import json, os, sys, torch
from pathlib import Path
import sdteach
from sdteach.files import damaged_files
from sdteach.picturebook.training.packing import pack
from sdteach.picturebook.world import SMALL_WORLD

torch.set_num_threads(1)
model, folder, left = sdteach.load_model("picturebook", device="cpu"), Path(sys.argv[1]), None

def count(event, given):
    global left
    if left is not None and (event in ("os.rename", "os.remove", "os.rmdir") or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR))):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)

def packed(scale):
    pack(folder, SMALL_WORLD, scale, model.tokenizer, model, model.vae, model.unet)

sys.addaudithook(count)
packed(1.0)
for kill_at in range(0, 10_000, 3):
    if not (child := os.fork()):
        left = kill_at
        packed(2.0)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    if (folder / "model_index.json").exists():
        assert damaged_files(folder) == []
        print(json.loads((folder / "sdteach.json").read_text())["guidance_scale"])
    else:
        try:
            sdteach.load_model(folder)
        except ValueError as error:
            print("refused" if "found no model_index.json" in str(error) else error)
    if not ended:
        break
"""


def test_generate_and_evaluate_leave_whole_files_or_none(tmp_path):
    (tmp_path / "one.png").write_bytes(b"old")
    environment, working = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, {}
    for name, (_, *command) in AT_WORK.items():
        with (tmp_path / f"{name}.log").open("w") as log:
            working[name] = subprocess.Popen(
                [sys.executable, "-m", "sdteach", *command], cwd=tmp_path, env=environment, stdout=log, stderr=log
            )
    for name, process in working.items():
        begun = {"many": lambda: [*tmp_path.glob("many/*.png")], "one": lambda: "step/s" in (tmp_path / "one.log").read_text(),
                 "measured": lambda: "through the VAE" in (tmp_path / "measured.log").read_text()}[name]  # fmt: skip
        while not begun():
            assert process.poll() is None, (tmp_path / f"{name}.log").read_text()
            time.sleep(0.02)
        process.send_signal(AT_WORK[name][0])
        assert process.wait(60) == -AT_WORK[name][0]
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"}
    pictures = {*tmp_path.glob("many/*")}
    assert 0 < len(pictures) < 10_000
    for picture in pictures:
        Image.open(picture).load()
    assert {name for name in there if not name.startswith("many/")} == {"one.png"}
    assert (tmp_path / "one.png").read_bytes() == b"old"
    assert "Traceback" not in "".join(log.read_text() for log in tmp_path.glob("*.log"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that go on as two are not Windows's")
def test_killed_while_packing_the_old_checkpoint_is_there_or_none_or_the_new_one(tmp_path):
    """At every third change of a file, after a checkpoint was packed there before."""
    done = subprocess.run([sys.executable, "-c", PACKING, tmp_path / "picturebook"], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    states = done.stdout.split()
    assert states == sorted(states, key=["1.0", "refused", "2.0"].index)
    assert {*states} == {"1.0", "refused", "2.0"}
    assert [path.name for path in tmp_path.iterdir()] == ["picturebook"]
