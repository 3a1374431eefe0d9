"""The lessons run anywhere, keep to their shape, and show what their cells make."""

import ast
import base64
import io
import itertools
import json
import re
import subprocess
import sys
from collections import namedtuple

import nbformat
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from run import run, tidy

LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))
Near = namedtuple("Near", "number pixel")
COMPUTED, TRAINED = Near(0.02, 2), Near(0.25, 20)  # a training carries the last bit of a machine's arithmetic far
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def sections(notebook):
    """The code of each section, by its heading; what stands before the first heading is left out."""
    found, heading = {}, None
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^## (.*)", cell.source, re.MULTILINE)):
            heading = match[1]
        elif cell.cell_type == "code" and heading:
            found.setdefault(heading, []).append(cell.source)
    return found


@each_lesson
@pytest.mark.fault(2)
def test_a_lesson_runs_from_the_top_without_a_network_and_shows_what_it_shipped_with(path):
    shipped, made = nbformat.read(path, 4), tidy(run(path))
    assert [cell.source for cell in code(shipped)] == [cell.source for cell in code(made)]
    assert [cell.execution_count for cell in code(shipped)] == [*range(1, len(code(made)) + 1)]
    for old, new in zip(code(shipped), code(made), strict=True):
        assert [output.output_type for output in old.outputs] == [output.output_type for output in new.outputs], new.source
        for was, now in zip(old.outputs, new.outputs, strict=True):
            near = TRAINED if "trained" in old.metadata.get("tags", ()) else COMPUTED
            if was.output_type == "stream":
                assert_same_text(was.text, now.text, near)
            elif "text/html" in was.data:
                assert_same_html(was.data["text/html"], now.data["text/html"], near)
            else:
                assert_same_text(was.data["text/plain"], now.data["text/plain"], near)


