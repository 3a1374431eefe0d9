"""Pictures from words, and pages of runs."""

import math
import os
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Edge, Model, Negative, Offload, Scale, Scheduler, Seed, Steps, Strength, app
from .output import asides, check_outputs, check_page, check_writable, notes, save_figure, save_page, save_picture, tell_outputs, tell_time

MOST_SEEDS = 10_000


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
    model: Model = None, steps: Steps = 50, seed: Seed = 0, guidance_scale: Scale = None, negative_prompt: Negative = "",
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
        check_page(html)
        formats = check_outputs(out, trace, html, sheet)
    if compiled and offload:
        raise ValueError("expected --compile or --offload, got both; weights that travel layer by layer cannot be compiled into one piece")
    boxes = _boxes(layout)
    start = time.perf_counter()
    with notes(), asides.status("loading the model"):
        loaded = _load(model, device, offload)
        settings |= _given(loaded, image, mask, strength, height, width)
        if compiled:
            loaded.unet.compile()
    with notes():
        if several:
            _paint_many(loaded, prompt, numbers, out, grid, settings)
            return
        from ..pipeline import generate as run

        kept = ("latents", "noise", "x0", "attention", "preview") if sheet else ("latents", "noise", "x0", "attention")
        made = run(loaded, prompt[0], seed=seed, layout=boxes, collect=kept if trace or sheet or html else (), **settings)
    save_picture(_pasted(made), out, formats[0])
    outputs = [(out, f"{made.width} x {made.height} picture")]
    if trace:
        made.save(trace)
        outputs.append((trace, f"{len(made.steps)} steps"))
    if sheet:
        from ..plots import contact_sheet

        save_figure(contact_sheet(made), sheet, formats[1])
        outputs.append((sheet, "contact sheet"))
    if html:
        from ..collecting import with_previews

        outputs.append((html, save_page(html, with_previews(loaded, made))))
    tell_outputs(outputs)
    tell_time(made, loaded, start)


@app.command(epilog="Example:  [bold]sdteach play run.safetensors --out run.html[/], of a run that generate kept with --trace")
def play(
    runs: Annotated[list[Path], typer.Argument(help="The file of a run, or of two to see side by side: .safetensors.")],
    out: Annotated[Path, typer.Option(help="The page: .html.")],
    model: Annotated[str | None, typer.Option(help="What made the runs, to decode their steps; the embedded one needs no naming.")] = None,
    device: Device = None,
) -> None:
    """Make a page on which to watch a run in any browser, step by step, word by word; or two runs side by side."""
    from ..loading.names import EMBEDDED
    from ..trace import Trace

    if len(runs) > 2:
        raise ValueError(f"expected one run or two, got {len(runs)}; make a page for each two")
    check_page(out)
    check_writable(out)
    traces = [Trace.load(run) for run in runs]
    with notes(), asides.status("decoding the steps"):
        for index, trace in enumerate(traces):
            if name := EMBEDDED if trace.model == EMBEDDED else model:
                from ..collecting import with_previews

                traces[index] = with_previews(_load(name, device), trace)
    tell_outputs([(out, save_page(out, *traces))])


