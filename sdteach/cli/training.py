"""Picturebook trained and measured."""

import json
import math
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from .options import Scale, app
from .output import asides, check_writable, notes, said, save_figure


@app.command(
    epilog="""Example:  [bold]sdteach train runs/first --share 0.01[/]   a rehearsal

On several processes:  [bold]accelerate launch --multi_gpu --num_processes 2 -m sdteach train runs/first[/]"""
)
def train(
    folder: Annotated[Path, typer.Argument(help="Where scenes, states, loss curves, samples and the finished checkpoint go.")],
    preset: Annotated[str, typer.Option(help="cpu (a dozen objects, hours on two cores) or accelerator (the whole world).")] = "cpu",
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage (may be repeated): scenes, clip, words, vae, decoder, unet, pack, judge.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of all scenes, steps and minutes; 1 is the whole recipe.")
    ] = 1.0,
) -> None:
    """Train picturebook from nothing. Killed at any moment, the same command goes on where it was."""
    from transformers import CLIPTokenizer

    from ..files import data_folder
    from ..loading import quiet
    from ..loading.names import EMBEDDED
    from ..picturebook.training import PRESETS, STAGES, Watch
    from ..picturebook.training import train as run

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
    guidance_scale: Scale = None,
    attention: Annotated[bool, typer.Option("--attention", help="Measure instead where words are read, and what that decides.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    sheets: Annotated[Path | None, typer.Option(help="A folder for samples.png, every third prompt, and worst.png.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")] = None,
) -> None:
    """Measure a picturebook against the truth: VAE, CLIP, prompts, attention, and the judge itself. Takes minutes."""
    if sheets and attention:
        raise ValueError("expected --sheets or --attention, got both; sheets are drawn of the prompts that --attention does not paint")
    if sheets:
        check_writable(sheets / "samples.png")
    with notes(), asides.status("loading the model and its judge"):
        from ..attention import layer_grids
        from ..model import load_model
        from ..picturebook.attention_truth import as_plain, attention_truth
        from ..picturebook.evaluation import evaluate as run
        from ..picturebook.judge import load_judge
        from ..plots import layer_names

        loaded, judge = load_model(model, device), load_judge()
    if attention:
        with notes():
            found = attention_truth(loaded, judge, guidance_scale)
        print(json.dumps(as_plain(found))) if as_json else _tell_attention(found, layer_names(layer_grids(loaded.unet, 16, 16)))
        return
    with notes():
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
    from ..picturebook.evaluation import GOALS

    table = Table("measure", "value", "95 % interval", "cases", "goal", box=None)
    for name, measure in result.measures.items():
        texts = [f"{number:.2f} dB" if name == "vae_psnr" else f"{number:.1%}" for number in (measure.value, measure.low, measure.high)]
        bound = "at most" if name == "judge_shuffled" else "at least"
        goal = f"{GOALS[name]:g} dB" if name == "vae_psnr" else f"{GOALS[name]:.0%}"
        table.add_row(name, texts[0], f"{texts[1]} .. {texts[2]}", str(measure.count), f"{bound} {goal}")
    said.print(table)


def _draw_sheets(result, folder):
    from ..plots import picture_grid

    failed = [case for case in result.painted if case.faults]
    worst = sorted(failed, key=lambda case: -len(case.faults))[:16]
    shown = result.painted[::3][:64]
    save_figure(picture_grid([case.pixels for case in shown], [case.prompt for case in shown]), folder / "samples.png", "PNG")
    if worst:
        captions = [f"{case.prompt}: {'; '.join(case.faults)}" for case in worst]
        save_figure(picture_grid([case.pixels for case in worst], captions, columns=4), folder / "worst.png", "PNG")


def _tell_attention(found, names):
    """Tables of `attention_truth`; `names` are the layers' short ones."""
    from ..picturebook.attention_truth import TIMESTEPS

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
    from ..plots import loss_curve

    lines = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    figure = loss_curve([line["step"] for line in lines], [line["loss"] for line in lines], folder.name)
    save_figure(figure, folder / "losses.png", "PNG")


def _draw_samples(file, pictures, captions):
    from ..plots import picture_grid

    save_figure(picture_grid(pictures, captions, columns=6), file, "PNG")
