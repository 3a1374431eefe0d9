"""The `sdteach` command."""

import contextlib
import json
import math
import os
import shutil
import subprocess
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
# JupyterLab asks for news, updates and extensions on the network, in a classroom that may have none: in here they are switched off.
JUPYTER = Path(__file__).with_name("jupyter")
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


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example:  [bold]sdteach lab[/], or [bold]sdteach lab my-lessons --no-browser --port 8899[/]",
)
def lab(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where your copy of the lessons is, or goes.")] = Path("sdteach-lessons"),
) -> None:
    """Open JupyterLab on a copy of the lessons that is yours to change; what you changed stays. Other options go to JupyterLab."""
    from .model import data_folder

    options = context.args
    if str(folder).startswith("-"):  # no folder was named, the first of JupyterLab's options stands in its place
        folder, options = Path("sdteach-lessons"), [str(folder), *options]
    lessons = sorted(data_folder("lessons").glob("*.ipynb"))
    if folder.resolve() == lessons[0].parent.resolve():
        raise ValueError(f"expected a folder of your own, got {folder}, which holds the lessons themselves; name another")
    _check_writable(folder / lessons[0].name)
    new = [lesson for lesson in lessons if not (folder / lesson.name).exists()]
    for lesson in new:
        shutil.copyfile(lesson, folder / lesson.name)
    said.print(Text.assemble((str(folder), "bold"), f"  {len(new)} lessons copied, {len(lessons) - len(new)} kept as they were"))
    settings = os.pathsep.join(filter(None, [str(JUPYTER), os.environ.get("JUPYTER_CONFIG_PATH")]))
    command = [sys.executable, "-m", "jupyterlab", str(folder / lessons[0].name), *options]
    sys.exit(subprocess.call(command, env=os.environ | {"JUPYTER_CONFIG_PATH": settings}))


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


@app.command(epilog="Example:  [bold]sdteach train runs/first --share 0.01[/]   a rehearsal")
def train(
    folder: Annotated[Path, typer.Argument(help="Where scenes, states, loss curves, samples and the finished checkpoint go.")],
    preset: Annotated[str, typer.Option(help="cpu (a dozen objects, hours on two cores) or accelerator (the whole world).")] = "cpu",
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage (may be repeated): scenes, clip, vae, decoder, unet, guidance, pack, judge.")
    ] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share of all scenes and steps; 1 is the whole recipe.")] = 1.0,
) -> None:
    """Train picturebook from nothing. Killed at any moment, the same command goes on where it was."""
    from transformers import CLIPTokenizer

    from .model import EMBEDDED, data_folder, quiet
    from .picturebook.training import PRESETS, STAGES, Watch
    from .picturebook.training import train as run

    if unknown := set(stage or ()) - set(STAGES):
        raise ValueError(f"expected --stage to be one of {', '.join(STAGES)}, got {', '.join(sorted(unknown))}")
    if preset not in PRESETS:
        raise ValueError(f"expected --preset to be one of {', '.join(PRESETS)}, got {preset!r}")
    recipe = PRESETS[preset] if share == 1 else PRESETS[preset].shortened(share)
    with quiet():
        tokenizer = CLIPTokenizer.from_pretrained(data_folder("assets") / EMBEDDED / "tokenizer")
    run(folder, tokenizer, recipe, stage, Watch(_draw_losses, _draw_samples))
    if not stage or "pack" in stage:
        said.print(
            Text.assemble((str(folder / EMBEDDED), "bold"), "  the checkpoint; now: sdteach evaluate --model " + str(folder / EMBEDDED))
        )


