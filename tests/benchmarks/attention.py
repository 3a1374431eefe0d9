"""What it costs to capture attention: sdteach against diffusers' plain pipeline and attention-map-diffusers, in one process.

    python tests/benchmarks/attention.py [--rounds 15] [--steps 25] [--models picturebook larger]

All make the same picture on a CPU, with the same weights, seed and sampler (DDIM, since attention-map-diffusers tells steps
apart by their timesteps, and PNDM calls the UNet twice at one of them). `larger` has Stable Diffusion 1's UNet with a fifth of
the channels, random, at 256 px. Each run is timed beside a plain one, before and after it in turns; a ratio compares such
neighbours, so that a busy machine troubles both alike. "A step" is from one call of the UNet to the next; "the run" is from the
prompt to the picture with the attention maps at hand, which attention-map-diffusers' fast mode computes after the run from the
queries and keys it kept. "Kept" is the memory beneath all tensors and arrays that are held of attention, each piece counted once,
then the same once they are maps; "peak" is the most memory that torch's tensors took at any time since the run began, by the
profiler's count, the same every time.
"""

import argparse
import gc
import statistics
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

import sdteach
from sdteach.files import data_folder

try:
    from attention_map_diffusers import AttentionCapture
except ImportError:
    AttentionCapture = None

PROMPT = "a red car below a yellow star"
PEER = "attention-map-diffusers"


def checkpoint_folder(name, scratch):
    """The embedded checkpoint, or the embedded one with a larger UNet, random, of Stable Diffusion 1's proportions."""
    embedded = data_folder("assets") / "picturebook"
    if name == "picturebook":
        return embedded
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=32, block_out_channels=(64, 128, 256, 256), attention_head_dim=8, cross_attention_dim=128)
    StableDiffusionPipeline.from_pretrained(embedded, unet=unet).save_pretrained(scratch / name)
    return scratch / name


def compared(checkpoint, steps):
    """The runs by name, functions -> (picture, what was captured: None, a Trace or an AttentionCapture), and a list that the
    UNets' calls write their times to."""
    model = sdteach.load_model(checkpoint, device="cpu")
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, dtype=model.dtype)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(leave=False)
    calls = []
    for unet in (model.unet, pipeline.unet):
        unet.register_forward_pre_hook(lambda *_: calls.append(time.perf_counter()))

    def plain():
        out = pipeline(PROMPT, num_inference_steps=steps, generator=torch.Generator().manual_seed(0))
        return np.asarray(out.images[0]), None

    def ours(*collect):
        trace = sdteach.generate(model, PROMPT, steps=steps, scheduler="DDIMScheduler", collect=collect)
        return np.asarray(trace.image), trace

    def peer(**options):
        with AttentionCapture(pipeline, relations="image->text", timesteps="all", **options) as capture:
            return plain()[0], capture

    runs = {
        "plain diffusers": plain,
        "sdteach, nothing collected": ours,
        "sdteach, attention": lambda: ours("attention"),
        "sdteach, attention_heads": lambda: ours("attention_heads"),
    }
    if AttentionCapture:
        runs |= {
            f"{PEER}, fast": lambda: peer(mode="fast"),
            f"{PEER}, exact": lambda: peer(mode="exact"),
            f"{PEER}, exact, all heads": lambda: peer(mode="exact", heads="all"),
        }
    return runs, calls


def complete(captured):
    """Bring about the maps, where only their ingredients were kept."""
    if captured is not None and not isinstance(captured, sdteach.Trace):
        captured.compute()


def kept_bytes(captured):
    """The size of the memory beneath all that is held of attention, each piece counted once."""
    if captured is None:
        return 0
    if isinstance(captured, sdteach.Trace):
        every = [maps for step in captured.steps for maps in (step.attention, step.attention_heads)]
        held = [array for maps in every for array in (maps or {}).values()]
    else:
        held = [tensor for record in captured.records for tensor in (record.q, record.k, record.data) if tensor is not None]
    return sum(dict(map(_memory, held)).values())


def _memory(piece):
    """Address and size of the memory that a tensor or an array looks at, perhaps a part of it."""
    if isinstance(piece, np.ndarray):
        return (piece.ctypes.data, piece.nbytes) if piece.base is None else _memory(piece.base)
    storage = piece.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def timed(run, calls):
    """Seconds of a step and of the run."""
    calls.clear()
    gc.collect()
    start = time.perf_counter()
    _, captured = run()
    complete(captured)
    end = time.perf_counter()
    return (calls[-1] - calls[0]) / (len(calls) - 1), end - start


