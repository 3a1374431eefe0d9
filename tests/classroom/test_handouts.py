"""The exported lessons: whole by themselves, formulas drawn without a script, answers only where they belong."""

import re
from html import unescape
from io import BytesIO
from itertools import pairwise

import nbformat
import numpy as np
import pytest
import segno
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from typer.testing import CliRunner

from sdteach.classroom import exercises
from sdteach.classroom.handouts import export
from sdteach.cli import app

from conftest import ROOT

ADDRESS = "https://example.org/class/7b?from=handout&lesson=00"
LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The text of every exported file, by its name, and where they lie."""
    folder = tmp_path_factory.mktemp("export") / "new" / "folder"
    files = [*export(folder)]
    assert {*files} == {*folder.iterdir()}
    return folder, {file.name: file.read_text("utf-8") for file in files}


def test_there_are_three_files_of_each_lesson_and_an_index_that_leads_to_each(pages):
    _, texts = pages
    expected = {f"{lesson.stem}{kind}.html" for lesson in LESSONS for kind in ("", "-handout", "-answers")}
    assert {*texts} == expected | {"index.html"}
    assert {*re.findall('<a href="([^"]+)"', texts["index.html"])} == expected


def test_every_file_is_whole_by_itself_and_lets_nothing_in(pages):
    for name, text in pages[1].items():
        assert '<html lang="en">' in text
        assert text.count("<h1") == 1, name
        assert "default-src 'none'; img-src data:; style-src 'sha256-" in text
        assert "<script" not in text
        assert not re.search(r'<[^>]+ (style|on\w+)="', text), name
        sources = re.findall(r'src="([^"]{0,5})', text)
        assert {*sources} <= {"data:"}
        assert len(sources) == len(re.findall("<img alt=(?:\"[^\"]{9,}\"|'[^']{9,}')", text))


def test_every_formula_is_mathml_and_nothing_is_left_of_its_source(pages):
    formulas = 0
    for lesson in LESSONS:
        prose = "\n\n".join(cell.source for cell in nbformat.read(lesson, 4).cells if cell.cell_type == "markdown")
        found = re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", prose, re.DOTALL)
        formulas += len(found)
        for kind in ("", "-handout", "-answers"):
            text = re.sub('src="[^"]*"', "", pages[1][f"{lesson.stem}{kind}.html"])
            assert text.count("<math") == len(found) or (kind == "-handout" and text.count("<math") < len(found))
            assert not re.search(r"\\(hat|bar|frac|sqrt|text|lVert)|<merror", text)
    assert formulas >= 16


def test_answers_stand_in_one_handout_and_room_to_write_in_the_other(pages):
    for lesson in LESSONS:
        page, empty, answered = (unescape(pages[1][f"{lesson.stem}{kind}.html"]) for kind in ("", "-handout", "-answers"))
        own = {number: asked for number, asked in exercises.exercises().items() if number.startswith(lesson.stem[:2])}
        assert len(own) >= 3
        for asked in own.values():
            assert asked["why"] in answered
            assert asked["why"] not in empty + page
            if "slips" in asked:
                assert asked["right"].strip() in answered
                assert asked["right"].strip() not in empty + page
        predictions = page.count("<strong>Predict.</strong>")
        tests = [
            asked[time] for number, asked in exercises.tests().items() if number[:2] == lesson.stem[:2] for time in ("before", "after")
        ]
        assert all(test["question"] in text for test in tests for text in (empty, answered))
        assert not any(test["question"] in page for test in tests)
        assert answered.count('class="answer"') == len(own) + len(tests)
        exit_questions = 1
        assert empty.count('class="room"') == len(own) + predictions + exit_questions + len(tests) > len(own) + 9
        assert page.count('<details class="reveal">') == predictions


def test_a_prediction_is_not_answered_under_its_own_question(pages):
    page, empty, answered = (pages[1][f"01_tokens{kind}.html"] for kind in ("", "-handout", "-answers"))
    question, code, reveal = "Which of these three are different texts", "A  RED   Car", "capital letters and spaces are gone"
    for text in (page, empty, answered):
        assert question in text
        assert code in text
    assert reveal not in empty
    assert answered.index(question) < answered.index(reveal)
    assert page.index(question) < page.index("<details", page.index(question)) < page.index(reveal)


def test_no_reveal_stands_in_a_handout_and_every_one_is_folded_in_the_page(pages):
    for lesson in LESSONS:
        page, empty, answered = (pages[1][f"{lesson.stem}{kind}.html"] for kind in ("", "-handout", "-answers"))
        folded = "".join(re.findall(r'<details class="reveal">.*?</details>', page, re.DOTALL))
        open_cells = re.sub(r'<details class="reveal">.*?</details>', "", page, flags=re.DOTALL)
        shown = re.compile('<img |class="[^"]*output_stream')
        assert len(shown.findall(folded)) + len(shown.findall(open_cells)) == len(shown.findall(answered))
        assert len(shown.findall(empty)) == len(shown.findall(open_cells))
        explained = re.findall(r"<p>([^<]{30,60})", folded)
        assert folded.count("<p>") >= folded.count("<details")
        assert len(explained) >= 4
        for text in explained:
            assert text in answered
            assert text not in empty + open_cells, text


@pytest.fixture(scope="module")
def with_address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("address")
    done = CliRunner().invoke(app, ["lessons", "export", "--to", str(folder), "--live-page", ADDRESS])
    assert done.exit_code == 0, done.output
    return folder


def test_a_handout_has_the_qr_code_of_the_live_page(with_address, page):
    """Drawn by a browser, sampled module by module, and held against the standard's matrix."""
    wanted = segno.make(ADDRESS, micro=False)
    for ending, there in {"": 0, "-handout": 1, "-answers": 1}.items():
        page.goto((with_address / f"00_the_whole_trip{ending}.html").as_uri())
        image = page.get_by_alt_text(f"QR code of {ADDRESS}")
        assert image.count() == page.get_by_role("link", name=ADDRESS).count() == there
    drawn = np.asarray(Image.open(BytesIO(image.screenshot())).convert("L"))
    side = wanted.symbol_size()[0]
    middles = ((np.arange(side) + 0.5) * len(drawn) / side).astype(int)
    assert np.array_equal(drawn[np.ix_(middles, middles)] < 128, np.array([*wanted.matrix_iter(border=4)], bool))


