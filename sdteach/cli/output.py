"""What the commands write and say."""

import contextlib
import functools
import time
import warnings
from io import BytesIO

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

import sdteach

from ..files import write_whole

STARTED = time.perf_counter()  # importing torch is part of what a user waits for
said, asides = Console(), Console(stderr=True)


@contextlib.contextmanager
def notes():
    """Show each warning as a note, one sentence, when it comes for the first time."""
    note = functools.cache(lambda text: say(asides, ("Note: ", "bold yellow"), text))
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: note(str(message))
        yield


def say(console, *parts):
    """A sentence on one line, each part a text, or a text and its look; what a user typed is never taken for markup."""
    console.print(Text.assemble(*parts), soft_wrap=True)


def tell(what, more):
    say(said, (str(what), "bold"), f"  {more}")


def tell_table(rows, *columns):
    table = Table(*columns, box=None, show_header=bool(columns), padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    said.print(table)


def tell_time(trace, model):
    """How long all took, on what; a run that was interrupted ends the command as such."""
    from ..loading.memory import placement

    asides.print(f"{len(trace.steps)} steps on {placement(model)}, {time.perf_counter() - STARTED:.1f} s in all", style="dim")
    if not trace.complete:
        asides.print("Stopped early: the picture is the last predicted one.")
        raise typer.Exit(130)


def write_picture(path, image, more=""):
    image.save(data := BytesIO(), Image.registered_extensions()[path.suffix.lower()])
    write_whole(path, data.getvalue())
    tell(path, f"{image.width} x {image.height} picture{more}")


def write_figure(path, figure, dpi=None):
    figure.savefig(data := BytesIO(), format=path.suffix[1:], dpi=dpi or sdteach.plots.style.DPI)
    write_whole(path, data.getvalue())


def write_page(path, *traces):
    page = sdteach.to_html(*traces).encode()
    write_whole(path, page)
    tell(path, f"page, {len(page) / 1e6:.1f} MB")
