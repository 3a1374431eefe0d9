"""How long a class waits: each lesson from top to bottom, and a slider's answer. `python tests/benchmarks/lessons.py`"""

import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lessons"))
BUDGET, ANSWER = 60.0, 0.1  # seconds


def main():
    import sdteach
    from sdteach.widgets import run_scrubber

    from run import run

    for path in sorted((ROOT / "lessons").glob("[0-9]*.ipynb")):
        start = time.perf_counter()
        run(path)
        print(f"{path.stem:20} {(time.perf_counter() - start) / BUDGET:5.2f} of its {BUDGET:.0f} s", flush=True)
    trace = sdteach.generate(sdteach.load_model(device="cpu"), "a red car", steps=20)
    explorer, answers = run_scrubber(trace), []
    for step in list(explorer.sliders["step"].options)[1:]:
        start = time.perf_counter()
        explorer.choose(step=step)
        answers.append((time.perf_counter() - start) / ANSWER)
    print(f"{'a slider':20} {statistics.median(answers):5.4f} of its {ANSWER * 1000:.0f} ms in the kernel, {max(answers):.4f} at most")


if __name__ == "__main__":
    main()