@pytest.mark.parametrize(("address", "said"), [("localhost:8000", "begins with http"), ("https://" + "a" * 4000, "too large|does not fit")])
def test_an_address_that_is_none_is_refused_before_a_file_is_written(tmp_path, address, said):
    with pytest.raises(ValueError, match=said):
        next(export(tmp_path, address))
    assert not [*tmp_path.iterdir()]


def test_only_its_own_files_are_written_anew(pages, tmp_path):
    taken = tmp_path / "03_latents-handout.html"
    taken.write_text("<title>mine</title>")
    made = CliRunner().invoke(app, ["lessons", "export", "--to", str(tmp_path)])
    assert isinstance(made.exception, ValueError)
    assert str(taken) in str(made.exception)
    assert [file.name for file in tmp_path.iterdir()] == [taken.name]
    assert taken.read_text() == "<title>mine</title>"
    folder = pages[0]
    (folder / "mine.html").write_text("mine")
    first = next(export(folder))
    assert first.read_text("utf-8") == pages[1][first.name]
    assert (folder / "mine.html").read_text() == "mine"


def test_a_folder_that_cannot_be_one_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    made = CliRunner().invoke(app, ["lessons", "export", "--to", str(tmp_path / "file")])
    assert made.exit_code == 2
    assert "cannot write" in made.output


@pytest.mark.parametrize(
    "name", ["index", "02_text_vectors", "04_noise-handout", "06_guidance_and_samplers-handout", "07_cross_attention-answers"]
)
def test_a_browser_shows_and_prints_them_alone_and_everyone_can_read_them(pages, page, tmp_path, name):
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((pages[0] / f"{name}.html").as_uri())
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(heading => +heading.tagName[1])")
    assert levels[0] == 1
    assert all(lower - upper <= 1 for upper, lower in pairwise(levels))
    for formula in page.locator("math").all():
        box = formula.bounding_box()
        assert box["width"] > 8
        assert box["height"] > 8
    page.emulate_media(media="print")
    assert page.locator(".room div, .answer").count() == page.locator(".room div:visible, .answer:visible").count()
    assert page.locator("img, .room, .answer").evaluate_all("all => all.every(one => getComputedStyle(one).breakInside === 'avoid')")
    assert page.pdf(path=tmp_path / "page.pdf").startswith(b"%PDF")
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert complaints == []
    page.emulate_media(media="screen")
    found = [fault for fault in Axe().run(page).response["violations"] if fault["impact"] in ("serious", "critical")]
    assert [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found] == []
