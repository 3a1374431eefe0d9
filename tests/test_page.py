"""The live page: it computes in a browser what the kit computes here, needs nobody, and is for everyone."""

import functools
import os
import re
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import diffusers
import numpy as np
import onnx
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from filelock import FileLock
from onnx.reference import ReferenceEvaluator
from playwright.sync_api import expect
from torch import nn
from typer.testing import CliRunner

import sdteach
from sdteach.cli import app
from sdteach.page import folder, packages, write
from sdteach.page.export import to_onnx

from conftest import ROOT, SCHEDULE

SAMPLERS = ("DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler")
STAGES = ("words", "vectors", "noise", "reading", "guidance", "steps", "picture")
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> car"
TEXTS = ("a red car below a yellow star", "A  Red CAR, (below) the star's x-ray!", "", "   ", "über naïve İstanbul ñ", "日本語 の car",
         "👩‍👩‍👧 🇩🇪 ok ❤️", "<|endoftext|> a car", "a red car " * 40, "snake_case мир-труд", "tab\tnew\nline",
         "I'll we're 123", HOSTILE)  # fmt: skip
FAR = {"text": 1e-5, "latents": 1e-3, "noise": 5e-3, "predicted_x0": 1e-3, "attention": 2e-4}  # the stated tolerance, in units of each
PIXELS = 2  # of 255, of the decoded picture


@pytest.fixture(scope="module")
def site(model, tmp_path_factory):
    """The folder of the embedded checkpoint's page, written once for all workers."""
    there = tmp_path_factory.getbasetemp()
    there = (there.parent if os.environ.get("PYTEST_XDIST_WORKER") else there) / "site"
    with FileLock(f"{there}.lock"):
        if not (there / "service.js").is_file():  # what is written last
            try:
                write(model, there)
            except ValueError as error:
                missing = pytest.fail if os.environ.get("CI") else pytest.skip
                missing(str(error))
    return there


@pytest.fixture(scope="module")
def address(site):
    """Where a plain web server has the folder."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def modules(page, address):
    """A function: run JavaScript with the page's modules, without the page: `use(name)` gives a module."""
    page.goto(f"{address}model/checkpoint.json")
    return lambda script, *given: page.evaluate(f"async given => {{ const use = name => import(`/${{name}}.mjs`); {script} }}", [*given])


def test_the_noise_is_the_one_that_torch_draws(modules):
    wanted = [(seed, count) for seed in (0, 1, 23, 2**32 - 1) for count in (16, 17, 31, 324, 1024)]
    made = modules("const { randn } = await use('noise'); return given.map(([seed, count]) => [...randn(count, seed)]);", *wanted)
    for (seed, count), numbers in zip(wanted, made, strict=True):
        assert np.allclose(numbers, torch.randn(count, generator=torch.Generator().manual_seed(seed)), rtol=0, atol=2e-6)


def sampled(cls, steps, **config):
    """What a scheduler of diffusers makes of random outputs, and the settings that the page is told of it."""
    scheduler = cls(**SCHEDULE, **config)
    scheduler.set_timesteps(steps)
    draw = torch.Generator().manual_seed(steps)
    sample = torch.randn(40, generator=draw) * scheduler.init_noise_sigma
    told = {"name": cls.__name__, "steps": steps, "first": sample.tolist(), "velocity": config["prediction_type"] != "epsilon"}
    outputs, samples, seen = [], [], []
    for timestep in scheduler.timesteps:
        seen.append(scheduler.scale_model_input(sample, timestep).tolist())
        outputs.append(torch.randn(40, generator=draw).tolist())
        sample = scheduler.step(torch.tensor(outputs[-1]), timestep, sample, return_dict=False)[0]
        samples.append(sample.tolist())
    told |= {"config": folder.samplers(scheduler)[cls.__name__], "alphas_cumprod": scheduler.alphas_cumprod.tolist(), "outputs": outputs}
    return told, scheduler.timesteps.tolist(), float(scheduler.init_noise_sigma), seen, samples


