"""Picturebook trained and measured."""

import json
import math
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import sdteach

from .options import AsJson, Device, Scale, app, folder_to_write, loaded_model
from .output import asides, said, tell, tell_table, write_figure

Preset = StrEnum("Preset", ["cpu", "accelerator"])
Stage = StrEnum("Stage", ["scenes", "clip", "words", "vae", "decoder", "unet", "pack", "judge"])


@app.command(
    epilog="""Example:  [bold]sdteach train runs/first --share 0.01[/]   a rehearsal

On several processes:  [bold]accelerate launch --multi_gpu --num_processes 2 -m sdteach train runs/first[/]"""
)
def train(
    folder: Annotated[
        Path, typer.Argument(parser=folder_to_write, help="Where scenes, states, loss curves, samples and the finished checkpoint go.")
    ],
    preset: Annotated[Preset, typer.Option(help="A dozen objects, hours on two cores; or the whole world.")] = Preset.cpu,
    stage: Annotated[list[Stage] | None, typer.Option(help="Only this stage (may be repeated).")] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="How much of all scenes, steps and minutes; 1 is the whole.")] = 1.0,
) -> None:
    """Train picturebook from nothing. Killed at any moment, the same command goes on where it was."""
    from transformers import CLIPTokenizer

    from ..picturebook import training

    recipe = training.PRESETS[preset]
    with sdteach.loading.quiet():
        tokenizer = CLIPTokenizer.from_pretrained(sdteach.files.data_folder("assets") / "picturebook" / "tokenizer")
    watch = training.Watch(_draw_losses, _draw_samples)
    training.train(folder, tokenizer, recipe if share == 1 else recipe.shortened(share), stage, watch)
    if (not stage or Stage.pack in stage) and os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        tell(folder / "picturebook", f"the checkpoint; now: sdteach evaluate --model {folder / 'picturebook'}")


@app.command(epilog="Example:  [bold]sdteach evaluate --sheets .[/]   also draws all that was painted, and what failed")
def evaluate(
    model: Annotated[str | None, typer.Option(help="A picturebook's folder; else $SDTEACH_MODEL, else the embedded one.")] = None,
    guidance_scale: Scale = None,
    attention: Annotated[bool, typer.Option("--attention", help="Measure instead where words are read, and what that decides.")] = False,
    as_json: AsJson = False,
    sheets: Annotated[
        Path | None, typer.Option(parser=folder_to_write, help="A folder for samples.png, every third prompt, and worst.png.")
    ] = None,
    device: Device = None,
) -> None:
    """Measure a picturebook against the truth: VAE, CLIP, prompts, attention, and the judge itself. Takes minutes."""
    if sheets and attention:
        raise ValueError("expected --sheets or --attention, got both; sheets are drawn of the prompts that --attention does not paint")
    loaded = loaded_model(model, device)
    with asides.status("loading the judge"):
        from ..picturebook import evaluation
        from ..picturebook.evaluation import reading
        from ..picturebook.judge import load_judge

        judge = load_judge()
    if attention:
        truth = reading.attention_truth(loaded, judge, guidance_scale)
        if as_json:
            print(json.dumps(reading.as_plain(truth)))
        else:
            _tell_attention(truth, sdteach.plots.layer_names(sdteach.attention.layer_grids(loaded.unet, 16, 16)))
        return
    result = evaluation.evaluate(loaded, judge, guidance_scale)
    if as_json:
        rounded = {name: [*map(_rounded, (measure.value, measure.low, measure.high))] for name, measure in result.measures.items()}
        print(json.dumps({
            **{name: value for name, (value, *_) in rounded.items()},
            "intervals": {name: interval for name, (_, *interval) in rounded.items()},
            "cases": {name: measure.count for name, measure in result.measures.items()},
            "left_out": result.left_out,
        }))  # fmt: skip
    else:
        _tell_evaluation(result, evaluation.GOALS)
    if sheets:
        _draw_sheets(result.painted, sheets)


