"""Make anew all that hangs on picturebook's weights: `python tests/remake.py`, an afternoon's work for two cores.

By default every part, in their order; or only those named: `python tests/remake.py numbers card`. Afterwards look at what was drawn, read
the lessons against what they show now, and run the tests, which hold what texts say against these numbers.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "assets"
CARD, NUMBERS = ASSETS / "picturebook" / "README.md", ASSETS / "evaluation.json"
TABLE = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
NAMES = {
    "vae_psnr": "VAE, encoded and decoded again", "clip_top1": "CLIP, top-1 of 250", "one_object": "one object",
    "two_objects": "two objects in a relation", "held_out_pairs": "held-out pairs (colour and object never seen together)",
    "attention_miou": "attention map of an object word, IoU with the object", "judge_true": "the judge, true captions",
    "judge_shuffled": "the judge, shuffled captions", "three_objects": "three objects",
    "relation": "of the pictures that show both objects: in the right relation", "guidance": "one or two objects, 20 steps, guidance",
    "vae_psnr_": "VAE, style", "right_": "prompts in style",
}  # fmt: skip
LEARNED = [("a red car on a beach", 5), ("a blue boat at night", 1), ("a yellow star in the sky", 2), ("a green tree in the snow", 5),
           ("a brown house in a meadow", 5), ("a red car below a yellow star", 23)]  # fmt: skip


def table(numbers: dict) -> str:
    """The card's table of what `sdteach evaluate --json` printed."""
    from sdteach.picturebook.evaluation import GOALS

    rows = ["| Measure | Value | 95 % interval | Cases | Goal |", "|---|---|---|---|---|"]
    for name, cases in numbers["cases"].items():
        kind = "vae_psnr_" if name.startswith("vae_psnr_") else "right_" if name.startswith("right_") else name.partition("_")[0]
        label = NAMES.get(name) or f"{NAMES[kind]} {name.removeprefix(kind).strip('_')}"
        value, low, high = (shown(name, number) for number in (numbers[name], *numbers["intervals"][name]))
        bound = "at most " if name == "judge_shuffled" else ""
        unit = "{:g} dB" if name == "vae_psnr" else "{:.0%}"
        goal = bound + unit.format(GOALS[name]).replace("%", " %") if name in GOALS else ""
        rows.append(f"| {label} | {value} | {low} to {high} | {cases} | {goal} |")
    return "\n".join(rows) + "\n"


def shown(name: str, number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.1f} dB" if name.startswith("vae_psnr") else f"{number:.1%}".replace("%", " %")


def command(*arguments: object, into: Path | None = None, here: Path = ROOT) -> None:
    """Run `sdteach` with these arguments in the folder `here`; what it prints goes into a file where one is named."""
    done = subprocess.run([sys.executable, "-m", "sdteach", *map(str, arguments)], cwd=here, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          check=True, text=True, stdout=subprocess.PIPE if into else None)  # fmt: skip
    if into:
        into.write_text(done.stdout, "utf-8")


def numbers():
    command("evaluate", "--json", "--sheets", CARD.parent, into=NUMBERS)
    NUMBERS.write_text(json.dumps(json.loads(NUMBERS.read_text("utf-8")) | {"weights": weights()}, indent=1) + "\n", "utf-8")


def weights() -> str:
    """A sum of the checkpoint's files: what the numbers were measured on."""
    return sha256((CARD.parent / "SHA256SUMS").read_bytes()).hexdigest()


def card():
    CARD.write_text(TABLE.sub(lambda _: table(json.loads(NUMBERS.read_text("utf-8"))), CARD.read_text("utf-8")), "utf-8")


def attention():
    command("evaluate", "--attention", "--json", into=ASSETS / "attention.json")


def traces():
    """By the commands that stand in their README."""
    folder = ASSETS / "traces"
    for line in re.search(r"```sh\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)[1].splitlines():
        command(*shlex.split(line)[1:], here=folder)


def journey():
    """The page that README's first command draws."""
    first = re.search(r"^sdteach (generate .*--sheet .*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)[1]
    with tempfile.TemporaryDirectory() as folder:
        command(*shlex.split(first), here=Path(folder))
        shutil.copyfile(Path(folder) / "sheet.png", ASSETS / "journey.png")


def learned():
    """The last strip of lesson 09, that of the weights as they ship; the first three are of trainings cut off early (see RECIPE.md)."""
    import sdteach

    model = sdteach.load_model("picturebook", device="cpu")
    strip = Image.new("RGB", (100 * len(LEARNED) - 4, 96), "white")
    for column, (prompt, seed) in enumerate(LEARNED):
        picture = sdteach.generate(model, prompt, steps=25, seed=seed, collect=()).image
        strip.paste(picture.resize((96, 96), Image.Resampling.LANCZOS), (100 * column, 0))
    strip.save(ASSETS / "learned" / "100.png", optimize=True)


def lessons():
    for path in sorted((ROOT / "lessons").glob("[0-9]*.ipynb")):
        subprocess.run([sys.executable, ROOT / "tests" / "lessons" / "run.py", path], cwd=ROOT, check=True)


PARTS = {part.__name__: part for part in (numbers, card, attention, traces, journey, learned, lessons)}

if __name__ == "__main__":
    if unknown := {*sys.argv[1:]} - {*PARTS}:
        sys.exit(f"expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    for name in sys.argv[1:] or PARTS:
        print(f"-- {name}")
        PARTS[name]()
