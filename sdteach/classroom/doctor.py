"""What works on this machine, and what to do about what does not."""

import platform
import re
import shutil
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from os import environ
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from ..files import damaged_files, data_folder
from ..loading.folder import check_tensors, checked_index
from ..loading.hub import cached
from ..loading.names import EMBEDDED, find, hub_ids

REINSTALL = "install sdteach again, with -c constraints.txt"
LESSON, DISK = 2**30, 2**28  # bytes that a lesson's kernel wants, and a student's copies and runs


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, what was `found`, and the `remedy` where it is not well. Without what is not `needed` the rest works."""

    about: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True


def examine() -> Iterator[Finding]:
    """Look at Python, the packages and the versions they were tested in, this machine, the data that sdteach brings, $SDTEACH_MODEL,
    widgets and browser; and make a small picture. What cannot even be looked at is a finding, too."""
    for about, look in LOOKS.items():
        try:
            yield from (replace(finding, remedy="") if finding.ok else finding for finding in look())
        except Exception as error:  # the doctor reports whatever is wrong
            yield Finding(about, False, f"{type(error).__name__}: {error}", REINSTALL)


def _python():
    yield Finding("Python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.system()} {platform.machine()}",
                  "install Python 3.11 or newer")  # fmt: skip


def _packages():
    try:
        requirements = [Requirement(text) for text in requires("sdteach") or []]
    except PackageNotFoundError:
        yield Finding("sdteach", False, "not installed", "run: pip install -c constraints.txt -e .")
        return
    tested = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", data_folder("assets").with_name("constraints.txt").read_text("utf-8"), re.MULTILINE))
    for requirement in requirements:
        needed, wanted = (requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in ("", "classroom"))
        if wanted:
            found, ok = _fit(requirement)
            known = tested.get(requirement.name)
            other = f", tested with {known}" if ok and known not in (None, Version(found).public) else ""
            remedy = f"{'' if needed else 'for a class, '}run: pip install '{requirement.name}{requirement.specifier}'"
            yield Finding(requirement.name, ok, (found or "missing") + other, remedy, needed)


def _fit(requirement):
    """The version that is there, None for none, and whether it will do."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return None, False
    return found, requirement.specifier.contains(found, prereleases=True)


def _device():
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield Finding("device", True, f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free; models load in "
                      "float16, channels last, attention by SDPA")  # fmt: skip
        return
    yield Finding("device", True, f"CPU, {torch.get_num_threads()} threads, float32 (enough for {EMBEDDED}; real checkpoints want a GPU)")
    if shutil.which("nvidia-smi"):
        yield Finding("NVIDIA card", False, f"torch {torch.__version__} cannot use it", needed=False,
                      remedy="install torch's CUDA build, and the driver that it asks for")  # fmt: skip


def _memory():
    import psutil

    memory = psutil.virtual_memory()
    yield Finding("memory", memory.available >= LESSON, f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
                  "a lesson takes up to 0.8 GiB, lesson 09 up to 1.6: close other programs, or shut down other kernels")  # fmt: skip


def _data():
    folder = data_folder("assets") / EMBEDDED
    damaged = damaged_files(folder)
    yield Finding("checkpoint", not damaged, f"{'whole' if not damaged else 'damaged: ' + ', '.join(damaged)}, in {folder}",
                  "install sdteach again, or check the files out again")  # fmt: skip
    lessons = len([*data_folder("lessons").glob("[0-9]*.ipynb")])
    yield Finding("lessons", lessons > 0, f"{lessons} in {data_folder('lessons')}", REINSTALL)


def _model():
    """What $SDTEACH_MODEL names, looked at without loading it or touching the network."""
    name = environ.get("SDTEACH_MODEL")
    if not name or name == EMBEDDED:
        yield Finding("SDTEACH_MODEL", True, f"{name or 'not set'}: lessons run on the embedded checkpoint")
        return
    try:
        if ids := hub_ids(name):
            there = any(map(cached, ids))
            yield Finding("SDTEACH_MODEL", there, f"{name}: {'on this machine' if there else 'not on this machine yet'}",
                          f"where there is a network, run: sdteach prefetch {name}")  # fmt: skip
            return
        path = find(name)
        (checked_index if path.is_dir() else check_tensors)(path)
        yield Finding("SDTEACH_MODEL", True, f"{name}: its files are whole; not loaded")
    except ValueError as error:
        yield Finding("SDTEACH_MODEL", False, f"{name}: {error}", f"name another checkpoint in it, or unset it for {EMBEDDED}")


def _widgets():
    from jupyter_core.paths import jupyter_path

    fitting = next(needed for needed in map(Requirement, requires("ipywidgets")) if needed.name == "jupyterlab_widgets")
    found, ok = _fit(fitting)
    extension = any(Path(folder, "@jupyter-widgets/jupyterlab-manager").is_dir() for folder in jupyter_path("labextensions"))
    yield Finding("widgets", ok and extension, f"ipywidgets {version('ipywidgets')}, jupyterlab_widgets {found or 'missing'}"
                  + ("" if extension else ", not seen by JupyterLab"), "sliders stay pictures; run: pip install --force-reinstall "
                  f"ipywidgets '{fitting}', in the environment of JupyterLab")  # fmt: skip


def _browser():
    try:
        yield Finding("browser", True, webbrowser.get().name)
    except webbrowser.Error:
        yield Finding("browser", False, "none that can be opened from here", needed=False,
                      remedy="run: sdteach lab --no-browser, and open the address that it prints")  # fmt: skip


def _write_access():
    here, free = Path.cwd(), shutil.disk_usage(Path.cwd()).free
    try:
        with tempfile.TemporaryFile(dir=here):
            yield Finding("this folder", free >= DISK, f"{here}: can be written to, {free / 2**30:.1f} GiB free", "make room on this disk")
    except OSError as error:
        yield Finding("this folder", False, f"{here}: {error.strerror}", "change to a folder of yours, or name one with --out")


def _picture():
    if damaged_files(data_folder("assets") / EMBEDDED):
        return
    from ..model import load_model
    from ..pipeline import denoise
    from ..vae import latents_to_image

    start = time.perf_counter()
    model = load_model(EMBEDDED)
    *_, last = denoise(model, "a red car", steps=10)
    width, height = latents_to_image(model, last.next_latents).size
    yield Finding("a picture", True, f"loaded and drew {width} x {height} in 10 steps in {time.perf_counter() - start:.1f} s")


LOOKS = {"Python": _python, "packages": _packages, "device": _device, "memory": _memory, "data": _data, "SDTEACH_MODEL": _model,
         "widgets": _widgets, "browser": _browser, "this folder": _write_access, "a picture": _picture}  # fmt: skip
