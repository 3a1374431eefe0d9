"""What works on this machine, and what to do about what does not."""

import hashlib
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from .checkpoints import EMBEDDED, data_folder


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, what was `found`, and the `remedy` where it is not well."""

    about: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Look at the versions, the device, the embedded checkpoint, write access, and make a small picture."""
    yield Finding("Python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.system()} {platform.machine()}",
                  "install Python 3.11 or newer")  # fmt: skip
    yield from _packages()
    yield _device()
    folder = data_folder("assets") / EMBEDDED
    damaged = damaged_files(folder)
    yield Finding("checkpoint", not damaged, f"{'whole' if not damaged else 'damaged: ' + ', '.join(damaged)}, in {folder}",
                  "install sdteach again, or check the files out again")  # fmt: skip
    yield _write_access()
    if not damaged:
        yield _picture()


def _packages():
    try:
        wanted = [Requirement(text) for text in requires("sdteach") or [] if "extra ==" not in text]
    except PackageNotFoundError:
        yield Finding("sdteach", False, "not installed", "run: pip install -c constraints.txt -e .")
        return
    for requirement in wanted:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = None
        ok = found is not None and requirement.specifier.contains(found, prereleases=True)
        yield Finding(requirement.name, ok, found or "missing", f"run: pip install '{requirement}'")


def _device():
    import torch

    if torch.cuda.is_available():
        found = (f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB; models load in "
                 "float16, channels last, attention by SDPA")  # fmt: skip
    else:
        found = f"CPU, {torch.get_num_threads()} threads, float32 (enough for {EMBEDDED}; real checkpoints want a GPU)"
    return Finding("device", True, found)


def damaged_files(folder: Path) -> list[str]:
    """The files that SHA256SUMS in `folder` names and that are missing or changed; the sums themselves if missing."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return [sums.name]
    listed = [line.split("  ", 1) for line in sums.read_text().splitlines()]
    return [name for digest, name in listed
            if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest]  # fmt: skip


def _write_access():
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            return Finding("this folder", True, f"{here}: can be written to")
    except OSError as error:
        return Finding("this folder", False, f"{here}: {error.strerror}", "change to a folder of yours, or name one with --out")


def _picture():
    from .model import load_model
    from .pipeline import denoise
    from .vae import latents_to_image

    start = time.perf_counter()
    try:
        model = load_model(EMBEDDED)
        *_, last = denoise(model, "a red car", steps=10)
        width, height = latents_to_image(model, last.next_latents).size
    except Exception as error:  # the doctor reports whatever is wrong
        return Finding("a picture", False, f"{type(error).__name__}: {error}", "install with -c constraints.txt")
    return Finding("a picture", True, f"loaded and drew {width} x {height} in 10 steps in {time.perf_counter() - start:.1f} s")