@app.command(epilog="Example:  [bold]sdteach evaluate --sheets .[/]   also draws all that was painted, and what failed")
def evaluate(
    model: Annotated[str | None, typer.Option(help="A picturebook's folder; else $SDTEACH_MODEL, else the embedded one.")] = None,
    guidance_scale: Annotated[float, typer.Option(help="How far to push towards the prompt.")] = 7.5,
    attention: Annotated[bool, typer.Option("--attention", help="Measure instead where words are read, and what that decides.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    sheets: Annotated[Path | None, typer.Option(help="A folder for samples.png, every third prompt, and worst.png.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")] = None,
) -> None:
    """Measure a picturebook against the truth: VAE, CLIP, prompts, attention, and the judge itself. Takes minutes."""
    if sheets and attention:
        raise ValueError("expected --sheets or --attention, got both; sheets are drawn of the prompts that --attention does not paint")
    if sheets:
        _check_writable(sheets / "samples.png")
    with _notes(), asides.status("loading the model and its judge"):
        from .attention import layer_grids
        from .model import load_model
        from .picturebook.attention_truth import as_plain, attention_truth
        from .picturebook.evaluation import evaluate as run
        from .picturebook.judge import load_judge
        from .plots import layer_names

        loaded, judge = load_model(model, device), load_judge()
    if attention:
        with _notes():
            found = attention_truth(loaded, judge, guidance_scale)
        print(json.dumps(as_plain(found))) if as_json else _tell_attention(found, layer_names(layer_grids(loaded.unet, 16, 16)))
        return
    with _notes():
        result = run(loaded, judge, guidance_scale)
    if as_json:
        print(json.dumps({
            **{name: _rounded(measure.value) for name, measure in result.measures.items()},
            "intervals": {name: [_rounded(measure.low), _rounded(measure.high)] for name, measure in result.measures.items()},
            "cases": {name: measure.count for name, measure in result.measures.items()},
        }))  # fmt: skip
    else:
        _tell_evaluation(result)
    if sheets:
        _draw_sheets(result, sheets)


def _tell_evaluation(result):
    from .picturebook.evaluation import GOALS

    table = Table("measure", "value", "95 % interval", "cases", "goal", box=None)
    for name, measure in result.measures.items():
        texts = [f"{number:.2f} dB" if name == "vae_psnr" else f"{number:.1%}" for number in (measure.value, measure.low, measure.high)]
        bound = "at most" if name == "judge_shuffled" else "at least"
        goal = f"{GOALS[name]:g} dB" if name == "vae_psnr" else f"{GOALS[name]:.0%}"
        table.add_row(name, texts[0], f"{texts[1]} .. {texts[2]}", str(measure.count), f"{bound} {goal}")
    said.print(table)


def _draw_sheets(result, folder):
    from .plots import picture_grid

    failed = [case for case in result.painted if case.faults]
    worst = sorted(failed, key=lambda case: -len(case.faults))[:16]
    shown = result.painted[::3][:64]
    _save_figure(picture_grid([case.pixels for case in shown], [case.prompt for case in shown]), folder / "samples.png", "PNG")
    if worst:
        captions = [f"{case.prompt}: {'; '.join(case.faults)}" for case in worst]
        _save_figure(picture_grid([case.pixels for case in worst], captions, columns=4), folder / "worst.png", "PNG")


def _tell_attention(found, names):
    """Tables of `attention_truth`; `names` are the layers' short ones."""
    from .picturebook.attention_truth import TIMESTEPS

    said.print(f"Overlap (IoU) of {found.drawn_things} drawn things with their words, by layer and timestep")
    drawn = Table("", *map(str, TIMESTEPS), box=None, padding=(0, 1, 0, 0))
    for layer, row in zip(found.layers, found.drawn, strict=True):
        drawn.add_row(names.get(layer, layer), *(f"{value:.2f}" for value in row))
    said.print(drawn)
    things = found.aggregations[found.best].reported.count
    said.print(f"\nOverlap of {things} painted things: thresholds chosen on some seeds, scored on others; the best while choosing is bold")
    ways = Table("", "above", "chosen", "scored", "95 % interval", box=None, padding=(0, 1, 0, 0))
    for way, one in {**found.aggregations, **found.by_layer}.items():
        name = Text(names.get(way, way), "bold" if way == found.best else "")
        ways.add_row(name, f"{one.threshold:g}", f"{one.chosen_on.value:.3f}", f"{one.reported.value:.3f}", _interval(one.reported))
    said.print(ways)
    said.print(f"\nWhat words decide, in {found.gone['word'].count} pictures that were right before")
    rates = Table("", "rate", "95 % interval", box=None, padding=(0, 1, 0, 0))
    for name, measure in {
        **{f"thing gone, {name} hidden": measure for name, measure in found.gone.items()},
        "thing gone, word and later less control": found.later_minus_control,
        **{f"other colour word, layout {name}: overlap": measure for name, measure in found.mask_overlap.items()},
        **{f"other colour word, layout {name}: same place": measure for name, measure in found.kept.items()},
        **{f"other colour word, layout {name}: new colour": measure for name, measure in found.recoloured.items()},
    }.items():
        rates.add_row(name, f"{measure.value:.3f}", _interval(measure))
    said.print(rates)


def _interval(measure):
    return f"{measure.low:.3f}..{measure.high:.3f}"


def _rounded(number):
    """Four digits, as much as the intervals bear; None, JSON's null, where there was no case."""
    return None if math.isnan(number) else round(number, 4)


def _draw_losses(folder):
    """losses.png beside the log of a phase."""
    from .plots import loss_curve

    lines = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    figure = loss_curve([line["step"] for line in lines], [line["loss"] for line in lines], folder.name)
    _save_figure(figure, folder / "losses.png", "PNG")


def _draw_samples(file, pictures, captions):
    from .plots import picture_grid

    _save_figure(picture_grid(pictures, captions, columns=6), file, "PNG")


def _save_figure(figure, path, kind):
    from .plots.style import DPI
    from .trace import write_atomically

    data = BytesIO()
    figure.savefig(data, format=kind, dpi=DPI)
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
