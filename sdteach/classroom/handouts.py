"""The lessons as pages to read, and as handouts to print: questions with room to write, the answers apart."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from ..files import data_folder, write_whole
from ..player.page import render
from .exercises import exercises, tests

MARK = "sdteach lessons export"  # in the first lines of a file that may be written anew
KINDS = {"page": "", "handout": "-handout", "answers": "-answers"}  # what a file's name ends in
FORMULA = re.compile(r"(?P<code>(`+).+?\2)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$", re.DOTALL)  # in code $ is a letter
PREDICT = "**Predict.**"


def export(folder: Path, live_page: str | None = None) -> Iterator[Path]:
    """Write each lesson's page, its handout and its handout with answers into `folder`, and an index.html; the files as they come.

    Handouts begin with the QR code of `live_page`, the address at which the class finds what `sdteach page` wrote. Every file is whole
    by itself: pictures are in it, formulas are MathML, no script and no request. What a **Predict.** asks for is folded away in the
    page, and stands in the handout with answers alone. A handout ends with two sheets: tests for before the lesson and for after it.
    Raises ValueError, before the first is written, where one of these names is taken by a file that no export made, and for an address
    that is none or too long.
    """
    lessons = sorted(data_folder("lessons").glob("[0-9]*.ipynb"))
    files = {lesson: {kind: folder / f"{lesson.stem}{ending}.html" for kind, ending in KINDS.items()} for lesson in lessons}
    _check_own([folder / "index.html", *(file for of_lesson in files.values() for file in of_lesson.values())])
    code, entries = live_page and _qr_code(live_page), []
    for lesson, of_lesson in files.items():
        cells = nbformat.read(lesson, 4).cells
        title, _, intro = cells[0].source.removeprefix("# ").partition("\n")
        question = re.search(r"\*\*The question\.\*\* (.*?)\n\n", intro, re.DOTALL)[1]
        minutes = re.search(r"\d+ minutes", intro)[0]
        entries.append({"number": lesson.stem[:2], "title": title, "question": question, "minutes": minutes, "files": of_lesson})
        parts, asked = [*_parts(cells)], [asked for number, asked in tests().items() if number.startswith(lesson.stem[:2])]
        for kind, file in of_lesson.items():
            yield _written(file, "lesson.html", title=title, kind=kind, parts=parts, skills=asked, live_page=live_page, code=code)
    yield _written(folder / "index.html", "index.html", lessons=entries)


def _check_own(files):
    foreign = [file for file in files if file.exists() and not (file.is_file() and MARK in file.read_text("utf-8", "replace")[:2000])]
    if foreign:
        raise ValueError(f"expected a folder without files of others under the export's names, got {foreign[0]}; name another folder")


def _qr_code(address):
    """The QR code of an address, as a picture for a page."""
    if not re.match("https?://.", address):
        raise ValueError(f"expected the live page's address, which begins with http, got {address!r}; copy it from a browser that shows it")
    if find_spec("segno") is None:
        raise ValueError("expected segno, which draws QR codes, got none; pip install 'sdteach[classroom]' brings it")
    import segno

    return segno.make(address, micro=False).svg_data_uri(scale=3)


def _written(file, template, **values):
    page = render(template, **values, mark=MARK, highlight=Markup(HtmlFormatter(style="vs").get_style_defs(".highlight")))
    write_whole(file, page.encode())
    return file


def _parts(cells):
    """A lesson part by part: what is shown, and the exercise at its end, or the prediction's code and what reveals its answer."""
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(_mathml, cell.source)
    shown = []
    while cells:
        cell, *cells = cells
        if exercise := re.search(r'^\w+\.check\("([\d.]+)"', cell.source, re.MULTILINE):
            yield {"shown": _html(shown), "exercise": exercises()[exercise[1]], "code": _html([cell]),
                   "head": cell.source.partition("\n\n\n")[0]}  # fmt: skip
            shown = []
            continue
        shown.append(cell)
        if PREDICT in cell.source:
            reveal = [*takewhile(lambda later: not later.source.startswith("#") and PREDICT not in later.source, cells)]
            code = [nbformat.NotebookNode(later, outputs=[]) for later in reveal[:1] if later.cell_type == "code"]
            yield {"shown": _html(shown), "exercise": None, "code": _html(code), "reveal": _html(reveal)}
            shown, cells = [], cells[len(reveal) :]
    yield {"shown": _html(shown)}


def _html(cells):
    body, _ = EXPORTER.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    return Markup(body.replace(' style="max-width:100%"', ""))  # the policy lets no style in but the page's own, which says so


def _mathml(found):
    """A formula as browsers draw it without a script."""
    return found["code"] or convert(found["block"] or found["inline"], display="block" if found["block"] else "inline")


EXPORTER = HTMLExporter(template_name="basic", exclude_anchor_links=True)
