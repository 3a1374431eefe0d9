"""What the commands write and say, and the checks of it before the work."""

import contextlib
import sys
import time
import warnings
from io import BytesIO

from rich.console import Console
from rich.text import Text

from ..files import output_path, write_whole

said, asides = Console(), Console(stderr=True)


@contextlib.contextmanager
def notes():
    """Show warnings as notes, one sentence each, after the work that raised them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    for note in dict.fromkeys(str(warning.message) for warning in caught):
        asides.print(Text.assemble(("Note: ", "bold yellow"), note), soft_wrap=True)


def check_writable(path):
    """The file that `path` means, of which it is sure before the work starts that it can be written; see `files.output_path`."""
    try:
        return output_path(path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}; choose another name, or a folder you may write to") from error


def check_outputs(*files):
    """The pictures' formats, of the first and the last; ValueError, before the work, for a file that cannot be written."""
    outputs = [path for path in files if path]
    if folders := [str(path) for path in outputs if path.is_dir()]:
        raise ValueError(f"expected a file to write to, got the folder {folders[0]}; name a file in it")
    formats = _picture_format(files[0]), _picture_format(files[-1]) if files[-1] else None
    if len({check_writable(path) for path in outputs}) < len(outputs):
        raise ValueError(f"expected a file of its own for each output, got {', '.join(map(str, outputs))}")
    return formats


def check_page(path):
    if path and path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"expected a page's name ending in .html, got {path.name!r}")


def _picture_format(path):
    from PIL import Image

    known = Image.registered_extensions()
    kind = known.get(path.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise ValueError(f"expected a picture's name ending in .png, .jpg or .webp, got {path.name!r}")
    return kind


def save_picture(image, path, kind):
    image.save(data := BytesIO(), kind)
    write_whole(path, data.getvalue())


def save_page(path, *traces):
    """Write the page of a run or two -> what it is."""
    from ..player import to_html

    page = to_html(*traces).encode()
    write_whole(path, page)
    return f"page, {len(page) / 1e6:.1f} MB"


def save_figure(figure, path, kind):
    from ..plots.style import DPI

    data = BytesIO()
    figure.savefig(data, format=kind, dpi=DPI)
    write_whole(path, data.getvalue())


def tell_outputs(made):
    for path, what in made:
        said.print(Text.assemble((str(path), "bold"), f"  {what}"), soft_wrap=True)


def tell_time(made, model, start):
    from ..loading.memory import placement

    asides.print(f"{len(made.steps)} steps on {placement(model)}, {time.perf_counter() - start:.1f} s in all", style="dim")
    if not made.complete:
        asides.print("Stopped early: the picture is the last predicted one.")
        sys.exit(130)
