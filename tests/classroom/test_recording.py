"""Recorded runs: what is lost, what stays, how little room they take; those that ship are what their commands make today."""

import dataclasses
import re
import shlex
import shutil
from itertools import product

import numpy as np
import pytest

import sdteach
from sdteach import cli
from sdteach.classroom.recording import recorded, recordings
from sdteach.collecting import with_previews
from sdteach.records import StepRecord, Tokens, over_text

from conftest import ROOT

TRACES = ROOT / "assets" / "traces"
COMMANDS = [shlex.split(line)[1:] for line in re.findall("^sdteach record .*", (TRACES / "README.md").read_text("utf-8"), re.MULTILINE)]
KEPT = ("latents", "noise", "x0", "attention")
SD_1_5 = [
    *(f"down_blocks.{block}.attentions.{layer}" for block, layer in product(range(3), range(2))), "mid_block.attentions.0",
    *(f"up_blocks.{block}.attentions.{layer}" for block, layer in product((1, 2, 3), range(3))),
]  # fmt: skip
EDGES = {"down_blocks.0": 64, "down_blocks.1": 32, "down_blocks.2": 16, "mid_block": 8,
         "up_blocks.1": 16, "up_blocks.2": 32, "up_blocks.3": 64}  # fmt: skip


def test_fifty_steps_of_stable_diffusion_1_5_with_previews_and_word_maps_take_at_most_25_megabytes(tmp_path):
    """The shapes are true, the numbers random: nothing in the file depends on them."""
    rng = np.random.default_rng(0)
    end, edge = 11, 512
    read = {layer: rng.dirichlet(np.ones(end + 2), EDGES[layer.partition(".att")[0]] ** 2) for layer in SD_1_5}
    maps = {layer: rows.T.reshape(end + 2, EDGES[layer.partition(".att")[0]], -1).astype(np.float32) for layer, rows in read.items()}
    assert len(maps) == 16
    latents, preview = rng.standard_normal((1, 4, 64, 64), np.float32), rng.integers(0, 256, (edge, edge, 3), np.uint8)
    steps = tuple(StepRecord(index, 981.0 - 20 * index, *[latents] * 5, attention=maps, preview=preview) for index in range(51))
    words = tuple(f"word{number}" for number in range(10))
    ids, word_of = np.arange(77), np.array([-1, *range(10), *[-1] * 66])
    tokens = Tokens(" ".join(words), ids, ("<|startoftext|>", *words, *["<|endoftext|>"] * 66), words, word_of, end, "")
    text = rng.standard_normal((77, 768), np.float32)
    trace = sdteach.Trace(tokens.text, "", "random", "PNDMScheduler", 7.5, 0, edge, edge, True, tokens, text, latents, preview, steps)
    recorded(trace).save(tmp_path / "run.safetensors")
    assert 15e6 < (tmp_path / "run.safetensors").stat().st_size <= 25e6
    loaded = sdteach.Trace.load(tmp_path / "run.safetensors")
    assert [step.preview.shape for step in loaded.steps] == [(128, 128, 3)] * 51
    assert loaded.heat_map(3).shape == (64, 64)
    assert loaded.layer_areas == {"64 × 64": 5 * 64**2, "32 × 32": 5 * 32**2, "16 × 16": 5 * 16**2, "8 × 8": 8**2}


@pytest.fixture(scope="module")
def large(model):
    """As wide as Stable Diffusion paints and wider, so that maps and previews shrink."""
    made = sdteach.generate(model, "a red car below a yellow star", steps=3, seed=23, height=232, width=544, collect=KEPT)
    return with_previews(model, made)


@pytest.fixture(scope="module")
def small(random_model):
    """Maps of odd sizes that fit as they are, heads besides."""
    return sdteach.generate(random_model, "a red boat, red", steps=4, seed=2, height=72, width=104,
                            collect=(*KEPT, "attention_heads", "preview"))  # fmt: skip


def test_a_recorded_run_comes_back_as_it_was_and_halves_its_numbers(large, tmp_path):
    light = recorded(large)
    light.save(tmp_path / "light.safetensors")
    large.save(tmp_path / "large.safetensors")
    assert (tmp_path / "light.safetensors").stat().st_size < 0.3 * (tmp_path / "large.safetensors").stat().st_size
    loaded = sdteach.Trace.load(tmp_path / "light.safetensors")
    for one, other in ((light, loaded), *zip(light.steps, loaded.steps, strict=True)):
        for field in dataclasses.fields(one):
            was, now = getattr(one, field.name), getattr(other, field.name)
            if isinstance(was, np.ndarray):
                assert now.dtype == was.dtype
                assert np.array_equal(was, now), field.name
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "light.safetensors").read_bytes()
    assert recorded(loaded) is loaded


