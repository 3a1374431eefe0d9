"""The projector app: a run grows on the page, stops when it is told to, and stays on this machine."""

import asyncio
import base64
import re
import subprocess
import warnings
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from typer.testing import CliRunner

import sdteach
from sdteach.cli import app, teaching
from sdteach.collecting import with_previews
from sdteach.pipeline import unfold
from sdteach.player import to_html
from sdteach.plots import heat_maps, heated
from sdteach.trace import Trace
from sdteach.vae import preview
from sdteach.widgets import Demo

from conftest import ROOT, kernels_of

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> car"
NOTEBOOK = ROOT / "lessons" / "demo.ipynb"


@pytest.mark.parametrize("scheduler", [None, "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"])
def test_a_run_that_unfolds_ends_as_the_run_that_is_generated_and_begins_as_the_one_that_is_stopped(random_model, tmp_path, scheduler):
    options = dict(steps=3, seed=5, height=104, width=136, negative_prompt="snow", scheduler=scheduler)
    grown = [*unfold(random_model, "a red car", **options)]
    whole = with_previews(random_model, sdteach.generate(random_model, "a red car", **options))
    assert [len(trace.steps) for trace in grown] == [*range(1, len(whole.steps) + 1)]
    assert [trace.complete for trace in grown] == [False] * (len(grown) - 1) + [True]
    for name, trace in (("last", grown[-1]), ("whole", whole), ("first", grown[0])):
        trace.save(tmp_path / name)
        Trace.load(tmp_path / name)
    assert (tmp_path / "last").read_bytes() == (tmp_path / "whole").read_bytes()
    assert np.array_equal(grown[0].pixels, whole.steps[0].preview)


def test_a_large_run_unfolds_with_fitted_colours(random_model, tmp_path):
    first, last = unfold(random_model, "a red car", steps=2, height=136, width=264, scheduler="DDIMScheduler")
    assert first.pixels.shape == last.pixels.shape == (136, 264, 3)
    assert [step.preview.shape for step in last.steps] == [(17, 33, 3)] * 2
    assert np.array_equal(first.steps[0].preview, preview(random_model, first.steps[0].predicted_x0))
    whole = sdteach.generate(random_model, "a red car", steps=2, height=136, width=264, scheduler="DDIMScheduler")
    assert np.array_equal(last.pixels, whole.pixels)
    for trace in (first, last):
        trace.save(tmp_path / "run")
        assert Trace.load(tmp_path / "run").complete is trace.complete


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1001}, {"seed": -1}, {"guidance_scale": 101.0}, {"height": 63}])
def test_unfolding_refuses_what_generate_refuses_before_the_first_step(random_model, wrong):
    with pytest.raises(ValueError, match=f"expected {next(iter(wrong))}"):
        unfold(random_model, "a red car", **wrong)


def test_heated_pixels_are_those_of_the_figure():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    for heat, colour in ((np.zeros((3, 5), np.float32), (0, 0, 4)), (np.ones((3, 5), np.float32), (252, 255, 164))):
        expected = 0.28 * pixels.mean(2, keepdims=True) + 0.72 * np.array(colour)
        assert np.abs(heated(pixels, heat) - expected).max() <= 1.2
    assert heat_maps([pixels], [heat], ["ones"]).get_label()


@pytest.fixture(scope="module")
def tiny(model):
    """Unfolds short runs quickly."""
    return partial(unfold, model)


def settled(demo, *changes):
    """Paint, and do each change in its turn while steps are made."""

    async def act():
        painting = asyncio.ensure_future(demo.paint())
        for change in changes:
            seen = len(demo.trace.steps) if demo.trace else 0
            while not painting.done() and (demo.trace is None or len(demo.trace.steps) == seen):
                await asyncio.sleep(0.001)
            change()
        await painting

    asyncio.run(act())


def test_a_run_is_painted_step_by_step_and_its_page_can_be_saved(tiny):
    demo = Demo(tiny, "a red car", steps=3, seed=23)
    shown = []
    demo.picture.observe(lambda change: shown.append(change["new"]), "value")
    settled(demo)
    assert demo.trace.complete
    assert [f"step {step}" in text for step, text in enumerate(shown[:3], 1)] == [True] * 3
    saved = base64.b64decode(demo.page.value.split("base64,")[1].split('"')[0]).decode()
    assert saved == to_html(demo.trace)
    demo.word.value, demo.step.value = "car", 1
    assert "where “car” is read" in demo.picture.value
    assert f"step 1 of {len(demo.trace.steps)}" in demo.picture.value
    assert demo._repr_mimebundle_()["text/html"] == demo.picture.value


def test_stop_leaves_a_run_that_is_whole_as_far_as_it_goes_and_the_next_run_is_clean(tiny, tmp_path):
    demo = Demo(tiny, "a red car", steps=30, seed=1)
    settled(demo, demo.stop)
    assert 1 <= len(demo.trace.steps) < 10
    assert not demo.trace.complete
    assert "stopped early" in demo.picture.value
    assert demo.button.description == "Paint"
    demo.trace.save(tmp_path / "stopped.safetensors")
    assert Trace.load(tmp_path / "stopped.safetensors").steps[-1].preview is not None
    demo.steps.value = 2
    settled(demo)
    assert demo.trace.complete


