"""Pictures, masks and layouts as people have them: read as they are meant, or refused with a reason."""

import json
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdteach import pictures

CORNERS = np.array([[[200, 30, 20], [30, 190, 40]], [[20, 40, 210], [240, 220, 60]]], np.uint8)
PICTURE = Image.fromarray(CORNERS.repeat(5, 0).repeat(7, 1))  # 14 x 10
# What each EXIF orientation asks for, on arrays (rows, columns): the standard's table.
TURNS = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1], 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: a.swapaxes(0, 1)[::-1],
}  # fmt: skip


def saved(folder, image, name="a.png", **options):
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_its_camera_was_held(tmp_path, orientation):
    exif = PICTURE.getexif()
    exif[0x0112] = orientation
    opened = pictures.open_picture(saved(tmp_path, PICTURE, exif=exif))
    assert np.array_equal(np.asarray(opened), TURNS[orientation](np.asarray(PICTURE)))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif", "a.tiff", "a.ppm", "a.webp", "a.jpg"])
def test_any_format_is_read(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {"quality": 95, "subsampling": 0} if name == "a.jpg" else {}
    opened = pictures.open_picture(saved(tmp_path, PICTURE, name, **options))
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened, int) - np.asarray(PICTURE)).max() <= (40 if name == "a.jpg" else 0)


@pytest.mark.parametrize(("mode", "name"), [("1", "a.png"), ("L", "a.png"), ("P", "a.png"), ("CMYK", "a.tiff"), ("YCbCr", "a.tiff")])
def test_any_mode_is_read_as_rgb(tmp_path, mode, name):
    given_as = PICTURE.convert(mode)
    opened = pictures.open_picture(saved(tmp_path, given_as, name))
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened, int) - np.asarray(given_as.convert("RGB"))).mean() < 4


def test_what_is_transparent_is_white_and_half_of_it_half(tmp_path):
    picture = PICTURE.convert("RGBA")
    alpha = np.full((10, 14), 255, np.uint8)
    alpha[:, :4], alpha[:3] = 0, 128
    picture.putalpha(Image.fromarray(alpha))
    share = alpha[..., None] / 255
    wanted = np.asarray(PICTURE) * share + 255 * (1 - share)
    assert np.abs(np.asarray(pictures.open_picture(saved(tmp_path, picture))) - wanted).max() <= 1
    gray = picture.convert("LA")
    wanted = np.asarray(gray)[..., :1] * share + 255 * (1 - share)
    assert np.abs(np.asarray(pictures.open_picture(saved(tmp_path, gray))) - wanted).max() <= 1
    palette = Image.new("P", (3, 1))
    palette.putpalette([0, 0, 0, 200, 10, 30])
    palette.putpixel((1, 0), 1)
    opened = pictures.open_picture(saved(tmp_path, palette, transparency=0))
    assert np.asarray(opened).tolist() == [[[255, 255, 255], [200, 10, 30], [255, 255, 255]]]


def test_sixteen_bits_of_gray_keep_their_shades(tmp_path):
    shades = np.array([[0, 257, 30_000], [40_000, 65_535, 65_278]], np.uint16)
    opened = pictures.open_picture(saved(tmp_path, Image.fromarray(shades)))
    assert np.array_equal(np.asarray(opened)[..., 1], (shades / 257).round())


def test_of_several_frames_the_first(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    opened = pictures.open_picture(saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:]))
    assert np.array_equal(np.asarray(opened), np.asarray(frames[0]))


@pytest.mark.parametrize(("contents", "told"), [
    (b"", "convert it"), (b"no picture", "convert it"), (b"\x89PNG\r\n\x1a\n" + bytes(20), "a.png"),
])  # fmt: skip
def test_what_is_no_picture_is_refused(tmp_path, contents, told):
    (tmp_path / "a.png").write_bytes(contents)
    with pytest.raises(ValueError, match=told):
        pictures.open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_that_was_cut_off_is_refused(tmp_path, kind):
    data = BytesIO()
    PICTURE.resize((140, 100)).save(data, kind)
    (tmp_path / "a").write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    with pytest.raises(ValueError, match=r"cannot read .*a: .*save it again"):
        pictures.open_picture(tmp_path / "a")


