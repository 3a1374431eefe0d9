"""What a class needs: each lesson's processor seconds and memory from top to bottom, and a slider's answer.

`python tests/benchmarks/lessons.py [lesson.ipynb ...]`; one lesson at a time, each kernel on one thread.
"""

import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lessons"))
ANSWER = 0.1  # seconds


def measured(path):
    """Run one lesson -> seconds on the clock, processor seconds and peak MiB of its kernel, which is this process's only child."""
    from run import run

    start = time.perf_counter()
    run(path, OMP_NUM_THREADS="1")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main():
    import sdteach
    from sdteach.widgets import run_scrubber

    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))
    print(f"{'':28}{'clock s':>8}{'CPU s':>8}{'peak MiB':>10}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for path, (clock, processor, memory) in zip(paths, pool.imap(measured, paths), strict=True):
            print(f"{path.stem:28}{clock:8.0f}{processor:8.0f}{memory:10.0f}", flush=True)
    trace = sdteach.generate(sdteach.load_model(device="cpu"), "a red car", steps=20)
    explorer, answers = run_scrubber(trace), []
    for step in list(explorer.sliders["step"].options)[1:]:
        start = time.perf_counter()
        explorer.choose(step=step)
        answers.append((time.perf_counter() - start) / ANSWER)
    print(f"{'a slider':20} {statistics.median(answers):5.4f} of its {ANSWER * 1000:.0f} ms in the kernel, {max(answers):.4f} at most")


if __name__ == "__main__":
    main()
