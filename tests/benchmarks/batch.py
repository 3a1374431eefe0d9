"""Pictures per minute in batches: `generate_batch` against diffusers' pipeline, each at its best batch size, in one process.

    python tests/benchmarks/batch.py [--rounds 5] [--steps 20] [--sizes 1,2,4,8,16] [--model picturebook]

In every round each size is painted by both, neighbours in time and in turns first, so that a busy machine troubles both alike.
Reports the medians by size, and the ratio of the two at the size that is best for each, by rounds.

On two cores, picturebook, 20 steps, 5 rounds: diffusers 121, 161, 194, 212, 230 pictures a minute, sdteach 129, 177, 200, 224, 239 for
batches of 1, 2, 4, 8, 16; at 16, the best for both, the ratio is 1.007 (0.959 to 1.043).
"""

import argparse
import statistics
import time

import torch
from diffusers import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

import sdteach
from sdteach.files import data_folder
from sdteach.pipeline import generate_batch

PROMPT = "a red car below a yellow star"


def both(checkpoint, steps):
    """The two ways to paint so many pictures, by name, each with parts of its own."""
    model = sdteach.load_model(checkpoint)
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, dtype=model.dtype).to(model.device)
    pipeline.set_progress_bar_config(disable=True)

    def theirs(size):
        generators = [torch.Generator().manual_seed(seed) for seed in range(size)]
        return pipeline([PROMPT] * size, num_inference_steps=steps, generator=generators)

    return {"diffusers": theirs, "sdteach": lambda size: generate_batch(model, [PROMPT] * size, range(size), steps=steps)}


def per_minute(paint, size):
    start = time.perf_counter()
    paint(size)
    return 60 * size / (time.perf_counter() - start)


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--steps", type=int, default=20)
    asked.add_argument("--sizes", default="1,2,4,8,16")
    asked.add_argument("--model", default=str(data_folder("assets") / "picturebook"))
    options = asked.parse_args()
    ways, sizes = both(options.model, options.steps), [int(size) for size in options.sizes.split(",")]
    found = {name: {size: [] for size in sizes} for name in ways}
    for paint in ways.values():
        paint(2)
    with tqdm(total=options.rounds * len(sizes), unit="pair") as bar:
        for turn in range(options.rounds):
            for size in sizes:
                for name in [*ways][:: 1 if (turn + size) % 2 else -1]:
                    found[name][size].append(per_minute(ways[name], size))
                bar.update()
    table = Table("batch size", *(f"{name}, pictures per minute" for name in ways), box=None)
    for size in sizes:
        table.add_row(str(size), *(_spread(found[name][size]) for name in ways))
    Console().print(table)
    best = {name: max(sizes, key=lambda size: statistics.median(found[name][size])) for name in ways}
    ratios = [ours / theirs for ours, theirs in zip(found["sdteach"][best["sdteach"]], found["diffusers"][best["diffusers"]], strict=True)]
    print(f"best sizes: {best}; sdteach makes {statistics.median(ratios):.3f} times as many ({min(ratios):.3f} .. {max(ratios):.3f}, "
          f"{options.rounds} rounds, {options.steps} steps, {torch.get_num_threads()} threads)")  # fmt: skip


def _spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} .. {max(values):.1f})"


if __name__ == "__main__":
    main()