@pytest.mark.parametrize("run", ["large", "small"])
def test_numbers_are_rounded_pictures_are_not(run, request):
    trace = request.getfixturevalue(run)
    light = recorded(trace)
    assert np.array_equal(light.pixels, trace.pixels)
    for step, other in zip(trace.steps, light.steps, strict=True):
        for name in ("latents", "noise", "noise_text", "noise_uncond", "predicted_x0"):
            np.testing.assert_allclose(getattr(other, name), getattr(step, name), rtol=2**-11, atol=1e-7)
        assert other.attention_heads is None
        assert (step.preview is None) == (other.preview is None)
        assert other.preview is None or max(other.preview.shape) <= 128
    np.testing.assert_allclose(light.word_cosines(), trace.word_cosines(), atol=1e-3)


def test_heat_maps_that_fit_stay_those_of_the_whole_run(small):
    light = recorded(small)
    assert light.layers == ("9 × 13", "5 × 7", "3 × 4")
    for word, steps in product(("red", "boat", 3), (None, [0], range(5))):
        np.testing.assert_allclose(light.heat_map(word, steps), small.heat_map(word, steps), atol=0.02)
    coarse = [layer for layer, maps in small.steps[0].attention.items() if maps.shape[1:] == (5, 7)]
    assert len(coarse) == 5
    full = small.heat_map("boat", layers=dict.fromkeys(coarse, 1.0))
    np.testing.assert_allclose(light.heat_map("boat", layers={"5 × 7": 1.0}), full, atol=0.02)


def test_heat_maps_of_a_trained_model_are_nearer_still(model):
    trace = sdteach.generate(model, "a red car below a yellow star", steps=4, seed=23, height=104, width=136, collect=KEPT)
    light = recorded(trace)
    for word, steps in product(range(len(trace.tokens.words)), (None, [0], [1])):
        np.testing.assert_allclose(light.heat_map(word, steps), trace.heat_map(word, steps), atol=0.005)


def test_coarser_heat_maps_stay_near_those_of_the_whole_run(large):
    light = recorded(large)
    assert light.steps[0].attention["29 × 68"].shape[1:] == (27, 64)
    for word in ("car", "yellow star"):
        full, coarse = large.heat_map(word), light.heat_map(word)
        assert coarse.shape == full.shape == (29, 68)
        assert np.abs(full - coarse).mean() < 0.03
        assert np.corrcoef(full.ravel(), coarse.ravel())[0, 1] > 0.9


def test_what_was_read_still_sums_to_one_at_every_position(large):
    for maps in recorded(large).steps[1].attention.values():
        np.testing.assert_allclose(maps.sum(0), 1, atol=2e-3)
        np.testing.assert_allclose(over_text(maps).sum(0), 1, atol=1e-4)


def test_heads_alone_and_nothing_at_all_are_recorded_too(small):
    heads = dataclasses.replace(small, steps=tuple(dataclasses.replace(step, attention=None) for step in small.steps))
    np.testing.assert_allclose(recorded(heads).heat_map("boat"), small.heat_map("boat"), atol=0.02)
    bare = [dataclasses.replace(step, attention=None, attention_heads=None) for step in small.steps]
    nothing = recorded(dataclasses.replace(small, steps=tuple(bare)))
    assert nothing.layers == ()
    assert nothing.layer_areas is None


def test_every_run_that_ships_is_told_and_light():
    assert sorted(command[-1] for command in COMMANDS) == sorted(path.name for path in TRACES.glob("*.safetensors"))
    assert len(COMMANDS) >= 3
    assert sum(path.stat().st_size for path in TRACES.iterdir()) < 3.1e6


