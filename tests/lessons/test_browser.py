"""What a newcomer sees: the lessons in JupyterLab, and as pages, in a real browser without a network."""

import contextlib
import json
import re
import time
from itertools import pairwise
from urllib.parse import urlparse
from urllib.request import ProxyHandler, Request, build_opener

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from conftest import ROOT, free_port, serving

LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))
TOKEN = "let-me-in"
BOOK = "window.jupyterapp?.shell.currentWidget"
CELLS = f"""[...{BOOK}.content.model.cells].filter(cell => cell.type === 'code')
            .map(cell => [cell.executionCount, cell.outputs.toJSON().map(output => output.output_type)])"""
LOCAL = {"mathjax_url": "", "require_js_url": "", "jquery_url": ""}  # an exported page would load these from elsewhere
THEIRS = ".highlight, .jp-InputPrompt, .jp-OutputPrompt"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of the JupyterLab of `sdteach lab`."""
    port, direct = free_port(), build_opener(ProxyHandler({}))
    address = f"http://127.0.0.1:{port}"
    options = [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"]
    with serving(tmp_path_factory.mktemp("lab"), "lab", "mine", "--no-browser", "--allow-root", *options) as (server, log):
        for _ in range(300):
            assert server.poll() is None, log.read_text()
            try:
                direct.open(f"{address}/api", timeout=2).close()
                break
            except OSError:
                time.sleep(0.3)
        else:
            pytest.fail(log.read_text())
        yield address
        ask = Request(f"{address}/api/shutdown", method="POST", headers={"Authorization": f"token {TOKEN}"})
        with contextlib.suppress(ConnectionError):  # it may be gone before it answers
            direct.open(ask, timeout=30).close()
        assert server.wait(60) == 0, log.read_text()  # the command ends well when JupyterLab is shut down


@pytest.fixture
def opened(lab, page):
    """Open a lesson in JupyterLab -> its page. Until the end it may ask nobody else for anything, nor bother or complain."""
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda connection: asked.append(connection.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))

    def open_lesson(name):
        page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}")
        page.wait_for_function(f"{BOOK}?.sessionContext?.session?.kernel?.status === 'idle'")

    yield open_lesson
    assert complaints == []
    assert page.locator(".Toastify__toast, .jp-Dialog").count() == 0  # such as "Would you like to get notified about news?"
    assert len(asked) > 50
    assert [url for url in asked if urlparse(url).scheme not in ("data", "blob") and urlparse(url).hostname != "127.0.0.1"] == []


def run_all(page):
    """Run > Run All Cells, as a newcomer does, with nothing left of the outputs that the lesson came with."""
    page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    assert page.evaluate(CELLS) == [[None, []]] * len(page.evaluate(CELLS))
    page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells$")).click()
    done = "cells.every(cell => cell[0]) || cells.some(cell => cell[1].includes('error'))"
    page.wait_for_function(f"(cells => {done})({CELLS})", timeout=180_000)
    ran = page.evaluate(CELLS)
    assert [count for count, _ in ran] == [*range(1, len(ran) + 1)]
    assert not [kinds for _, kinds in ran if "error" in kinds]


def explorer_of(page, code):
    """The live explorer beneath the cell with `code`, in sight."""
    cell = page.locator(".jp-CodeCell", has=page.locator(".jp-InputArea", has_text=code))
    explorer = cell.locator(".jp-OutputArea .jupyter-widgets").first
    explorer.scroll_into_view_if_needed()
    return explorer


def step_of(explorer):
    """The step on the slider, once the picture shows the same."""
    readout = explorer.locator(".widget-readout")
    readout.scroll_into_view_if_needed()  # JupyterLab renders what is in view
    step = int(readout.inner_text())
    expect(explorer.locator("img")).to_have_attribute("alt", re.compile(f"^step {step} of 25,"))
    return step


def uploaded(lab, name, book):
    body, headers = json.dumps({"type": "notebook", "content": book}).encode(), {"Authorization": f"token {TOKEN}"}
    build_opener(ProxyHandler({})).open(Request(f"{lab}/api/contents/{name}.ipynb", body, headers, method="PUT")).close()


@pytest.mark.parametrize("name", ["03_latents", "before_and_after"])
def test_a_copy_of_the_lessons_answers_nothing_before_it_is_run(opened, page, name):
    opened(name)
    assert len(page.evaluate(CELLS)) > 10
    assert page.evaluate(CELLS) == [[None, []]] * len(page.evaluate(CELLS))


@pytest.mark.fault(12)
def test_a_lesson_that_nobody_ran_or_trusts_shows_all_its_pictures(lab, opened, page):
    uploaded(lab, "as-it-ships", nbformat.read(ROOT / "lessons" / "03_latents.ipynb", 4))
    opened("as-it-ships")
    assert page.evaluate(f"[...{BOOK}.content.model.cells].every(cell => !cell.trusted)")
    shown = page.locator(".jp-OutputArea img")
    shipped = re.findall("<img alt", (ROOT / "lessons" / "03_latents.ipynb").read_text("utf-8").replace("\\", ""))
    expect(shown).to_have_count(len(shipped))
    assert shown.evaluate_all("all => all.every(img => img.complete && img.alt.length > 8 && img.naturalWidth > 100)")
    static = page.locator(".jp-CodeCell", has=page.locator(".jp-InputArea", has_text="widgets.vae_explorer")).locator(".jp-OutputArea img")
    static.scroll_into_view_if_needed()
    expect(static).to_be_visible()
    assert page.locator(".jp-OutputArea .jupyter-widgets").count() == 0


def test_lesson_00_runs_and_its_slider_and_play_button_move_the_picture(opened, page):
    opened("00_the_whole_trip")
    run_all(page)
    explorer = explorer_of(page, "run_scrubber")
    picture, handle, rail = explorer.locator("img"), explorer.locator(".noUi-handle"), explorer.locator(".noUi-base")
    assert step_of(explorer) == 1
    first, start, way = picture.get_attribute("src"), handle.bounding_box(), rail.bounding_box()
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(way["x"] + way["width"] / 2, start["y"] + start["height"] / 2, steps=7)
    page.mouse.up()
    page.wait_for_timeout(300)
    dragged, middle = step_of(explorer), picture.get_attribute("src")
    assert 12 <= dragged <= 15
    assert middle != first
    handle.press("ArrowRight")
    expect(explorer.locator(".widget-readout")).to_have_text(str(dragged + 1))
    assert step_of(explorer) == dragged + 1
    assert picture.get_attribute("src") not in (first, middle)
    expect(explorer.get_by_role("slider", name="step")).to_have_attribute("aria-valuetext", str(dragged + 1))
    explorer.get_by_role("button", name="Play").click()
    later = "|".join(map(str, range(dragged + 4, 26)))
    expect(picture).to_have_attribute("alt", re.compile(f"^step ({later}) of 25,"))


def test_what_is_typed_into_the_token_explorer_becomes_chips_and_never_markup(opened, page):
    opened("01_tokens")
    run_all(page)
    explorer = explorer_of(page, "token_explorer")
    field, picture = explorer.locator("input[type=text]"), explorer.locator("img")
    expect(picture).to_have_attribute("alt", re.compile("^9 tokens: start 49406, a 320, red 736"))
    field.fill("")
    field.press_sequentially("a blue boat")
    expect(picture).to_have_attribute("alt", re.compile(r"^5 tokens: start 49406, a \d+, blue \d+, boat \d+, end"))
    markup = "<script>alert(1)</script> '\"><img src=x onerror=alert(1)> fish"
    for typed, alt, note in ((markup, "script.*img.*fish", "fish"), ("red " * 80 + markup, "^77 tokens", "dropped: .*<img src=x")):
        field.fill(typed)
        expect(picture).to_have_attribute("alt", re.compile(alt))
        expect(explorer).to_contain_text(re.compile(note))
        page.wait_for_timeout(300)  # for an alert, which would be a complaint
        assert page.locator(".jp-OutputArea script, .jp-OutputArea img[src=x]").count() == 0


PAINTED = """
import time
from dataclasses import replace
import numpy as np, sdteach
from sdteach import widgets
trace = sdteach.generate(sdteach.load_model(device="cpu"), "a red car", steps=2)
def paint(mask):
    time.sleep(1)
    if not mask.any():
        raise ValueError("expected <b>some</b> region")
    return replace(trace, pixels=np.where(mask[..., None], 255 - trace.pixels, trace.pixels))
