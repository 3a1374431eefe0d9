"""Files: where packaged data lies, their sums, and outputs that are there as a whole or not at all."""

import errno
import hashlib
import os
import stat
import tempfile
import tomllib
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

SUMS = "SHA256SUMS"


def data_folder(name: str) -> Path:
    """Where packaged data lies, `name` being "assets" or "lessons": in the wheel, else in the checkout."""
    packaged = Path(str(files("sdteach"))) / "_data" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / name


def data_of(module: str | Path) -> dict:
    """What the .toml file of a module's own name holds, which lies beside it."""
    return tomllib.loads(Path(module).with_suffix(".toml").read_text("utf-8"))


def output_path(path: str | os.PathLike) -> Path:
    """The file that writing to `path` will make or replace: `~` is expanded, links are followed, a folder that is missing is made.

    Asked before the work starts, it raises then what writing would raise after it: OSError for a loop of links, for a name too long,
    for a folder or a file that may not be written to. A pipe or a device is written to as it is.
    """
    path = Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where there is no such user
    if path.exists() and not path.is_file():
        return path
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass
    with suppress(FileNotFoundError):
        path.stat()
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "it is there and protected", str(path))
    return path


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` so that `path` holds the old or the new whole at any moment; see `output_path`. A file that is there keeps its mode.

    What is written has no name until it is whole, where the system can do that (Linux): who is killed leaves nothing behind.
    """
    path = output_path(path)
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        with open(_unnamed(part), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if not part.exists():
                # With a `src_dir_fd`, though it is not used here, Python follows the link to the file instead of linking to the link.
                os.link(f"/proc/self/fd/{file.fileno()}", part, src_dir_fd=file.fileno())
        if path.exists():
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _unnamed(part):
    """A descriptor of a file without a name in the folder of `part`; where there is no such thing, of `part` itself."""
    try:
        return os.open(part.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except (AttributeError, OSError):
        return os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)


def write_sums(folder: Path) -> None:
    """Record the sha256 of every weight and configuration file in `folder`, in the format of `sha256sum`."""
    named = sorted(path for path in folder.rglob("*") if path.suffix in {".safetensors", ".json", ".txt"})
    sums = [f"{_sum(path)}  {path.relative_to(folder).as_posix()}\n" for path in named]
    write_whole(folder / SUMS, "".join(sums).encode())


def damaged_files(folder: Path) -> list[str]:
    """The files that SHA256SUMS in `folder` names and that are missing or changed; the sums themselves if missing."""
    if not (folder / SUMS).is_file():
        return [SUMS]
    sums = [line.split(maxsplit=1) for line in (folder / SUMS).read_text().splitlines()]
    return [name for digest, name in sums if not (folder / name).is_file() or _sum(folder / name) != digest]


def _sum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
