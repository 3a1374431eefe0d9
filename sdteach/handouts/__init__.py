"""The lessons as pages to read, and as handouts to print, with the exercises' answers or with room to write them."""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from ..checkpoints import data_folder
from ..exercises import exercises
from ..player.page import digest
from ..plots.style import THEMES
from ..trace import write_atomically

FOLDER = Path(__file__).parent
MARK = '<meta name="generator" content="sdteach lessons export">'  # of a file that may be written anew
KINDS = {"": "Page", "-handout": "Handout", "-answers": "Handout with answers"}  # what a file's name ends in


def export(folder: Path) -> Iterator[Path]:
    """Write each lesson's page, its handout and its handout with answers into `folder`, and an index.html; the files as they come.

    Every file is whole by itself: pictures are in it, formulas are MathML, no script and no request. Raises ValueError, before
    the first is written, where one of these names is taken by a file that no export made.
    """
    lessons = sorted(data_folder("lessons").glob("[0-9]*.ipynb"))
    files = {lesson: [folder / f"{lesson.stem}{kind}.html" for kind in KINDS] for lesson in lessons}
    _check_own([folder / "index.html", *(file for of_lesson in files.values() for file in of_lesson)])
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for lesson, of_lesson in files.items():
        book = nbformat.read(lesson, 4)
        entries.append(_entry(book, of_lesson))
        for kind, file in zip(KINDS, of_lesson, strict=True):
            write_atomically(file, _lesson_page(book, kind).encode())
            yield file
    write_atomically(folder / "index.html", _page("Stable Diffusion, stage by stage", "index", _index(entries)).encode())
    yield folder / "index.html"


def _check_own(files):
    foreign = [file for file in files if file.exists() and not (file.is_file() and MARK in file.read_text("utf-8", "replace")[:2000])]
    if foreign:
        raise ValueError(f"expected a folder without files of others under the export's names, got {foreign[0]}; name another folder")


def _lesson_page(book, kind):
    cells = [shown for cell in book.cells for shown in _on_paper(cell, kind)] if kind else book.cells
    body, _ = _Exporter(template_name="basic").from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    body = body.replace(' style="max-width:100%"', "")  # the policy lets no style in but the page's own, which says so
    return _page(_title(book), "lesson paper" if kind else "lesson", body)


def _on_paper(cell, kind):
    """A cell, with room to write beneath a question; that of an exercise becomes the room, or the answer."""
    if cell.cell_type == "code" and (asked := re.match(r'exercises\.check\("([\d.]+)"', cell.source)):
        return [nbformat.v4.new_markdown_cell(ROOM if kind == "-handout" else _answer(exercises()[asked[1]]))]
    asks = cell.cell_type == "markdown" and "**Predict.**" in cell.source
    return [cell, nbformat.v4.new_markdown_cell(ROOM)] if asks else [cell]


ROOM = f'<div class="room">{"<div></div>" * 3}</div>'


def _answer(asked):
    right = asked["right"]
    told = ", ".join(map(str, right)) if isinstance(right, list) else str(right)
    return f'<div class="answer"><p><strong>{escape(told)}.</strong> {escape(asked["why"])}</p></div>'


class _Formulas(IPythonRenderer):
    """Formulas as MathML, which browsers draw without a script."""

    def inline_math(self, body):
        return convert(body)

    def block_math(self, body):
        return convert(body, display="block")


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context, source):
        return MarkdownWithMath(_Formulas(escape=False, exclude_anchor_links=True)).render(source)


def _title(book):
    return book.cells[0].source.splitlines()[0].removeprefix("# ")


def _entry(book, files):
    """A lesson in the index: what it asks, how long it takes, its files."""
    first = book.cells[0].source
    question = re.search(r"\*\*The question\.\*\* (.*?)\n\n", first, re.DOTALL)[1]
    minutes = re.search(r"\d+ minutes", first)[0]
    links = "".join(f'<li><a href="{file.name}">{name}</a></li>' for file, name in zip(files, KINDS.values(), strict=True))
    return (f"<li><h2>{escape(files[0].stem[:2])} {escape(_title(book))}</h2><p>{escape(question)}</p>"
            f'<p class="time">{minutes}</p><ul>{links}</ul></li>')  # fmt: skip


def _index(entries):
    return f'<h1>Stable Diffusion, stage by stage</h1><ol class="index">{"".join(entries)}</ol>'


def _page(title, kind, body):
    light = THEMES["light"]
    colours = " ".join(f"--{part}: {getattr(light, part)};" for part in ("ink", "paper", "quiet", "line", "pale", "chip"))
    style = (
        f":root {{ {colours} --accent: {light.cycle[0]}; }}\n{_read('page.css')}{HtmlFormatter(style='vs').get_style_defs('.highlight')}"
    )
    return Template(_read("page.html")).substitute(mark=MARK, title=escape(title), kind=kind, style=style, known=digest(style), body=body)


def _read(name):
    return (FOLDER / name).read_text("utf-8")
