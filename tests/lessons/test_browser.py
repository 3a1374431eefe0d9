"""What a newcomer sees: the lessons in JupyterLab, and as pages, in a real browser without a network."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from urllib.error import URLError
from urllib.parse import urlparse

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbconvert import HTMLExporter
from playwright.sync_api import expect, sync_playwright

from conftest import ROOT

LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Chromium's sandbox does not start for root, and the pages are our own. To it no other machine has an address.
OPTIONS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
TOKEN = "let-me-in"


@pytest.fixture(scope="module")
def browser():
    """Chromium, for this module only: meanwhile an event loop runs in this thread, which other tests would stumble over."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"no browser: install one of {', '.join(BROWSERS)}, or say where it is in $CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of the JupyterLab of `sdteach lab`, in an empty home, where to reach for the network is an error."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", folder / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG", "SDTEACH"))}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "offline")])
    command = [sys.executable, "-c", "from sdteach.cli import main; main()", "lab", "mine", "--no-browser", "--allow-root",
               f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
               "--LabApp.expose_app_in_browser=True"]  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(
            command, cwd=folder, env=kept | {"HOME": str(folder), "PYTHONPATH": paths}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        for _ in range(300):
            assert server.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()
                break
            except (URLError, TimeoutError):
                time.sleep(0.3)
        yield address
        ask = urllib.request.Request(f"{address}/api/shutdown", method="POST", headers={"Authorization": f"token {TOKEN}"})
        urllib.request.urlopen(ask, timeout=30).close()
        assert server.wait(60) == 0  # the command ends well when JupyterLab is shut down
        assert "network access attempted" not in log.read_text()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


@pytest.fixture
def opened(lab, page):
    """Open a lesson in JupyterLab -> its page, which may ask nobody but this machine for anything."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda connection: asked.append(connection.url))
    page.on("pageerror", lambda error: print("PAGEERROR", error))
    page.on("console", lambda m: print("CONSOLE", m.type, m.text[:300]))

    def open_lesson(name):
        page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
        return page

    yield open_lesson
    assert len(asked) > 50
    assert [url for url in asked if urlparse(url).scheme not in ("data", "blob") and urlparse(url).hostname != "127.0.0.1"] == []


def test_probe(opened):
    page = opened("00_the_whole_trip")
    print(page.evaluate("[...window.jupyterapp.shell.currentWidget.content.model.cells].map(c=>[c.type,c.trusted])"))
    print(page.evaluate("[...document.querySelectorAll('.jp-OutputArea img')].map(i=>[i.alt.slice(0,30),i.naturalWidth])"))
    print(page.evaluate("[...document.querySelectorAll('.jp-Dialog, .jp-toast, .Toastify')].map(i=>i.innerText)"))
    page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells")).first.click()
    page.wait_for_timeout(30000)
    explorer = page.locator(".jp-OutputArea .jupyter-widgets").filter(has=page.locator("img")).first
    explorer.scroll_into_view_if_needed()
    page.screenshot(path="/tmp/bt/lab.png")
    print(explorer.evaluate("e=>e.outerHTML.replace(/base64,[^\"]*/,'...')"))
    page.evaluate("document.querySelectorAll('.jp-OutputArea .jupyter-widgets')[0].id='probe'")
    for v in Axe().run(page, "#probe").response["violations"]:
        print(v["id"], v["impact"], [n["html"][:150] for n in v["nodes"]])
