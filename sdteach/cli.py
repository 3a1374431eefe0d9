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
from dataclasses import asdict
from importlib.util import find_spec
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
MOST_SEEDS = 10_000
said, asides = Console(), Console(stderr=True)


def main() -> None:
    """Run the command; a mistake ends with a sentence on stderr, never with a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        _end_with(error)
    except RuntimeError as error:
        from accelerate.utils.memory import should_reduce_batch_size

        if not should_reduce_batch_size(error):
            raise
        from .memory import ADVICE

        _end_with(f"expected more memory than there is; {ADVICE}")
    except KeyboardInterrupt:
        asides.print("\nStopped.")
        sys.exit(130)


def _end_with(mistake):
    asides.print(Text.assemble(("Error: ", "bold red"), str(mistake)), soft_wrap=True)
    sys.exit(1)


@app.callback()
def _command() -> None:
    """Stable Diffusion opened up: from the prompt to the picture, stage by stage."""


# What several commands ask alike.
Model = Annotated[
    str | None,
    typer.Option(
        help="A folder, a .safetensors file, a name that `sdteach checkpoints` lists, a hub id; else $SDTEACH_MODEL, else embedded."
    ),
]
Steps = Annotated[int, typer.Option(help="Steps of the sampler.")]
Seed = Annotated[int, typer.Option(help="The seed of the noise.")]
Scale = Annotated[float, typer.Option(help="How far to push towards the prompt; 1 is off.")]
Negative = Annotated[str, typer.Option(help="What to push away from.")]
Edge = Annotated[int | None, typer.Option(help="In pixels, a multiple of 8.")]
Scheduler = Annotated[str | None, typer.Option(help="A diffusers class, such as EulerDiscreteScheduler.")]
Strength = Annotated[float | None, typer.Option(help="How far to leave the picture, 0 to 1; the share of the steps that is made.")]
Offload = Annotated[bool, typer.Option("--offload", help="Keep the weights in the CPU's memory: slow, but large checkpoints run.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")]


@app.command(
    epilog="""Examples:

[bold]sdteach generate "a red car below a yellow star" --out car.png --sheet sheet.png[/]

[bold]sdteach generate "a red car in the snow" --image beach.png --strength 0.8 --out snow.png[/]

[bold]sdteach generate "a blue boat on a beach" --image beach.png --mask hole.png --out boat.png[/]

[bold]sdteach generate "a red car" "a blue boat" --seeds 0-15 --grid --out many[/]

