"""Explorers show the frame that was asked for, draw as seldom as they can, and leave a picture where widgets cannot run."""

import asyncio
import warnings
from functools import partial
from html import escape
from itertools import product

import numpy as np
import pytest
from ipywidgets import HTML, Dropdown, Play, RadioButtons, SelectionSlider
from PIL import Image

import sdteach
from sdteach import plots, widgets
from sdteach.edits import skips_scaled
from sdteach.plots.style import Page, styled
from sdteach.schedule import forward_process
from sdteach.text_encoder import word_cosines
from sdteach.widgets import Explorer, LiveExplorer, RegionExplorer, TextExplorer, explorer, stages
from sdteach.widgets import explorer as explorer_module


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.delenv("SDTEACH_THEME", raising=False)


class Drawing:
    """A draw function that keeps what it was called with; every figure is another."""

    def __init__(self):
        self.calls = []

    @styled()
    def __call__(self, *texts, **choice):
        self.calls.append(texts or choice)
        page = Page(1.0, 0.5, f"<{texts or choice}>")
        page.write(0.1, 0.25, str(len(self.calls)))
        return page


@pytest.fixture
def no_drawing(monkeypatch):
    """From its call on no figure can be made."""

    def begin():
        monkeypatch.setattr(Page, "__init__", lambda *_: pytest.fail("a figure was drawn"))

    return begin


def test_every_combination_is_drawn_once_and_beforehand():
    draw = Drawing()
    made = Explorer(draw, {"step": [2, 3, 5], "word": ("car", "star")})
    assert draw.calls == [{"step": step, "word": word} for step, word in product((2, 3, 5), ("car", "star"))]
    assert list(made.frames) == [tuple(call.values()) for call in draw.calls]
    assert len({*made.frames.values()}) == 6
    assert list(made.sliders) == ["step", "word"]
    assert (made.sliders["step"].options, made.sliders["word"].options) == ((2, 3, 5), ("car", "star"))


def test_a_slider_only_swaps_frames(no_drawing):
    draw = Drawing()
    made = Explorer(draw, {"step": range(2, 5), "word": ("car", "star")})
    no_drawing()
    assert made.picture.value == made.frames[2, "car"]
    for step, word in [(4, "star"), (2, "star"), (3, "car")]:
        made.choose(word=word, step=step)
        assert (made.sliders["step"].value, made.sliders["word"].value) == (step, word)
        assert made.picture.value == made.frames[step, word]
        assert escape(str({"step": step, "word": word})) in made.picture.value
    made.sliders["step"].index = 2
    assert made.picture.value == made.frames[4, "car"]
    made.choose()
    assert len(draw.calls) == 6


@pytest.mark.parametrize("wrong", [{"step": 4}, {"step": "2"}, {"word": 2}, {"step": None}])
def test_a_choice_that_is_not_there_is_explained(wrong):
    made = Explorer(Drawing(), {"step": [2, 3]})
    before = made.picture.value
    with pytest.raises(ValueError, match=r"one of \{'step': \[2, 3\]\}, got " + next(iter(wrong))):
        made.choose(**wrong)
    assert made.picture.value == before


@pytest.mark.parametrize("choices", [{}, {"step": []}, {"step": [1], "word": ()}])
def test_an_explorer_needs_something_to_choose(choices):
    draw = Drawing()
    with pytest.raises(ValueError, match="at least one"):
        Explorer(draw, choices)
    assert not draw.calls


def test_the_first_slider_can_be_played(monkeypatch):
    links = []
    monkeypatch.setattr(explorer, "jslink", lambda *ends: links.append(ends))
    made = Explorer(Drawing(), {"step": [2, 3, 5], "word": ["car"]}, playing=True)
    player, slider = made.children[0].children
    assert isinstance(player, Play)
    assert (player.min, player.max, player.interval) == (0, 2, explorer.PAUSE)
    assert links == [((player, "value"), (slider, "index"))]
    assert slider is made.sliders["step"]
    assert made.children[1:] == (made.sliders["word"], made.picture, made.said)
    assert Explorer(Drawing(), {"step": [2, 3]}).children[0].options == (2, 3)
    assert len(links) == 1


@pytest.mark.fault(12)
def test_where_widgets_cannot_run_the_picture_stands_alone():
    for made in (Explorer(Drawing(), {"step": [2]}), TextExplorer(Drawing(), {"prompt": "a"})):
        bundle = made._repr_mimebundle_()
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
        assert bundle["text/html"] == made.picture.value
        assert bundle["text/html"].startswith('<img alt="&lt;')
        assert len(bundle["text/plain"]) < 200  # a terminal is not filled with the picture's letters


