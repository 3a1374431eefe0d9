"""Figures show what the records hold: the numbers drawn are the record's own, the words are the prompt's, and all can be read."""

import base64
from html.parser import HTMLParser
from io import BytesIO
from itertools import combinations, permutations
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D
from PIL import Image

import sdteach
from sdteach import plots
from sdteach.plots import contact_sheet, latent_colours, picture_grid
from sdteach.plots.diagrams import STAGES
from sdteach.plots.style import CSS, THEMES, fit, styled, width_of, wrapped
from sdteach.records import StepRecord, Tokens
from sdteach.trace import Trace

PARTS = ("latents", "noise", "x0", "attention", "preview")
PROMPT = "a red car below a yellow star"
LONG = "a very big photograph of a little red car below a yellow star in the deep white snow of a winter night"
SHARP = "\"$\\frac{$\" <script>alert('1')</script> &"


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.delenv("SDTEACH_THEME", raising=False)


@pytest.fixture(scope="module")
def trace(model):
    return sdteach.generate(model, PROMPT, steps=9, collect=PARTS)


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def pixels(height, width, seed=0):
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), np.uint8)


def tokens_of(*words, dropped="", places=77):
    word_of = np.full(places, -1, np.int64)
    word_of[1 : len(words) + 1] = range(len(words))
    pieces = ("<|startoftext|>", *(f"{word}</w>" for word in words), *["<|endoftext|>"] * (places - len(words) - 1))
    return Tokens(" ".join(words), np.arange(places) * 101 + 7, pieces, words, word_of, len(words) + 1, dropped)