def test_samplers_go_where_the_schedulers_of_diffusers_go(modules):
    runs = [
        sampled(getattr(diffusers, name), steps, prediction_type=kind, timestep_spacing=spacing, steps_offset=1, **more)
        for kind in ("epsilon", "v_prediction") for spacing in ("leading", "trailing", "linspace") for steps in (1, 2, 19, 25)
        for name, more in (
            ("DDIMScheduler", dict(clip_sample=steps == 19, set_alpha_to_one=steps == 2)), ("EulerDiscreteScheduler", {}),
            ("PNDMScheduler", dict(skip_prk_steps=True, set_alpha_to_one=steps == 2)),
        )
    ]  # fmt: skip
    made = modules(
        """const { samplers } = await use("samplers");
        return given.map(({ name, steps, first, velocity, config, alphas_cumprod, outputs }) => {
          const walk = samplers[name](steps, alphas_cumprod, config, velocity), seen = [], samples = [];
          let sample = Float32Array.from(first);
          for (const [index, output] of outputs.entries()) {
            seen.push([...walk.sees(sample, index)]);
            samples.push([...sample = walk.step(Float32Array.from(output), index, sample)]);
          }
          return [walk.timesteps, walk.first, seen, samples];
        });""",
        *(told for told, *_ in runs),
    )
    for (told, *wanted), got in zip(runs, made, strict=True):
        assert got[0] == wanted[0], told
        for ours, theirs in zip(got[1:], wanted[1:], strict=True):
            assert np.allclose(ours, theirs, rtol=2e-5, atol=5e-5), told


def test_tokens_are_those_of_the_kit(modules, model):
    script = """const { Tokens } = await use("tokens"), json = async name => (await fetch(`/model/${name}.json`)).json();
        const tokens = new Tokens(await json("tokenizer"), await json("checkpoint"));
        return given.map(text => tokens.of(text));"""
    for text, got in zip(TEXTS, modules(script, *TEXTS), strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)
            tokens = sdteach.tokenize(model, text)
        assert got["ids"] == tokens.ids.tolist()
        assert got["words"] == list(tokens.words)
        assert got["word_of"] == tokens.word_of[: tokens.end + 1].tolist()
        assert (got["end"], got["dropped"]) == (tokens.end, tokens.dropped)
        known = [word.lower() in model.vocabulary or not any(map(str.isalnum, word)) for word in tokens.words]
        assert got["unknown"] == list(dict.fromkeys(word for word, learned in zip(tokens.words, known, strict=True) if not learned))


RUN = """
const { denoise } = await use("denoise"), { loadNetworks } = await use("networks"), { Tokens, placesOf } = await use("tokens");
const { heatMap, lastQuarter, ranked } = await use("attention"), { cosines } = await use("vectors");
const json = async name => (await fetch(`/model/${name}.json`)).json();
const facts = await json("checkpoint"), tokens = new Tokens(await json("tokenizer"), facts);
const networks = await loadNetworks(facts, () => {}), made = [], [, height, width] = facts.latents;
const plain = value => ArrayBuffer.isView(value) ? [...value] : value?.constructor === Object
  ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)])) : value;
for (const settings of given) {
  const words = tokens.of(settings.prompt), groups = words.words.map((_, word) => placesOf(words, word)), steps = [];
  const text = await networks.read(words.table), negative = await networks.read(tokens.of(settings.negative_prompt).table);
  for await (const step of denoise(networks, facts, { ...settings, text, negative, end: words.end })) steps.push(step);
  const final = steps.at(-1).next_latents, { pixels } = await networks.decode(final), late = lastQuarter(steps);
  made.push({
    text: plain(text), pixels: plain(pixels), final: plain(final), steps: steps.map(plain),
    heat: groups.map(places => plain(heatMap(late, places, height, width))),
    early: plain(heatMap(steps.slice(0, 1), groups.at(-1), height, width)), cosines: cosines(text, groups, text.length / facts.places),
    ranked: ranked(late, [...groups, [words.end]], height, width, 37),
  });
}
return made;
"""


def near(got, wanted, most):
    """Every number, its place by its place."""
    assert np.abs(np.ravel(got) - np.ravel(wanted)).max() <= most