def test_what_is_typed_without_a_loop_is_drawn_at_once():
    draw = Drawing()
    made = TextExplorer(draw, {"first": "a", "second": "b"})
    made.type(first="c")
    made.type(second="d", first="e")
    made.fields["second"].value = "f"
    assert draw.calls == [("a", "b"), ("c", "b"), ("c", "d"), ("e", "d"), ("e", "f")]
    assert made.picture.value == drawn_as(draw, 5)
    assert escape(str(("e", "f"))) in made.picture.value
    assert made.children == (*made.fields.values(), made.picture, made.said)
    with pytest.raises(ValueError, match="one of first, second, got third"):
        made.type(third="g")


def drawn_as(draw, number):
    """What `draw` made at its `number`th call."""
    again = Drawing()
    again.calls = draw.calls[: number - 1]
    return again(*draw.calls[number - 1]).html()


def test_of_what_is_typed_in_haste_only_the_last_is_drawn(monkeypatch):
    monkeypatch.setattr(explorer, "PAUSE", 40)
    draw = Drawing()

    async def haste():
        made = TextExplorer(draw, {"prompt": ""})
        before = made.picture.value
        for length in range(1, 21):
            made.type(prompt="a" * length)
            await asyncio.sleep(0)
            assert made.picture.value == before
        await asyncio.sleep(0.3)
        assert draw.calls == [("",), ("a" * 20,)]
        assert escape("a" * 20) in made.picture.value
        made.type(prompt="later")
        await asyncio.sleep(0.3)
        assert draw.calls[2:] == [("later",)]

    asyncio.run(haste())


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.fault(13)
def test_what_is_wrong_or_worth_knowing_is_shown_as_it_is(inner):
    """As text, never as HTML, and where it is seen, whatever was drawn before."""

    def draw(prompt):
        if "wrong" in prompt:
            raise ValueError(f"expected sense, got {prompt}")
        if "odd" in prompt:
            warnings.warn(f"never read {prompt}", UserWarning, stacklevel=1)
        return Explorer(Drawing(), {"step": [1, 2]}) if inner else Drawing()(prompt)

    def visible(made):
        return "".join(child.value for child in made.children if isinstance(child, HTML))

    made = TextExplorer(draw, {"prompt": "fine"})
    plain = made.picture.value
    made.type(prompt="wrong <script>alert(1)</script>")
    assert "got wrong &lt;script&gt;alert(1)&lt;/script&gt;" in visible(made)
    assert "<img" not in made.picture.value
    with warnings.catch_warnings(action="error"):
        made.type(prompt="odd <script>alert(1)</script>")
    assert "<p>never read odd &lt;script&gt;alert(1)&lt;/script&gt;</p>" in visible(made)
    assert made.picture.value.startswith("<img alt=")
    assert made._repr_mimebundle_()["text/html"].endswith("</p>")
    assert "<script" not in visible(made) + made.picture.value
    made.type(prompt="fine")
    assert made.picture.value == plain
    assert "<p>" not in visible(made)


def test_an_error_that_nobody_expects_is_not_hidden():
    made = TextExplorer(lambda prompt: {"fine": Drawing()}[prompt](prompt), {"prompt": "fine"})
    with pytest.raises(KeyError):
        made.type(prompt="typo")


def test_type_a_prompt_and_see_its_tokens(model):
    made = widgets.token_explorer(partial(sdteach.tokenize, model), "a red car")
    assert made.picture.value == plots.token_chips(sdteach.tokenize(model, "a red car")).html()
    made.type(prompt="a blue fish")
    assert made.picture.value == plots.token_chips(sdteach.tokenize(model, "a blue fish")).html()
    made.type(prompt="a <script>")
    assert "never read &#39;script&#39; in its training and may draw anything for it.</p>" in made.said.value
    assert "<details><summary>words it knows" in made.said.value
    assert "<script" not in made.html()


def test_the_cosines_of_two_prompts_layer_by_layer(model):
    made = widgets.vector_explorer(partial(word_cosines, model), "a red car", "a fish")

    def expected(first, second):
        cosines = word_cosines(model, first, second)
        return {
            (layer,): plots.heat_table(values, cosines.first, cosines.second, f"Layer {layer}", "cosine similarity", -1.0).html()
            for layer, values in enumerate(cosines.values)
        }

    *fields, inner, _ = made.children
    assert fields == [*made.fields.values()]
    assert inner.frames == expected("a red car", "a fish")
    assert len(inner.frames) == 5
    inner.choose(layer=3)
    assert inner.picture.value == inner.frames[3,]
    made.type(second="a big fish")
    assert made.children[2].frames == expected("a red car", "a big fish")
    made.type(first=" ")
    assert "at least one word" in made.children[-1].value
    made.type(first="a car")
    assert made.children[2].sliders["layer"].options == tuple(range(5))


