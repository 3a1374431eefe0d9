"""The lessons as assignments: a point for each exercise, which a right answer alone brings."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from sdteach.classroom import exercises

from conftest import ROOT

SETUP = nbformat.v4.new_code_cell("from sdteach import classroom")


@pytest.fixture(scope="module")
def assignments(tmp_path_factory):
    course = tmp_path_factory.mktemp("course")
    subprocess.run([sys.executable, ROOT / "assets" / "hub" / "assignments.py", course], check=True, cwd=ROOT)
    return {file.stem: nbformat.read(file, 4) for file in course.glob("source/*/*.ipynb")}


def locked(notebook):
    return {number: cell for number, cell in enumerate(notebook.cells) if "nbgrader" in cell.metadata}


def test_every_exercise_is_worth_a_point_and_no_result_is_given_away(assignments):
    names = [cell.metadata.nbgrader["grade_id"] for notebook in assignments.values() for cell in locked(notebook).values()]
    assert sorted(names) == sorted(f"exercise-{number.replace('.', '-')}" for number in exercises.exercises())
    assert len(assignments) == len([*(ROOT / "lessons").glob("[0-9]*.ipynb")])
    for notebook in assignments.values():
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)


def test_a_point_goes_to_right_answers_alone(assignments):
    notebook = assignments["01_tokens"]
    (right, test), *others = [(notebook.cells[number - 1], cell) for number, cell in locked(notebook).items()][:4]
    answer = exercises.exercises()["01.1"]["right"]
    right.source = right.source.replace("...", json.dumps(answer))
    others[0][0].source = others[0][0].source.replace("...", "'surely not this'")
    others[1][0].source = others[1][0].source.replace("...", "no_such_name")
    cells = [cell for pair in [(right, test), *others] for cell in pair]
    handed_in = nbformat.v4.new_notebook(cells=[SETUP, *cells])
    NotebookClient(handed_in, allow_errors=True, timeout=120, kernel_name="python3").execute(cwd=str(ROOT))
    failed = [any(output.output_type == "error" for output in cell.outputs) for cell in handed_in.cells if "nbgrader" in cell.metadata]
    assert failed == [False, True, True, True]
