"""What a newcomer sees: the lessons in JupyterLab, and as pages, in a real browser without a network."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError
from urllib.parse import urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from conftest import ROOT

LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser_type_launch_args():
    if BROWSER is None and not os.environ.get("CI"):
        pytest.skip("expected a browser, found no chromium or google-chrome; install chromium")
    return {"executable_path": BROWSER, "args": ["--no-sandbox"]}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that `sdteach lab` started, in an empty home without a network."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG", "SDTEACH"))}
    command = [sys.executable, "-c", "from sdteach.cli import main; main()", "lab", "mine", "--no-browser", "--allow-root",
               f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
               "--LabApp.expose_app_in_browser=True"]  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=kept | {"HOME": str(folder), "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        assert server.poll() is None, (folder / "log").read_text()
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2).close()
            break
        except (URLError, TimeoutError):
            time.sleep(0.3)
    yield address
    server.terminate()
    server.wait(30)


@pytest.fixture
def page(page):
    """A page that may speak to this machine only, and notes whom else it would have asked."""
    page.strangers = []

    def only_here(route):
        address = urlparse(route.request.url)
        if address.scheme in ("file", "data", "blob") or address.hostname in ("127.0.0.1", "localhost"):
            route.continue_()
        else:
            page.strangers.append(route.request.url)
            route.abort()

    page.route("**", only_here)
    page.set_default_timeout(60_000)
    page.set_viewport_size({"width": 1400, "height": 1000})
    return page


def opened(page, lab, lesson):
    page.goto(f"{lab}/lab/workspaces/{lesson}/tree/{lesson}.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-OutputArea img")
    return page


def run_all(page):
    """Run > Run All Cells, until all have run; what they printed as errors must be nothing."""
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    ran = page.evaluate("""[...window.jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type === 'code')
                           .map(cell => [cell.executionCount, cell.outputs.toJSON().filter(out => out.output_type === 'error').length])""")
    assert ran == [[number + 1, 0] for number in range(len(ran))]


def scrolled_to(page, code):
    """The explorer that the cell with `code` shows; JupyterLab draws only what is in sight."""
    page.evaluate("""code => { const book = window.jupyterapp.shell.currentWidget.content;
                              book.activeCellIndex = [...book.model.cells].findIndex(cell => cell.sharedModel.source.includes(code));
                              return book.scrollToItem(book.activeCellIndex, 'start'); }""", code)  # fmt: skip
    explorer = page.locator(".jp-mod-active .jp-OutputArea .jupyter-widgets").filter(has=page.locator("img")).first
    explorer.scroll_into_view_if_needed()
    return explorer


def test_a_lesson_that_nobody_ran_shows_its_pictures(page, lab):
    opened(page, lab, "03_latents")
    shown = page.eval_on_selector_all(".jp-OutputArea img", "all => all.map(img => [img.alt, img.naturalWidth])")
    assert len(shown) >= 3  # more come while scrolling
    assert all(len(alt) > 8 and width > 100 for alt, width in shown)
    assert page.strangers == []


def test_all_of_lesson_00_runs_and_the_scrubber_moves_the_picture(page, lab):
    opened(page, lab, "00_the_whole_trip")
    run_all(page)
    explorer = scrolled_to(page, "run_scrubber")
    picture, handle = explorer.locator("img"), explorer.locator(".noUi-handle")
    expect(picture).to_have_attribute("alt", re.compile("^step 1 of 26"))
    before, box, rail = picture.get_attribute("src"), handle.bounding_box(), explorer.locator(".noUi-base").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(rail["x"] + rail["width"] / 2, box["y"] + box["height"] / 2, steps=7)
    page.mouse.up()
    step = int(explorer.locator(".widget-readout").first.inner_text())
    assert 8 <= step <= 19
    expect(picture).to_have_attribute("alt", re.compile(f"^step {step} of 26"))
    assert picture.get_attribute("src") != before
    explorer.get_by_role("button").first.click()
    expect(picture).not_to_have_attribute("alt", re.compile(f"^step {step} of 26"))
    assert page.strangers == []


def test_what_is_typed_into_the_token_explorer_becomes_chips_and_never_script(page, lab):
    opened(page, lab, "01_tokens")
    run_all(page)
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    explorer = scrolled_to(page, "token_explorer")
    explorer.locator("input[type=text]").fill("a blue <script>alert(1)</script> fish")
    expect(explorer.locator("img")).to_have_attribute("alt", re.compile("script.*fish"))
    assert page.locator(".jp-OutputArea script").count() == 0
    assert dialogs == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_a_lesson_as_a_page_can_be_read_by_everyone(page, tmp_path, path, scheme):
    exporter = HTMLExporter(theme=scheme, mathjax_url="", require_js_url="", jquery_url="")
    (tmp_path / "page.html").write_text(exporter.from_filename(path)[0], "utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("h1").count() == 1
    assert page.eval_on_selector_all("img", "all => all.every(img => img.alt && img.naturalWidth)")
    # The colours of code and of its prompts are Jupyter's own.
    ours = {"exclude": [[".jp-InputArea"], [".jp-OutputPrompt"]]}
    found = [violation for violation in Axe().run(page, ours).response["violations"] if violation["impact"] in ("serious", "critical")]
    assert not found, [(violation["id"], [node["html"][:200] for node in violation["nodes"][:3]]) for violation in found]