def test_walk_from_one_pictures_latents_to_anothers(model, no_drawing):
    pictures = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)) for seed in (0, 1)]
    first, second = (sdteach.image_to_latents(model, picture).mean for picture in pictures)
    decode = partial(sdteach.latents_to_image, model)
    made = widgets.vae_explorer(decode, first, second, steps=3)
    expected = {0.0: first, 0.5: (first + second) / 2, 1.0: second}
    assert list(made.frames) == [(share,) for share in expected]
    for (share,), shown in made.frames.items():
        between = expected[share]
        figure = plots.picture_grid([plots.latent_colours(between), np.asarray(decode(between))], ["latents", f"{share:.0%} of the way"])
        assert shown == figure.html()
    assert len(widgets.vae_explorer(lambda _: pictures[0], first, second).frames) == 13
    no_drawing()
    made.choose(share=0.5)


@pytest.mark.parametrize("shape", [(1, 4, 5, 7), (1, 4, 8, 4), (1, 3, 9, 6)])
def test_operate_on_the_middle_of_the_latents(shape):
    latents, seen = np.random.default_rng(3).normal(size=shape).astype(np.float32), []

    def decode(edited):
        seen.append(edited)
        return Image.fromarray(plots.latent_colours(edited))

    made = widgets.latent_explorer(decode, latents, amounts=[-1.5, 2])
    before = latents.copy()
    assert list(made.frames) == [*product(range(shape[1]), (-1.5, 2))]
    height, width = shape[2:]
    rows, columns = (range(edge // 4, edge - edge // 4) for edge in (height, width))
    for (channel, amount), edited in zip(made.frames, seen, strict=True):
        expected = before.copy()
        for row, column in product(rows, columns):
            expected[0, channel, row, column] += amount
        np.testing.assert_array_equal(edited, expected)
        grid = plots.picture_grid([plots.latent_colours(expected)] * 2, ["latents", f"channel {channel}: {amount:+g}"])
        assert made.frames[channel, amount] == grid.html()
    np.testing.assert_array_equal(latents, before)


def test_slide_over_the_forward_process(model):
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 56, 3), np.uint8))
    made = widgets.noise_explorer(partial(forward_process, model), picture.convert("RGBA"), [0, 333, 999])
    assert list(made.frames) == [(0,), (333,), (999,)]
    for (timestep,), shown in made.frames.items():
        figure = plots.noised(np.asarray(picture), forward_process(model, picture, timestep))
        assert shown == figure.html()


@pytest.mark.parametrize("collect", [("latents", "noise", "x0", "preview"), ("x0",), ()])
def test_scrub_through_a_run(model, collect, monkeypatch, no_drawing):
    trace = sdteach.generate(model, "a red car", steps=3, width=72, collect=collect)
    decode = partial(sdteach.latents_to_image, model)
    seen, run_step = [], plots.run_step
    monkeypatch.setattr(stages.plots, "run_step", lambda *arguments: seen.append(arguments) or run_step(*arguments))
    made = widgets.run_scrubber(trace, decode)
    assert list(made.frames) == [(step,) for step in range(1, len(trace.steps) + 1)]
    assert [index for _, index, _ in seen] == list(range(len(trace.steps)))
    for step, (_, index, preview) in zip(trace.steps, seen, strict=True):
        if step.preview is None and "x0" in collect:
            np.testing.assert_array_equal(preview, np.asarray(decode(step.predicted_x0)))
        else:
            assert preview is None
        assert made.frames[index + 1,] == run_step(trace, index, preview).html()
    assert isinstance(made.children[0].children[0], Play)
    without = widgets.run_scrubber(trace)
    assert without.frames[2,] == run_step(trace, 1).html()
    no_drawing()
    made.choose(step=2)
    assert made.picture.value == made.frames[2,]


def test_a_live_explorer_draws_what_is_asked_for_and_keeps_it():
    draw = Drawing()
    made = LiveExplorer(draw, {"word": ["a", "b"], "step": range(3)}, {"word": "b", "step": 1})
    assert draw.calls == [{"word": "b", "step": 1}]
    made.choose(step=2)
    made.choose(step=1)
    assert draw.calls[1:] == [{"word": "b", "step": 2}]
    assert made.picture.value == made.frames["b", 1]
    assert isinstance(made.sliders["word"], RadioButtons)
    assert isinstance(made.sliders["step"], SelectionSlider)
    assert not made.sliders["step"].continuous_update
    assert isinstance(LiveExplorer(draw, {"word": [str(i) for i in range(20)]}).sliders["word"], Dropdown)
    with pytest.raises(ValueError, match="expected one of"):
        LiveExplorer(draw, {"word": ["a"]}, {"word": "c"})


