"""Pictures from words and from pictures, many at once, and runs that are kept to be seen again."""

import math
import warnings
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

import sdteach

from .options import (
    PAGES,
    PICTURES,
    Device,
    Edge,
    Model,
    Negative,
    Offload,
    Scale,
    Scheduler,
    Seed,
    Steps,
    Strength,
    app,
    file_to_read,
    file_to_write,
    folder_to_write,
    given,
    home_path,
    loaded_model,
    output,
)
from .output import asides, tell, tell_time, write_figure, write_page, write_picture

MOST_SEEDS = 10_000


def seed_list(text: str) -> list[int]:
    """0-15, or 3,7,20-29, as numbers."""
    try:
        ends = [part.partition("-") for part in text.split(",")]
        ranges = [range(int(first), int(last or first) + 1) for first, _, last in ends]
        seeds = [*islice(chain(*ranges), MOST_SEEDS + 1)]
    except ValueError:
        seeds = []
    if not seeds or not all(ranges) or len(seeds) > MOST_SEEDS or max(seeds) >= 2**63:
        raise typer.BadParameter(f"expected seeds such as 0-15 or 3,7,20-29, at most {MOST_SEEDS:,} and below 2**63, got {text!r:.80}")
    return list(dict.fromkeys(seeds))


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
    out: Annotated[Path, typer.Option(parser=home_path, help="The picture: .png, .jpg, .webp; of several pictures the folder.")],
    trace: Annotated[Path | None, output("Also keep every step here: .safetensors.")] = None,
    sheet: Annotated[Path | None, output("Also draw the run on one sheet: tokens, steps, a map per word.", *PICTURES)] = None,
    html: Annotated[Path | None, output("Also make a page on which to watch the run in any browser: .html.", *PAGES)] = None,
    seeds: Annotated[list | None, typer.Option(parser=seed_list, metavar="SEEDS", help="A picture for each: 0-15, or 3,7,20-29.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also draw all of several pictures on one sheet, grid.png.")] = False,
    image: Annotated[Path | None, given("Start from this picture; any format that Pillow reads.")] = None,
    strength: Strength = None,
    mask: Annotated[Path | None, given("Paint --image anew only where this picture is white.")] = None,
    layout: Annotated[Path | None, given("JSON of words and boxes: {\"car\": \\[left, top, right, bottom]}, 0 to 1.")] = None,
    model: Model = None, steps: Steps = 50, seed: Seed = 0, guidance_scale: Scale = None, negative_prompt: Negative = "",
    height: Edge = None, width: Edge = None, scheduler: Scheduler = None, device: Device = None, offload: Offload = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the UNet first: a minute or more, then quicker; for many.")] = False,
) -> None:  # fmt: skip
    """Make a picture from words, or many; from words and a picture; anew in a part of a picture; after a layout."""
    several = len(prompt) > 1 or seeds is not None
    if mask and not image:
        raise ValueError("expected --image with --mask, got none; the mask says where to paint that picture anew")
    if compiled and offload:
        raise ValueError("expected --compile or --offload, got both; weights that travel layer by layer cannot be compiled into one piece")
    if several:
        _check_folder(out, {"--trace": trace, "--sheet": sheet, "--html": html, "--layout": layout})
    else:
        _check_files(grid, out, trace, sheet, html)
    boxes = layout and sdteach.pictures.open_layout(layout)
    loaded = loaded_model(model, device, offload)
    if compiled:
        loaded.unet.compile()
    settings = dict(negative_prompt=negative_prompt, steps=steps, guidance_scale=guidance_scale, scheduler=scheduler, strength=strength,
                    **_pictures(loaded, image, mask, height, width))  # fmt: skip
    if several:
        _paint_many(loaded, prompt, seeds or [seed], out, grid, settings)
        return
    collect = sdteach.collecting.USUAL * bool(trace or sheet or html) + ("preview",) * bool(sheet)
    made = sdteach.generate(loaded, prompt[0], seed=seed, layout=boxes, collect=collect, **settings)
    write_picture(out, _pasted(made))
    if trace:
        made.save(trace)
        tell(trace, f"{len(made.steps)} steps")
    if sheet:
        write_figure(sheet, sdteach.plots.contact_sheet(made))
        tell(sheet, "contact sheet")
    if html:
        write_page(html, sdteach.collecting.with_previews(loaded, made))
    tell_time(made, loaded)


@app.command(epilog='Example:  [bold]sdteach upscale small.png --prompt "a red car on a beach" --out large.png[/]')
def upscale(
    picture: Annotated[Path, typer.Argument(parser=file_to_read, help="The small picture; any format that Pillow reads.")],
    out: Annotated[Path, output("The large picture: .png, .jpg, .webp.", *PICTURES)],
    factor: Annotated[int, typer.Option(min=2, max=16, help="How many times larger.")] = 4,
    prompt: Annotated[str, typer.Option(help="What the picture shows, which helps.")] = "",
    strength: Strength = None, model: Model = None, steps: Steps = 20, seed: Seed = 0, guidance_scale: Scale = 2.0,
    negative_prompt: Negative = "", scheduler: Scheduler = None, device: Device = None, offload: Offload = False,
) -> None:  # fmt: skip
    """Make a small picture large: the same loop, kept true to the small picture at every step."""
    small, largest = sdteach.pictures.open_picture(picture), sdteach.pictures.LARGEST
    if factor * max(small.size) > largest:
        raise ValueError(f"expected a picture that times {factor} has edges of at most {largest}, got {small.width} x {small.height}; "
                         "choose a smaller --factor")  # fmt: skip
    loaded = loaded_model(model, device, offload)
    unit = loaded.vae_scale_factor // math.gcd(loaded.vae_scale_factor, factor)
    small = _resized(picture, small, *(max(round(edge / unit), 1) * unit for edge in (small.height, small.width)))
    made = sdteach.generate(loaded, prompt, negative_prompt, steps, guidance_scale, seed, factor * small.height, factor * small.width,
                            scheduler, collect=(), small=small, strength=strength)  # fmt: skip
    write_picture(out, sdteach.pictures.back_projected(made.image, small), f", from {small.width} x {small.height}")
    tell_time(made, loaded)