@pytest.mark.fault(9)
def test_a_run_in_the_browser_is_the_run_of_the_kit(modules, model):
    usual = dict(prompt="a red car below a yellow star", negative_prompt="", seed=23, steps=3, guidance_scale=7.5)
    runs = [dict(usual, sampler=sampler) for sampler in SAMPLERS]
    runs += [dict(usual, sampler="DDIMScheduler", guidance_scale=1.0), dict(usual, sampler="DDIMScheduler", negative_prompt="snow", seed=0)]
    for run, got in zip(runs, modules(RUN, *runs), strict=True):
        trace = sdteach.generate(model, scheduler=run["sampler"], **{name: value for name, value in run.items() if name != "sampler"})
        near(got["text"], trace.text, FAR["text"])
        assert len(got["steps"]) == len(trace.steps)
        for ours, theirs in zip(got["steps"], trace.steps, strict=True):
            assert ours["timestep"] == pytest.approx(theirs.timestep)
            near(ours["latents"], theirs.latents, FAR["latents"])
            for name in ("noise", "noise_text", *(["noise_uncond"] if theirs.noise_uncond is not None else [])):
                near(ours[name], getattr(theirs, name), FAR["noise"])
            near(ours["predicted_x0"], theirs.predicted_x0, FAR["predicted_x0"])
            assert list(ours["attention"]) == list(theirs.attention)
            for layer, maps in theirs.attention.items():
                near(ours["attention"][layer]["values"], maps, FAR["attention"])
        near(got["final"], trace.final_latents, FAR["latents"])
        near(np.reshape(got["pixels"], (trace.height, trace.width, 4))[..., :3], trace.pixels.astype(int), PIXELS)
        for word, heat in enumerate(got["heat"]):
            near(heat, trace.heat_map(word), 1e-3)
        near(got["early"], trace.heat_map(len(trace.tokens.words) - 1, [0]), 1e-3)
        near(got["cosines"], trace.word_cosines(), 1e-4)
        shares = [share for _, share in got["ranked"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-6)


# ---- the page itself


@pytest.fixture
def live(browser, address):
    """The page with a run of three steps painted on it; what it asked for, and what it complained of."""
    expect.set_options(timeout=120_000)
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page, asked, wrong = context.new_page(), [], []
    page.set_default_timeout(120_000)
    context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    expect(page.locator(".now")).to_contain_text("of 25")
    page.fill("[name=steps]", "3")
    page.keyboard.press("Tab")
    painted(page)
    yield page, asked, wrong
    context.close()
    expect.set_options(timeout=5_000)


def painted(page):
    expect(page.locator(".notes")).to_contain_text("Painted in")


def stages(page):
    for stage in STAGES:
        page.click(f".map [href='#{stage}']")
        yield stage


@pytest.mark.fault(2)
@pytest.mark.fault(13)
def test_the_page_asks_nobody_prompts_are_text_and_later_there_need_be_no_network(live, address):
    page, asked, wrong = live
    page.fill("[name=prompt]", HOSTILE)
    page.keyboard.press("Enter")
    expect(page.locator(".stop")).to_be_visible()
    painted(page)
    for stage in stages(page):
        assert page.locator("#stages img, #stages script").count() == 0, stage
    assert HOSTILE in page.inner_text("#stages pre")
    expect(page.locator(".notes")).to_contain_text("never read")
    assert page.evaluate("crossOriginIsolated")  # so that there are threads
    page.context.set_offline(True)
    page.reload()
    expect(page.locator(".now")).to_contain_text("of 25")
    assert asked
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    assert wrong == []


def test_everyone_can_use_the_page(live):
    page, _, wrong = live
    page.click(".map [href='#reading']")
    page.locator(".chip", has_text="car").click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for stage in stages(page):
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == [], (stage, scheme)
    for width in (1024, 375):
        page.set_viewport_size({"width": width, "height": 800})
        for stage in stages(page):
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (stage, width)
    link, lit = page.locator(".map [href='#vectors']"), page.locator(".map [aria-current]")
    link.press("Enter")
    expect(page.locator("h2")).to_have_text("Numbers become vectors")
    expect(link).to_be_focused()
    expect(lit).to_have_attribute("data-stage", "vectors")
    page.go_back()
    expect(lit).to_have_attribute("data-stage", "picture")
    page.evaluate("document.activeElement.blur()")
    for key, now in (("Home", "step 1 of 3"), ("ArrowRight", "step 2 of 3"), ("End", "the picture")):
        page.keyboard.press(key)
        expect(page.locator(".now")).to_contain_text(now)
    page.click(".map [href='#reading']")
    page.focus(".spot")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".spot")).to_have_attribute("aria-label", re.compile("47 % from the left, 53 % from the top: most read is .+"))
    assert wrong == []


