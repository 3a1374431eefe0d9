"""What tracing costs: `generate` with everything recorded against diffusers' plain pipeline, in pairs, in one process.

    python tests/benchmarks/tracing.py [--rounds 15] [--steps 50] [--model picturebook]

Each round runs both, in turns first; the ratio of a round compares neighbours in time, so that a busy machine troubles
both alike. Reports the median ratio, its quartiles, peak memory over the loaded model, and the trace's size.
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from diffusers import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table

import sdteach
from sdteach.model import data_folder


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_memory(run):
    """The most that `run` adds to this process, in MiB, looked at every 5 ms."""
    process, done = psutil.Process(), threading.Event()
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
    prompt = "a red car below a yellow star"
    model = sdteach.load_model(options.model)
    pipeline = StableDiffusionPipeline.from_pretrained(options.model, dtype=model.dtype).to(model.device)
    pipeline.set_progress_bar_config(leave=False)

    def plain():
        pipeline(prompt, num_inference_steps=options.steps, generator=torch.Generator().manual_seed(0))

    def traced():
        return sdteach.generate(model, prompt, steps=options.steps)

    plain(), traced()
    ratios, plains = [], []
    for index in range(options.rounds):
        if index % 2:
            after, before = timed(traced), timed(plain)
        else:
            before, after = timed(plain), timed(traced)
        ratios.append(after / before)
        plains.append(before)
    low, middle, high = statistics.quantiles(ratios, n=4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        traced().save(path)
        size = path.stat().st_size / 2**20
    table = Table("what", "value", title=f"tracing everything, {options.steps} steps of {Path(options.model).name} on {model.device}")
    table.add_row("traced / plain, median", f"{middle:.3f}")
    table.add_row("quartiles", f"{low:.3f} .. {high:.3f}")
    table.add_row("plain, median", f"{statistics.median(plains):.2f} s")
    table.add_row("peak memory, plain", f"{peak_memory(plain):.0f} MiB")
    table.add_row("peak memory, traced", f"{peak_memory(traced):.0f} MiB")
    table.add_row("trace on disk", f"{size:.1f} MiB")
    Console().print(table)


if __name__ == "__main__":
    main()
