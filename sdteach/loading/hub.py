"""Fetching checkpoints from the hub: only what a pipeline needs, only safetensors, in half precision where there is a choice."""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path, PurePosixPath

from .folder import LAYOUT, WEIGHTS, WHY_NO_PICKLE, checked_index


def fetched(hub_ids: Sequence[str], folder: Path | None = None) -> Path:
    """The folder of the first checkpoint that is in the cache, else of the first that can be fetched into it; or, to be copied, into
    `folder`, where what is there already is kept, so that an interrupted fetch goes on.

    Without a network a cached one is found all the same. Which id it is, its list of files decides: a fetch that breaks off later goes
    on with the same one, never with another's files. Raises ValueError that says of each id why it could not be had.
    """
    if folder is None and (there := next(filter(None, map(cached, hub_ids)), None)):
        return there
    refusals = {}
    for hub_id in hub_ids:
        try:
            files = _listed(hub_id)
        except ValueError as error:
            refusals.setdefault(str(error), []).append(hub_id)
            continue
        for reason, refused in refusals.items():
            warnings.warn(f"{refused[0]}: {reason}. Took {hub_id} in its place", stacklevel=3)
        return _download(hub_id, files, folder)
    raise ValueError("; ".join(f"{' and '.join(refused)}: {reason}" for reason, refused in refusals.items()))


def cached(hub_id: str) -> Path | None:
    """The folder in the cache, None unless all of the checkpoint is there. Never touches the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=["model_index.json"]))
        checked_index(folder)
    except (OSError, HFValidationError, ValueError):
        return None
    return folder


def wanted(sizes: Mapping[str, int]) -> dict[str, int]:
    """Of a repository's files and their sizes, those that a pipeline is loaded from, weights in half precision where there are such.

    >>> wanted({"unet/a.safetensors": 4, "unet/a.fp16.safetensors": 2, "unet/a.bin": 4, "v1-5.ckpt": 8, "unet/config.json": 1})
    {'unet/a.fp16.safetensors': 2, 'unet/config.json': 1}
    """
    files = {name: PurePosixPath(name) for name in sizes}
    inside = {name: path for name, path in files.items() if len(path.parts) == 2 and path.parts[0] in LAYOUT["parts"]}
    halves = {path.parent for path in inside.values() if ".fp16" in path.suffixes and ".safetensors" in path.suffixes}

    def needed(name):
        path = files[name]
        if name in inside and ".safetensors" in path.suffixes:
            return (".fp16" in path.suffixes) == (path.parent in halves) and ".non_ema" not in path.suffixes
        return (name in inside and path.suffix in (".json", ".txt")) or name == "model_index.json" or name.startswith("LICENSE")

    return {name: size for name, size in sizes.items() if needed(name)}


def _listed(hub_id):
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _said_in_a_sentence():
        sizes = {entry.path: entry.size for entry in HfApi().list_repo_tree(hub_id, recursive=True) if isinstance(entry, RepoFile)}
    files = wanted(sizes)
    if "model_index.json" not in files:
        raise ValueError(f"expected a diffusers repository, found no model_index.json among its {len(sizes)} files")
    if not any(name.endswith(".safetensors") for name in files):
        raise ValueError(f"expected .safetensors, got only other weights: {WHY_NO_PICKLE}")
    return files


def _download(hub_id, files, folder):
    from huggingface_hub import snapshot_download

    if folder and (others := [path for path in folder.rglob(WEIGHTS) if path.relative_to(folder).as_posix() not in files]):
        raise ValueError(f"expected an empty folder, or what an earlier fetch of {hub_id} left, got {others[0]} in it; name another folder")
    _check_room(files, folder)
    with _said_in_a_sentence(f"{hub_id}: "):
        made = Path(snapshot_download(hub_id, allow_patterns=[*files], local_dir=folder))
    checked_index(made)
    return made


@contextmanager
def _said_in_a_sentence(before=""):
    from huggingface_hub.errors import HTTPError  # of the http library that the hub's client is built on

    try:
        yield
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        raise ValueError(before + _reason(error)) from error


def _check_room(files, folder):
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(folder or HF_HUB_CACHE).absolute()
    needed = sum(size for name, size in files.items() if folder is None or not (folder / name).is_file())
    free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
    if free < needed:
        raise ValueError(f"expected {needed / 1e9:.1f} GB of free disk for {place}, got {free / 1e9:.1f} GB; make room, or choose another "
                         "disk (--to, or the variable HF_HOME)")  # fmt: skip


def _reason(error):
    """What went wrong and what to do, in a sentence."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in (error, error.__cause__, error.__context__)):
        told = "it is not on this machine and HF_HUB_OFFLINE forbids the network; unset it, or copy a folder that sdteach prefetch made"
    elif isinstance(error, errors.GatedRepoError) or status == 403:
        told = "its publisher wants a licence accepted first; open its page on huggingface.co, accept, and run: hf auth login"
    elif isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        told = "the hub has nothing public of that name; look the name up on huggingface.co, or if it is private run: hf auth login"
    elif status is not None:
        told = f"the hub answered {status}; try again later, what was fetched is kept"
    elif getattr(error, "errno", None) == ENOSPC:
        told = "the disk is full; make room, or choose another (--to, or the variable HF_HOME), and run the same again to go on"
    elif isinstance(error, ValueError):
        told = str(error)
    else:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        told = f"the hub cannot be reached ({first:.160}); check the network and try again, or copy a folder that sdteach prefetch made"
    return told