def test_what_is_asked_of_a_run_is_shown(live):
    page, _, wrong = live
    page.click(".map [href='#reading']")
    page.locator(".chip", has_text="car").click()
    expect(page.locator(".main figcaption")).to_contain_text("where “car” was read")
    page.locator(".mask input").fill("50")
    expect(page.locator(".main figcaption")).to_contain_text("of the picture read “car” more than 50 %")
    page.locator(".spot").click(position={"x": 100, "y": 200})
    shares = [float(share.split()[0]) for share in page.locator(".ranking .share").all_inner_texts()]
    assert len(shares) == 8
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=4)
    page.click(".guide")
    said = []
    for number in range(1, 9):
        expect(page.locator(".tour .where")).to_have_text(f"{number} of 8")
        said.append(page.inner_text(".tour .says"))
        page.click(".tour .next")
    assert len({*said}) == 8
    expect(page.locator(".tour")).to_be_hidden()
    expect(page.locator(".guide")).to_be_focused()
    page.click(".beside")
    page.click(".other")
    expect(page.locator(".stop")).to_be_visible()
    painted(page)
    for _ in stages(page):
        expect(page.locator(".run")).to_have_count(2)
    seeds = page.locator(".run .facts b").all_inner_texts()
    assert len({*seeds}) == 2
    page.click(".beside")
    expect(page.locator(".run")).to_have_count(1)
    page.click(".map [href='#picture']")
    pictures = [page.locator("canvas.picture").evaluate("canvas => canvas.toDataURL()")]
    for name, value, told in (("negative_prompt", "snow", "--negative-prompt 'snow'"), ("sampler", "PNDMScheduler", "--scheduler PNDM"),
                              ("guidance_scale", "1", "--guidance-scale 1 ")):  # fmt: skip
        field = page.locator(f"[name={name}]")
        field.select_option(value) if name == "sampler" else field.fill(value)
        field.press("Tab")
        expect(page.locator("#stages pre")).to_contain_text(told)
        painted(page)
        pictures.append(page.locator("canvas.picture").evaluate("canvas => canvas.toDataURL()"))
    assert len({*pictures}) == 4
    page.fill("[name=steps]", "60")
    page.keyboard.press("Enter")
    expect(page.locator(".now")).to_contain_text("of 61")  # PNDM visits one time twice
    page.click(".stop")
    expect(page.locator(".notes")).to_have_text("Stopped.")
    assert wrong == []


# ---- the folder


def test_the_folder_is_small_and_tells_nothing_of_this_machine(site):
    files = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40_000_000
    for path in files:
        data = path.read_bytes()
        assert str(ROOT).encode() not in data, path
        assert str(Path(torch.__file__).parents[1]).encode() not in data, path


def test_halves_are_kept_as_halves_and_all_else_as_it_is():
    network = nn.Linear(8, 8)
    with torch.no_grad():
        network.weight.copy_(network.weight.half())
        network.bias.fill_(0.1)
    given = torch.randn(3, 8)
    data = to_onnx(network, lambda network, given: network(given), {"input": given}, ("output",), "input")
    kinds = {tuple(weight.dims): weight.data_type for weight in onnx.load_from_string(data).graph.initializer}
    assert kinds == {(8, 8): onnx.TensorProto.FLOAT16, (8,): onnx.TensorProto.FLOAT}
    output = ReferenceEvaluator(onnx.load_from_string(data)).run(None, {"input": given[:2].numpy()})[0]
    near(output, network(given[:2]).detach(), 1e-6)


def test_what_a_browser_cannot_run_is_refused_before_any_work(model, tmp_path):
    large = nn.Linear(100_000, 30_000, bias=False, device="meta")
    large.config = model.unet.config
    foreign = dict(thresholding=True, skip_prk_steps=False, use_karras_sigmas=True)
    refused = {
        "6,0.. MB of weights": replace(model, unet=large),
        "more than one": replace(model, text_encoder_2=model.text_encoder),
        "do not know": replace(model, scheduler=diffusers.DDIMScheduler.from_config({**model.scheduler.config, **foreign})),
    }
    for told, other in refused.items():
        with pytest.raises(ValueError, match=told):
            write(other, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_packages_are_the_pinned_ones_or_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="--packages"):
        packages.files(tmp_path)
    (tmp_path / "onnxruntime-web-1.30.0.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="sha512"):
        packages.files(tmp_path)


def test_the_command_ends_with_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert CliRunner().invoke(app, ["page", str(tmp_path / "file")]).exit_code == 2
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    ended = CliRunner().invoke(app, ["page", str(tmp_path / "site"), "--packages", str(tmp_path)])
    assert isinstance(ended.exception, ValueError)
    assert "where there is a network" in str(ended.exception)