def test_two_runs_stand_side_by_side_and_both_are_in_the_page(tiny):
    demo = Demo(tiny, "a red car", steps=2)
    settled(demo)
    first = demo.trace
    demo.keep.value, demo.prompt.value, demo.steps.value = True, "a blue boat at night", 5
    settled(demo)
    assert demo.picture.value.count("<section>") == 2
    assert demo.kept is first
    assert "Two runs, step by step" in base64.b64decode(demo.page.value.split("base64,")[1].split('"')[0]).decode()
    demo.step.value = 1
    assert f"step 1 of {len(first.steps)} " in demo.picture.value
    demo.keep.value = False
    assert demo.picture.value.count("<section>") == 1


def test_mistakes_and_notes_are_told_in_the_page_and_nothing_of_what_is_typed_becomes_markup(tiny):
    demo = Demo(tiny, steps=100_000)
    settled(demo)
    assert "expected steps to be a whole number" in demo.said.value
    assert 'role="alert"' in demo.said.value
    assert demo.trace is None
    assert demo.keep.disabled
    demo.steps.value, demo.prompt.value = 1, HOSTILE + " zzyzx" * 80
    settled(demo)
    assert "dropped" in demo.said.value or "cut" in demo.said.value
    assert "<summary>words it knows</summary>" in demo.said.value
    demo.keep.value = True
    demo.prompt.value = HOSTILE
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are told in the page, not in the log
        settled(demo)
    for html in (demo.said.value, demo.picture.value):
        assert "<script" not in html
        assert "<img src=x" not in html
    assert "&lt;script&gt;" in demo.picture.value


def test_a_prompt_without_words_offers_none(tiny):
    demo = Demo(tiny, "", steps=1)
    settled(demo)
    assert demo.word.options == ()
    assert "is read" not in demo.picture.value
    assert "the picture" in demo.picture.value


def test_without_voila_or_with_a_model_that_is_not_there_the_command_says_what_to_do(monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "call", lambda *given, **env: calls.append((given[0], env["env"])) or 0)
    made = CliRunner().invoke(app, ["demo", "--model", "no/such/folder"])
    assert isinstance(made.exception, ValueError)
    assert calls == []
    assert CliRunner().invoke(app, ["demo", "--port", "9000", "--no-browser"]).exit_code == 0
    command, environment = calls.pop()
    assert command[1:4] == ["-m", "sdteach.classroom.projector", str(NOTEBOOK)]
    assert {"--port=9000", "--no-browser"} <= {*command}
    assert str(teaching.JUPYTER) in environment["JUPYTER_PATH"]
    monkeypatch.setattr(teaching, "find_spec", lambda name: None)
    made = CliRunner().invoke(app, ["demo"])
    assert "pip install 'sdteach[classroom]'" in str(made.exception)
    assert calls == []


@pytest.fixture
def opened(served, page):
    """The app on a small projector. Until the end it may ask nobody else for anything, nor complain."""
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda connection: asked.append(connection.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(served[0])
    yield page
    assert complaints == []
    assert len(asked) > 10
    assert {urlparse(url).hostname for url in asked if urlparse(url).scheme not in ("data", "blob")} == {"127.0.0.1"}


def test_by_keyboard_alone_a_run_is_painted_stopped_looked_at_and_saved(opened):
    prompt, button, told = opened.get_by_label("prompt"), opened.locator("button.paint"), opened.locator(".runs p")
    prompt.fill("a red car <img src=x>")
    opened.get_by_label("steps").fill("60")
    prompt.press("Enter")
    expect(button).to_have_text("Stop")
    expect(told).to_have_text(re.compile("^step [3-9]"))
    button.press("Enter")
    expect(button).to_have_text("Paint")
    expect(told).to_have_text(re.compile(r"^step (\d+) of \1, stopped early"))
    assert int(re.search(r"step (\d+)", told.inner_text())[1]) < 50
    with opened.expect_download() as saved:
        opened.get_by_role("link", name="Save the page").press("Enter")
    text = Path(saved.value.path()).read_text("utf-8")
    assert "stopped early" in text
    assert "<img src=x" not in text
    opened.locator(".noUi-handle").press("Home")
    expect(told).to_have_text(re.compile("^step 1 of"))
    opened.get_by_role("radio", name="car", exact=True).press("Space")
    expect(opened.locator("figcaption").last).to_have_text("where “car” is read")
    assert opened.locator("img[src=x]").count() == 0


def test_two_runs_fit_on_a_small_projector_for_everyone_and_a_page_that_is_left_takes_its_model_along(served, opened):
    prompt, steps, button = opened.get_by_label("prompt"), opened.get_by_label("steps"), opened.locator("button.paint")
    steps.fill("2")
    for seed in ("1", "2"):
        opened.get_by_label("seed").fill(seed)
        prompt.press("Enter")
        expect(opened.get_by_role("link", name="Save the page")).to_be_visible()
        if seed == "1":
            opened.get_by_role("button", name="Keep to compare").press("Enter")
    expect(opened.locator(".runs section")).to_have_count(2)
    expect(button).to_have_text("Paint")
    assert opened.evaluate("document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth")
    found = [fault for fault in Axe().run(opened).response["violations"] if fault["impact"] in ("serious", "critical")]
    assert [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found] == []
    steps.fill("0")
    prompt.press("Enter")
    expect(opened.get_by_role("alert")).to_contain_text("expected steps")
    before = kernels_of(served[1])
    opened.reload()
    expect(opened.get_by_label("prompt")).to_be_visible()
    opened.wait_for_timeout(1000)
    after = kernels_of(served[1])
    assert len(before - after) == len(after - before) == 1