On several processes:  [bold]accelerate launch --multi_gpu --num_processes 2 -m sdteach generate "a red car" --seeds 0-15 --out many[/]"""
)
def generate(
    prompt: Annotated[list[str], typer.Argument(help="What the picture shows; several prompts make several pictures.")],
    out: Annotated[Path, typer.Option(help="The picture: .png, .jpg, .webp ...; of several pictures the folder.")],
    trace: Annotated[Path | None, typer.Option(help="Also keep every step here: .safetensors.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Also draw the run on one sheet: tokens, steps, a map per word.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also make a page on which to watch the run in any browser: .html.")] = None,
    seeds: Annotated[str | None, typer.Option(help="A picture for each of these seeds: 0-15, or 3,7,20-29.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also draw all of several pictures on one sheet, grid.png.")] = False,
    image: Annotated[Path | None, typer.Option(help="Start from this picture; any format that Pillow reads.")] = None,
    strength: Strength = None,
    mask: Annotated[Path | None, typer.Option(help="Paint --image anew only where this picture is white.")] = None,
    layout: Annotated[Path | None, typer.Option(help="JSON of words and boxes: {\"car\": \\[left, top, right, bottom]}, 0 to 1.")] = None,
    model: Model = None, steps: Steps = 50, seed: Seed = 0, guidance_scale: Scale = 7.5, negative_prompt: Negative = "",
    height: Edge = None, width: Edge = None, scheduler: Scheduler = None, device: Device = None, offload: Offload = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the UNet first: a minute or more, then quicker; for many.")] = False,
) -> None:  # fmt: skip
    """Make a picture from words, or many; from words and a picture; anew in a part of a picture; after a layout."""
    settings = dict(negative_prompt=negative_prompt, steps=steps, guidance_scale=guidance_scale, scheduler=scheduler)
    several = len(prompt) > 1 or seeds is not None
    if several:
        numbers = [seed] if seeds is None else _seeds(seeds)
        _check_folder(out, {"--trace": trace, "--sheet": sheet, "--html": html, "--layout": layout})
    else:
        if grid:
            raise ValueError("expected --seeds or several prompts with --grid, got one picture; --sheet draws its run")
        _check_page(html)
        formats = _check_outputs(out, trace, html, sheet)
    if compiled and offload:
        raise ValueError("expected --compile or --offload, got both; weights that travel layer by layer cannot be compiled into one piece")
    boxes = _boxes(layout)
    start = time.perf_counter()
    with _notes(), asides.status("loading the model"):
        loaded = _load(model, device, offload)
        settings |= _given(loaded, image, mask, strength, height, width)
        if compiled:
            loaded.unet.compile()
    with _notes():
        if several:
            _paint_many(loaded, prompt, numbers, out, grid, settings)
            return
        from .pipeline import generate as run

        kept = ("latents", "noise", "x0", "attention", "preview") if sheet else ("latents", "noise", "x0", "attention")
        made = run(loaded, prompt[0], seed=seed, layout=boxes, collect=kept if trace or sheet or html else (), **settings)
    _save_picture(_pasted(made), out, formats[0])
    outputs = [(out, f"{made.width} x {made.height} picture")]
    if trace:
        made.save(trace)
        outputs.append((trace, f"{len(made.steps)} steps"))
    if sheet:
        from .plots import contact_sheet

        _save_figure(contact_sheet(made), sheet, formats[1])
        outputs.append((sheet, "contact sheet"))
    if html:
        from .pipeline import with_previews

        outputs.append((html, _save_page(html, with_previews(loaded, made))))
    _tell_outputs(outputs)
    _tell_time(made, loaded, start)


@app.command(epilog="Example:  [bold]sdteach play run.safetensors --out run.html[/], of a run that generate kept with --trace")
def play(
    runs: Annotated[list[Path], typer.Argument(help="The file of a run, or of two to see side by side: .safetensors.")],
    out: Annotated[Path, typer.Option(help="The page: .html.")],
    model: Annotated[str | None, typer.Option(help="What made the runs, to decode their steps; the embedded one needs no naming.")] = None,
    device: Device = None,
) -> None:
    """Make a page on which to watch a run in any browser, step by step, word by word; or two runs side by side."""
    from .checkpoints import EMBEDDED
    from .trace import Trace

    if len(runs) > 2:
        raise ValueError(f"expected one run or two, got {len(runs)}; make a page for each two")
    _check_page(out)
    _check_writable(out)
    traces = [Trace.load(run) for run in runs]
    with _notes(), asides.status("decoding the steps"):
        for index, trace in enumerate(traces):
            if name := EMBEDDED if trace.model == EMBEDDED else model:
                from .pipeline import with_previews

                traces[index] = with_previews(_load(name, device), trace)
    _tell_outputs([(out, _save_page(out, *traces))])


@app.command(
    epilog="""Examples:

[bold]sdteach record "a red car" --model sd-1.5 --out runs/car.safetensors[/]   once, where there is a GPU

[bold]SDTEACH_RECORDINGS=runs sdteach lab[/]   then lesson 10 replays it on any machine; or [bold]sdteach play[/] makes a page of it"""
)
def record(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    out: Annotated[Path, typer.Option(help="The recorded run: .safetensors.")],
    model: Model = None, steps: Steps = 50, seed: Seed = 0, guidance_scale: Scale = 7.5, negative_prompt: Negative = "",
    height: Edge = None, width: Edge = None, scheduler: Scheduler = None, device: Device = None, offload: Offload = False,
) -> None:  # fmt: skip
    """Record a run for a class without a GPU: each step with its picture and where words were read, in a file small enough to copy."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise ValueError(f"expected a file's name ending in .safetensors, got {out.name!r}")
    _check_writable(out)
    start = time.perf_counter()
    with _notes(), asides.status("loading the model"):
        loaded = _load(model, device, offload)
    with _notes():
        from .pipeline import generate as run
        from .pipeline import with_previews
        from .recording import recorded

        made = run(loaded, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler)
        with asides.status("decoding the steps"):
            recorded(with_previews(loaded, made)).save(out)
    _tell_outputs([(out, f"{len(made.steps)} steps, {out.stat().st_size / 1e6:.1f} MB")])
    _tell_time(made, loaded, start)