def made_up_trace(*words, height=56, width=104, steps=3, collected=True):
    def step(index):
        arrays = {name: numbers(1, 4, height // 8, width // 8, seed=[index, seed])
                  for seed, name in enumerate(("latents", "noise", "predicted_x0"))}  # fmt: skip
        maps = {"layer": np.abs(numbers(len(words) + 3, 3, 5, seed=[index, 9]))}
        parts = {**arrays, "attention": maps, "preview": pixels(height, width, [index, 7])} if collected else {}
        return StepRecord(index, 977.0 - 13 * index, **parts)

    tokens = tokens_of(*words)
    return Trace(tokens.text, "", "made up", "EulerDiscreteScheduler", 7.5, 3, height, width, True, tokens, numbers(77, 5),
                 numbers(1, 4, height // 8, width // 8), pixels(height, width), tuple(map(step, range(steps))))  # fmt: skip


def made_up_schedule(shift=0):
    return SimpleNamespace(betas=np.linspace(1e-4, 2e-2, 1000) + shift, alphas_cumprod=np.linspace(0.99, 0.01, 1000) - shift,
                           sigma=np.geomspace(0.02, 15, 1000) + shift, snr=torch.linspace(900, 0.01, 1000) + shift)  # fmt: skip


def noisy(height, width):
    return SimpleNamespace(timestep=613.0, alpha_cumprod=0.25, pixels=pixels(height, width, 1), decoded=pixels(height, width, 2),
                           latents=torch.from_numpy(numbers(1, 4, height // 8, width // 8)))  # fmt: skip


def measure(value, low, high):
    return SimpleNamespace(value=value, low=low, high=high, count=9)


def levels(count, height=12, width=8):
    """Feature maps as the UNet hands them on, numbered in 0..1."""
    order = ["in", *(f"down {i}" for i in range(count)), "middle", *(f"up {i}" for i in reversed(range(count)))]
    shrink = [0, *range(count), count - 1, *reversed(range(count))]
    return {
        name: np.abs(np.tanh(numbers(5 + i, height >> s, width >> s, seed=i)))
        for i, (name, s) in enumerate(zip(order, shrink, strict=True))
    }


PLANE = SimpleNamespace(push=0.03, guidance_scale=7.5, truth=(0.09, 0.14), best_scale=3.0)

CORNER = (0.0, 0.25, 0.5, 1.0)


def task(name, start="noise", conditioning="prompt", mask="none", steps="all", result="PSNR 29.5 dB", before=(32, 24), **drawn_over):
    return plots.Task(name, start, conditioning, mask, steps, before and pixels(*before), pixels(128, 96), result, **drawn_over)


# Every public figure, with a label in every place where a caller can put one.
PROGRESS = SimpleNamespace(steps=300, losses=[3.0, 0.5, 0.25], weight=[0.1, -0.2, -0.3],
                           looks={0: numbers(20, 2), 1: pixels(8, 8), 3: pixels(40, 40)})  # fmt: skip
FIGURES = {
    "boxes": lambda label: plots.boxes([pixels(40, 72), pixels(72, 40)], [{label: CORNER, f"2 {label}": CORNER}, None], [label, "b"]),
    "contact_sheet": lambda label: contact_sheet(made_up_trace(*[label] * 13)),
    "curves": lambda label: plots.curves([1, 2, 5], {label: [1, 2e9, 3], f"2 {label}": [4, 5, 6]}, label, label, label),
    "feature_matrix": lambda label: plots.feature_matrix(numbers(77, 29), tokens_of(*[label] * 11)),
    "filmstrip": lambda label: plots.filmstrip(made_up_trace(label, steps=1)),
    "guidance_arrows": lambda label: plots.guidance_arrows(PLANE),
    "heat_maps": lambda label: plots.heat_maps([pixels(40, 72)], [np.abs(np.tanh(numbers(5, 9, seed=i))) for i in range(3)],
                                               [label, "b", label], columns=2, outlines=[pixels(40, 72)[..., 0] > 9] * 3),
    "heat_table": lambda label: plots.heat_table(np.abs(np.tanh(numbers(3, 5))), [label] * 3, [label] * 5, label, label),
    "intervals": lambda label: plots.intervals({label: measure(0.2, 0.1, 0.3), f"2 {label}": measure(0.9, 0.8, 1.0)}, label, label),
    "latent_channels": lambda label: plots.latent_channels(numbers(1, 4, 7, 13), label),
    "latent_distribution": lambda label: plots.latent_distribution(numbers(1, 4, 13, 7), np.abs(numbers(1, 4, 13, 7, seed=1))),
    "learning": lambda label: plots.learning(PROGRESS, label),
    "noised": lambda label: plots.noised(pixels(104, 56), noisy(104, 56)),
    "picture_grid": lambda label: picture_grid([pixels(40, 72), pixels(72, 40), pixels(8, 8)], [label, "b", label], columns=2),
    "pipeline_map": lambda label: plots.pipeline_map("UNet", "tokenizer"),
    "point_clouds": lambda label: plots.point_clouds([numbers(20, 2), torch.randn(7, 2)], [label, "b"]),
    "prompt_map": lambda label: plots.prompt_map(numbers(17, 2), [label[:40]] * 17, [f"{i % 5} {label}" for i in range(17)], [0.5, 0.2]),
    "reconstruction": lambda label: plots.reconstruction(pixels(104, 56), pixels(104, 56, 1)),
    "regions": lambda label: plots.regions([pixels(40, 72)] * 2, [None, pixels(40, 72)[..., 0] > 99], [label, label]),
    "run_step": lambda label: plots.run_step(made_up_trace(label, steps=1, collected=False), 0),
    "schedule_curves": lambda label: plots.schedule_curves({label: made_up_schedule(), f"2 {label}": made_up_schedule(1e-3)}),
    "task_table": lambda label: plots.task_table([task("text", before=None), task(label, label, label, label, label, label)]),
    "unet_map": lambda label: plots.unet_map(levels(3), lambda features: features[:3]),
    "token_chips": lambda label: plots.token_chips(tokens_of(*[label] * 23, dropped=f"{label} " * 5)),
}  # fmt: skip
UNTOLD = {"guidance_arrows", "latent_distribution", "noised", "pipeline_map", "reconstruction", "run_step", "unet_map"}  # are told no word
LABELS = {"long": LONG, "wide": "W" * 60, "sharp": SHARP}


def drawn(figure):
    """The texts that are drawn, which ticks outside the axes are not."""
    seen, draw = [], Text.draw

    def note(text, renderer):
        if text.get_visible() and text.get_text():
            seen.append(text)
        draw(text, renderer)

    with mock.patch.object(Text, "draw", note):
        figure.draw_without_rendering()
    return seen


def corners(text):
    """Where a text stands, aslant or not, as four points."""
    turn = text.get_rotation()
    text.set_rotation(turn if turn % 90 == 0 else 0)
    box = Text.get_window_extent(text).corners()  # without the line of an annotation
    text.set_rotation(turn)
    anchor = text.get_transform().transform(text.get_position())
    return box if turn % 90 == 0 else Affine2D().rotate_deg_around(*anchor, turn).transform(box)


def overlap(first, second):
    """Whether two rectangles cover each other by more than half a pixel: no line stands between them."""
    sides = [side / np.linalg.norm(side) for box in (first, second) for side in (box[1] - box[0], box[2] - box[0])]
    return all(min((first @ side).max(), (second @ side).max()) - max((first @ side).min(), (second @ side).min()) > 0.5 for side in sides)


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def images(figure):
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images if axes.get_label() != "<colorbar>"]


def lines(axes):
    return {line.get_label(): np.transpose(line.get_xydata()) for line in axes.lines}


def equal(drawn_images, expected):
    assert len(drawn_images) == len(expected)
    for one, other in zip(drawn_images, expected, strict=True):
        np.testing.assert_array_equal(one, np.asarray(other))


def contrast(first, second):
    """WCAG 2.2: from 1 to 21."""
    lights = []
    for colour in (first, second):
        channels = np.array(colors.to_rgb(colour))
        lights.append(np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_every_public_figure_is_among_those_tested():
    assert set(FIGURES) == set(plots.__all__) - {"style", "Task", "heated", "latent_colours", "layer_names"}


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_leaves_the_page_or_covers_another(name, label):
    figure = FIGURES[name](LABELS[label])
    boxes = {text: corners(text) for text in drawn(figure)}
    assert boxes
    for text, box in boxes.items():
        assert (box >= -0.5).all(), text
        assert (box <= figure.bbox.size + 0.5).all(), text
    assert not [(one, other) for one, other in combinations(boxes, 2) if overlap(boxes[one], boxes[other])]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_text_stands_out_from_what_is_behind_it(name, theme, monkeypatch):
    monkeypatch.setenv("SDTEACH_THEME", theme)
    figure = FIGURES[name]("car")
    assert colors.same_color(figure.get_facecolor(), THEMES[theme].paper)
    shown = drawn(figure)
    for text in shown:
        text.set_alpha(0)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255
    for text in shown:
        (x0, y0), (x1, y1) = corners(text).min(0).astype(int), corners(text).max(0).astype(int)
        behind = np.median(page[y0 : y1 + 1, x0 : x1 + 1].reshape(-1, 3), 0)
        with styled():  # of whose cycle "C0" is
            assert contrast(text.get_color(), behind) >= 4.5, text


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_the_colours_of_a_theme_can_be_told_from_its_paper(theme):
    for surface in (theme.paper, theme.pale, theme.chip):
        assert contrast(theme.ink, surface) >= 4.5
    assert contrast(theme.quiet, theme.paper) >= 4.5
    assert all(contrast(colour, theme.paper) >= 3 for colour in theme.cycle)
    assert len(set(theme.cycle)) == len(theme.cycle) == 6


def test_a_theme_that_is_not_there_is_explained(monkeypatch):
    monkeypatch.setenv("SDTEACH_THEME", "")
    assert colors.same_color(plots.pipeline_map().get_facecolor(), "#ffffff")
    monkeypatch.setenv("SDTEACH_THEME", "sepia")
    with pytest.raises(ValueError, match="light, dark, got 'sepia'"):
        plots.pipeline_map()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_what_it_shows_with_its_callers_words(name):
    label = FIGURES[name](SHARP).get_label()
    assert len(label) > 20
    assert (SHARP in label) == (name not in UNTOLD)


@pytest.mark.parametrize("name", ["curves", "picture_grid", "token_chips"])
def test_in_a_notebook_a_figure_is_a_picture_that_says_what_it_shows(name):
    figure, tags = FIGURES[name](SHARP), []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.handle_data = tags.append
    html = figure.html()
    parser.feed(html)
    ((tag, attributes),) = tags
    assert tag == "img"
    assert attributes["alt"] == figure.get_label()
    assert "<script" not in html
    kind, data = attributes["src"].split(",")
    assert kind == "data:image/webp;base64"
    picture = Image.open(BytesIO(base64.b64decode(data)))
    picture.load()
    assert picture.size == pytest.approx(figure.get_size_inches() * 2 * CSS, abs=1)
    assert float(attributes["width"]) == pytest.approx(figure.get_figwidth() * CSS, abs=1)


def test_heat_lies_over_its_picture_with_the_truths_outline():
    pictures, maps = [pixels(40, 72, i) for i in range(3)], [np.abs(np.tanh(numbers(5, 9, seed=i))) for i in range(3)]
    masks = [picture[..., 0] > 128 for picture in pictures]
    figure = plots.heat_maps(pictures, maps, ["a", "b", "c"], columns=2, strength=0.4, outlines=masks)
    equal(images(figure), [plots.heated(*pair, 0.4) for pair in zip(pictures, maps, strict=True)])
    *cells, scale = figure.axes
    assert [len(axes.collections) for axes in cells] == [1, 1, 1]
    assert (scale.get_ylim(), scale.get_ylabel()) == ((0, 1), "1 = read most")
    assert len(images(plots.heat_maps(pictures[:1], maps, ["a", "b", "c"]))) == 3


@pytest.mark.parametrize(("pictures", "maps", "captions", "outlines"), [(2, 3, 3, None), (1, 3, 2, None), (1, 0, 0, None), (1, 2, 2, 1)])
def test_heat_needs_a_caption_and_an_outline_for_each_map(pictures, maps, captions, outlines):
    with pytest.raises(ValueError, match="expected a picture, a caption"):
        plots.heat_maps(
            [pixels(8, 8)] * pictures, [numbers(2, 2)] * maps, ["a"] * captions, outlines=outlines and [pixels(8, 8)[..., 0] > 9]
        )


def test_layers_are_called_by_their_side_and_grid():
    grids = {
        "down_blocks.0.x": (16, 24),
        "down_blocks.0.y": (16, 24),
        "mid_block.z": (4, 6),
        "up_blocks.2.x": (16, 24),
        "96 × 96": (64, 64),
    }
    named = ["down 16 × 24", "down 16 × 24 (2)", "middle 4 × 6", "up 16 × 24", "96 × 96"]
    assert list(plots.layer_names(grids).values()) == named
    assert list(plots.layer_names(grids)) == list(grids)


@pytest.mark.parametrize("theme", THEMES)
def test_a_region_is_clear_and_the_rest_dimmed_with_the_theme(theme, monkeypatch):
    monkeypatch.setenv("SDTEACH_THEME", theme)
    picture, after, mask = pixels(40, 72), pixels(40, 72, 1), np.zeros((40, 72), bool)
    mask[8:24, 64:] = True
    figure = plots.regions([picture, picture, after, after], [None, mask, None, ~mask & mask], ["before", "region", "after", "none"])
    shown = images(figure)
    equal([shown[index] for index in (0, 1, 3, 4)], [picture, picture, after, after])
    for veil, where in ((shown[2], mask), (shown[5], ~mask & mask)):
        np.testing.assert_array_equal(veil[..., 3] > 0, ~where)
        assert colors.same_color(veil[0, 0, :3], THEMES[theme].paper)
    assert [len(axes.collections) for axes in figure.axes] == [0, 1, 0, 0]
    assert all((axes.get_xlim(), axes.get_ylim()) == ((-0.5, 71.5), (39.5, -0.5)) for axes in figure.axes)
    edge = np.concatenate([path.vertices for path in figure.axes[1].collections[0].get_paths()])
    assert (*edge.min(0), *edge.max(0)) == (63.5, 7.5, 71.5, 23.5)
    assert "before; region, from 64 to 72 across and 8 to 24 down; after; none, nowhere" in figure.get_label()


@pytest.mark.parametrize(("draw", "over"), [(plots.regions, np.ones((8, 8), bool)), (plots.boxes, {"car": CORNER})])
@pytest.mark.parametrize("counts", [(2, 1, 1), (1, 2, 2), (1, 1, 0), (0, 0, 0)])
def test_what_is_drawn_over_pictures_is_one_for_each(draw, over, counts):
    pictures, overs, captions = ([one] * count for one, count in zip((pixels(8, 8), over, "a"), counts, strict=True))
    with pytest.raises(ValueError, match=f"got {counts[0]} pictures, {counts[2]} captions and {counts[1]} to draw"):
        draw(pictures, overs, captions)


def test_a_region_has_the_size_of_its_picture():
    with pytest.raises(ValueError, match=r"the picture's size, \(40, 72\), got \(72, 40\)"):
        plots.regions([pixels(40, 72)], [np.ones((72, 40), bool)], ["a"])


@pytest.mark.parametrize("theme", THEMES)
def test_boxes_lie_where_they_say_with_their_words(theme, monkeypatch):
    monkeypatch.setenv("SDTEACH_THEME", theme)
    layout = {"car": (0.125, 0.25, 0.5, 1.0), "yellow star": (0.5, 0.0, 1.0, 0.5)}
    figure = plots.boxes([pixels(40, 72), pixels(72, 40)], [layout, {}], ["led", "free"])
    equal(images(figure), [pixels(40, 72), pixels(72, 40)])
    led, free = figure.axes
    assert [(patch.get_bbox().x0, 1 - patch.get_bbox().y1, patch.get_bbox().x1, 1 - patch.get_bbox().y0) for patch in led.patches] == [
        *layout.values()
    ]
    assert all(colors.same_color(patch.get_edgecolor(), colour) for patch, colour in zip(led.patches, THEMES[theme].cycle, strict=False))
    assert not free.patches
    figure.draw_without_rendering()
    car, star = (text.get_window_extent() for text in led.texts[1:])
    above, below = (patch.get_window_extent() for patch in led.patches)
    assert car.y0 > above.y1  # what the boxes hold stays in sight
    assert star.y1 < below.y0
    assert "led, car 12% to 50% across and 25% to 100% down, yellow star 50% to 100% across and 0% to 50% down; free" in figure.get_label()


def test_words_of_many_boxes_on_one_spot_can_be_read():
    layout = {f"word {index} of many": (0.3, 0.5, 1.0, 0.9) for index in range(7)}
    figure = plots.boxes([pixels(72, 72)], [layout], ["crowd"])
    words = {text.get_text(): corners(text) for text in drawn(figure)}
    assert {*layout, "crowd"} == set(words)
    assert not [pair for pair in combinations(words.values(), 2) if overlap(*pair)]


@pytest.mark.parametrize("draw", [lambda layout: plots.boxes([pixels(8, 8)], [layout], ["a"]),
                                  lambda layout: plots.task_table([task("layout", layout=layout)])])  # fmt: skip
def test_a_box_that_is_none_is_named(draw):
    with pytest.raises(ValueError, match="for 'car' a box as left, top, right, bottom"):
        draw({"car": (0.5, 0.1, 0.4, 0.9)})


@pytest.mark.parametrize("theme", THEMES)
def test_the_table_of_tasks_lights_what_is_unlike_text_to_picture(theme, monkeypatch):
    monkeypatch.setenv("SDTEACH_THEME", theme)
    mask = np.zeros((32, 24), bool)
    mask[:9] = True
    tasks = [
        task("text to picture", before=None),
        task("inpainting", mask="painted anew", region=mask),
        task("layout", conditioning="prompt and boxes", steps="first half", before=None, result="IoU 0.41", layout={"car": CORNER}),
    ]
    figure = plots.task_table(tasks)
    blocks = figure.findobj(lambda artist: isinstance(artist, Rectangle) and artist.axes is None)
    lit = [block.get_window_extent() for block in blocks if colors.same_color(block.get_facecolor(), THEMES[theme].chip)]
    middles = {text.get_text(): corners(text).mean(0) for text in drawn(figure)}
    on = [text for text, middle in middles.items() if any(box.contains(*middle) for box in lit)]
    assert {*" ".join(on).split()} == {"painted", "anew", "prompt", "and", "boxes", "first", "half"}
    assert len(lit) == 3
    shown = images(figure)
    assert [image.shape[:2] for image in shown] == [(128, 96), (32, 24), (32, 24), (128, 96), (128, 96)]
    np.testing.assert_array_equal(shown[2][..., 3] == 0, mask)
    interpolations = [axes.images[0].get_interpolation() for axes in figure.axes]
    assert interpolations == ["lanczos", "nearest", "lanczos", "lanczos"]
    lefts = {axes.get_window_extent().x0 for axes in figure.axes}
    assert len(lefts) == 2
    for one in tasks:
        assert f"task: {one.name}; start latent: {one.start}; conditioning: {one.conditioning}; mask: {one.mask}" in figure.get_label()
    assert "how well: IoU 0.41." in figure.get_label()


@pytest.mark.parametrize("tasks", [[], [task("inpainting", before=None, region=np.ones((128, 96), bool))]])
def test_a_table_of_tasks_needs_one_and_a_picture_for_each_region(tasks):
    with pytest.raises(ValueError, match="at least one task, and a picture before for every region"):
        plots.task_table(tasks)


def test_a_grid_has_titles_of_its_rows_and_columns():
    figure = picture_grid([pixels(8, 8, i) for i in range(6)], columns=["seed 1", "seed 2", "seed 3"], rows=["none", "not “red”"])
    shown = {text.get_text(): corners(text) for text in drawn(figure)}
    assert [*shown] == ["seed 1", "seed 2", "seed 3", "none", "not “red”"]
    lefts, tops = zip(*(axes.bbox.get_points()[[0, 1], [0, 1]] for axes in figure.axes), strict=True)
    assert [shown[f"seed {i + 1}"].mean(0)[0] > lefts[i] for i in range(3)] == [True] * 3
    assert shown["seed 1"][:, 1].min() >= max(tops)
    assert shown["none"][:, 0].max() <= min(lefts)
    assert "none, seed 3; not “red”, seed 1" in figure.get_label()
    with pytest.raises(ValueError, match="a title for each of 2 rows, got 1"):
        picture_grid([pixels(8, 8)] * 6, columns=3, rows=["one"])


@pytest.mark.parametrize(("edge", "seen"), [(16, "nearest"), (64, "nearest"), (128, "lanczos"), (512, "lanczos")])
def test_small_pixels_make_a_smooth_picture_and_large_ones_are_seen(edge, seen):
    assert {axes.images[0].get_interpolation() for axes in picture_grid([pixels(edge, edge)] * 4, "abcd").axes} == {seen}


def test_what_goes_both_ways_has_its_middle_at_zero():
    signed, shares = (plots.heat_table([[0.5]], ["r"], ["c"], "t", "s", low).axes[0].images[0] for low in (-0.25, 0.0))
    assert (signed.get_clim(), shares.get_clim()) == ((-1, 1), (0, 1))
    assert (signed.cmap.name, shares.cmap.name) == ("PuOr", THEMES["light"].sheet["image.cmap"])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_unet_is_drawn_as_a_u(count):
    features = levels(count, 24, 16)
    figure = plots.unet_map(features, lambda values: values[1:4])
    order = [name for level in range(count) for name in (f"down {level}", f"up {level}")] + ["middle"]
    equal(images(figure), [np.moveaxis(features[name][1:4], 0, -1) for name in order])
    told = texts(figure)
    assert [text for text in told if "skip" in text] == [f"skip, level {level}" for level in range(count)]
    assert sum(f"{5 + list(features).index(name)} × " in text for text in told for name in order) >= len(order)


def test_guidance_is_drawn_to_scale():
    plane = SimpleNamespace(push=0.04, guidance_scale=5.0, truth=(0.1, 0.3), best_scale=2.5)
    (axes,) = plots.guidance_arrows(plane).axes
    points = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1]
    assert points == [(pytest.approx(0.2), 0), (0.04, 0), (0, 0), (0.1, 0.3)]
    assert any("× 2.5" in text for text in texts(axes))
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert all(left < x < right and low < y < high for x, y in points)


def test_intervals_are_dots_on_their_lines():
    figure = plots.intervals({"a": measure(0.25, 0.125, 0.5), "b": measure(0.75, 0.5, 1.0)}, "share", "title")
    lines = figure.axes[0].lines
    assert [line.get_xydata().tolist() for line in lines] == [[[0.125, 0], [0.25, 0], [0.5, 0]], [[0.5, 1], [0.75, 1], [1.0, 1]]]
    assert {(line.get_marker(), *line.get_markevery()) for line in lines} == {("o", 1)}
    assert figure.axes[0].yaxis_inverted()
    with pytest.raises(ValueError, match="at least one measure"):
        plots.intervals({}, "share", "title")


def test_the_sheet_shows_the_run(trace):
    figure = contact_sheet(trace)
    shown = texts(figure)
    for expected in (f"“{PROMPT}”", "1615", "start", "+ 68", "picture", "t = 889", "below"):
        assert any(expected in text for text in shown), expected
    drawn_images = images(figure)
    previews = [step.preview for step in trace.steps if step.preview is not None]
    assert len(previews) == 8
    maps = [plots.heated(trace.pixels, trace.heat_map(i)) for i in range(7)]
    equal(drawn_images, [latent_colours(trace.steps[0].latents), *previews, trace.pixels, *maps])
    assert PROMPT in figure.get_label()
    assert "car" in figure.get_label()


@pytest.mark.parametrize("collect", [(), ("latents",), ("attention",), ("preview",)])
def test_what_was_not_collected_is_left_out(model, collect):
    trace = sdteach.generate(model, "a red car", steps=3, width=72, collect=collect)
    expected = 1 + ("latents" in collect) + 3 * ("attention" in collect) + 3 * ("preview" in collect)
    assert len(images(contact_sheet(trace))) == expected


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("prompt", ["", "$\\frac{a}{", "a " * 200, "<b>\n\n\t", "\U0001f697", "a\udcff"])
def test_any_prompt_is_drawn_as_it_is(model, prompt, tmp_path):
    figure = contact_sheet(sdteach.generate(model, prompt, steps=1, collect=PARTS))
    figure.savefig(tmp_path / "sheet.png", dpi=30)
    assert any(text.startswith("“" + " ".join(prompt.replace("\udcff", "?").split())[:60]) for text in texts(figure))


def test_the_sheet_of_a_picture_covers_its_page_once(trace):
    figure = contact_sheet(trace)
    boxes = {text: corners(text) for text in drawn(figure)}
    assert not [(one, other) for one, other in combinations(boxes, 2) if overlap(boxes[one], boxes[other])]


def test_an_interrupted_run_says_so():
    trace = made_up_trace("car")
    object.__setattr__(trace, "complete", False)
    assert "interrupted" in texts(contact_sheet(trace))
    assert "interrupted" not in texts(contact_sheet(made_up_trace("car")))


def test_a_film_shows_what_the_unet_saw_above_what_it_predicted(trace):
    figure = plots.filmstrip(trace)
    steps = [step for step in trace.steps if step.preview is not None]
    seen = [latent_colours(values) for values in (*(step.latents for step in steps), trace.final_latents)]
    predicted = [*(step.preview for step in steps), trace.pixels]
    equal(images(figure), [*seen[:5], *predicted[:5], *seen[5:], *predicted[5:]])
    captions = [axes.texts[0].get_text() for axes in figure.axes]
    assert captions[:2] == [f"t = {step.timestep:.0f}" for step in steps[:2]]
    assert captions[5:7] == ["step 1", f"step {steps[1].index + 1}"]
    assert captions[-1] == "decoded"
    assert texts(figure).count("the UNet sees") == texts(figure).count("it predicts") == 2
    assert f"8 of {len(trace.steps)} steps" in figure.get_label()
    assert PROMPT in figure.get_label()
    assert all(f"{step.timestep:.0f}" in figure.get_label() for step in steps)
    upper, lower = figure.axes[0].get_position(), figure.axes[5].get_position()
    assert upper.y0 > lower.y1
    assert upper.width * figure.bbox.width == pytest.approx(upper.height * figure.bbox.height, rel=0.02)


@pytest.mark.parametrize("collect", [(), ("latents",), ("preview",)])
def test_a_film_needs_latents_and_previews(model, collect):
    with pytest.raises(ValueError, match=r"collect=\('latents', 'preview'\)"):
        plots.filmstrip(sdteach.generate(model, "a red car", steps=1, collect=collect))


def test_a_step_shows_what_the_trace_holds_of_it():
    trace = made_up_trace("car", height=104, width=56)
    record, other = trace.steps[1], pixels(104, 56, 5)
    figure = plots.run_step(trace, 1)
    equal(images(figure), [latent_colours(record.latents), latent_colours(record.noise), record.preview, trace.pixels])
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["latents, x_t", "predicted noise", "predicted picture", "result"]
    assert "step 2 of 3,  t = 964" in texts(figure)
    assert "step 2 of 3,  t = 964. latents, x_t, predicted noise" in figure.get_label()
    equal(images(plots.run_step(trace, 1, other))[2:], [other, trace.pixels])
    assert all(box.height * figure.bbox.height / 13 == pytest.approx(box.width * figure.bbox.width / 7)
               for box in (axes.get_position() for axes in figure.axes))  # fmt: skip
    bare = plots.run_step(made_up_trace("car", collected=False), 2)
    equal(images(bare), [pixels(56, 104)])
    assert bare.get_label().endswith(". result")


def test_a_noised_picture_stands_with_its_formula():
    noised = noisy(56, 104)
    figure = plots.noised(pixels(56, 104), noised)
    equal(images(figure), [pixels(56, 104), noised.pixels, latent_colours(noised.latents), noised.decoded])
    title = "t = 613    x_t = 0.500 × x_0 + 0.866 × noise"
    assert title in texts(figure)
    assert title in figure.get_label()


@pytest.mark.parametrize("theme", THEMES)
def test_a_grid_shows_every_picture_above_its_caption(theme, monkeypatch):
    monkeypatch.setenv("SDTEACH_THEME", theme)
    pictures = [pixels(24 + 16 * shade, 56) for shade in range(5)]
    captions = [f"picture number {shade}" for shade in range(5)]
    figure = picture_grid(pictures, captions, columns=3)
    figure.draw_without_rendering()
    for picture, caption, axes in zip(pictures, captions, figure.axes, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture)
        assert axes.texts[0].get_text().replace("\n", " ") == caption
        assert axes.texts[0].get_window_extent().y1 <= axes.get_window_extent().y0
        assert caption in figure.get_label()
        assert axes.bbox.height / axes.bbox.width == pytest.approx(len(picture) / 56)
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"{count} and 5"):
            picture_grid(pictures, captions[:count])
    with pytest.raises(ValueError, match="at least one"):
        picture_grid([], [])


@pytest.mark.parametrize("shape", [(1, 4, 7, 13), (1, 4, 13, 5), (1, 16, 3, 3), (1, 1, 5, 5)])
def test_latents_are_drawn_channel_by_channel_on_one_scale_around_zero(shape):
    latents = numbers(*shape)
    figure = plots.latent_channels(torch.from_numpy(latents), "noise")
    equal(images(figure), latents[0])
    assert {image.get_clim() for axes in figure.axes[: shape[1]] for image in axes.images} == {
        (-np.abs(latents).max(), np.abs(latents).max())
    }
    assert [f"channel {i}" for i in range(shape[1])] == [text for text in texts(figure) if text.startswith("channel")]
    assert f"noise. {shape[1]} channels of {shape[2]} by {shape[3]}, from {latents.min():.2f} to {latents.max():.2f}" in figure.get_label()


def test_the_distribution_has_means_above_deviations():
    mean, std = numbers(1, 4, 11, 7), np.exp(numbers(1, 4, 11, 7, seed=1))
    figure = plots.latent_distribution(torch.from_numpy(mean), torch.from_numpy(std))
    equal(images(figure), [*mean[0], *std[0]])
    limits = [axes.images[0].get_clim() for axes in figure.axes[:8]]
    assert limits[:4] == [(-np.abs(mean).max(), np.abs(mean).max())] * 4
    assert limits[-4:] == [(0, std.max())] * 4
    assert f"means from {mean.min():.2f} to {mean.max():.2f}, standard" in figure.get_label()
    assert f"deviations from {std.min():.4f} to {std.max():.4f}" in figure.get_label()
    assert "308 latents in 4 channels" in figure.get_label()
    assert {"mean", "standard deviation"} <= {axes.get_ylabel() for axes in figure.axes}


def test_a_reconstruction_shows_its_error():
    picture, copy = pixels(40, 72), pixels(40, 72, 1)
    picture[3, 5], copy[3, 5] = (0, 100, 255), (255, 90, 250)
    figure = plots.reconstruction(picture, copy)
    error = np.abs(picture.astype(int) - copy.astype(int)).sum(2) / 3
    first, second, third = images(figure)
    equal([first, second], [picture, copy])
    np.testing.assert_allclose(third, error)
    assert third[3, 5] == 90
    assert f"{error.mean():.1f} on average, {error.max():.0f} at most" in figure.get_label()
    assert images(plots.reconstruction(picture, picture))[2].max() == 0


def test_latents_as_colours_go_from_minus_three_to_three():
    latents = numbers(1, 4, 3, 5)
    latents[0, :3, 0, 0], latents[0, :, 2, 4] = (-3, 0, 3), (-99, 99, 1.5, 7)
    seen = latent_colours(latents)
    assert seen.shape == (3, 5, 3)
    assert seen[0, 0].tolist() == [0, 127, 255]
    assert seen[2, 4].tolist() == [0, 255, 191]
    assert np.array_equal(latent_colours(torch.from_numpy(latents)), seen)


def test_curves_are_the_numbers_they_are_given():
    x, y = [1, 2, 3, 5, 7], {"first": [0.5, 3, 2, 1, -4], "second": torch.tensor([9.0, 8, 7, 6, 5.5])}
    figure = plots.curves(x, y, "timestep t", "norm", "A title")
    (axes,) = figure.axes
    assert {name: [*map(list, values)] for name, values in lines(axes).items()} == {name: [x, list(values)] for name, values in y.items()}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("timestep t", "norm")
    assert {"A title", "first", "second"} <= set(texts(figure))
    assert figure.get_label() == "A title. norm by timestep t, 1 to 7: first from 0.5 to -4; second from 9 to 5.5."
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 2
    assert plots.curves(x, {"alone": x}, "x", "y", "title").axes[0].get_legend() is None


@pytest.mark.parametrize(("x", "named"), [([1, 2], {}), ([], {"a": []}), ([1, 2], {"a": [1, 2], "b": [1, 2, 3]}), ([1], {"a": []})])
def test_curves_need_one_value_for_each_x(x, named):
    with pytest.raises(ValueError, match=f"each of {len(x)} x"):
        plots.curves(x, named, "x", "y", "title")


def test_schedules_have_four_panels_on_one_time_axis():
    schedules = {"linear": made_up_schedule(), "cosine": made_up_schedule(1e-3)}
    figure = plots.schedule_curves(schedules)
    assert [axes.get_ylabel() for axes in figure.axes] == ["beta, noise per step", "cumulative alpha", "sigma, noise level",
                                                          "signal-to-noise ratio"]  # fmt: skip
    for field, axes, scale in zip(("betas", "alphas_cumprod", "sigma", "snr"), figure.axes, ("log", "linear", "log", "log"), strict=True):
        assert axes.get_yscale() == scale
        assert list(lines(axes)) == ["linear", "cosine"]
        for name, schedule in schedules.items():
            x, y = lines(axes)[name]
            np.testing.assert_array_equal(x, np.arange(1000))
            np.testing.assert_array_equal(y, np.asarray(getattr(schedule, field)))
    assert "linear, cosine" in figure.get_label()


@pytest.mark.filterwarnings("ignore:picturebook never read")
def test_tokens_stand_over_their_ids(model):
    tokens = sdteach.tokenize(model, "a redyellow car $ < a big umbrella")
    figure = plots.token_chips(tokens)
    where = {text: text.get_position() for text in figure.texts}
    named = ["start", *(piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}-" for piece in tokens.pieces[1 : tokens.end]),
             "end", f"+ {76 - tokens.end}"]  # fmt: skip
    ids = [*map(str, tokens.ids[: tokens.end + 1]), "padding"]
    assert [text.get_text() for text in figure.texts] == [part for pair in zip(named, ids, strict=True) for part in pair]
    for name, number in zip(figure.texts[::2], figure.texts[1::2], strict=True):
        assert where[name][0] == where[number][0]
        assert where[name][1] < where[number][1]  # inches from the top
    rows = sorted({position[1] for text, position in where.items() if text in figure.texts[::2]})
    assert len(rows) == -(-len(named) // 8)
    assert all(f"{name} {number}" in figure.get_label() for name, number in zip(named, ids, strict=True))


def test_tokens_show_all_that_was_cut_off(model):
    with pytest.warns(UserWarning, match="longer than 77"):
        tokens = sdteach.tokenize(model, "red " * 75 + "a yellow star <b> in the snow above two houses and a boat on a lake by night")
    figure = plots.token_chips(tokens)
    assert tokens.dropped.startswith("a yellow")
    told = " ".join(text.get_text() for text in figure.texts[-2:])
    assert f"cut off: {tokens.dropped}" in told
    assert f"Cut off: {tokens.dropped}" in figure.get_label()
    assert "77 tokens" in figure.get_label()
    assert "padding" not in texts(figure)
    assert not any("cut off" in text for text in texts(plots.token_chips(sdteach.tokenize(model, "a red car"))))


@pytest.mark.parametrize(("words", "places"), [(3, 77), (0, 77), (19, 77), (75, 77), (2, 5), (3, 5)])
def test_features_have_a_row_for_each_place(words, places):
    features, tokens = numbers(places, 23), tokens_of(*(f"w{i}" for i in range(words)), places=places)
    figure = plots.feature_matrix(torch.from_numpy(features), tokens)
    padding = places - words - 2
    equal(images(figure), [features[: words + 2], features[words + 2 :]] if padding else [features])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    names = ["start", *(f"w{i}" for i in range(words)), "end"]
    assert labels == (names if len(names) <= 20 else names[::4])
    assert [names[int(tick)] for tick in figure.axes[0].get_yticks()] == labels
    assert any(f"padding\n{padding} places" in text for text in texts(figure)) == bool(padding)
    assert f"{places} places × 23 features" in texts(figure)
    assert f"{places} places by 23 features" in figure.get_label()
    assert f"the other {padding} are padding" in figure.get_label()
    assert all(image.get_clim() == pytest.approx((-np.percentile(np.abs(features), 99), np.percentile(np.abs(features), 99)))
               for axes in figure.axes for image in axes.images if axes.get_label() != "<colorbar>")  # fmt: skip


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 1), (13, 11), (17, 19), (2, 23)])
def test_a_table_has_its_numbers_in_their_cells(shape, theme, monkeypatch):
    monkeypatch.setenv("SDTEACH_THEME", theme)
    values = np.linspace(-0.5, 1, np.prod(shape), dtype=np.float32).reshape(shape)[:, ::-1]
    names = [[f"{side}{i}" for i in range(length)] for side, length in zip("rc", shape, strict=True)]
    figure = plots.heat_table(torch.from_numpy(values.copy()), *names, "Layer 3", "cosine similarity", -1.0)
    axes = figure.axes[0]
    equal([axes.images[0].get_array()], [values])
    assert axes.images[0].get_clim() == (-1, 1)
    assert [text.get_text() for text in axes.get_yticklabels()] == names[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == names[1]
    inside = {tuple(map(int, text.get_position())): text for text in axes.texts if text.get_text()}
    if max(shape) > 14:
        assert not inside
    else:
        assert {place: text.get_text() for place, text in inside.items()} == {
            (column, row): f"{value:.2f}" for (row, column), value in np.ndenumerate(values)
        }
        for (column, row), text in inside.items():
            assert contrast(text.get_color(), axes.images[0].to_rgba(values[row, column])) >= 4.5
    assert f"{values.min():.2f} to {values.max():.2f}, most for r{shape[0] - 1} and c0" in figure.get_label()
    assert "Layer 3. cosine similarity" in figure.get_label()


def test_a_table_of_likeness_names_two_that_differ_the_same_on_every_machine():
    cosines = np.full((3, 3), 0.25)
    cosines[0, 2] = cosines[2, 0] = 0.5
    told = set()
    for diagonal in permutations((1.0, 1.0000001, 0.9999999)):
        np.fill_diagonal(cosines, diagonal)
        told.add(plots.heat_table(cosines.copy(), list("abc"), list("abc"), "Alike?", "cosine similarity", -1.0).get_label())
    assert len(told) == 1
    assert told.pop().endswith("most for a and c.")


@pytest.mark.parametrize(("limits", "shown"), [((), "3.00"), ((0.0, 9.5), "3.00"), ((0.0, 255.0), "3")])
def test_a_table_has_no_more_digits_than_its_scale_needs(limits, shown):
    figure = plots.heat_table([[3.0]], ["r"], ["c"], "title", "scale", *limits)
    assert shown in texts(figure)
    assert figure.axes[0].images[0].get_clim() == (limits or (0, 1))


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (2, 5), (5, 3)])
def test_a_table_needs_a_label_for_each_row_and_column(rows, columns):
    with pytest.raises(ValueError, match=rf"{rows} x {columns} values for the labels, got \(3, 5\)"):
        plots.heat_table(numbers(3, 5), ["r"] * rows, ["c"] * columns, "title", "scale")


@pytest.mark.parametrize("crowded", [False, True])
def test_a_map_of_prompts_has_each_group_in_its_colour_and_shape(crowded):
    points = numbers(13, 2) * (0.01 if crowded else 1) + 100
    labels, groups = [f"prompt number {i}" for i in range(13)], [("vehicles", "animals", "fruit")[i % 3] for i in range(13)]
    figure = plots.prompt_map(torch.from_numpy(points), labels, groups, [0.617, 0.213])
    (axes,) = figure.axes
    assert list(lines(axes)) == ["vehicles", "animals", "fruit"]
    for index, group in enumerate(lines(axes).values()):
        np.testing.assert_array_equal(group, points[index::3].T)
    assert len({line.get_color() for line in axes.lines}) == len({line.get_marker() for line in axes.lines}) == 3
    assert [(note.get_text(), tuple(note.xy)) for note in axes.texts] == [(label, tuple(point)) for label, point in
                                                                        zip(labels, points, strict=True)]  # fmt: skip
    assert axes.get_xlabel() == "direction 1 (62% of the variance)"
    assert axes.get_ylabel() == "direction 2 (21% of the variance)"
    assert f"prompt number 7 at {points[7, 0]:.2f}, {points[7, 1]:.2f}" in figure.get_label()
    notes = [corners(text) for text in drawn(figure) if text in axes.texts]
    assert len(notes) == 13
    assert not [pair for pair in combinations(notes, 2) if overlap(*pair)]


def test_on_a_map_even_texts_on_one_spot_can_be_read():
    figure = plots.prompt_map(np.ones((23, 2)), ["a red car"] * 23, ["g"] * 23, [1.0, 0.0])
    notes = [corners(text) for text in drawn(figure) if text.get_text() == "a red car"]
    assert len(notes) == 23
    assert not [pair for pair in combinations(notes, 2) if overlap(*pair)]


@pytest.mark.parametrize(("count", "labels", "groups"), [(3, 2, 3), (3, 3, 4), (0, 0, 0)])
def test_a_map_needs_a_label_and_a_group_for_each_point(count, labels, groups):
    with pytest.raises(ValueError, match=f"at least one, got {count}, {labels}, {groups}"):
        plots.prompt_map(numbers(count, 2), ["l"] * labels, ["g"] * groups, [0.5, 0.5])


@pytest.mark.parametrize("lit", [(), ("UNet",), ("tokenizer", "VAE decoder"), tuple(STAGES)])
def test_the_pipelines_map_brings_out_where_you_are(lit):
    figure = plots.pipeline_map(*lit)
    assert set(STAGES) <= set(texts(figure))
    bold = {text.get_text() for text in figure.texts if text.get_fontweight() == "bold"}
    assert bold == set(lit)
    filled = [patch for patch in figure.findobj(FancyBboxPatch) if colors.same_color(patch.get_facecolor(), THEMES["light"].cycle[0])]
    assert len(filled) == len(lit)
    assert (f"You are here: {', '.join(lit)}." in figure.get_label()) == bool(lit)
    assert "tokenizer and text encoder" in figure.get_label()
    with pytest.raises(ValueError, match=r"out of tokenizer, text encoder, .*, got Unet, loss"):
        plots.pipeline_map("Unet", "loss", *lit)


def test_text_is_cut_or_wrapped_to_its_room():
    assert fit("a red car", 9.0) == "a red car"
    for text in (LONG, "W" * 60, SHARP, ""):
        for room in (0.3, 1.1, 3.7):
            cut = fit(text, room, 12.0)
            assert width_of(cut, 12.0) <= room
            assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]) and width_of(text[: len(cut)] + "…", 12.0) > room)
            lines = wrapped(text, room, 12.0)
            assert all(width_of(line, 12.0) <= room for line in lines)
            assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_figures_are_made_where_torch_was_never_imported(trace, tmp_path, isolated):
    trace.save(tmp_path / "run.safetensors")
    code = """
import sys
from sdteach import plots
from sdteach.trace import Trace
trace = Trace.load("run.safetensors")
for figure in (plots.contact_sheet(trace), plots.filmstrip(trace), plots.run_step(trace, 8), plots.token_chips(trace.tokens),
               plots.feature_matrix(trace.text, trace.tokens), plots.latent_channels(trace.final_latents), plots.pipeline_map("UNet")):
    assert figure._repr_html_().startswith("<img alt=")
assert not {"torch", "diffusers", "transformers"} & set(sys.modules)
print(figure.get_label())
"""
    done = isolated(code)
    assert done.returncode == 0, done.stderr
    assert "You are here: UNet" in done.stdout


