"""Checkpoints by name: the embedded one, those that people know, any folder, file or hub id; and where each is found."""

import re
from pathlib import Path
from types import SimpleNamespace

from ..files import data_folder, data_of
from .folder import PICKLED, WHY_NO_PICKLE
from .hub import fetched

EMBEDDED = "picturebook"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
KNOWN = {name: SimpleNamespace(**row) for name, row in data_of(__file__).items()}  # what each field says stands there


def find(name: str) -> Path:
    """The folder or the .safetensors file of a checkpoint; a known name or a hub id is fetched unless it is on this machine.

    A folder or file of the name goes first; only what is neither touches the network. Raises ValueError, saying what can be named,
    for anything else and for a pickle.
    """
    if name == EMBEDDED:
        return data_folder("assets") / EMBEDDED
    path = Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".safetensors"):
        return path
    if path.is_file() and path.suffix in PICKLED:
        raise ValueError(f"expected a .safetensors file, got {path.name}: {WHY_NO_PICKLE}")
    if ids := hub_ids(name):
        return fetched(ids)
    raise ValueError(f"expected {EMBEDDED!r}, a folder that exists, a .safetensors file that exists, a known name ({', '.join(KNOWN)}) "
                     f"or a hub id like 'owner/name', got {name!r}")  # fmt: skip


def hub_ids(name: str) -> tuple[str, ...]:
    """The ids to try for a known name or a hub id, in turn; none for anything else."""
    if name in KNOWN:
        return KNOWN[name].hub_id, KNOWN[name].fallback
    path = Path(name).expanduser()
    local = path.exists() or path.parent.is_dir() or path.suffix in (".safetensors", *PICKLED)
    return (name,) if HUB_ID.fullmatch(name) and not local else ()
