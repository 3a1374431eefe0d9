"""What breaks in practice, and what the kit promises instead. `python -m pytest -m fault -v` runs the proof of every row."""

import ast

from conftest import ROOT

PROMISES = {
    1: "a hub that is gone, gated or slow: one fallback each, a failed load names id, reason and what works; a folder asks no network",
    2: "no internet: the embedded checkpoint and every lesson run with the network refused",
    3: "a prompt longer than 77 tokens: a warning quotes the words that were dropped",
    4: "any text as a prompt: works or a clear error; words the checkpoint never saw are named",
    5: "a wrong size, steps, guidance, strength, seed, device, dtype, scheduler: what came, what is allowed, the nearest size",
    6: "black pictures of NaN: the stage is named; the VAE tries again in float32, said aloud",
    7: "a picture that a safety checker objects to: a card says that it was withheld; a checker that a checkpoint ships stays on",
    8: "too little memory: tiles, then weights in the CPU's memory, each said aloud, then advice",
    9: "the same seed: the noise comes from the CPU, the same machine and build make the same bits",
    10: "an interrupted run: the steps so far are a valid trace, the next run is clean",
    11: "a trace that is cut off, changed, of another version or hostile: ValueError; a save is whole or not at all",
    12: "widgets that cannot run, notebooks untrusted: a picture beneath each, lessons read well as pages",
    13: "HTML or script in a prompt: stays text everywhere; a page asks nothing of the network",
    14: "library upgrades: floors and exact versions; a capture that sees nothing raises",
    15: "two processes, a read-only install, no home: loading writes nothing",
    16: "an output that is missing, not writable or there: an error before the work, folders made, files replaced as a whole",
}


def proofs():
    """The tests that are marked with each row."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for test in ast.walk(ast.parse(path.read_text("utf-8"))):
            for mark in test.decorator_list if isinstance(test, ast.FunctionDef) and test.name.startswith("test_") else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    found.setdefault(ast.literal_eval(mark.args[0]), []).append(test.name)
    return found


def test_every_promise_has_its_tests():
    assert sorted(proofs()) == list(PROMISES)