def peak_bytes(profiled):
    """The most that torch held at any time of what it allocated inside a `profile(profile_memory=True)`."""
    events = (event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]")
    changes = sorted((event.start_ns(), event.nbytes()) for event in events)
    return max(accumulate(change for _, change in changes))


def same_work(pictures, trace, capture):
    """How far apart the pictures are, of 255 levels, and the attention maps, probabilities."""
    plain = pictures["plain diffusers"].astype(int)
    told = f"pictures differ by {max(abs(picture - plain).max() for picture in pictures.values())} of 255 levels at most"
    if capture is None:
        return told
    end, apart, seen = trace.tokens.end, 0.0, 0
    steps = {step.timestep: step.attention for step in trace.steps}
    for record in capture.records:
        ours = steps[record.timestep][record.layer_id.removeprefix("unet.")]
        theirs = record.data[1, 0].T.numpy()  # the prompt's half, the mean over the heads
        theirs = np.concatenate([theirs[: end + 1], theirs[end + 1 :].sum(0, keepdims=True)])
        apart, seen = max(apart, abs(ours - theirs.reshape(ours.shape)).max()), seen + 1
    expected = sum(map(len, steps.values()))
    return f"{told}; the {seen} of {expected} maps that {PEER} has, from ours by {apart:.1e}"


def side_by_side(runs, calls, rounds):
    """Each case's ratios to plain of a step and of the run, and plain's own seconds of both."""
    for run in runs.values():
        timed(run, calls)
    plain, *cases = runs
    ratios, seconds = {case: [] for case in cases}, []
    for index in range(rounds):
        for first in range(0, len(cases), 2):
            before, *after = cases[first : first + 2]
            order = [before, plain, *after]
            took = {case: timed(runs[case], calls) for case in (order[::-1] if index % 2 else order)}
            seconds.append(took.pop(plain))
            for case, (step, run) in took.items():
                ratios[case].append((step / seconds[-1][0], run / seconds[-1][1]))
    return ratios, seconds


def looked_into(runs):
    """Each case's bytes kept after the run, kept as maps and at the peak, and in words whether all did the same work."""
    pictures, sizes, whole = {}, {}, {}
    for case, run in runs.items():
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as profiled:
            pictures[case], captured = run()
            kept = kept_bytes(captured)
            complete(captured)
        sizes[case] = kept, kept_bytes(captured), peak_bytes(profiled)
        if case in {"sdteach, attention", f"{PEER}, fast"}:
            whole[case] = captured
        del captured, profiled
    return sizes, same_work(pictures, whole["sdteach, attention"], whole.get(f"{PEER}, fast"))


def measure(name, rounds, steps, scratch):
    runs, calls = compared(checkpoint_folder(name, scratch), steps)
    ratios, seconds = side_by_side(runs, calls, rounds)
    sizes, same = looked_into(runs)
    table = Table("what", "a step ÷ plain", "the run ÷ plain", "kept, MiB", "as maps, MiB", "peak, MiB",
                  title=f"capturing attention, {steps} steps of {name}, {rounds} pairs each: median (quartiles)")  # fmt: skip
    for case in runs:
        spreads = [_spread(column) for column in zip(*ratios[case], strict=True)] if case in ratios else ["1", "1"]
        table.add_row(case, *spreads, *(f"{size / 2**20:.2f}" for size in sizes[case]))
    step, run = (statistics.median(column) for column in zip(*seconds, strict=True))
    Console(width=140).print(table)
    print(f"plain: {step * 1000:.0f} ms a step, {run:.2f} s a run, medians of {len(seconds)}; {same}", flush=True)


def _spread(ratios):
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--models", nargs="+", choices=["picturebook", "larger"], default=["picturebook", "larger"])
    options = parser.parse_args()
    if AttentionCapture is None:
        print(f"{PEER} is not installed, so its rows are left out; "
              'pip install -c constraints.txt -e ".[bench]" installs it')  # fmt: skip
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models:
            measure(name, options.rounds, options.steps, Path(scratch))


if __name__ == "__main__":
    main()