@pytest.mark.parametrize("command", COMMANDS, ids=[command[-1] for command in COMMANDS])
def test_a_run_that_ships_is_what_its_command_makes_today(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDTEACH_MODEL", raising=False)
    cli.app([*command, "--device", "cpu"], standalone_mode=False)
    shipped, made = (sdteach.Trace.load(folder / command[-1]) for folder in (TRACES, tmp_path))
    for field in ("prompt", "negative_prompt", "model", "scheduler", "guidance_scale", "seed", "complete", "layer_areas"):
        assert getattr(shipped, field) == getattr(made, field), field
    assert np.abs(shipped.pixels.astype(float) - made.pixels).mean() < 1
    np.testing.assert_allclose(shipped.final_latents, made.final_latents, atol=0.01)
    for was, now in zip(shipped.steps, made.steps, strict=True):
        assert was.timestep == now.timestep
        for name in ("latents", "noise", "noise_text", "noise_uncond", "predicted_x0"):
            np.testing.assert_allclose(getattr(was, name), getattr(now, name), atol=0.01)
        for grid, maps in was.attention.items():
            np.testing.assert_allclose(maps, now.attention[grid], atol=2e-3)
        assert np.abs(was.preview.astype(float) - now.preview).mean() < 1


def test_recordings_are_those_of_the_named_folder_or_picturebooks_own(tmp_path, monkeypatch):
    monkeypatch.delenv("SDTEACH_RECORDINGS", raising=False)
    assert list(recordings()) == sorted(path.stem for path in TRACES.glob("*.safetensors"))
    monkeypatch.setenv("SDTEACH_RECORDINGS", str(tmp_path))
    with pytest.raises(ValueError, match=r"expected a folder with recorded runs .*SDTEACH_RECORDINGS"):
        recordings()
    shutil.copyfile(TRACES / COMMANDS[0][-1], tmp_path / "mine.safetensors")
    assert {name: run.prompt for name, run in recordings().items()} == {"mine": COMMANDS[0][1]}
    (tmp_path / "other.safetensors").write_bytes(b"no run")
    with pytest.raises(ValueError, match=r"other.safetensors is not a trace"):
        recordings()


def test_whatever_shows_a_run_shows_a_recorded_one_where_torch_was_never_imported(isolated):
    """Every plot of a run, the page of two, and every explorer that takes one, or a function that makes one."""
    code = """
import contextlib, sys
import numpy as np
from sdteach import plots, widgets
from sdteach.player import to_html
from sdteach.classroom.recording import recordings
first, *_, run = recordings().values()
assert len(run.steps) > 8
words, mask = run.tokens.words, run.heat_map("car") > 0.3
mask = np.kron(mask, np.ones((8, 8))) > 0
maps = [run.heat_map(word) for word in range(len(words))]
box = {"car": (0.1, 0.5, 0.6, 0.9)}
figures = [
    plots.contact_sheet(run), plots.filmstrip(run), plots.run_step(run, 3), plots.token_chips(run.tokens),
    plots.feature_matrix(run.text, run.tokens), plots.latent_channels(run.final_latents),
    plots.heat_table(run.word_cosines(), words, words, "cosines", "cosine"), plots.heat_maps([run.pixels], maps, words),
    plots.heat_maps([run.pixels], [run.heat_map("car", [2], {run.layers[0]: 1.0})], ["one layer"]),
    plots.picture_grid([step.preview for step in run.steps], [f"{step.timestep:g}" for step in run.steps]),
    plots.reconstruction(run.pixels, first.pixels), plots.regions([run.pixels], [mask], ["region"]),
    plots.boxes([run.pixels], [box], ["layout"]), plots.task_table([plots.Task("t", "s", "c", "m", "r", None, run.pixels)]),
]
for figure in figures:
    assert figure._repr_html_().startswith("<img alt=")
    left, _, right, _ = figure.get_tightbbox().extents  # inches: nothing is drawn beside the page
    assert left > -0.1 and right < figure.get_size_inches()[0] + 0.1, figure.get_label()
paint = lambda **given: first if given.get("guidance_scale", 1) == 1 else run
shown = [
    widgets.run_scrubber(run), widgets.attention_explorer(run), widgets.region_explorer(run, paint), widgets.guidance_dial(paint),
    widgets.skip_mixer(lambda factors: contextlib.nullcontext(), paint, 2),
]
for widget in shown:
    assert "<img alt=" in widget._repr_mimebundle_()["text/html"]
shown[1].choose(word="star", step=4, layer=run.layers[0])
shown[2].paint()
assert shown[2].painted[0] is first.pixels and not shown[2].said.value
page = to_html(run, first)
assert all(word in page for word in words) and len(page) < 6e6
assert not {"torch", "diffusers", "transformers"} & set(sys.modules)
print("all of them")
"""
    done = isolated(code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all of them" in done.stdout