def _rounded(number):
    """Four digits, as much as the intervals bear; None, JSON's null, where there was no case."""
    return None if math.isnan(number) else round(number, 4)


def _tell_evaluation(result, goals):
    rows = []
    for name, measure in result.measures.items():
        digits, goal_digits = ("{:.2f} dB", "{:g} dB") if name.startswith("vae_psnr") else ("{:.1%}", "{:.0%}")
        value, low, high = map(digits.format, (measure.value, measure.low, measure.high))
        bound = "at most" if name == "judge_shuffled" else "at least"
        goal = f"{bound} {goal_digits.format(goals[name])}" if name in goals else ""
        rows.append((name, value, f"{low} .. {high}", str(measure.count), goal))
    tell_table(rows, "measure", "value", "95 % interval", "cases", "goal")
    if result.left_out:
        said.print(f"Left out, since this checkpoint has no words for them: {', '.join(result.left_out)}")


def _draw_sheets(painted, folder):
    worst = sorted((case for case in painted if case.faults), key=lambda case: -len(case.faults))[:16]
    shown = painted[::3][:64]
    _draw_grid(folder / "samples.png", shown, [case.prompt for case in shown])
    if worst:
        captions = [f"{case.prompt}: {'; '.join(case.faults)}" for case in worst]
        _draw_grid(folder / "worst.png", worst, captions, columns=4)


def _draw_grid(file, cases, captions, **shape):
    """A sheet of many pictures, which ships with the checkpoint: a browser's dots are enough."""
    write_figure(file, sdteach.plots.picture_grid([case.pixels for case in cases], captions, **shape), sdteach.plots.style.CSS)


def _tell_attention(truth, names):
    """Tables of what `attention_truth` found; `names` are the layers' short ones."""
    from ..picturebook.evaluation.reading import TIMESTEPS

    said.print(f"Overlap (IoU) of {truth.drawn_things} drawn things with their words, by layer and timestep")
    drawn = zip(truth.layers, truth.drawn, strict=True)
    tell_table(((names.get(layer, layer), *map("{:.2f}".format, row)) for layer, row in drawn), "", *map(str, TIMESTEPS))
    said.print(f"\nOverlap of {truth.aggregations[truth.best].reported.count} painted things: thresholds chosen on some seeds, scored on "
               "others; the best while choosing is bold")  # fmt: skip
    ways = (truth.aggregations | truth.by_layer).items()
    tell_table((("[bold]" * (way == truth.best) + names.get(way, way), f"{found.threshold:g}", f"{found.chosen_on.value:.3f}",
                 *_told(found.reported)) for way, found in ways), "", "above", "chosen", "scored", "95 % interval")  # fmt: skip
    said.print(f"\nWhat words decide, in {truth.gone['word'].count} pictures that were right before")
    rates = {f"thing gone, {name} hidden": measure for name, measure in truth.gone.items()}
    rates["thing gone, word and later less control"] = truth.later_minus_control
    for what, by_layout in {"overlap": truth.mask_overlap, "same place": truth.kept, "new colour": truth.recoloured}.items():
        rates |= {f"other colour word, layout {name}: {what}": measure for name, measure in by_layout.items()}
    tell_table(((name, *_told(measure)) for name, measure in rates.items()), "", "rate", "95 % interval")


def _told(measure):
    return f"{measure.value:.3f}", f"{measure.low:.3f}..{measure.high:.3f}"


def _draw_losses(folder):
    """losses.png beside the log of a phase."""
    lines = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    figure = sdteach.plots.curves([line["step"] for line in lines], {"loss": [line["loss"] for line in lines]}, "step", "loss", folder.name)
    write_figure(folder / "losses.png", figure)


def _draw_samples(file, pictures, captions):
    write_figure(file, sdteach.plots.picture_grid(pictures, captions, columns=6))
