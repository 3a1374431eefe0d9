"""What the commands ask, and where they meet."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import sdteach

from ..files import output_path
from .output import asides

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

PICTURES, PAGES = (".png", ".jpg", ".jpeg", ".webp"), (".html", ".htm")

# Paths are parsed here: typer's own `exists=` and `writable=` take `~`, which not every shell expands, for a name, and do not ask
# whether a file that is not there yet can be made.


def home_path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path.expanduser raises for "~draft.png", which may be a file's name)


def file_to_read(text: str) -> Path:
    if not (path := home_path(text)).is_file():
        raise typer.BadParameter(f"expected a file that is there, got {text!r}")
    return path


def file_to_write(text: str, endings: tuple[str, ...] = ()) -> Path:
    """A file that can be made or replaced, its name ending in one of `endings`, if any are told."""
    path = home_path(text)
    if path.is_dir() or (endings and path.suffix.lower() not in endings):
        raise typer.BadParameter(f"expected a file's name{' ending in ' * bool(endings)}{', '.join(endings)}, got '{path}'")
    return _writable(path, path)


def folder_to_write(text: str) -> Path:
    path = home_path(text)
    return _writable(path, next(place for place in (path, *path.absolute().parents) if place.exists()) / "any")


def _writable(path, file):
    try:
        output_path(file)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror or error}; choose a place that you may write to") from error
    return path


def output(told: str, *endings: str):
    """An option that names a file to write."""
    return typer.Option(parser=partial(file_to_write, endings=endings), metavar="FILE", help=told)


def given(told: str):
    """An option that names a file to read."""
    return typer.Option(parser=file_to_read, metavar="FILE", help=told)


Model = Annotated[
    str | None,
    typer.Option(
        help="A folder, a .safetensors file, a name that `sdteach checkpoints` lists, a hub id; else $SDTEACH_MODEL, else embedded."
    ),
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Steps of the sampler.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of the noise.")]
Scale = Annotated[
    float | None,
    typer.Option(min=0, max=100, help="How far to push towards the prompt; 1 is off. By default the checkpoint's own usual scale."),
]
Negative = Annotated[str, typer.Option(help="What to push away from.")]
Edge = Annotated[int | None, typer.Option(help="In pixels, a multiple of 8.")]
Scheduler = Annotated[str | None, typer.Option(help="A diffusers class, such as EulerDiscreteScheduler.")]
Strength = Annotated[float | None, typer.Option(min=0, max=1, help="How far to leave the picture; the fraction of the steps that is made.")]
Offload = Annotated[bool, typer.Option("--offload", help="Keep the weights in the CPU's memory: slow, but large checkpoints run.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def loaded_model(model: str | None, device: str | None, offload: bool = False):
    """The model; on several processes each on a device of its own."""
    with asides.status("loading the model"):
        if not device and (rank := os.environ.get("LOCAL_RANK")):
            import torch

            device = f"cuda:{rank}" if torch.cuda.is_available() else None
        return sdteach.load_model(model, device, offload=offload)