def test_explore_where_words_are_read(model):
    trace = sdteach.generate(model, "a car left of a star", steps=3, collect=("attention", "attention_heads"))
    made = widgets.attention_explorer(trace)
    layer = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    assert made.sliders["word"].options == ("a (1)", "car", "left", "of", "a (2)", "star")
    made.choose(word="a (2)", step=3, layer="up 8 × 8", head="head 1", strength=0.5)
    heat = trace.heat_map(4, [2], {layer: 1.0}, 1)
    told = "“a (2)”, step 3, t = 1; up 8 × 8, head 1"
    assert made.picture.value == plots.heat_maps([trace.pixels], [heat], [told], strength=0.5).html()
    made.choose(step=0, layer="all layers", head="mean")
    heat = trace.heat_map(4)
    figure = plots.heat_maps([trace.pixels], [heat], ["“a (2)”, last quarter; all layers, mean"], strength=0.5)
    assert made.picture.value == figure.html()
    assert widgets.attention_explorer(sdteach.generate(model, "a car", steps=1)).sliders["head"].options == ("mean",)


@pytest.mark.parametrize("prompt", ["", "a car"])
def test_without_words_or_attention_there_is_nothing_to_explore(model, prompt):
    collect = ("attention",) if not prompt else ("latents",)
    with pytest.raises(ValueError, match="at least one word with attention"):
        widgets.attention_explorer(sdteach.generate(model, prompt, steps=1, collect=collect))


def test_mix_the_skips(random_model):
    paint = partial(sdteach.generate, random_model, "a car", steps=2, collect=())
    made = widgets.skip_mixer(partial(skips_scaled, random_model), paint, 3, (0.0, 1.0, 2.0))
    assert [slider.value for slider in made.sliders.values()] == [1.0, 0.0, 0.0]
    made.choose(**{"level 1": 2.0})
    plain = paint().pixels
    with skips_scaled(random_model, {0: 1.0, 1: 2.0, 2: 0.0}):
        mixed = paint().pixels
    assert not np.array_equal(plain, mixed)
    figure = plots.picture_grid([plain, mixed], ["untouched", "skips × 1, 2, 0"])
    assert made.picture.value == figure.html()


def test_turn_the_guidance(random_model):
    paint = partial(sdteach.generate, random_model, "a car", steps=2, collect=())
    made = widgets.guidance_dial(paint, (1.0, 4.0, 9.0))
    pictures = {scale: paint(guidance_scale=scale).pixels for scale in (1.0, 4.0, 9.0)}
    for scale in (9.0, 4.0, 1.0):
        made.choose(scale=scale)
        figure = plots.picture_grid([pictures[1.0], pictures[scale]], ["guidance 1", f"guidance {scale:g}"])
        assert made.picture.value == figure.html()


def random_pixels(seed=0, height=40, width=64):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def box_of(left, top, right, bottom, height=40, width=64):
    rows, columns = np.ogrid[:height, :width]
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def visible(made):
    *by, ways, button, _, _ = made.children
    return [control.description for control in (*by, *ways.children[ways.selected_index].children, button)]


def test_choose_a_box_and_see_it_painted_anew():
    before, asked = random_pixels(), []

    def paint(mask):
        asked.append((mask, made.button.disabled, made.button.description))
        return np.where(mask[..., None], 255 - before, before) if len(asked) == 1 else random_pixels(1)

    made = RegionExplorer(before, paint, region=(8, 16, 32, 40))
    mask, other = box_of(8, 16, 32, 40), box_of(0, 0, 64, 8)
    assert visible(made) == ["across", "down", "Paint"]
    assert (made.across.value, made.down.value) == ((8, 32), (16, 40))
    told = ["before", f"the region: {mask.mean():.0%} of the picture"]
    assert made.picture.value == plots.regions([before] * 2, [None, mask], told).html()
    assert made._repr_mimebundle_()["text/html"] == made.picture.value
    made.button.click()
    assert (made.button.disabled, made.button.description) == (False, "Paint")
    told.append("after: 0 of 1,984 pixels outside have changed")
    after = np.where(mask[..., None], 255 - before, before)
    assert made.picture.value == plots.regions([before, before, after], [None, mask, None], told).html()
    made.choose((0, 0, 64, 8))
    told[1:] = ["the region: 20% of the picture", "after, of the region before this one: 0 of 1,984 pixels outside have changed"]
    assert made.picture.value == plots.regions([before, before, after], [None, other, None], told).html()
    made.paint()
    changed = ((random_pixels(1) != before).any(2) & ~other).sum()
    assert changed > 2000
    assert f"after: {changed:,} of 2,048 pixels outside have changed" in made.picture.value
    assert [asking for _, *asking in asked] == [[True, "Painting …"]] * 2
    np.testing.assert_array_equal([seen for seen, *_ in asked], [mask, other])