@app.command(
    epilog="""Examples:

[bold]sdteach record "a red car" --model sd-1.5 --out runs/car.safetensors[/]   once, where there is a GPU

[bold]SDTEACH_RECORDINGS=runs sdteach lab[/]   then lesson 10 replays it on any machine; or [bold]sdteach play[/] makes a page of it"""
)
def record(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    out: Annotated[Path, typer.Option(help="The recorded run: .safetensors.")],
    model: Model = None, steps: Steps = 50, seed: Seed = 0, guidance_scale: Scale = None, negative_prompt: Negative = "",
    height: Edge = None, width: Edge = None, scheduler: Scheduler = None, device: Device = None, offload: Offload = False,
) -> None:  # fmt: skip
    """Record a run for a class without a GPU: each step with its picture and where words were read, in a file small enough to copy."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise ValueError(f"expected a file's name ending in .safetensors, got {out.name!r}")
    check_writable(out)
    start = time.perf_counter()
    with notes(), asides.status("loading the model"):
        loaded = _load(model, device, offload)
    with notes():
        from ..classroom.recording import recorded
        from ..collecting import with_previews
        from ..pipeline import generate as run

        made = run(loaded, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler)
        with asides.status("decoding the steps"):
            recorded(with_previews(loaded, made)).save(out)
    tell_outputs([(out, f"{len(made.steps)} steps, {out.stat().st_size / 1e6:.1f} MB")])
    tell_time(made, loaded, start)


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
    formats = check_outputs(out)
    start = time.perf_counter()
    with notes(), asides.status("loading the model"):
        from ..pictures import LARGEST, back_projected, open_picture
        from ..pipeline import generate as run

        small = open_picture(picture)
        if factor * max(small.size) > LARGEST:
            raise ValueError(f"expected a picture that times {factor} has edges of at most {LARGEST}, got {small.width} x {small.height}; "
                             "choose a smaller --factor")  # fmt: skip
        loaded = _load(model, device, offload)
        unit = loaded.vae_scale_factor // math.gcd(loaded.vae_scale_factor, factor)
        small = _resized(picture, small, *(max(round(edge / unit), 1) * unit for edge in (small.height, small.width)))
    with notes():
        made = run(loaded, prompt, negative_prompt, steps, guidance_scale, seed, factor * small.height, factor * small.width, scheduler,
                   collect=(), small=small, strength=strength)  # fmt: skip
    save_picture(back_projected(made.image, small), out, formats[0])
    tell_outputs([(out, f"{made.width} x {made.height} picture, from {small.width} x {small.height}")])
    tell_time(made, loaded, start)


def _load(model, device, offload=False):
    """The model; on several processes each on a device of its own."""
    from ..model import load_model

    if device is None and "LOCAL_RANK" in os.environ:
        import torch

        device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else None
    return load_model(model, device, offload=offload)


def _boxes(layout):
    if layout is None:
        return None
    from ..pictures import open_layout

    return open_layout(layout)


def _given(model, image, mask, strength, height, width):
    """What `generate` is given of pictures: brought to a size that the model takes, unless it was asked for another."""
    from ..pictures import fitting_size, open_mask, open_picture
    from ..pipeline import picture_size

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

    from ..batch import Order, paint_all

    orders = [Order(prompt, seed) for prompt in dict.fromkeys(prompts) for seed in seeds]
    there = {*folder.glob("*.png")}
    files = paint_all(model, orders, folder, **settings)
    if not PartialState().is_main_process:
        return
    new = len({*files} - there)
    outputs = [(folder, f"{new} pictures painted, {len(files) - new} were there")]
    if grid:
        import numpy as np

        from ..pictures import open_picture
        from ..plots import picture_grid

        captions = [f"{order.prompt}, seed {order.seed}" for order in orders]
        pixels = [np.asarray(open_picture(file)) for file in files]
        save_figure(picture_grid(pixels, captions), folder / "grid.png", "PNG")
        outputs.append((folder / "grid.png", "all of them"))
    tell_outputs(outputs)


def _pasted(made):
    """The picture; after inpainting with what was not masked put back."""
    from PIL import Image

    from ..pictures import pasted_back

    return made.image if made.mask is None else Image.fromarray(pasted_back(made.pixels, made.start, made.mask))


def _check_folder(folder, refused):
    """ValueError for what does not go with several pictures, or a folder that cannot be written to."""
    if wrong := [name for name, value in refused.items() if value]:
        raise ValueError(f"expected one prompt and one seed with {', '.join(wrong)}, got several pictures to paint")
    from PIL import Image

    if folder.suffix.lower() in Image.registered_extensions() or folder.is_file():
        raise ValueError(f"expected --out to name a folder for several pictures, got {folder}")
    check_writable(folder / "grid.png")
