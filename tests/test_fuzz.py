"""Anything from outside: whatever bytes or text come, they are read exactly or refused in a sentence, in little memory."""

import contextlib
import json
import tracemalloc
from functools import partial
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import sdteach
from sdteach.pictures import open_layout, open_mask, open_picture
from sdteach.player import to_html

from conftest import signed, taken_apart

HUGE = 2**26  # bytes: no file here is a hundredth of it
# Without shrinking a find is told as it was found, after no long search.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
fuzz = partial(settings, phases=PHASES)
NUMBERS = st.sampled_from([0, -1, 0.5, 7, 2**31, 2**63, 10**400, -(2**64), 1e308, float("nan"), float("inf"), True, False, None])
JSON = st.recursive(NUMBERS | st.text(max_size=9), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner,
                    max_size=3), max_leaves=6)  # fmt: skip
TEXT = st.text(st.characters(codec=None, categories=None), max_size=24) | st.text("<>&\"'\\/-! aehlr\0\u202e\ud800", max_size=24)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "run.safetensors"
    everything = ("latents", "noise", "x0", "attention", "attention_heads", "preview")
    layout = {"car": (0.0, 0.25, 0.5, 1.0)}
    sdteach.generate(model, "a red car", steps=2, height=40, width=32, collect=everything, layout=layout).save(path)
    return path.read_bytes()


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < HUGE


def changed(draw, tree):
    """One place somewhere in `tree` becomes something else, or goes."""
    if not isinstance(tree, dict | list) or not tree or draw(st.integers(0, 4)) == 0:
        return draw(JSON)
    key = draw(st.sampled_from([*tree] if isinstance(tree, dict) else range(len(tree))))
    if draw(st.integers(0, 9)) == 0:
        del tree[key]
    else:
        tree[key] = changed(draw, tree[key])
    return tree


def test_a_forger_can_sign(saved):
    """Else the next test would prove nothing."""
    assert signed(*taken_apart(saved)) == saved


@pytest.mark.fault(11)
@fuzz(max_examples=400)
@given(data=st.data())
def test_a_forged_trace_is_exactly_itself_or_refused(saved, tmp_path, unguarded, data):
    """By somebody who can sign: facts, shapes, types, offsets and numbers are changed. What loads can be shown."""
    header, payload = taken_apart(saved)
    for _ in range(data.draw(st.integers(0, 2))):
        if data.draw(st.booleans()):
            header["__metadata__"]["sdteach"] = changed(data.draw, header["__metadata__"]["sdteach"])
        else:
            entries = changed(data.draw, {name: entry for name, entry in header.items() if name != "__metadata__"})
            header = {"__metadata__": header["__metadata__"]} | (entries if isinstance(entries, dict) else {"x": entries})
    for _ in range(data.draw(st.integers(0, 3))):
        place, piece = data.draw(st.integers(0, len(payload) - 1)), data.draw(st.binary(max_size=8))
        payload = payload[:place] + piece + payload[place + (len(piece) if data.draw(st.booleans()) else 0) :]
    path = tmp_path / "forged.safetensors"
    path.write_bytes(forged := signed(header, payload))
    with little_memory():
        try:
            trace = sdteach.Trace.load(path)
        except ValueError as error:
            assert "forged.safetensors" in str(error)  # noqa: PT017
            return
    trace.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == forged
    repr(trace)
    to_html(trace)


def encodings():
    """A small picture in every format that Pillow writes and reads, and in every mode that the format takes."""
    rng, found = np.random.default_rng(7), []
    colour = Image.fromarray(rng.integers(0, 256, (5, 3, 4), np.uint8))
    for kind in sorted({*Image.SAVE} & {*Image.OPEN} - {"EPS", "IM"}):  # one runs a program, one goes away
        for mode in ("RGB", "1", "P", "CMYK", "I;16", "F", "LA"):
            with contextlib.suppress(OSError, KeyError, ValueError, TypeError, SystemError):
                one = colour.convert("I").convert("I;16") if mode == "I;16" else colour.convert("RGB").convert(mode)
                one.save(data := BytesIO(), kind, **({"save_all": True, "append_images": [one]} if kind in ("GIF", "TIFF") else {}))
                found.append(data.getvalue())
    return found


Image.init()
FILES = encodings()


def mutated(draw):
    """A file cut, changed, and with numbers in it that are as large as they can be."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, min(len(data), 64)) | st.integers(0, len(data)))
        piece = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff", b"\0\0\xff\x7f", b"\0" * 4]) | st.binary(min_size=1, max_size=4))
        data[place : place + len(piece)] = piece
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@fuzz(max_examples=500)
@given(data=st.data())
def test_any_file_is_a_picture_and_a_mask_or_refused(tmp_path, monkeypatch, data):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # Pillow's own bound is that times 90: too slow to meet it often
    path = tmp_path / "any"
    path.write_bytes(mutated(data.draw) if data.draw(st.booleans()) else data.draw(st.binary(max_size=200)))
    for opened in (open_picture, lambda path: open_mask(path, Image.new("RGB", (3, 5)), 16, 8)):
        try:
            found = opened(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert len(str(error)) < 1000 + len(str(path))  # noqa: PT017
        else:
            assert found.mode == "RGB" if isinstance(found, Image.Image) else found.shape == (16, 8)


def test_pictures_of_many_kinds_are_fuzzed():
    assert len(FILES) > 40


@fuzz(max_examples=300)
@given(text=st.binary(max_size=60) | st.builds(json.dumps, JSON).map(str.encode) | st.text('{}[]:,"a0.1e-', max_size=60).map(str.encode))
def test_any_text_is_a_layout_or_refused(tmp_path, text):
    path = tmp_path / "layout.json"
    path.write_bytes(text)
    try:
        layout = open_layout(path)
    except ValueError as error:
        assert len(str(error)) < 1000 + len(str(path))  # noqa: PT017
    else:
        assert all(len(box) == 4 and min(box) >= 0 and max(box) <= 1 for box in layout.values())


class Tags(HTMLParser):
    """The tags of a page, where its links lead, and its attributes that run something."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.active = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [dict(attrs).get("href")] if tag == "a" else []
        self.active += [name for name, value in attrs if name.startswith("on") or (value or "").strip().lower().startswith("javascript")]


@pytest.fixture(scope="module")
def shown(random_model):
    """The page of a run, for a prompt -> its tags."""
    return lambda *prompts: Tags(to_html(sdteach.generate(random_model, *prompts, steps=1, height=40, width=32, collect=("attention",))))


@pytest.mark.fault(4)
@pytest.mark.fault(13)
@pytest.mark.filterwarnings("ignore::UserWarning")
@fuzz(max_examples=20)
@given(prompt=TEXT)
def test_any_prompt_is_painted_and_shown_as_text(shown, unguarded, prompt):
    page = shown(prompt, prompt)
    assert page.tags.count("script") == 2
    assert all(link.startswith("#") for link in page.links)  # to a part of the page itself
    assert not {*page.tags} & {"b", "iframe", "object", "embed", "form", "base", "svg"}
    assert page.active == []
