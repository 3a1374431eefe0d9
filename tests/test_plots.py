"""Figures show what the records hold: the pixels drawn are the trace's own, the text is the prompt's."""

import numpy as np
import pytest

import sdteach
from sdteach.plots import contact_sheet, picture_grid

PARTS = ("latents", "noise", "x0", "attention", "preview")


@pytest.fixture(scope="module")
def trace(model):
    return sdteach.generate(model, "a red car below a yellow star", steps=9, collect=PARTS)


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def images(figure):
    return [image.get_array() for axes in figure.axes for image in axes.images]


def test_the_sheet_shows_the_run(trace):
    figure = contact_sheet(trace)
    shown = texts(figure)
    for expected in ("“a red car below a yellow star”", "1615", "start", "+ 68", "picture", "t = 889", "below"):
        assert any(expected in text for text in shown), expected
    drawn = images(figure)
    previews = [step.preview for step in trace.steps if step.preview is not None]
    assert len(previews) == 8
    for array in [*previews, trace.pixels, *(trace.heat_map(i) for i in range(7))]:
        assert any(array.shape == other.shape and np.array_equal(array, other) for other in drawn)
    assert len(drawn) == 1 + 8 + 1 + 2 * 7
    assert "a red car below a yellow star" in figure.get_label()
    assert "car" in figure.get_label()


@pytest.mark.parametrize("collect", [(), ("latents",), ("attention",), ("preview",)])
def test_what_was_not_collected_is_left_out(model, collect):
    trace = sdteach.generate(model, "a red car", steps=2, width=72, collect=collect)
    expected = 1 + ("latents" in collect) + 2 * 3 * ("attention" in collect) + 3 * ("preview" in collect)
    assert len(images(contact_sheet(trace))) == expected


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("prompt", ["", "$\\frac{a}{", "a " * 200, "<b>\n\n\t", "\U0001f697", "a\udcff"])
def test_any_prompt_is_drawn_as_it_is(model, prompt, tmp_path):
    figure = contact_sheet(sdteach.generate(model, prompt, steps=1, collect=PARTS))
    figure.savefig(tmp_path / "sheet.png", dpi=30)
    assert any(text.startswith("“" + " ".join(prompt.replace("\udcff", "?").split())[:60]) for text in texts(figure))


def test_no_text_leaves_the_page_or_covers_another(trace):
    figure = contact_sheet(trace)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_grid_shows_every_picture_above_its_caption():
    pictures = [np.full((24, 24, 3), shade, np.uint8) for shade in range(5)]
    captions = [f"picture number {shade}" for shade in range(5)]
    figure = picture_grid(pictures, captions, columns=3)
    for picture, caption, axes in zip(pictures, captions, figure.axes, strict=True):
        assert np.array_equal(axes.images[0].get_array(), picture)
        assert axes.texts[0].get_text().replace("\n", " ") == caption
        assert caption in figure.get_label()
    with pytest.raises(ValueError, match="4 and 5"):
        picture_grid(pictures, captions[:4])
