"""What tracing costs: `generate` with everything recorded against diffusers' plain pipeline, in pairs, in one process.

    python tests/benchmarks/tracing.py [--rounds 15] [--steps 50] [--model picturebook]

Each round runs both, in turns first; the ratio of a round compares neighbours in time, so that a busy machine troubles
both alike. Reports the median ratio, its quartiles, what a first run adds to the memory of a fresh process with everything
loaded, and the trace's size.
"""

import argparse
import statistics
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch
from diffusers import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table

import sdteach
from sdteach.files import data_folder

PROMPT = "a red car below a yellow star"


def both(checkpoint, steps):
    """The two runs that are compared, by name, each with parts of its own."""
    model = sdteach.load_model(checkpoint)
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, dtype=model.dtype).to(model.device)
    pipeline.set_progress_bar_config(leave=False)
    return {
        "plain": lambda: pipeline(PROMPT, num_inference_steps=steps, generator=torch.Generator().manual_seed(0)),
        "traced": lambda: sdteach.generate(model, PROMPT, steps=steps),
    }


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_memory(name, checkpoint, steps):
    """The most that the first run adds to a fresh process with everything loaded, in MiB, looked at every 5 ms."""
    run, process, done = both(checkpoint, steps)[name], psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch():
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return (peak - before) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--model", default=str(data_folder("assets") / "picturebook"))
    options = parser.parse_args()
    runs = both(options.model, options.steps)
    for run in runs.values():
        run()
    ratios, seconds = [], []
    for index in range(options.rounds):
        order = ("traced", "plain") if index % 2 else ("plain", "traced")
        took = {name: timed(runs[name]) for name in order}
        ratios.append(took["traced"] / took["plain"])
        seconds.append(took["plain"])
    low, middle, high = statistics.quantiles(ratios, n=4)
    memory = {}
    for name in runs:
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            memory[name] = fresh.submit(peak_memory, name, options.model, options.steps).result()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        runs["traced"]().save(path)
        size = path.stat().st_size / 2**20
    table = Table("what", "value", title=f"tracing everything, {options.steps} steps of {Path(options.model).name}")
    table.add_row("traced / plain, median", f"{middle:.3f}")
    table.add_row("quartiles", f"{low:.3f} .. {high:.3f}")
    table.add_row("plain, median", f"{statistics.median(seconds):.2f} s")
    for name, added in memory.items():
        table.add_row(f"peak memory, {name}", f"{added:.0f} MiB")
    table.add_row("trace on disk", f"{size:.1f} MiB")
    Console().print(table)


if __name__ == "__main__":
    main()
