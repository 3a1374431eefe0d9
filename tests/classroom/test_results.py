"""A class before and after: what is asked, what notebooks answer, and that nothing in them is run."""

import json

import nbformat
import pytest
from scipy.stats import binomtest

from sdteach.classroom.exercises import exercises
from sdteach.classroom.exercises import tests as questions
from sdteach.classroom.results import answers, counted, half_filled, notebooks, sheet
from sdteach.classroom.words import fits

from conftest import ROOT

LESSONS = sorted(path.stem[:2] for path in (ROOT / "lessons").glob("[0-9]*.ipynb"))


def handed_in(path, **given):
    """A notebook as a student leaves it: `given` are the sources of answers by name, such as before_04_1="0.8"."""
    notebook = sheet()
    for cell in notebook.cells:
        for name, source in given.items():
            cell.source = cell.source.replace(f"{name} = ...", f"{name} = {source}")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def test_every_lesson_has_four_skills_asked_twice_in_other_words():
    assert [*questions()] == [f"{lesson}.{skill}" for lesson in LESSONS for skill in (1, 2, 3, 4)]
    asked_twice = [asked[time]["question"] for asked in questions().values() for time in ("before", "after")]
    assert len({*asked_twice, *(asked["question"] for asked in exercises().values())}) == len(asked_twice) + len(exercises())
    for number, asked in questions().items():
        assert {*asked} == {"skill", "before", "after"}, number
        for test in (asked["before"], asked["after"]):
            assert {*test} - {"within", "also", "units", "shape"} == {"question", "right"}, number
            assert all(fits(right, test["right"], test) for right in (test["right"], *test.get("also", ()))), number
            assert not fits("something else", test["right"], test), number
            assert not fits(123456789.5, test["right"], test), number


def test_a_choice_names_its_right_answer_among_others():
    for number, asked in questions().items():
        for test in (asked["before"], asked["after"]):
            chosen = [word for word in test["question"].split('"')[1::2] if fits(word, test["right"], test)]
            if isinstance(test["right"], str) and '"' in test["question"] and "and other" not in test["question"]:
                assert chosen, number


def test_the_notebook_asks_all_and_runs_as_it_is():
    nbformat.validate(sheet())
    written = "\n".join(cell.source for cell in sheet().cells)
    assert all(asked[time]["question"] in written for asked in questions().values() for time in ("before", "after"))
    names = {}
    exec("\n".join(cell.source for cell in sheet().cells if cell.cell_type == "code"), names)
    assert {f"{time}_{number.replace('.', '_')}" for number in questions() for time in ("before", "after")} == {*names} - {"__builtins__"}
    assert not any(str(asked[time]["right"]) == line.partition(" = ")[2] for asked in questions().values() for time in ("before", "after")
                   for line in written.splitlines())  # fmt: skip


@pytest.mark.parametrize(("source", "answer"), [
    ("0.8", 0.8), ("'noise'  # I think", "noise"), ("[1, 2]", [1, 2]), ("-0.4", -0.4), ("True", True), ("noise", "noise"),
    ("the noise", "the noise"), ("__import__('os').mkdir('gone')", "__import__('os').mkdir('gone')"), ("2**10", "2**10"),
    ("9" * 199, int("9" * 199)), ("(" * 150, "(" * 150), ("open('x', 'w')", "open('x', 'w')"),
])  # fmt: skip
def test_an_answer_is_read_as_a_literal_or_else_as_words_and_never_run(tmp_path, monkeypatch, source, answer):
    monkeypatch.chdir(tmp_path)
    handed_in(tmp_path / "a.ipynb", before_04_1=source)
    assert answers(tmp_path / "a.ipynb") == {("before", "04.1"): answer}
    counted([answers(tmp_path / "a.ipynb")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.ipynb"]


@pytest.mark.parametrize("content", [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"cells": 5}', b'{"cells": ["a"]}', b'{"cells": [{"cell_type": "code"}]}',
    b'{"cells": [{"cell_type": "code", "source": [1]}]}', b"[" * 100_000,
])  # fmt: skip
def test_a_file_that_is_no_notebook_is_told(tmp_path, content):
    (tmp_path / "a.ipynb").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected a notebook, got .*a\.ipynb, which cannot be read"):
        answers(tmp_path / "a.ipynb")


def test_what_is_empty_foreign_or_beyond_measure_counts_as_no_answer(tmp_path):
    handed_in(tmp_path / "a.ipynb")
    handed_in(tmp_path / "b.ipynb", before_04_1="'" + "x" * 5000 + "'", after_04_9="1")
    assert answers(tmp_path / "a.ipynb") == answers(tmp_path / "b.ipynb") == {}
    for lesson in (ROOT / "lessons").glob("*.ipynb"):
        assert answers(lesson) == {}
    assert counted([{}, {("before", "99.1"): 5}]) == []


def test_a_class_is_counted_question_by_question_with_wilson_intervals(tmp_path, sdteach_command):
    for student in range(7):
        handed_in(tmp_path / "class" / "deep" / f"Ada Lovelace {student}" / "tests.ipynb", before_04_1="0.8" if student < 2 else "0.64",
                  after_04_1="0.4" if student else "0.16", **{"before_04_2": "'no'"} if student < 4 else {})  # fmt: skip
    handed_in(tmp_path / "class" / "empty.ipynb")
    handed_in(tmp_path / "class" / ".ipynb_checkpoints" / "tests-checkpoint.ipynb", before_04_1="1")
    (tmp_path / "class" / "broken.ipynb").write_text("{")
    status, out, err = sdteach_command("class", "class", "--json")
    assert status == 0, err
    assert "broken.ipynb" in err
    assert "Ada" not in out + err
    told = json.loads(out)
    skills = told.pop("skills")
    assert told == {"notebooks": 7, "half_filled": 7, "without_answers": 1, "unreadable": 1}
    assert [skill["number"] for skill in skills] == ["04.1", "04.2"]
    first, second = skills
    for measure, right, count in ((first["before"], 2, 7), (first["after"], 6, 7), (second["before"], 4, 4)):
        interval = binomtest(right, count).proportion_ci(method="wilson")
        assert (measure["count"], measure["value"]) == (count, right / count)
        assert (measure["low"], measure["high"]) == pytest.approx((interval.low, interval.high))
    assert (first["learned"], first["lost"], second["after"]) == (5, 1, None)
    status, out, _ = sdteach_command("class", "class")
    table = " ".join(out.split())
    assert status == 0
    assert "the weights of picture and noise" in table
    assert "86% of 7" in table
    assert "7 notebooks, 7 half filled, 1 without answers, 1 unreadable" in table


def test_a_folder_without_answers_is_told(tmp_path, sdteach_command):
    (tmp_path / "none").mkdir()
    for folder in ("none", "not-there"):
        status, _, err = sdteach_command("class", folder)
        assert status == 1
        assert "expected notebooks with answers" in " ".join(err.split())


def test_hidden_folders_are_left_out_but_not_those_above(tmp_path):
    for name in (".class/a.ipynb", ".class/b/.hidden/c.ipynb", ".class/b/d.ipynb", ".class/b/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.name for path in notebooks(tmp_path / ".class")] == ["a.ipynb", "d.ipynb"]


def test_a_test_is_half_filled_where_it_was_begun():
    whole = {("before", f"04.{skill}"): 1 for skill in (1, 2, 3, 4)}
    assert not half_filled(whole)
    assert not half_filled({})
    assert half_filled(whole | {("after", "04.2"): 1})