@app.command(epilog='Example:  [bold]sdteach upscale small.png --prompt "a red car on a beach" --out large.png[/]')
def upscale(
    picture: Annotated[Path, typer.Argument(help="The small picture; any format that Pillow reads.")],
    out: Annotated[Path, typer.Option(help="The large picture: .png, .jpg, .webp ...")],
    factor: Annotated[int, typer.Option(min=2, max=16, help="How many times larger.")] = 4,
    prompt: Annotated[str, typer.Option(help="What the picture shows, which helps.")] = "",
    strength: Strength = None, model: Model = None, steps: Steps = 20, seed: Seed = 0, guidance_scale: Scale = 2.0,
    negative_prompt: Negative = "", scheduler: Scheduler = None, device: Device = None, offload: Offload = False,
) -> None:  # fmt: skip
    """Make a small picture large: the same loop, kept true to the small picture at every step."""
    formats = _check_outputs(out)
    start = time.perf_counter()
    with _notes(), asides.status("loading the model"):
        from .pictures import LARGEST, back_projected, open_picture
        from .pipeline import generate as run

        small = open_picture(picture)
        if factor * max(small.size) > LARGEST:
            raise ValueError(f"expected a picture that times {factor} has edges of at most {LARGEST}, got {small.width} x {small.height}; "
                             "choose a smaller --factor")  # fmt: skip
        loaded = _load(model, device, offload)
        unit = loaded.vae_scale_factor // math.gcd(loaded.vae_scale_factor, factor)
        small = _resized(picture, small, *(max(round(edge / unit), 1) * unit for edge in (small.height, small.width)))
    with _notes():
        made = run(loaded, prompt, negative_prompt, steps, guidance_scale, seed, factor * small.height, factor * small.width, scheduler,
                   collect=(), small=small, strength=strength)  # fmt: skip
    _save_picture(back_projected(made.image, small), out, formats[0])
    _tell_outputs([(out, f"{made.width} x {made.height} picture, from {small.width} x {small.height}")])
    _tell_time(made, loaded, start)


def _load(model, device, offload=False):
    """The model; on several processes each on a device of its own."""
    from .model import load_model

    if device is None and "LOCAL_RANK" in os.environ:
        import torch

        device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else None
    return load_model(model, device, offload=offload)


def _boxes(layout):
    if layout is None:
        return None
    from .pictures import open_layout

    return open_layout(layout)


def _given(model, image, mask, strength, height, width):
    """What `generate` is given of pictures: brought to a size that the model takes, unless it was asked for another."""
    from .pictures import fitting_size, open_mask, open_picture
    from .pipeline import picture_size

    if image is None:
        if mask is not None:
            raise ValueError("expected --image with --mask, got none; the mask says where to paint that picture anew")
        return {"height": height, "width": width} | ({} if strength is None else {"strength": strength})
    picture, own = open_picture(image), picture_size(model, height, width)
    if height is None and width is None:
        own = fitting_size(picture, model.vae_scale_factor, math.prod(own))
    area = None if mask is None else open_mask(mask, picture, *own)
    return {"image": _resized(image, picture, *own), "strength": strength, "mask": area}


def _resized(path, picture, height, width):
    from PIL import Image

    if picture.size == (width, height):
        return picture
    warnings.warn(f"{path} was {picture.width} x {picture.height}, brought to {width} x {height}", stacklevel=2)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _seeds(text):
    """0-15, or 3,7,20-29, as numbers."""
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = [int(end) if end.isdecimal() and len(end) < 20 else -1 for end in (first, last if dash else first)]
        if not 0 <= ends[0] <= ends[1] < 2**63 or len(seeds) + ends[1] - ends[0] >= MOST_SEEDS:
            raise ValueError(f"expected --seeds such as 0-15 or 3,7,20-29, at most {MOST_SEEDS:,} and below 2**63, got {text!r:.80}")
        seeds += range(ends[0], ends[1] + 1)
    return list(dict.fromkeys(seeds))


def _paint_many(model, prompts, seeds, folder, grid, settings):
    from accelerate import PartialState

    from .batch import Order, paint_all

    orders = [Order(prompt, seed) for prompt in dict.fromkeys(prompts) for seed in seeds]
    there = {*folder.glob("*.png")}
    files = paint_all(model, orders, folder, **settings)
    if not PartialState().is_main_process:
        return
    new = len({*files} - there)
    outputs = [(folder, f"{new} pictures painted, {len(files) - new} were there")]
    if grid:
        import numpy as np

        from .pictures import open_picture
        from .plots import picture_grid

        captions = [f"{order.prompt}, seed {order.seed}" for order in orders]
        pixels = [np.asarray(open_picture(file)) for file in files]
        _save_figure(picture_grid(pixels, captions), folder / "grid.png", "PNG")
        outputs.append((folder / "grid.png", "all of them"))
    _tell_outputs(outputs)


def _pasted(made):
    """The picture; after inpainting with what was not masked put back."""
    from PIL import Image

    from .pictures import pasted_back

    return made.image if made.mask is None else Image.fromarray(pasted_back(made.pixels, made.start, made.mask))


