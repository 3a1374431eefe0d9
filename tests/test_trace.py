"""Traces: aggregation by hand, save and load exactly, every damaged byte noticed, no torch needed."""

import copy
import dataclasses
import os
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import sdteach
from sdteach import records

from conftest import signed, taken_apart


@pytest.fixture(scope="module")
def trace(model):
    return sdteach.generate(model, 'a red car "x" $y$ <b>\U0001f697</b> "sha256": "' + "0" * 64, "snow", steps=2, height=72, width=40,
                            collect=("latents", "noise", "x0", "attention", "preview"))  # fmt: skip


@pytest.fixture(scope="module")
def saved(trace, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "run.safetensors"
    trace.save(path)
    return path.read_bytes()


def same(first, second):
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if dataclasses.is_dataclass(a):
            same(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b), field.name
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), field.name
            assert all(a[name].dtype == b[name].dtype == np.float32 and np.array_equal(a[name], b[name]) for name in a), field.name
        elif field.name != "steps":
            assert a == b, field.name


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("collect", [
    (), ("latents",), ("noise", "x0"), ("attention",), ("attention_heads",),
    ("latents", "noise", "x0", "attention", "attention_heads", "preview"),
])  # fmt: skip
@pytest.mark.parametrize("guidance_scale", [1, 7.5])
def test_what_is_saved_comes_back(model, tmp_path, collect, guidance_scale):
    trace = sdteach.generate(model, "a red car", steps=3, guidance_scale=guidance_scale, collect=collect, width=40)
    trace.save(tmp_path / "a" / "run.safetensors")
    loaded = sdteach.Trace.load(tmp_path / "a" / "run.safetensors")
    same(trace, loaded)
    for step, other in zip(trace.steps, loaded.steps, strict=True):
        same(step, other)
    if any(name.startswith("attention") for name in collect):
        assert np.array_equal(trace.heat_map("car"), loaded.heat_map("car"))
    assert np.array_equal(np.asarray(loaded.image), trace.pixels)


@pytest.mark.fault(11)
def test_saving_is_deterministic_and_replaces_a_file_whole(trace, saved, tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"old")
    trace.save(path)
    assert path.read_bytes() == saved
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("crash")))
    with pytest.raises(OSError, match="crash"):
        trace.save(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_a_prompt_that_quotes_a_digest_loads(saved, trace, tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(saved)
    assert sdteach.Trace.load(path).prompt == trace.prompt


@settings(max_examples=50)
@given(st.text(st.characters(codec=None, categories=None), max_size=60), st.floats(0, 100), st.integers(0, 2**63 - 1))
def test_any_prompt_and_number_comes_back(trace, tmp_path, prompt, guidance_scale, seed):
    changed = altered(trace, prompt=prompt, negative_prompt=prompt[::-1], guidance_scale=guidance_scale, seed=seed)
    changed.save(tmp_path / "run.safetensors")
    same(changed, sdteach.Trace.load(tmp_path / "run.safetensors"))


def refused(tmp_path, data, match=None):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match) as error:
        sdteach.Trace.load(path)
    assert "damaged.safetensors" in str(error.value)


@settings(max_examples=300)
@given(data=st.data())
@pytest.mark.fault(11)
def test_any_changed_byte_is_noticed(saved, tmp_path, data):
    header = int.from_bytes(saved[:8], "little") + 8
    place = data.draw(st.one_of(st.integers(0, 7), st.integers(8, header - 1), st.integers(header, len(saved) - 1)))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != saved[place]))
    refused(tmp_path, saved[:place] + bytes([value]) + saved[place + 1 :])


@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.fault(11)
def test_any_other_length_is_noticed(saved, tmp_path, data):
    refused(tmp_path, saved[: data.draw(st.integers(0, len(saved) - 1))])
    refused(tmp_path, saved + data.draw(st.binary(min_size=1, max_size=20)))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_anything_else_is_refused(tmp_path, data):
    refused(tmp_path, data)
    refused(tmp_path, len(data).to_bytes(8, "little") + data)


@pytest.mark.parametrize("header", [b"[" * 100_000, b'{"a":' * 50_000, b"{}", b"[]", b"null", b'{"__metadata__":{"sdteach":"{}"}}',
                                    b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
                                    b'{"x":{"dtype":"F32","shape":[0],"data_offsets":[0,-99]}}', b'{"x":3}'])  # fmt: skip
@pytest.mark.fault(11)
def test_hostile_headers(tmp_path, header):
    refused(tmp_path, len(header).to_bytes(8, "little") + header)


@pytest.mark.fault(11)
def test_a_header_that_claims_to_be_huge(tmp_path):
    refused(tmp_path, (2**62).to_bytes(8, "little") + b"{}" * 50)


