"""The live page."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Model, app, folder_to_write, loaded_model
from .output import asides, tell


@app.command(
    epilog="""Examples:

[bold]sdteach page site[/], then put the folder on any web server; [bold]python -m http.server --directory site[/] is one, at http://localhost:8000

[bold]sdteach page site --packages stick[/]   without a network, from the two archives in that folder"""
)
def page(
    folder: Annotated[Path, typer.Argument(parser=folder_to_write, help="The folder to write; an earlier page in it is replaced.")],
    model: Model = None,
    packages: Annotated[
        Path | None,
        typer.Option(parser=folder_to_write, help="Where the two npm packages lie, or go, that the page runs on; else this user's cache."),
    ] = None,
) -> None:
    """Write a web page on which the checkpoint runs: learners type their own prompts, on any device, and nothing is installed.

    The first time it fetches two packages of 33 MB from npm's public registry, of pinned versions; their sums are checked.
    """
    try:
        from ..page import write
    except ModuleNotFoundError as error:
        told = f"expected {error.name}, which writes networks for browsers, got none; pip install 'sdteach[page]' brings it"
        raise ValueError(told) from error
    loaded = loaded_model(model, "cpu")
    with asides.status("writing the page: a minute or two"):
        size = write(loaded, folder, packages)
    tell(folder, f"a page of {size / 1e6:.0f} MB; python -m http.server --directory {folder} serves it on this machine")