def test_other_paths_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        pictures.open_picture(tmp_path / "none.png")
    with pytest.raises(ValueError, match="cannot read"):
        pictures.open_picture(tmp_path)


def test_floats_and_too_many_pixels_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="floating point"):
        pictures.open_picture(saved(tmp_path, Image.new("F", (4, 4)), "a.tiff"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 69)
    with pytest.raises(ValueError, match=r"too large.*make it smaller"):
        pictures.open_picture(saved(tmp_path, PICTURE))


@pytest.fixture(scope="module")
def files():
    made = {}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF"):
        PICTURE.save(data := BytesIO(), kind)
        made[kind] = data.getvalue()
    return made


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_picture_is_read_or_refused(files, tmp_path_factory, data):
    contents = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
    for place in data.draw(st.lists(st.integers(0, len(contents) - 1), max_size=6)):
        contents[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(contents[: data.draw(st.integers(0, len(contents)))])
    try:
        opened = pictures.open_picture(path)
    except ValueError:
        return
    assert opened.mode == "RGB"


@pytest.mark.parametrize(("size", "area", "wanted"), [
    ((128, 104), 16384, (104, 128)), ((131, 99), 16384, (96, 128)), ((1000, 667), 16384, (104, 160)), ((1, 1), 16384, (8, 8)),
    ((10_000, 1), 16384, (8, 4096)), ((3, 9999), 16384, (4096, 8)), ((512, 512), 16384, (128, 128)), ((64, 64), 16384, (64, 64)),
])  # fmt: skip
def test_the_size_that_fits(size, area, wanted):
    assert pictures.fitting_size(Image.new("RGB", size), 8, area) == wanted


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), area=st.integers(64 * 64, 512 * 512))
def test_a_fitting_size_is_near_the_area_and_the_shape(width, height, area):
    rows, columns = pictures.fitting_size(Image.new("1", (width, height)), 8, area)
    share = min(1.0, (area / (width * height)) ** 0.5)
    assert rows % 8 == columns % 8 == 0
    for edge, wanted in ((rows, height * share), (columns, width * share)):
        assert abs(edge - wanted) <= 4 or edge in {8, 4096}


BLOCKS = np.array([[1, 0, 0, 1, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]], bool)


@pytest.mark.parametrize(("scale", "size"), [(8, (24, 40)), (24, (24, 40)), (16, (48, 80))])
def test_a_mask_is_white_where_to_paint_at_the_size_that_is_asked_for(tmp_path, scale, size):
    drawn = Image.fromarray(BLOCKS.repeat(scale, 0).repeat(scale, 1))
    mask = pictures.open_mask(saved(tmp_path, drawn), Image.new("RGB", (50, 30)), *size)
    assert mask.dtype == bool
    assert np.array_equal(mask, BLOCKS.repeat(size[0] // 3, 0).repeat(size[1] // 5, 1))


def test_a_mask_may_be_a_noisy_jpeg_or_all_white(tmp_path):
    drawn = Image.fromarray(BLOCKS.repeat(16, 0).repeat(16, 1)).convert("RGB")
    mask = pictures.open_mask(saved(tmp_path, drawn, "a.jpg", quality=60), drawn, 48, 80)
    assert np.array_equal(mask, BLOCKS.repeat(16, 0).repeat(16, 1))
    assert pictures.open_mask(saved(tmp_path, Image.new("L", (8, 8), 255)), Image.new("RGB", (16, 16)), 16, 16).all()


@pytest.mark.parametrize(("mask", "told"), [
    (Image.new("L", (20, 10)), "all black"), (Image.new("L", (10, 20), 255), "20 x 10, got .* of 10 x 20"),
    (Image.new("L", (20, 10), 128), "100% is neither"), (Image.new("RGB", (20, 10), "red"), "black and white"),
])  # fmt: skip
def test_other_masks_are_refused(tmp_path, mask, told):
    with pytest.raises(ValueError, match=told):
        pictures.open_mask(saved(tmp_path, mask), Image.new("RGB", (20, 10)), 16, 24)


def test_a_layout_is_read(tmp_path):
    (tmp_path / "l.json").write_text('{"red car": [0, 0.25, 0.5, 1], "Straße": [0.1, 0.2, 0.3, 0.4]}', "utf-8")
    assert pictures.open_layout(tmp_path / "l.json") == {"red car": (0.0, 0.25, 0.5, 1.0), "Straße": (0.1, 0.2, 0.3, 0.4)}


@pytest.mark.parametrize("text", [
    "", "car", "[]", "3", "null", "{}", '{"car": 3}', '{"car": [0, 0, 1]}', '{"car": ["0", 0, 1, 1]}', '{"car": [true, 0, 1, 1]}',
    '{"car": [NaN, 0, 1, 1]}', '{"car": [0, 0, Infinity, 1]}', '{"car": [0.5, 0, 0.5, 1]}', '{"car": [0.6, 0, 0.5, 1]}',
    '{"car": [0, 0, 1.01, 1]}', '{"car": [-0.1, 0, 1, 1]}', '{"car": {"left": 0}}', '{"car": [0,0,1,1], "car": [0,0,1,1]}',
    "[" * 100_000, '{"a":' * 10_000, '[["car", [0, 0, 1, 1]]]',
])  # fmt: skip
def test_other_layouts_are_refused(tmp_path, text):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(ValueError, match="expected"):
        pictures.open_layout(tmp_path / "l.json")


def test_a_layout_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "l.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match="expected JSON"):
        pictures.open_layout(tmp_path / "l.json")


VALUES = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(-2, 2),
                      lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3))  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_any_json_is_a_layout_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("layout") / "l.json"
    path.write_text(json.dumps(value))
    try:
        layout = pictures.open_layout(path)
    except ValueError:
        return
    assert layout == {word: tuple(map(float, box)) for word, box in value.items()}
    assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in layout.values())


