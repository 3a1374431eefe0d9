"""The `sdteach` command."""

import atexit
import gc
import sys
from typing import Annotated

import typer

from .. import __version__
from . import fetching, learning, page, painting, teaching  # each adds its commands to the app
from .options import app
from .output import asides, notes, say

__all__ = ["app", "fetching", "learning", "main", "page", "painting", "teaching"]


def main() -> None:
    """Run the command; a mistake ends with a sentence on stderr, never with a traceback."""
    # Libraries make a million objects that stay: to go through them for circular garbage, and at the end again, took a third of the time.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    try:
        with notes():
            app()
    except (ValueError, OSError) as error:
        _end_with(error)
    except RuntimeError as error:
        from accelerate.utils.memory import should_reduce_batch_size

        if not should_reduce_batch_size(error):
            raise
        from ..loading.memory import ADVICE

        _end_with(f"expected more memory than there is; {ADVICE}")
    except KeyboardInterrupt:
        asides.print("\nStopped.")
        sys.exit(130)


def _end_with(mistake):
    say(asides, ("Error: ", "bold red"), str(mistake))
    sys.exit(1)


def _tell_version(asked: bool):
    if asked:
        print("sdteach", __version__)
        raise typer.Exit


@app.callback()
def _command(version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which this is.")] = False):
    """Stable Diffusion opened up: from the prompt to the picture, stage by stage."""
