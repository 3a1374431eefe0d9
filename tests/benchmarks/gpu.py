"""Seconds and memory at full size on a GPU: diffusers and sdteach, plain and compiled, with and without a trace, in one process.

    python tests/benchmarks/gpu.py [--families sd-1 sdxl] [--rounds 7] [--steps 50] [--out results.json]
    python tests/benchmarks/gpu.py --families picturebook --rounds 2 --steps 5   # a rehearsal, on a CPU, too

A family is one of assets/configs, made up with random weights, which cost what trained ones do, or "picturebook". Every way has parts
of its own and paints the same prompt; they take turns, in another order each round, so that what slows the machine slows all. Reports
the median (least to most) of the run, of a step, the run's ratio to plain diffusers beside it, and the most memory that torch held on
the GPU beyond the weights. Then how far float16 is from float32 in the finished picture, of 255 levels. Compiling takes minutes.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

import sdteach
from sdteach.checkpoints import EMBEDDED
from sdteach.files import data_folder
from sdteach.single_file import tokenizers

try:
    from attention_map_diffusers import AttentionCapture
except ImportError:
    AttentionCapture = None

PROMPT = "a red car below a yellow star"
PLAIN = "diffusers"


def checkpoint(family, scratch, dtype):
    """A diffusers folder of this family with random weights; the embedded checkpoint as it is."""
    configs = data_folder("assets") / "configs" / family
    if family == EMBEDDED:
        return data_folder("assets") / EMBEDDED
    index, device = json.loads((configs / "model_index.json").read_text()), "cuda" if torch.cuda.is_available() else "cpu"
    parts = dict(tokenizers(configs))
    torch.manual_seed(0)
    for name, told in index.items():
        if not isinstance(told, list) or name in parts:
            continue
        library, kind = told
        with torch.device(device):
            if library is None:
                parts[name] = None
            elif library == "transformers":
                kind = getattr(transformers, kind)
                parts[name] = kind(kind.config_class.from_pretrained(configs / name)).to(dtype)
            else:
                kind = getattr(diffusers, kind)
                parts[name] = kind.from_config(kind.load_config(configs / name))
                parts[name] = parts[name].to(dtype) if isinstance(parts[name], torch.nn.Module) else parts[name]
    whole = getattr(diffusers, index["_class_name"])
    options = {} if "XL" in index["_class_name"] else {"requires_safety_checker": False}
    whole(**parts, **options).save_pretrained(scratch / family)
    return scratch / family


def ways(folder, dtype, steps):
    """The runs by name, each with parts of its own."""

    def theirs():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype).to(device())
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def painted(pipeline):
        return lambda: pipeline(PROMPT, num_inference_steps=steps, generator=torch.Generator().manual_seed(0)).images[0]

    def traced(model, **collected):
        return lambda: sdteach.generate(model, PROMPT, steps=steps, **collected).image

    compiled, ours = theirs(), [sdteach.load_model(folder, dtype=dtype) for _ in range(2)]
    compiled.unet.to(memory_format=torch.channels_last).compile()
    ours[1].unet.compile()
    found = {
        PLAIN: painted(theirs()), f"{PLAIN}, compiled": painted(compiled), "sdteach": traced(ours[0], collect=()),
        "sdteach, tracing": traced(ours[0]), "sdteach, compiled and tracing": traced(ours[1]),
    }  # fmt: skip
    if AttentionCapture is not None:
        watched = theirs()

        def captured():
            with AttentionCapture(watched, relations="image->text", timesteps="all", mode="fast") as capture:
                picture = painted(watched)()
            capture.compute()
            return picture

        found["attention-map-diffusers, fast"] = captured
    return found


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def timed(run):
    """Seconds of a run, and the bytes it adds to what torch holds on the GPU at most."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return seconds, (torch.cuda.max_memory_allocated() - before) if torch.cuda.is_available() else 0


def measure(folder, dtype, steps, rounds):
    """By way: the seconds of every round, their ratios to plain diffusers in that round, and the most bytes."""
    runs = ways(folder, dtype, steps)
    for name in tqdm(runs, desc="warming up, compiling"):
        timed(runs[name])
    seconds, most = {name: [] for name in runs}, dict.fromkeys(runs, 0)
    for turn in tqdm(range(rounds), desc="rounds"):
        names = [*runs]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took, held = timed(runs[name])
            seconds[name].append(took)
            most[name] = max(most[name], held)
    ratios = {name: [mine / plain for mine, plain in zip(took, seconds[PLAIN], strict=True)] for name, took in seconds.items()}
    return {name: {"seconds": seconds[name], "ratio": ratios[name], "bytes": most[name]} for name in runs}


def apart(folder, steps):
    """How far a float16 picture is from the float32 one, mean and most, of 255 levels."""
    exact, half = (sdteach.generate(sdteach.load_model(folder, dtype=dtype), PROMPT, steps=steps, collect=()).pixels.astype(int)
                   for dtype in (torch.float32, torch.float16))  # fmt: skip
    return {"mean": float(np.abs(exact - half).mean()), "most": int(np.abs(exact - half).max())}


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--families", nargs="+", default=["sd-1", "sdxl"])
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--steps", type=int, default=50)
    asked.add_argument("--out", type=Path)
    options = asked.parse_args()
    gpu = torch.cuda.is_available()
    dtype = torch.float16 if gpu else torch.float32
    machine = torch.cuda.get_device_name() if gpu else "a CPU"
    told = {"device": machine, "torch": torch.__version__, "diffusers": diffusers.__version__, "steps": options.steps, "families": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for family in options.families:
            folder = checkpoint(family, Path(scratch), dtype)
            found = measure(folder, dtype, options.steps, options.rounds)
            told["families"][family] = {"ways": found, "float16": apart(folder, options.steps) if gpu else None}
            if options.out:
                options.out.write_text(json.dumps(told, indent=1))
            table = Table("", "the run, s", "a step, ms", f"÷ {PLAIN}", "memory, MiB", title=f"{family}, {machine}", box=None)
            for name, one in found.items():
                table.add_row(name, _spread(one["seconds"]), _spread([1000 * took / options.steps for took in one["seconds"]]),
                              _spread(one["ratio"]), f"{one['bytes'] / 2**20:.0f}" if gpu else "-")  # fmt: skip
            Console().print(table)
            if gpu:
                print(f"float16 against float32: {told['families'][family]['float16']}")


def _spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} .. {max(values):.3f})"


if __name__ == "__main__":
    main()
