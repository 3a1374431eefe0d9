"""The `sdteach` command."""

import contextlib
import os
import sys
import tempfile
import time
import warnings
from io import BytesIO
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
said, asides = Console(), Console(stderr=True)


def main() -> None:
    """Run the command; a mistake ends with a sentence on stderr, never with a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        asides.print(Text.assemble(("Error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        asides.print("\nStopped.")
        sys.exit(130)


@app.callback()
def _command() -> None:
    """Stable Diffusion opened up: from the prompt to the picture, stage by stage."""


@app.command(epilog='Example:  [bold]sdteach generate "a red car below a yellow star" --out car.png --sheet sheet.png[/]')
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    out: Annotated[Path, typer.Option(help="The picture: .png, .jpg, .webp ...")],
    trace: Annotated[Path | None, typer.Option(help="Also keep every step here: .safetensors.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Also draw the run on one sheet: tokens, steps, a map per word.")] = None,
    model: Annotated[str | None, typer.Option(help="A diffusers folder or hub id; else $SDTEACH_MODEL, else the embedded one.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 50,
    seed: Annotated[int, typer.Option(help="The seed of the noise.")] = 0,
    guidance_scale: Annotated[float, typer.Option(help="How far to push towards the prompt; 1 is off.")] = 7.5,
    negative_prompt: Annotated[str, typer.Option(help="What to push away from.")] = "",
    height: Annotated[int | None, typer.Option(help="In pixels, a multiple of 8.")] = None,
    width: Annotated[int | None, typer.Option(help="In pixels, a multiple of 8.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="A diffusers class, such as EulerDiscreteScheduler.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")] = None,
) -> None:
    """Make a picture from words."""
    outputs = [path for path in (out, trace, sheet) if path]
    if folders := [str(path) for path in outputs if path.is_dir()]:
        raise ValueError(f"expected a file to write to, got the folder {folders[0]}; name a file in it")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ValueError(f"expected a file of its own for each output, got {', '.join(map(str, outputs))}")
    picture_format, sheet_format = _picture_format(out), _picture_format(sheet) if sheet else None
    for path in outputs:
        _check_writable(path)
    start = time.perf_counter()
    with _notes(), asides.status("loading the model"):
        from . import pipeline
        from .model import load_model
        from .trace import write_atomically

        loaded = load_model(model, device)
    with _notes():
        collect = ("latents", "noise", "x0", "attention", "preview") if sheet else ("latents", "noise", "x0", "attention")
        run = pipeline.generate(loaded, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler,
                                collect if trace or sheet else ())  # fmt: skip
    data = BytesIO()
    run.image.save(data, picture_format)
    write_atomically(out, data.getvalue())
    made = [(out, f"{run.width} x {run.height} picture")]
    if trace:
        run.save(trace)
        made.append((trace, f"{len(run.steps)} steps"))
    if sheet:
        from .plots import contact_sheet

        _save_figure(contact_sheet(run), sheet, sheet_format)
        made.append((sheet, "contact sheet"))
    for path, what in made:
        said.print(Text.assemble((str(path), "bold"), f"  {what}"), soft_wrap=True)
    asides.print(f"{len(run.steps)} steps on {loaded.device}, {time.perf_counter() - start:.1f} s in all", style="dim")
    if not run.complete:
        asides.print("Stopped early: the picture is the last predicted one.")
        sys.exit(130)


@app.command(epilog="Example:  [bold]sdteach doctor[/]")
def doctor() -> None:
    """Say what works here, and what to do about what does not."""
    from .doctor import examine

    table, ill = Table(box=None, show_header=False, padding=(0, 1)), []
    with asides.status("looking around"), warnings.catch_warnings(action="ignore"):
        for finding in examine():
            mark = Text("ok", "green") if finding.ok else Text("!!", "bold red")
            table.add_row(mark, Text(finding.about, "bold"), Text(finding.found))
            if not finding.ok:
                ill.append(finding)
    said.print(table)
    for finding in ill:
        said.print(Text.assemble((f"{finding.about}: ", "bold red"), finding.remedy))
    said.print("All is well." if not ill else f"{len(ill)} to mend.")
    sys.exit(1 if ill else 0)


@app.command(epilog="Example:  [bold]sdteach train runs/first --share 0.01[/]   a rehearsal of a few minutes")
def train(
    folder: Annotated[Path, typer.Argument(help="Where scenes, states and the finished checkpoint go.")],
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage (may be repeated): scenes, clip, vae, unet, pack.")] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share of all scenes and steps; 1 takes hours.")] = 1.0,
    mixed_precision: Annotated[str, typer.Option(help="no or bf16, as accelerate takes it.")] = "no",
) -> None:
    """Train picturebook from nothing. Killed at any moment, the same command goes on where it was."""
    from transformers import CLIPTokenizer

    from .model import EMBEDDED, data_folder, quiet
    from .picturebook.training import STAGES, Recipe
    from .picturebook.training import train as run

    if unknown := set(stage or ()) - set(STAGES):
        raise ValueError(f"expected --stage to be one of {', '.join(STAGES)}, got {', '.join(sorted(unknown))}")
    if mixed_precision not in ("no", "bf16"):
        raise ValueError(f"expected --mixed-precision to be no or bf16, got {mixed_precision!r}")
    recipe = Recipe() if share == 1 else Recipe().shortened(share)
    with quiet():
        tokenizer = CLIPTokenizer.from_pretrained(data_folder("assets") / EMBEDDED / "tokenizer")
    run(folder, tokenizer, recipe, stage or STAGES, mixed_precision)
    if "pack" in (stage or STAGES):
        _draw_samples(folder / EMBEDDED)
        said.print(Text.assemble((str(folder / EMBEDDED), "bold"), "  the checkpoint and its first samples"))


def _draw_samples(folder, count=32):
    """samples.png: the captions of the first `count` scenes that were never trained on, seed 0, guidance 2.5, none left out."""
    from tqdm import tqdm

    from .model import load_model
    from .picturebook.scenes import scene_from_seed
    from .picturebook.training.data import HELD_OUT_SEED
    from .pipeline import generate
    from .plots import picture_grid

    model, captions = load_model(folder), [scene_from_seed(HELD_OUT_SEED + index).caption for index in range(count)]
    pictures = [generate(model, caption, guidance_scale=2.5, collect=()).pixels for caption in tqdm(captions, "drawing samples")]
    _save_figure(picture_grid(pictures, captions), folder / "samples.png", "PNG")


def _save_figure(figure, path, kind):
    from .trace import write_atomically

    data = BytesIO()
    figure.savefig(data, format=kind, dpi=110)
    write_atomically(path, data.getvalue())


@contextlib.contextmanager
def _notes():
    """Show warnings as notes, one sentence each, after the work that raised them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    for note in dict.fromkeys(str(warning.message) for warning in caught):
        asides.print(Text.assemble(("Note: ", "bold yellow"), note), soft_wrap=True)


def _check_writable(path):
    """Make sure before the work starts that `path` can be written at its end: make its folder, try to write there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}; choose a folder that you may write to") from error
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"cannot write {path}: it is there and protected; choose another name")


def _picture_format(path):
    from PIL import Image

    known = Image.registered_extensions()
    kind = known.get(path.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP"):
        raise ValueError(f"expected a picture's name ending in .png, .jpg or .webp, got {path.name!r}")
    return kind