widgets.region_explorer(trace, paint, (32, 32, 96, 96))
"""


def test_a_region_is_chosen_by_keyboard_and_painted_by_its_button(lab, opened, page):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PAINTED)], metadata=kernel)
    uploaded(lab, "region", book)
    opened("region")
    run_all(page)
    explorer = explorer_of(page, "region_explorer")
    picture, button = explorer.locator("img"), explorer.get_by_role("button", name="Paint")
    expect(picture).to_have_attribute("alt", re.compile("from 32 to 96 across and 32 to 96 down$"))
    handles = explorer.locator(".noUi-handle:visible")
    explorer.get_by_role("slider", name="across, to").press("ArrowRight")
    expect(picture).to_have_attribute("alt", re.compile("from 32 to 104 across and 32 to 96 down$"))
    button.press("Enter")
    expect(button).to_have_text("Painting …")
    expect(button).to_be_disabled()
    expect(picture).to_have_attribute("alt", re.compile("after: 0 of [0-9,]+ pixels outside have changed$"))
    expect(button).to_have_text("Paint")
    expect(button).to_be_enabled()
    explorer.get_by_role("radio", name="word").click()
    explorer.get_by_role("radio", name="car", exact=True).click()
    expect(picture).to_have_attribute("alt", re.compile("after, of the region before this one: 0 of"))
    explorer.get_by_role("radio", name="box").click()
    for _ in range(9):
        handles.nth(1).press("ArrowLeft")
    expect(picture).to_have_attribute("alt", re.compile("0% of the picture, nowhere"))
    button.click()
    expect(explorer.get_by_role("alert")).to_have_text("expected <b>some</b> region")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
@pytest.mark.fault(12)
def test_a_lesson_as_a_page_can_be_read_by_everyone(page, tmp_path, path, scheme):
    page.emulate_media(color_scheme=scheme)
    (tmp_path / "page.html").write_text(HTMLExporter(theme=scheme, **LOCAL).from_filename(path)[0], "utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("html").get_attribute("lang") == "en"
    levels = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all("all => all.map(heading => +heading.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(lower - upper <= 1 for upper, lower in pairwise(levels))
    told = page.locator("img").evaluate_all("all => all.map(img => img.naturalWidth && img.alt)")
    assert len(told) >= 5
    assert all(alt and not alt.startswith("No description") for alt in told)  # what nbconvert writes where there is none
    assert faults(page, {"runOnly": {"type": "rule", "values": ["color-contrast"]}} if scheme == "dark" else {}) == []  # else the same


def faults(page, rules):
    """What axe finds serious or critical. One rule is set aside: the contrast of code and its numbers, nbconvert's own colours."""
    response = Axe().run(page, options={"resultTypes": ["violations"]} | rules).response
    found = [violation for violation in response["violations"] if violation["impact"] in ("serious", "critical")]
    nodes = [(violation["id"], node["target"][0], node["html"][:200]) for violation in found for node in violation["nodes"]]
    theirs = f"node => node.closest('{THEIRS}')"
    return [(rule, html) for rule, where, html in nodes if rule != "color-contrast" or not page.eval_on_selector(where, theirs)]