@given(box=st.tuples(*[st.floats(0, 1)] * 4), height=st.integers(1, 19), width=st.integers(1, 19))
def test_a_box_covers_the_positions_whose_centres_it_holds_and_at_least_one(box, height, width):
    left, top, right, bottom = min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])
    mask = pictures.box_mask((left, top, right, bottom), height, width)
    rows = [top < (row + 0.5) / height < bottom for row in range(height)]
    columns = [left < (column + 0.5) / width < right for column in range(width)]
    wanted = np.array([[down and across for across in columns] for down in rows])
    more = mask & ~wanted
    assert (mask | ~wanted).all()
    assert more.sum() <= 1
    if more.any():
        row, column = np.argwhere(more)[0]
        assert row <= (top + bottom) / 2 * height <= row + 1
        assert column <= (left + right) / 2 * width <= column + 1
    assert mask.any()


def test_pasted_back_keeps_what_is_not_masked():
    painted, picture = (np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8) for seed in (1, 2))
    mask = np.random.default_rng(3).random((5, 7)) > 0.5
    made = pictures.pasted_back(painted, picture, mask)
    for row in range(5):
        for column in range(7):
            assert np.array_equal(made[row, column], (painted if mask[row, column] else picture)[row, column])


def shrunk(image, factor):
    pixels = np.asarray(image, float)
    return pixels.reshape(pixels.shape[0] // factor, factor, pixels.shape[1] // factor, factor, 3).mean((1, 3))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_back_projected_shrinks_to_the_small_picture(factor):
    generator = np.random.default_rng(7)
    small = Image.fromarray(generator.integers(60, 196, (5, 7, 3), np.uint8))
    large = Image.fromarray(generator.integers(60, 196, (5 * factor, 7 * factor, 3), np.uint8))
    off = [np.abs(shrunk(made, factor) - np.asarray(small, float)).mean()
           for made in (large, *(pictures.back_projected(large, small, times) for times in (1, 3, 40)))]  # fmt: skip
    assert off == sorted(off, reverse=True)
    assert off[2] < 0.1 * off[0]
    assert off[3] < 0.3


def test_back_projected_leaves_what_agrees_alone():
    small = Image.fromarray(np.random.default_rng(7).integers(0, 256, (5, 7, 3), np.uint8))
    large = small.resize((21, 15), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(pictures.back_projected(large, small)), np.asarray(large))


@pytest.mark.parametrize("size", [(20, 15), (21, 16), (14, 15), (3, 2)])
def test_back_projected_needs_whole_squares(size):
    with pytest.raises(ValueError, match="a whole number of times"):
        pictures.back_projected(Image.new("RGB", size), Image.new("RGB", (7, 5)))