@app.command(
    epilog="""Examples:

[bold]sdteach record "a red car" --model sd-1.5 --out runs/car.safetensors[/]   once, where there is a GPU

[bold]SDTEACH_RECORDINGS=runs sdteach lab[/]   then lesson 10 replays it on any machine; or [bold]sdteach play[/] makes a page of it"""
)
def record(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    out: Annotated[Path, output("The recorded run: .safetensors.", ".safetensors")],
    model: Model = None, steps: Steps = 50, seed: Seed = 0, guidance_scale: Scale = None, negative_prompt: Negative = "",
    height: Edge = None, width: Edge = None, scheduler: Scheduler = None, device: Device = None, offload: Offload = False,
) -> None:  # fmt: skip
    """Record a run for a class without a GPU: each step with its picture and where words were read, in a file small enough to copy."""
    from ..classroom.recording import recorded

    loaded = loaded_model(model, device, offload)
    trace = sdteach.generate(loaded, prompt, negative_prompt, steps, guidance_scale, seed, height, width, scheduler)
    with asides.status("decoding the steps"):
        recorded(sdteach.collecting.with_previews(loaded, trace)).save(out)
    tell(out, f"{len(trace.steps)} steps, {out.stat().st_size / 1e6:.1f} MB")
    tell_time(trace, loaded)


@app.command(epilog="Example:  [bold]sdteach play run.safetensors --out run.html[/], of a run that generate kept with --trace")
def play(
    runs: Annotated[
        list[Path], typer.Argument(parser=file_to_read, help="The file of a run, or of two to see side by side: .safetensors.")
    ],
    out: Annotated[Path, output("The page: .html.", *PAGES)],
    model: Annotated[str | None, typer.Option(help="What made the runs, to decode their steps; the embedded one needs no naming.")] = None,
    device: Device = None,
) -> None:
    """Make a page on which to watch a run in any browser, step by step, word by word; or two runs side by side."""
    if len(runs) > 2:
        raise ValueError(f"expected one run or two, got {len(runs)}; make a page for each two")
    traces = [sdteach.Trace.load(run) for run in runs]
    write_page(out, *(_decoded(trace, model, device) for trace in traces))


def _check_folder(folder, alone):
    """Refuse what does not go with several pictures, or a folder that cannot be written to."""
    if wrong := [name for name, path in alone.items() if path]:
        raise ValueError(f"expected one prompt and one seed with {', '.join(wrong)}, got several pictures to paint")
    if folder.suffix.lower() in PICTURES or folder.is_file():
        raise ValueError(f"expected --out to name a folder for several pictures, got {folder}")
    folder_to_write(folder)


def _check_files(grid, out, *others):
    """Refuse what does not go with one picture, or a file for it that cannot be written."""
    if grid:
        raise ValueError("expected --seeds or several prompts with --grid, got one picture; --sheet draws its run")
    files = [file_to_write(out, PICTURES), *filter(None, others)]
    if len({path.resolve() for path in files}) < len(files):
        raise ValueError(f"expected a file of its own for each output, got {', '.join(map(str, files))}")


def _pictures(model, image, mask, height, width):
    """What is given of pictures, brought to a size that the model takes, unless another was asked for."""
    if not image:
        return {"height": height, "width": width}
    picture, size = sdteach.pictures.open_picture(image), sdteach.pipeline.picture_size(model, height, width)
    if height is None and width is None:
        size = sdteach.pictures.fitting_size(picture, model.vae_scale_factor, math.prod(size))
    return {"image": _resized(image, picture, *size), "mask": mask and sdteach.pictures.open_mask(mask, picture, *size)}


def _resized(path, picture, height, width):
    if picture.size == (width, height):
        return picture
    warnings.warn(f"{path} was {picture.width} x {picture.height}, brought to {width} x {height}", stacklevel=2)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _pasted(made):
    """The picture; after inpainting with what was not masked put back."""
    return made.image if made.mask is None else Image.fromarray(sdteach.pictures.pasted_back(made.pixels, made.start, made.mask))


def _paint_many(model, prompts, seeds, folder, grid, settings):
    import numpy as np
    from accelerate import PartialState

    orders = [sdteach.batch.Order(prompt, seed) for prompt in dict.fromkeys(prompts) for seed in seeds]
    there = {*folder.glob("*.png")}
    files = sdteach.batch.paint_all(model, orders, folder, **settings)
    if not PartialState().is_main_process:
        return
    new = len({*files} - there)
    tell(folder, f"{new} pictures painted, {len(files) - new} were there")
    if grid:
        pixels = [np.asarray(sdteach.pictures.open_picture(file)) for file in files]
        figure = sdteach.plots.picture_grid(pixels, [f"{order.prompt}, seed {order.seed}" for order in orders])
        write_figure(folder / "grid.png", figure)
        tell(folder / "grid.png", "all of them")


def _decoded(trace, model, device):
    """The run with a picture of every step, where it is known what made it."""
    from ..loading.names import EMBEDDED

    name = trace.model if trace.model == EMBEDDED else model
    return sdteach.collecting.with_previews(loaded_model(name, device), trace) if name else trace