def altered(record, **changes):
    """A copy with parts of any type: the records' own checks would refuse to make some of them."""
    other = copy.copy(record)
    for name, value in changes.items():
        object.__setattr__(other, name, value)
    return other


@pytest.mark.fault(11)
@pytest.mark.parametrize("reason", [
    "finite", "pixels", "text", "final_latents", "trace.seed", "seed", "complete", "timestep", "timestep: nan", "timestep: index",
    "tokens: far", "tokens: lost", "tokens: padding", "attention", "attention: heads", "attention: few heads", "steps: other maps",
    "latents", "steps: some latents", "preview", "preview: five channels", "preview: empty", "start", "start: float", "mask",
    "mask: uint8", "small", "strength", "trace.strength", "guidance_scale", "box", "word of the prompt", "at least one word",
    "layer_areas", "layer_areas: none", "trace.layer_areas", "pixels: flat",
])  # fmt: skip
def test_well_signed_nonsense_is_refused(trace, tmp_path, unguarded, reason):
    first, *rest = trace.steps
    tokens, step = trace.tokens, lambda **changes: {"steps": (altered(first, **changes), *rest)}
    both = lambda **changes: {"steps": tuple(altered(each, **changes) for each in trace.steps)}  # noqa: E731
    nan, rows = trace.text.copy(), tokens.end + 2
    nan[3, 5] = np.nan
    cases = {
        "finite": {"text": nan}, "pixels": {"pixels": trace.pixels[:-8]}, "text": {"text": trace.text[:5]},
        "final_latents": {"final_latents": trace.final_latents[0]}, "trace.seed": {"seed": "0"}, "seed": {"seed": -1},
        "complete": {"complete": 1}, "timestep": step(timestep="1"), "timestep: nan": step(timestep=float("nan")),
        "timestep: index": step(index=1),
        "tokens: far": {"tokens": altered(tokens, word_of=tokens.word_of + 99)},
        "tokens: lost": {"tokens": altered(tokens, words=(*tokens.words, "lost"))},
        "tokens: padding": {"tokens": altered(tokens, word_of=np.where(np.arange(77) == 76, 0, tokens.word_of))},
        "attention": both(attention={"a": np.ones((2, 3, 3), np.float32)}),
        "attention: heads": both(attention=None, attention_heads={"a": np.ones((rows, 3, 3), np.float32)}),
        "attention: few heads": both(attention=None, attention_heads={"a": np.ones((4, 5, 3, 3), np.float32)}),
        "steps: other maps": step(attention={"a": np.ones((rows, 3, 3), np.float32)}),
        "latents": step(latents=np.ones((1, 4, 2, 2), np.float32)), "steps: some latents": step(latents=None),
        "preview": step(preview=np.ones((2, 2), np.uint8)), "preview: five channels": step(preview=np.ones((2, 2, 5), np.uint8)),
        "preview: empty": step(preview=np.ones((0, 2, 3), np.uint8)),
        "start": {"start": trace.pixels[:-8]}, "start: float": {"start": trace.pixels.astype(np.float32)},
        "mask": {"mask": np.ones((9, 5), bool)}, "mask: uint8": {"mask": np.ones((72, 40), np.uint8)},
        "small": {"small": np.ones((9, 5), np.uint8)}, "strength": {"strength": 0.0}, "trace.strength": {"strength": "1"},
        "guidance_scale": {"guidance_scale": 10**400}, "box": {"layout": {"car": (0.5, 0.0, 0.4, 1.0)}},
        "at least one word": {"layout": {}},
        "word of the prompt": {"layout": {"house": (0.0, 0.0, 0.5, 0.5)}}, "layer_areas": {"layer_areas": {"a": 3.0}},
        "layer_areas: none": {"layer_areas": dict.fromkeys(trace.layers, 0.0)},
        "trace.layer_areas": {"layer_areas": dict.fromkeys(trace.layers, 4)},
        "pixels: flat": {"pixels": np.ones((1, 3000, 3), np.uint8), "height": 1, "width": 3000,
                         "final_latents": np.ones((1, 4, 1, 3000), np.float32), "steps": ()},
    }  # fmt: skip
    altered(trace, **cases[reason]).save(tmp_path / "nonsense.safetensors")
    refused(tmp_path, (tmp_path / "nonsense.safetensors").read_bytes(), re.escape(reason.partition(":")[0]))


@pytest.mark.fault(11)
def test_another_version_and_extra_tensors_are_refused(saved, tmp_path):
    header, payload = taken_apart(saved)
    header["__metadata__"]["sdteach"]["version"] = 99
    refused(tmp_path, signed(header, payload), "expected version 5, got 99")
    header, payload = taken_apart(saved)
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    header["extra"] = {"dtype": "U8", "shape": [3], "data_offsets": [end, end + 3]}
    refused(tmp_path, signed(header, payload + b"abc"), "not exactly")
    refused(tmp_path, signed(taken_apart(saved)[0] | {"extra": {"dtype": "U8", "shape": [0], "data_offsets": [end, end]}}, payload))


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        sdteach.Trace.load(tmp_path / "none.safetensors")