def test_a_training_is_drawn_as_far_as_it_has_come():
    figure = plots.learning(PROGRESS, "A star")
    assert figure.get_label() == "A star. Step 3 of 300, loss 3 at first, 1.25 now."
    losses, weight = (axes for axes in figure.axes if axes.get_ylabel() in ("loss", "one weight"))
    for axes, values in ((losses, PROGRESS.losses), (weight, PROGRESS.weight)):
        assert axes.get_xlim() == (0, 300)
        assert axes.lines[0].get_xydata().tolist() == [[step + 1, value] for step, value in enumerate(values)]
        smooth = axes.lines[1].get_ydata()
        assert min(values) < smooth.min() <= smooth.max() < max(values)
    points = next(axes for axes in figure.axes if axes.collections)
    assert np.allclose(points.collections[0].get_offsets(), PROGRESS.looks[0])
    assert [note.get_text() for axes in figure.axes[2:] for note in axes.texts] == ["before", "step 1", "step 3"]
    begun = plots.learning(SimpleNamespace(steps=9, losses=[], weight=[], looks={}), "A star")
    assert begun.get_label() == "A star. Step 0 of 9, not begun."


def test_point_clouds_show_their_points():
    clouds = [numbers(20, 2), numbers(7, 2)]
    for axes, cloud in zip(plots.point_clouds(clouds, ["a", "b"]).axes, clouds, strict=True):
        assert np.allclose(axes.collections[0].get_offsets(), cloud)
    with pytest.raises(ValueError, match="as many captions as pictures"):
        plots.point_clouds(clouds, ["a"])


def test_ways_are_drawn_as_lines_that_end_in_their_points():
    ways = numbers(5, 3, 2)
    figure = plots.point_clouds([ways], ["ways"])
    (axes,) = figure.axes
    assert figure.get_label().startswith("3 points")
    for line, way in zip(axes.lines, ways.swapaxes(0, 1), strict=True):
        np.testing.assert_allclose(line.get_xydata(), way)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), ways[-1])