def assert_same_text(was, now, near):
    """Word for word, and numbers as near as two machines' arithmetic lets them be."""
    assert NUMBER.sub("#", was) == NUMBER.sub("#", now)
    old, new = ([float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in (was, now))
    assert new == pytest.approx(old, rel=near.number, abs=0.02)


def assert_same_html(was, now, near):
    old, new = (re.search(r'alt="([^"]*)".*base64,([^"]*)', html) for html in (was, now))
    if old is None:
        assert was == now
        return
    assert_same_text(old[1], new[1], near)
    before, after = (np.asarray(Image.open(io.BytesIO(base64.b64decode(found[2]))).convert("RGB"), float) for found in (old, new))
    assert before.shape == after.shape
    assert np.abs(before - after).mean() < near.pixel


def test_every_section_runs_from_the_first_cell_alone_and_on_another_checkpoint(isolated, random_folders):
    """All lessons in one process: torch and diffusers take longer to import than most sections to run."""
    script = """
import sys, json, traceback
from IPython.display import display
from matplotlib import pyplot
from sdteach.picturebook.training import live
learn = live.learn  # that trainings learn is seen in the run from the top; here a few of their steps are enough
live.learn = lambda objective, prepare, steps, *others, **named: learn(objective, prepare, min(steps, 8), *others, **named)
for lesson, first, parts in json.loads(sys.stdin.read()):
    for heading, cells in parts.items():
        here = {"display": display}
        try:
            for source in [first, *cells]:
                exec(compile(source, heading, "exec"), here)
        except Exception:
            print(lesson, heading, traceback.format_exc(), file=sys.stderr)
        else:
            print("ran:", lesson, heading)
        pyplot.close("all")
"""
    notebooks = {path.stem: nbformat.read(path, 4) for path in LESSONS}
    found = [(name, code(notebook)[0].source, sections(notebook)) for name, notebook in notebooks.items()]
    assert all(len(parts) >= 5 for _, _, parts in found)
    done = isolated(script, text_in=json.dumps(found), SDTEACH_MODEL=str(random_folders["v_prediction"]))
    ran = [line.removeprefix("ran: ") for line in done.stdout.splitlines() if line.startswith("ran: ")]
    assert ran == [f"{name} {heading}" for name, _, parts in found for heading in parts], done.stderr[-5000:]


@each_lesson
def test_a_section_uses_no_name_of_another(path, tmp_path):
    """Read, not run: so in the cells, too, that step aside on another checkpoint."""
    notebook = nbformat.read(path, 4)
    for index, cells in enumerate(sections(notebook).values()):
        (tmp_path / f"section_{index}.py").write_text("\n".join([code(notebook)[0].source, *cells]), "utf-8")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--select",
        "F821",
        "--config",
        "builtins = ['display']",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@each_lesson
def test_a_lesson_keeps_to_its_shape(path):
    notebook = nbformat.read(path, 4)
    texts, cells = prose(notebook), code(notebook)
    headings = re.findall(r"^(#+) ", "\n".join(texts), re.MULTILINE)
    assert headings[0] == "#"
    assert headings.count("#") == 1
    assert all(len(after) - len(before) <= 1 for before, after in itertools.pairwise(headings))
    assert "**The question.**" in texts[0]
    assert "**Afterwards you can**" in texts[0]
    assert re.search(r"\d+ minutes", texts[0])
    assert "model = sdteach.load_model()" in cells[0].source
    assert len(cells[0].source.splitlines()) <= 12
    assert "plots.pipeline_map(" in cells[1].source
    assert texts[-1].startswith("## Before you go")
    assert re.findall(r"^(\d)\.", texts[-1], re.MULTILINE) == ["1", "2", "3"]
    assert sum("**Predict.**" in text for text in texts) >= 4
    number = path.stem[:2]
    asked = re.findall(r'classroom\.check\("([\d.]+)", (?:\.\.\.|\w+)\)', "\n".join(cell.source for cell in cells))
    assert asked == [f"{number}.{i + 1}" for i in range(len(asked))]
    assert len(asked) >= 3


@each_lesson
def test_every_prediction_is_followed_by_what_happens_and_then_by_an_explanation(path):
    """And nothing of either stands in the question's own cell, where it could not be folded away."""
    cells = nbformat.read(path, 4).cells
    for index, cell in enumerate(cells):
        if "**Predict.**" in cell.source:
            later = itertools.takewhile(lambda one: not one.source.startswith("#") and "**Predict.**" not in one.source, cells[index + 1 :])
            assert re.fullmatch("c+m[cm]*", "".join(one.cell_type[0] for one in later)), cell.source
            assert cell.source.startswith(("## ", "**Predict.**")), cell.source
            assert "\n\n" not in cell.source.partition("**Predict.**")[2], cell.source


@each_lesson
def test_cells_are_short_and_define_nothing_but_what_the_learner_is_to_write(path):
    for cell in code(nbformat.read(path, 4)):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 10, cell.source
        assert max(map(len, lines)) <= 105, cell.source
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, defined)]
        if re.search(r'^classroom\.check\("[\d.]+", [a-z]\w+\)$', cell.source, re.MULTILINE):
            assert [ast.unparse(body) for one in found for body in one.body] == ["..."], cell.source
        else:
            assert not found, cell.source


@each_lesson
def test_a_shipped_lesson_is_light_and_speaks_to_those_who_cannot_see_or_run_it(path):
    assert path.stat().st_size <= 1.5e6
    text = path.read_text("utf-8")
    assert "widget-view" not in text
    assert str(ROOT) not in text
    pictures = 0
    for cell in code(nbformat.read(path, 4)):
        for output in cell.outputs:
            assert output.output_type in ("stream", "execute_result", "display_data"), cell.source
            assert output.get("name") != "stderr", output.text
            html = output.get("data", {}).get("text/html", "")
            assert "image/png" not in output.get("data", {}), "a picture without alt text"
            assert len(re.findall("<img ", html)) == len(re.findall('<img alt="[^"]{9,}" ', html)), html[:200]
            pictures += html.count("<img ")
    assert pictures >= 5


def test_every_exercise_of_the_lessons_is_asked_where_it_belongs():
    from sdteach.classroom.exercises import exercises

    asked = [number for path in LESSONS for number in re.findall(r'check\(\\"([\d.]+)\\"', path.read_text("utf-8"))]
    assert asked == list(exercises())


def test_the_demo_runs_without_a_network_and_defines_nothing():
    demo = ROOT / "lessons" / "demo.ipynb"
    test_cells_are_short_and_define_nothing_but_what_the_learner_is_to_write(demo)
    assert "widget-view" in str(code(run(demo))[-1].outputs[-1].data)