def test_loading_and_drawing_need_no_torch(trace, tmp_path, isolated):
    trace.save(tmp_path / "run.safetensors")
    code = """
import sys, sdteach
from sdteach.plots import contact_sheet
trace = sdteach.Trace.load(sys.argv[1])
repr(trace), trace.heat_map("car"), contact_sheet(trace).savefig("sheet.png")
assert not {"torch", "diffusers", "transformers", "matplotlib.pyplot"} & set(sys.modules)
"""
    done = isolated(code, tmp_path / "run.safetensors")
    assert done.returncode == 0, done.stderr


def stretched(total):
    return (total - total.min()) / (total.max() - total.min())


def test_a_heat_map_is_the_stretched_weighted_mean_over_steps_layers_and_places():
    rng = np.random.default_rng(0)
    steps = [{"a": rng.random((6, 5, 7), np.float32), "b": rng.random((6, 3, 4), np.float32)} for _ in range(3)]
    total, daam = np.zeros((5, 7)), np.zeros((5, 7))
    for layers in steps:
        told = {name: maps[[2, 4]].mean(0) / maps[1:5].sum(0) for name, maps in layers.items()}
        total += 35 * told["a"] + 12 * np.asarray(Image.fromarray(told["b"]).resize((7, 5), Image.Resampling.BILINEAR))
        daam += layers["a"][[2, 4]].mean(0)
        daam += np.asarray(Image.fromarray(layers["b"][[2, 4]].mean(0)).resize((7, 5), Image.Resampling.BICUBIC))
    found = records.heat_map(steps, (2, 4), 5, 7)
    np.testing.assert_allclose(found, stretched(total), atol=1e-6)
    assert found.min() == 0
    assert found.max() == 1
    alike = {"a": 1.0, "b": 1.0}
    theirs = records.heat_map(steps, (2, 4), 5, 7, alike, np.asarray, Image.Resampling.BICUBIC)
    np.testing.assert_allclose(theirs, stretched(daam), atol=1e-6)
    assert not records.heat_map([{"a": np.ones((4, 2, 2), np.float32)}], (1,), 4, 4).any()


@pytest.fixture(scope="module")
def attended(random_model):
    """A run of five calls, all that was read in it kept; layers of two, four and five heads."""
    return sdteach.generate(random_model, "a red boat, red", steps=4, seed=2, height=72, width=104,
                            collect=("attention", "attention_heads"))  # fmt: skip


def only(trace, *kept):
    """The trace as it were had only these ways to keep attention been collected."""
    steps = [dataclasses.replace(step, **{name: None for name in ("attention", "attention_heads") if name not in kept})
             for step in trace.steps]  # fmt: skip
    return dataclasses.replace(trace, steps=tuple(steps))


RED = (2, 5)  # the places of "red" in "a red boat, red", after the start token and "a"


@pytest.mark.parametrize(("calls", "shown"), [(5, (3, 4)), (4, (3,)), (3, (2,)), (2, (1,)), (1, (0,))])
def test_a_traces_heat_map_is_that_of_the_last_quarter_of_its_calls(attended, calls, shown):
    trace = dataclasses.replace(attended, steps=attended.steps[:calls])
    assert trace.tokens.places("red") == RED
    maps = {i: records.heat_map([attended.steps[i].attention], RED, 9, 13) for i in range(calls)}
    assert all(not np.allclose(maps[i], maps[j]) for i in maps for j in range(i))
    assert np.array_equal(trace.heat_map("red"), records.heat_map([attended.steps[i].attention for i in shown], RED, 9, 13))


def test_a_heat_map_of_chosen_steps_layers_and_head(attended):
    fine, coarse = "down_blocks.0.attentions.1.transformer_blocks.0.attn2", "mid_block.attentions.0.transformer_blocks.0.attn2"
    weights = {coarse: 2.0, fine: 0.5}
    picked = [attended.steps[i] for i in (3, 0)]
    maps = [step.attention for step in picked]
    assert np.array_equal(attended.heat_map("red", steps=[3, 0]), records.heat_map(maps, RED, 9, 13))
    assert np.array_equal(attended.heat_map("red", [3, 0], weights), records.heat_map(maps, RED, 9, 13, weights))
    heads = [{name: layer[1] for name, layer in step.attention_heads.items()} for step in picked]
    assert np.array_equal(attended.heat_map("red", [3, 0], weights, 1), records.heat_map(heads, RED, 9, 13, weights))
    assert np.array_equal(attended.heat_map("red", range(5), head=1), records.heat_map(
        [{name: layer[1] for name, layer in step.attention_heads.items()} for step in attended.steps], RED, 9, 13
    ))  # fmt: skip
    # One layer of the picture's own size, one step, one head, one place: what was read there, without start and padding.
    read = attended.steps[4].attention_heads[fine][1]
    assert read.shape == (8, 9, 13)
    np.testing.assert_allclose(attended.heat_map("boat", [4], {fine: 3.0}, 1), stretched(read[3] / read[1:7].sum(0)), atol=1e-5)