def _check_outputs(*files):
    """The pictures' formats, of the first and the last; ValueError, before the work, for a file that cannot be written."""
    outputs = [path for path in files if path]
    if folders := [str(path) for path in outputs if path.is_dir()]:
        raise ValueError(f"expected a file to write to, got the folder {folders[0]}; name a file in it")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ValueError(f"expected a file of its own for each output, got {', '.join(map(str, outputs))}")
    formats = _picture_format(files[0]), _picture_format(files[-1]) if files[-1] else None
    for path in outputs:
        _check_writable(path)
    return formats


def _check_page(path):
    if path and path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"expected a page's name ending in .html, got {path.name!r}")


def _save_page(path, *traces):
    """Write the page of a run or two -> what it is."""
    from .player import to_html
    from .trace import write_atomically

    page = to_html(*traces).encode()
    write_atomically(path, page)
    return f"page, {len(page) / 1e6:.1f} MB"


def _check_folder(folder, refused):
    """ValueError for what does not go with several pictures, or a folder that cannot be written to."""
    if wrong := [name for name, value in refused.items() if value]:
        raise ValueError(f"expected one prompt and one seed with {', '.join(wrong)}, got several pictures to paint")
    from PIL import Image

    if folder.suffix.lower() in Image.registered_extensions() or folder.is_file():
        raise ValueError(f"expected --out to name a folder for several pictures, got {folder}")
    _check_writable(folder / "grid.png")


def _save_picture(image, path, kind):
    from .trace import write_atomically

    image.save(data := BytesIO(), kind)
    write_atomically(path, data.getvalue())


def _tell_outputs(made):
    for path, what in made:
        said.print(Text.assemble((str(path), "bold"), f"  {what}"), soft_wrap=True)


def _tell_time(made, model, start):
    from .memory import told

    asides.print(f"{len(made.steps)} steps on {told(model)}, {time.perf_counter() - start:.1f} s in all", style="dim")
    if not made.complete:
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
    from .checkpoints import data_folder

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


@app.command(epilog='Example:  [bold]sdteach checkpoints[/], then [bold]sdteach generate "a red car" --model sd-turbo --steps 4 ...[/]')
def checkpoints() -> None:
    """List the checkpoints that have a name here, what each wants, and whether it is on this machine."""
    from .checkpoints import EMBEDDED, KNOWN
    from .hub import cached

    said.print(Text.assemble((EMBEDDED, "bold"), "  the embedded one: no download, no GPU. Besides it, by name:\n"))
    table = Table("name", "GB", "pixels", "steps", "guidance", "here", "what differs in a lesson", box=None, padding=(0, 1, 0, 0))
    for name, one in KNOWN.items():
        here = next((hub_id for hub_id in (one.hub_id, one.fallback) if cached(hub_id)), None)
        table.add_row(Text(name, "bold"), f"about {one.gigabytes:g}", str(one.edge), str(one.steps), f"{one.guidance_scale:g}",
                      "yes" if here else "no", one.differs)  # fmt: skip
    said.print(table)
    said.print()
    for name, one in KNOWN.items():
        said.print(Text.assemble((name, "bold"), f"  {one.hub_id}, else {one.fallback}; licence {one.licence}"), soft_wrap=True)


@app.command(
    epilog="""Examples:

[bold]sdteach prefetch sd-1.5 --to /media/stick/sd-1.5[/]   once, where there is a network

[bold]SDTEACH_MODEL=/media/stick/sd-1.5 sdteach lab[/]   then on every machine, without one; or copy the folder first

[bold]sdteach prefetch sd-turbo[/]   into the cache of this machine, where --model sd-turbo finds it"""
)
def prefetch(
    name: Annotated[str, typer.Argument(help="A name that [bold]sdteach checkpoints[/] lists, or a hub id: owner/name.")],
    to: Annotated[Path | None, typer.Option(help="A folder to copy to every machine; else the hub's cache on this one.")] = None,
) -> None:
    """Fetch a checkpoint for a class, so that nobody needs the network later. Stopped, the same command goes on."""
    from .checkpoints import KNOWN, hub_ids
    from .hub import fetch_to, fetched

    ids = hub_ids(name)
    if not ids:
        raise ValueError(f"expected one of {', '.join(KNOWN)} or a hub id like 'owner/name', got {name!r}")
    if to:
        _check_writable(to / "model_index.json")
    with _notes():
        folder = fetch_to(ids, to) if to else fetched(ids)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    said.print(Text.assemble((str(folder), "bold"), f"  {size / 1e9:.2f} GB"), soft_wrap=True)
    said.print(f"Now, without a network:  SDTEACH_MODEL={folder} sdteach lab", style="dim", soft_wrap=True)