def test_a_region_is_the_middle_unless_it_is_told():
    made = RegionExplorer(random_pixels(), lambda mask: None)
    np.testing.assert_array_equal(made.mask, box_of(16, 10, 48, 30))


@pytest.mark.parametrize("inside", [np.uint8, np.float32])
def test_what_cannot_be_painted_is_shown_as_text_and_the_rest_stays(inside):
    before = random_pixels()

    def paint(mask):
        if mask.any():
            return before.astype(inside)[: 40 if inside == np.uint8 else 7]
        raise ValueError("expected <b>some</b> region")

    made = RegionExplorer(before, paint)
    made.paint()
    wrong = inside != np.uint8
    assert ("expected paint to give uint8 (40, 64, 3), got float32 (7, 64, 3)" in made.said.value) == ("<p" in made.said.value) == wrong
    made.across.value = (8, 8)
    assert made.said.value == ""
    made.paint()
    assert made.said.value.strip() == '<p role="alert">expected &lt;b&gt;some&lt;/b&gt; region</p>'
    assert made.picture.value.startswith("<img alt=")
    assert ("after, of the region before" in made.picture.value) == (not wrong)
    assert not made.button.disabled


def test_after_an_error_that_nobody_expects_one_can_paint_again():
    made = RegionExplorer(random_pixels(), {}.__getitem__)
    with pytest.raises(TypeError):
        made.paint()
    assert (made.button.disabled, made.button.description) == (False, "Paint")


def test_choose_a_region_by_where_a_word_was_read(model):
    trace, asked = sdteach.generate(model, "a car left of a star", steps=2), []
    made = widgets.region_explorer(trace, lambda mask: asked.append(mask) or trace, (0, 0, 64, 32))
    assert visible(made) == ["region by", "across", "down", "Paint"]
    assert made.word.options == ("a (1)", "car", "left", "of", "a (2)", "star")
    made.choose(word="a (2)", threshold=0.6)
    assert visible(made) == ["region by", "word", "threshold", "Paint"]
    heat = Image.fromarray(trace.heat_map(4)).resize((trace.width, trace.height), Image.Resampling.BILINEAR)
    made.paint()
    np.testing.assert_array_equal(asked, [np.asarray(heat) > 0.6])
    made.choose(threshold=0.0)
    np.testing.assert_array_equal(made.mask, np.asarray(heat) > 0)
    made.by.value = "box"
    np.testing.assert_array_equal(made.mask, box_of(0, 0, 64, 32, trace.height, trace.width))


def test_without_attention_a_region_is_a_box(model):
    made = widgets.region_explorer(sdteach.generate(model, "a car", steps=1, collect=()), lambda mask: None)
    assert visible(made) == ["across", "down", "Paint"]
    with pytest.raises(ValueError, match="a trace that holds attention"):
        made.choose(word="car")


@pytest.mark.parametrize(("wrong", "said"), [({"region": (8, 0, 8, 8)}, "64 x 40 pixels, got"), ({"region": (0, 0, 65, 8)}, "64 x 40"),
                                             ({"region": (0, 9, 8, 3)}, "64 x 40"), ({"word": "star"}, r"\['car'\].*got 'star'"),
                                             ({"threshold": 1.5}, "0..0.95, got 'car', 1.5")])  # fmt: skip
def test_a_region_that_is_not_there_is_explained(wrong, said):
    made = RegionExplorer(random_pixels(), lambda mask: None, {"car": np.zeros((5, 8), np.float32)})
    before = made.picture.value
    with pytest.raises(ValueError, match=said):
        made.choose(**wrong)
    assert made.picture.value == before


def test_live_figures_take_the_place_of_the_one_before(monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(("in its place", figure))

    monkeypatch.setattr(explorer_module, "display", lambda figure, display_id: shown.append(("new", figure)) or Handle())
    assert widgets.live(iter("abc")) is None
    assert shown == [("new", "a"), ("in its place", "b"), ("in its place", "c")]