def test_the_heads_alone_make_the_heat_map_of_their_mean(attended):
    heads = only(attended, "attention_heads")
    for steps in (None, [1]):
        np.testing.assert_allclose(heads.heat_map("red", steps), attended.heat_map("red", steps), atol=1e-4)
    assert np.array_equal(heads.heat_map("red", head=0), attended.heat_map("red", head=0))


def test_a_heat_map_of_what_was_not_collected_is_refused(attended):
    with pytest.raises(ValueError, match=r"expected a trace with attention of its steps, got one without.*collect=\('attention',\)"):
        only(attended).heat_map("red")
    with pytest.raises(ValueError, match=r"expected a trace with attention_heads of its steps.*collect=\('attention_heads',\)"):
        only(attended, "attention").heat_map("red", head=0)


@pytest.mark.parametrize(("options", "told"), [
    (dict(layers={"up": 1.0}), r"expected layers out of \['down_blocks.*got {'up'"),
    (dict(layers={"mid_block.attentions.0.transformer_blocks.0.attn2": 1.0, "mid": 0.0}), r"expected layers out of .*'mid': 0.0"),
    (dict(layers={}), "not all 0"), (dict(layers={"mid_block.attentions.0.transformer_blocks.0.attn2": np.nan}), "with finite weights"),
    (dict(layers={"mid_block.attentions.0.transformer_blocks.0.attn2": 0.0}), "not all 0"),
    (dict(steps=[5]), r"expected steps from 0 to 4, at least one, got \[5\]"), (dict(steps=[-1]), "expected steps from 0 to 4"),
    (dict(steps=[]), "expected steps from 0 to 4"), (dict(steps=range(3, 6)), "expected steps from 0 to 4"),
    (dict(head=2), "expected a head from 0 to 1, got 2"), (dict(head=-1), "expected a head from 0 to 1, got -1"),
])  # fmt: skip
def test_what_a_trace_does_not_hold_is_refused(attended, options, told):
    with pytest.raises(ValueError, match=told):
        attended.heat_map("red", **options)


def test_over_text_leaves_start_and_padding_out(attended):
    maps = attended.steps[0].attention["up_blocks.2.attentions.0.transformer_blocks.0.attn2"]
    before = maps.copy()
    share = records.over_text(maps)
    assert share.dtype == np.float32
    assert not share[[0, -1]].any()
    np.testing.assert_allclose(share.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(share[1:-1], maps[1:-1] / (1 - maps[0] - maps[-1]), rtol=1e-4)
    assert np.array_equal(maps, before)
    nothing = np.zeros((4, 2, 3), np.float32)
    nothing[0] = 1
    assert not records.over_text(nothing).any()


def test_layers_weigh_as_many_positions_as_they_have():
    maps = {"fine": np.ones((6, 9, 13), np.float32), "coarse": np.ones((6, 5, 7), np.float32)}
    assert records.by_area(maps) == {"fine": 117.0, "coarse": 35.0}


def test_the_padding_is_summed_so_that_rows_still_sum_to_one(trace):
    for step in trace.steps:
        for maps in step.attention.values():
            assert len(maps) == trace.tokens.end + 2
            np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)


def test_repr_summarises_on_one_screen(trace):
    parts = dict.fromkeys(("start", "small"), trace.pixels) | {
        "mask": trace.pixels[..., 0] > 99,
        "strength": 0.5,
        "layer_areas": {"a": 3.0},
    }
    full = dataclasses.replace(trace, **parts, layout={"car": (0.0, 0.0, 1.0, 1.0)}, prompt="x" * 999)
    for record in (trace, full, trace.tokens, *trace.steps):
        lines = repr(record).splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80
    assert "text: float32 (77, 128), -" in repr(trace)
    assert "steps: 2 x StepRecord" in repr(trace)
    assert "strength" not in repr(trace)
    assert "latents: float32 (1, 4, 9, 5), -" in repr(trace.steps[0])


def test_word_cosines_are_those_of_the_words_vectors(model):
    trace = sdteach.generate(model, "a red car, umbrellas", steps=1, collect=())
    vectors = torch.stack(
        [torch.from_numpy(trace.text[list(trace.tokens.places(word))]).mean(0) for word in range(len(trace.tokens.words))]
    )
    expected = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    np.testing.assert_allclose(trace.word_cosines(), expected, atol=1e-5)
