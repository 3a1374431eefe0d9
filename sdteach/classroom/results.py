"""What a class knows before and after a lesson: the notebook that asks, and what the answers in many of them say, without names."""

import json
import re
from ast import literal_eval
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from .exercises import tests
from .words import fits, plain

TIMES = "before", "after"
ANSWER = re.compile(r"^(before|after)_(\d\d)_(\d) *= *(.{1,200}?)[^\S\n]*$", re.MULTILINE)
INTRODUCTION = """# Before and after

Four short questions before each lesson, and four after it. Replace each `...` by your answer: a number, or a word in quotation marks,
such as `"noise"`. Nothing is marked in here, and no question wants a guess: where you do not know, leave the dots. If your teacher asks
for this file, save it and hand it in. What comes of it is counted for the whole class, without names."""


@dataclass(frozen=True)
class Skill:
    """How many were right `before` and `after`, each a Measure, None where nobody answered; and of those who answered both times how
    many were right only after (`learned`) or only before (`lost`)."""

    number: str
    skill: str
    before: object
    after: object
    learned: int
    lost: int


def sheet() -> nbformat.NotebookNode:
    """The notebook to be filled: the questions of each lesson, before and after, over the names that take the answers."""
    cells = [new_markdown_cell(INTRODUCTION)]
    for lesson in dict.fromkeys(number[:2] for number in tests()):
        own = {number: asked for number, asked in tests().items() if number.startswith(lesson)}
        for time in TIMES:
            questions = [f"{number[3:]}. {asked[time]['question']}" for number, asked in own.items()]
            cells.append(new_markdown_cell("\n".join([f"## {time.title()} lesson {lesson}", "", *questions])))
            cells.append(new_code_cell("\n".join(f"{time}_{number.replace('.', '_')} = ..." for number in own)))
    kernel = {"name": "python3", "display_name": "Python 3"}  # else JupyterLab asks for one
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def notebooks(folder: Path) -> Iterator[Path]:
    """Every notebook below a folder; what JupyterLab keeps in hidden folders is left out."""
    for path in sorted(folder.rglob("*.ipynb")):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def answers(path: Path) -> dict[tuple[str, str], object]:
    """What a notebook answers, by ("before", "04.1"): read from its cells as literals, nothing in it is run; what is none is a word.

    Raises ValueError for a file that is no notebook.
    """
    try:
        cells = json.loads(path.read_bytes())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"expected a notebook, got {path}, which cannot be read ({type(error).__name__})") from error
    return {(time, f"{lesson}.{skill}"): _literal(text) for time, lesson, skill, text in ANSWER.findall(code) if text != "..."}


def _literal(text):
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return literal_eval(text)
    return text


def half_filled(given: dict[tuple[str, str], object]) -> bool:
    """Whether a test was begun and some of it left open."""
    begun = {(time, number[:2]) for time, number in given}
    return any((time, number) not in given for number in tests() for time in TIMES if (time, number[:2]) in begun)


def counted(filled: list[dict[tuple[str, str], object]]) -> list[Skill]:
    """What was right in the `answers` of many notebooks, for every skill that any of them answers."""
    from ..picturebook.evaluation.measures import fraction  # torch: to write the notebook needs none

    skills = []
    for number, asked in tests().items():
        pairs = [tuple(_right(asked[time], given.get((time, number))) for time in TIMES) for given in filled]
        told = [[right for right in column if right is not None] for column in zip(*pairs, strict=True)]
        if any(told):
            measures = [fraction(column) if column else None for column in told]
            skills.append(Skill(number, asked["skill"], *measures, pairs.count((False, True)), pairs.count((True, False))))
    return skills


def _right(asked, given):
    return None if given is None or given is ... else fits(plain(given), asked["right"], asked)