@app.command(
    epilog="Example:  [bold]sdteach doctor[/], or for a lab's machines [bold]sdteach doctor --json[/]; "
    "the status is 0 where all that is needed works, else 1"
)
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False) -> None:
    """Say what works here, and what to do about what does not."""
    from .doctor import examine

    with asides.status("looking around"), warnings.catch_warnings(action="ignore"):
        findings = list(examine())
    lacking = [finding for finding in findings if not finding.ok]
    ill = [finding for finding in lacking if finding.needed]
    if as_json:
        print(json.dumps({"works": not ill, "findings": [asdict(finding) for finding in findings]}))
        sys.exit(1 if ill else 0)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for finding in findings:
        mark = Text("ok", "green") if finding.ok else Text("!!", "bold red") if finding.needed else Text("--", "yellow")
        table.add_row(mark, Text(finding.about, "bold"), Text(finding.found))
    said.print(table)
    for finding in lacking:
        said.print(Text.assemble((f"{finding.about}: ", "bold red" if finding.needed else "bold yellow"), finding.remedy), soft_wrap=True)
    said.print(("All that is needed works." if lacking else "All is well.") if not ill else f"{len(ill)} to mend.")
    sys.exit(1 if ill else 0)


@app.command(
    epilog="""Example:  [bold]sdteach train runs/first --share 0.01[/]   a rehearsal

On several processes:  [bold]accelerate launch --multi_gpu --num_processes 2 -m sdteach train runs/first[/]"""
)
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

    from .checkpoints import EMBEDDED, data_folder
    from .model import quiet
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
    if (not stage or "pack" in stage) and os.environ.get("RANK", "0") == "0":  # of several processes one speaks
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


lessons = typer.Typer(no_args_is_help=True, help="The lessons as pages and handouts.")
app.add_typer(lessons, name="lessons")


@lessons.command(epilog="Example:  [bold]sdteach lessons export --to handouts[/], then print handouts/00_the_whole_trip-handout.html")
def export(to: Annotated[Path, typer.Option(help="The folder for the pages; what an earlier export wrote there is written anew.")]) -> None:
    """Make each lesson a page to read, a handout to print with room for answers, and one with the answers, all without a network."""
    _check_writable(to / "index.html")
    from .handouts import export as run

    with asides.status("writing the lessons"):
        pages = [*run(to)]
    said.print(Text.assemble((str(pages[-1]), "bold"), f"  leads to {len(pages) - 1} pages and handouts"), soft_wrap=True)


@app.command(epilog="Example:  [bold]sdteach demo[/], or [bold]sdteach demo --model sd-1.5 --port 9000 --no-browser[/]")
def demo(
    model: Model = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page is served, on this machine only.")] = 8866,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say where the page is.")] = False,
) -> None:
    """Open the projector app: type a prompt before the class, watch it become a picture, compare, save the page for the students."""
    from .checkpoints import data_folder, find

    if find_spec("voila") is None:
        raise ValueError("expected voila, which serves the page, got none; pip install 'sdteach[classroom]' brings it")
    named = model or os.environ.get("SDTEACH_MODEL")
    if named:
        with _notes(), asides.status("looking for the model"):
            find(named)
    paths = os.pathsep.join(filter(None, [str(JUPYTER), os.environ.get("JUPYTER_PATH")]))
    command = [sys.executable, "-m", "voila", str(data_folder("lessons") / "demo.ipynb"), "--template=demo", f"--port={port}",
               # Of JupyterLab's extensions only the widgets': voila's own JupyterLab is older than what others are built for.
               "--VoilaConfiguration.extension_allowlist=@jupyter-widgets/jupyterlab-manager",
               "--VoilaConfiguration.extension_allowlist=@voila-dashboards/widgets-manager8",
               # One model in memory: a page that is left ends its kernel. Voila asks for a cookie then that it has not set; that no other
               # site may ask is seen to without it. A page that is gone without a word has its kernel culled.
               "--Voila.tornado_settings={'disable_check_xsrf': True}",
               "--MappingKernelManager.cull_interval=30", "--MappingKernelManager.cull_idle_timeout=60"]  # fmt: skip
    given = {"JUPYTER_PATH": paths} | ({"SDTEACH_MODEL": named} if named else {})
    sys.exit(subprocess.call(command + ["--no-browser"] * no_browser, env=os.environ | given))


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
