"""Pictures, masks and layouts from files, against numpy and what is drawn by hand; damage and nonsense are refused by name."""

import json
import os
import re
import struct
import zlib
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from sdteach.pictures import back_projected, box_mask, checked_layout, fitting_size, open_layout, open_mask, open_picture, pasted_back, psnr

RNG = np.random.default_rng(3)
CORNERS = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 0)]], np.uint8).repeat(32, 0).repeat(48, 1)
INKS = np.array([[(255, 0, 0, 0), (0, 255, 0, 0)], [(0, 0, 0, 255), (255, 255, 0, 0)]], np.uint8).repeat(32, 0).repeat(48, 1)
PRINTED = np.array([[(0, 255, 255), (255, 0, 255)], [(0, 0, 0), (0, 0, 255)]], np.uint8).repeat(32, 0).repeat(48, 1)
COLOUR = RNG.integers(0, 256, (7, 11, 3), np.uint8)
GRAY, ALPHA = RNG.integers(0, 256, (2, 7, 11), np.uint8)
ALPHA[0, :3] = 0, 128, 255
DEEP = RNG.integers(0, 65536, (7, 11), np.uint16)
DEEP[0, :4] = 0, 255, 256, 65535
INDEX, PALETTE, SHARES = RNG.integers(0, 5, (7, 11), np.uint8), RNG.integers(0, 256, (5, 3), np.uint8), np.array([255, 0, 131, 7, 255])
PAINTED = Image.fromarray(INDEX)
PAINTED.putpalette(PALETTE.tobytes())
VEILED = PAINTED.convert("PA")
VEILED.putalpha(Image.fromarray(ALPHA))
BLOCKS = RNG.random((13, 17)) < 0.4
EXACTLY = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}  # as exactly as the format can
UPRIGHT = {  # what is seen of stored pixels
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, 1),
}  # fmt: skip
NO_JSON, NO_OBJECT, NO_BOX = r"expected JSON such as.*a\.json: .", r"expected one JSON object.*a\.json, got", "expected for 'a' a box .*got"
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.floats(0, 1)
VALUES = st.recursive(NUMBERS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
EDGE = st.integers(1, 5000) | st.integers(1, 15).map(lambda times: 64 * times)
EDGES = st.tuples(st.integers(0, 97), st.integers(0, 97)).filter(lambda edges: edges[0] != edges[1]).map(sorted)
with_files = settings(max_examples=60)


def encoded(pixels, kind, **options):
    Image.fromarray(pixels).save(file := BytesIO(), kind, **options)
    return file.getvalue()


def written(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def saved(path, picture, **options):
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


def on_white(colour, alpha):
    return colour * (share := alpha[..., None] / 255) + 255 * (1 - share)


def same(path, expected, tolerance=0.0):
    picture = open_picture(path)
    assert picture.mode == "RGB"
    np.testing.assert_allclose(np.asarray(picture, float), np.broadcast_to(expected, (*expected.shape[:2], 3)), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("kind", "orientation"), [
    *((kind, 1) for kind in ("gif", "bmp", "ppm")), *((kind, way) for kind in ("png", "jpg", "webp", "tiff") for way in UPRIGHT)
])  # fmt: skip
def test_a_picture_of_any_format_is_seen_upright_whatever_way_it_was_stored(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path / f"a.{kind}", CORNERS, exif=exif, **EXACTLY.get(kind, {}))
    same(path.rename(tmp_path / "a.odd"), UPRIGHT[orientation](CORNERS), 12 if kind == "jpg" else 0)
    assert open_picture(str(tmp_path / "a.odd")).getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize(("kind", "picture", "options", "expected", "tolerance"), [
    ("png", Image.fromarray(GRAY > 127), {}, (GRAY > 127)[..., None] * 255, 0), ("png", Image.fromarray(GRAY), {}, GRAY[..., None], 0),
    ("png", Image.fromarray(DEEP), {}, (DEEP / 257).round()[..., None], 0),
    ("ppm", Image.fromarray(DEEP), {}, (DEEP / 257)[..., None], 0.5),
    ("png", PAINTED, {}, PALETTE[INDEX], 0), ("gif", PAINTED, {}, PALETTE[INDEX], 0), ("png", Image.fromarray(COLOUR), {}, COLOUR, 0),
    ("jpg", Image.fromarray(INKS, "CMYK"), EXACTLY["jpg"], PRINTED, 12), ("tiff", Image.fromarray(INKS, "CMYK"), {}, PRINTED, 0),
    ("png", Image.fromarray(np.dstack([GRAY, ALPHA])), {}, on_white(GRAY[..., None], ALPHA), 1),
    ("png", Image.fromarray(np.dstack([COLOUR, ALPHA])), {}, on_white(COLOUR, ALPHA), 1),
    ("tiff", VEILED, {}, on_white(PALETTE[INDEX], ALPHA), 1),
    ("png", PAINTED, {"transparency": bytes(SHARES.tolist())}, on_white(PALETTE[INDEX], SHARES[INDEX]), 1),
    ("gif", PAINTED, {"transparency": 2}, on_white(PALETTE[INDEX], (INDEX != 2) * 255), 0),
    ("png", Image.fromarray(INDEX), {"transparency": 3}, np.where(INDEX == 3, 255, INDEX)[..., None], 0),
    ("png", Image.fromarray(PALETTE[INDEX]), {"transparency": tuple(PALETTE[1].tolist())}, on_white(PALETTE[INDEX], (INDEX != 1) * 255), 0),
])  # fmt: skip
def test_every_mode_becomes_rgb_on_white(tmp_path, kind, picture, options, expected, tolerance):
    path = saved(tmp_path / f"a.{kind}", picture, **options)
    with Image.open(path) as file:
        assert file.mode == picture.mode or (file.mode, kind) == ("I", "ppm")
    same(path, expected, tolerance)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_of_several_frames_the_first_is_opened(tmp_path, kind):
    later = [Image.fromarray(CORNERS[::-1]), Image.fromarray(CORNERS[:, ::-1])]
    same(saved(tmp_path / f"a.{kind}", CORNERS, save_all=True, append_images=later, **EXACTLY.get(kind, {})), CORNERS)


@pytest.mark.parametrize(("name", "data", "told"), [
    ("text.png", b"a red car", "expected a picture.*convert it"), ("empty.jpg", b"", "expected a picture.*convert it"),
    ("cut.png", encoded(COLOUR, "PNG")[:150], "truncated.*save it again"), ("cut.jpg", encoded(COLOUR, "JPEG")[:-50], "truncated.*save it"),
    ("cut.gif", encoded(INDEX, "GIF")[:-40], "save it again"), ("cut.bmp", encoded(COLOUR, "BMP")[:-9], "truncated.*save it again"),
    ("float.tiff", encoded(np.ones((3, 5), np.float32), "TIFF"), "floating point numbers.*save it again"),
    ("flags.dds", encoded(COLOUR, "DDS")[:80] + bytes(4) + encoded(COLOUR, "DDS")[84:], "save it again"),
])  # fmt: skip
def test_what_cannot_be_opened_is_refused_by_name_and_with_a_remedy(tmp_path, name, data, told):
    with pytest.raises(ValueError, match=f"(?s){re.escape(str(tmp_path / name))}.*") as refused:
        open_picture(written(tmp_path / name, data))
    assert re.search(told, str(refused.value), re.DOTALL)


def test_a_folder_is_refused_a_missing_file_is_missing_and_an_error_without_words_is_told_by_its_kind(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=f"got {re.escape(str(tmp_path))}, which cannot be read: .*; save it again"):
        open_picture(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "none.png")
    path = saved(tmp_path / "a.png", COLOUR)
    monkeypatch.setattr(Image.Image, "reduce", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ValueError, match=r"a\.png, which cannot be read: MemoryError; save it again"):
        open_picture(path)


def test_a_picture_of_too_many_pixels_is_refused_and_one_at_the_limit_opens_silently(tmp_path, monkeypatch, recwarn):
    path = saved(tmp_path / "bomb.png", COLOUR)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 39)  # of 77, and Pillow refuses more than twice as many
    same(path, COLOUR)
    assert not recwarn
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 38)
    with pytest.raises(ValueError, match=r"bomb\.png, which cannot be read: .*77 pixels.*; make it smaller first"):
        open_picture(path)


@pytest.mark.parametrize("size", [(13_300, 13_300), (2**31 - 1, 1)])
def test_a_small_file_of_too_many_pixels_is_refused_before_they_are_made(tmp_path, size):
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    path = written(
        tmp_path / "huge.png",
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + bytes(4) + b"IDAT",
    )
    with pytest.raises(ValueError, match=r"huge\.png, which cannot be read: .* pixels.*; make it smaller first"):
        open_picture(path)


@pytest.mark.parametrize(("kind", "size", "expected"), [
    ("png", (4096, 7), (4096, 7)), ("png", (4097, 6), (2049, 3)), ("gif", (9000, 3), (3000, 1)), ("jpg", (8200, 8193), (2050, 2049)),
])  # fmt: skip
def test_a_large_picture_is_shrunk_by_a_whole_number(tmp_path, kind, size, expected):
    halves = Image.new("L", size, 200)
    halves.paste(20, (0, 0, size[0] // 2, size[1]))
    picture = open_picture(saved(tmp_path / f"a.{kind}", halves))
    assert picture.size == expected
    np.testing.assert_allclose(np.asarray(picture)[:, [0, -1]].mean((0, 2)), [20, 200], atol=2)


def test_what_another_program_would_have_to_run_is_refused(tmp_path):
    path = saved(tmp_path / "a.eps", COLOUR).rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"expected a picture.*convert it"):
        open_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@with_files
@given(data=st.data())
def test_a_damaged_picture_opens_as_rgb_or_is_refused_by_name(tmp_path, kind, data):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.DateTime] = 6, "1991:05:01 12:00:00"
    file = bytearray(encoded(COLOUR, kind, exif=exif))
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), max_size=8)):
        file[place] = byte
    path = written(tmp_path / "damaged", bytes(file[: data.draw(st.just(len(file)) | st.integers(0, len(file)))]))
    try:
        told = open_picture(path).mode
    except ValueError as error:
        told = str(error)
    assert told == "RGB" or str(path) in told


@given(EDGE, EDGE, st.sampled_from([1, 2, 4, 8, 32, 64]), st.integers(1, 1024))
@example(1, 1, 8, 64)
@example(1, 10000, 8, 512)
@example(9999, 3, 8, 512)
@example(512, 768, 8, 512)
@example(72, 136, 8, 99)
def test_a_size_keeps_shape_and_area_but_for_rounding(height, width, factor, root):
    sizes = fitting_size(Image.new("1", (width, height)), factor, root**2)
    assert all(size % factor == 0 and 0 < size <= 4096 for size in sizes)
    # The scales by which an edge rounds to its size; a smallest size comes from any below, a largest from any above.
    low = [0 if size == factor else (size - factor / 2) / edge for size, edge in zip(sizes, (height, width), strict=True)]
    high = [np.inf if size == 4096 else (size + factor / 2) / edge for size, edge in zip(sizes, (height, width), strict=True)]
    assert max(low) <= min(high) * (1 + 1e-9)
    assert max(low) <= 1 <= min(high) or max(low) ** 2 * height * width <= root**2 * (1 + 1e-9)
    if height * width <= root**2 and height % factor == width % factor == 0 and max(height, width) <= 4096:
        assert sizes == (height, width)
    assert min(high) >= 1 or min(high) ** 2 * height * width >= root**2 * (1 - 1e-9)


@pytest.mark.parametrize("times", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_mask_of_any_size_keeps_its_blocks_at_any_other(tmp_path, kind, times):
    large = BLOCKS.repeat(times, 0).repeat(times, 1)
    drawn, enlarged = saved(tmp_path / f"small.{kind}", BLOCKS), saved(tmp_path / f"large.{kind}", large)
    for path, size, expected in ((drawn, large.shape, large), (enlarged, BLOCKS.shape, BLOCKS), (enlarged, large.shape, large)):
        mask = open_mask(path, Image.new("RGB", (34, 26)), *size)
        assert mask.dtype == bool
        assert np.array_equal(mask, expected)


def test_a_mask_may_be_a_noisy_jpeg_or_have_soft_edges_or_a_hole_or_be_all_white(tmp_path):
    region = np.zeros((101, 67), np.uint8)
    region[19:83, 11:47] = 255
    soft, holed = region.copy(), np.dstack([np.zeros((101, 67, 3), np.uint8), 255 - region])
    soft[19:83, [11, 46]] = soft[[19, 82], 11:47] = 150
    for name, drawn in (("noisy.jpg", region), ("soft.png", soft), ("holed.png", holed)):
        mask = open_mask(saved(tmp_path / name, drawn, quality=60), Image.new("RGB", (67, 101)), 101, 67)
        assert np.array_equal(mask, region > 0)
    with pytest.warns(UserWarning, match=r"white\.png is white all over"):
        assert open_mask(saved(tmp_path / "white.png", Image.new("L", (7, 5), 255)), Image.new("RGB", (70, 50)), 72, 104).all()


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_mask_is_seen_upright_as_its_picture_is(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = UPRIGHT[orientation](BLOCKS)
    for kind in ("png", "jpg"):
        path = saved(tmp_path / f"mask.{kind}", BLOCKS.repeat(8, 0).repeat(8, 1), exif=exif)
        assert np.array_equal(open_mask(path, Image.new("RGB", upright.shape[::-1]), *upright.shape), upright)


@pytest.mark.parametrize("soft", [False, True])
def test_white_that_is_drawn_on_nothing_is_the_mask(tmp_path, soft):
    alpha = np.zeros((101, 67), np.uint8)
    alpha[19:83, 11:47] = 255
    region = alpha > 0
    if soft:
        alpha[18, 11:47] = 100
    for name, drawn in (
        ("la.png", np.dstack([region * np.uint8(255), alpha])),
        ("rgba.webp", np.dstack([np.full((101, 67, 3), 255, np.uint8), alpha])),
    ):
        mask = open_mask(saved(tmp_path / name, drawn, **EXACTLY["webp"]), Image.new("RGB", (67, 101)), 101, 67)
        assert np.array_equal(mask, region)
    with pytest.raises(ValueError, match="some white"):
        open_mask(saved(tmp_path / "nothing.png", np.zeros((101, 67, 4), np.uint8)), Image.new("RGB", (67, 101)), 101, 67)


@pytest.mark.parametrize(("drawn", "told"), [
    (np.zeros((13, 17), np.uint8), "some white.*all black"), (np.full((17, 13), 255, np.uint8), "17 x 13, got .* of 13 x 17; draw"),
    (np.full((13, 19), 255, np.uint8), "17 x 13, got .* of 19 x 13; draw"), (RNG.integers(0, 256, (13, 17, 3), np.uint8), "% is neither"),
    (np.linspace(0, 255, 221).astype(np.uint8).reshape(13, 17), "50% is neither"), (CORNERS[:26, :34], "100% is neither"),
    (np.eye(13 * 16, 17 * 16, dtype=np.uint8) * 255, "all black at 17 x 13"),
])  # fmt: skip
def test_what_is_no_mask_is_refused_by_name(tmp_path, drawn, told):
    with pytest.raises(ValueError, match=told) as refused:
        open_mask(saved(tmp_path / "mask.png", drawn), Image.new("RGB", (17, 13)), 13, 17)
    assert str(tmp_path / "mask.png") in str(refused.value)


def test_a_layout_is_opened_in_its_order(tmp_path):
    path = written(tmp_path / "a.json", '{"tall house": [0, 0, 1, 1],\n "café": [0.125, 2.5e-1, 0.5, 0.75]}')
    assert list(open_layout(path).items()) == [("tall house", (0, 0, 1, 1)), ("café", (0.125, 0.25, 0.5, 0.75))]
    assert all(type(edge) is float for box in open_layout(path).values() for edge in box)
    assert checked_layout({"a": (np.float32(0.5), 0, 1, np.float64(0.5))}) == {"a": (0.5, 0, 1, 0.5)}


@pytest.mark.parametrize(("text", "told"), [
    ("", NO_JSON), ("car: 1", NO_JSON), ('{"a": [0, 0, 1, 1]', NO_JSON), (b'{"\xe4": [0, 0, 1, 1]}', NO_JSON), (b"\xff\xfe{\0}\0", NO_JSON),
    ("[" * 10000 + "]" * 10000, f"{NO_JSON}|{NO_OBJECT}"), ('{"a":' * 10000 + "1" + "}" * 10000, f"{NO_JSON}|{NO_BOX}"),  # by the Python
    ("9" * 5000, NO_JSON),
    ('{"a": ' * 700 + "1" + "}" * 700, NO_BOX), ('[{"a": ' + "[" * 700 + "]" * 700 + "}]", NO_OBJECT),
    ("[[0, 0, 1, 1]]", NO_OBJECT), ('[["a", [0, 0, 1, 1]]]', NO_OBJECT), ("7", NO_OBJECT), ("null", NO_OBJECT), ('"a"', NO_OBJECT),
    ("{}", "at least one word"), ("[]", "at least one word"),
    ('{"b": [0, 0, 1, 1], "a": 1, "b": 2}', r"each word once in .*a\.json, got b, a, b"),
    *((f'{{"b": [0, 0, 1, 1], "a": {box}}}', NO_BOX) for box in (
        "7", "null", '"0011"', "{}", "[]", '{"left": 0, "top": 0, "right": 1, "bottom": 1}', "[0, 0, 1]", "[0, 0, 1, 1, 1]",
        "[[0, 0, 1, 1]]", '["0", "0", "1", "1"]', "[0, 0, true, true]", "[false, 0, 1, 1]", "[0, 0, null, 1]", "[0, NaN, 1, 1]",
        "[0, 0, Infinity, 1]", "[-Infinity, 0, 1, 1]", "[0, 0, 1e999, 1]", "[0, 0, 1, 1.001]", "[-0.001, 0, 1, 1]", "[0, 0, 64, 64]",
        "[0.5, 0, 0.25, 1]", "[0, 0.5, 1, 0.25]", "[0.5, 0, 0.5, 1]", "[0, 0.5, 1, 0.5]", f"[0, 0, 1{'0' * 4000}, 1]",
    )),
])  # fmt: skip
def test_what_is_no_layout_is_refused(tmp_path, text, told):
    with pytest.raises(ValueError, match=f"(?s)(?:{told})") as refused:
        open_layout(written(tmp_path / "a.json", text))
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


def test_a_layout_larger_than_any_is_refused_unread(tmp_path):
    path = written(tmp_path / "a.json", "{}")
    os.truncate(path, 2**33)
    with pytest.raises(ValueError, match=r"at most 1,048,576 bytes, got .*a\.json"):
        open_layout(path)


@with_files
@given(VALUES | st.dictionaries(st.text(), st.lists(st.sampled_from([0, 0.25, 0.75, 1]), min_size=4, max_size=4), min_size=1, max_size=2))
def test_any_json_is_a_layout_or_refused(tmp_path, value):
    path = written(tmp_path / "a.json", json.dumps(value))
    if isinstance(value, dict) and value and all(
        isinstance(box, list) and len(box) == 4 and all(type(edge) in {int, float} and 0 <= edge <= 1 for edge in box)
        and box[2] - box[0] > 0 < box[3] - box[1] for box in value.values()
    ):  # fmt: skip
        assert open_layout(path) == {word: tuple(box) for word, box in value.items()}
    else:
        with pytest.raises(ValueError, match="expected"):
            open_layout(path)


@given(EDGES, EDGES, st.integers(1, 96), st.integers(1, 96))
@example([0, 97], [0, 97], 13, 7)
@example([96, 97], [96, 97], 1, 3)
@example([0, 97], [48, 49], 8, 8)
def test_a_box_holds_the_centres_inside_it_or_the_position_of_its_middle(across, down, height, width):
    """In 97ths, a prime: no centre lies on an edge, and whole numbers decide."""
    assert np.argwhere(box_mask((np.nextafter(1, 0), np.nextafter(1, 0), 1, 1), height, width)).tolist() == [[height - 1, width - 1]]
    (left, right), (top, bottom) = across, down
    found = box_mask((left / 97, top / 97, right / 97, bottom / 97), height, width)
    rows = [y for y in range(height) if 2 * height * top < 97 * (2 * y + 1) < 2 * height * bottom]
    columns = [x for x in range(width) if 2 * width * left < 97 * (2 * x + 1) < 2 * width * right]
    inside = {(int(y), int(x)) for y, x in np.argwhere(found)}
    assert found.shape == (height, width)
    rows = rows or [y for y in {y for y, _ in inside} if 194 * y <= (top + bottom) * height <= 194 * (y + 1)]
    columns = columns or [x for x in {x for _, x in inside} if 194 * x <= (left + right) * width <= 194 * (x + 1)]
    assert inside == {(y, x) for y in rows for x in columns}
    assert inside


def test_pasted_back_outside_the_mask_is_the_picture_and_inside_what_was_painted():
    painted, picture = np.random.default_rng(7).integers(0, 256, (2, 13, 17, 3), np.uint8)
    found = pasted_back(painted, picture, BLOCKS)
    assert found.dtype == np.uint8
    assert all(np.array_equal(found[y, x], (painted if BLOCKS[y, x] else picture)[y, x]) for y in range(13) for x in range(17))


def shrunk(picture):
    return np.asarray(picture, float).reshape(7, 4, 13, 4, 3).mean((1, 3))


def test_back_projected_shrinks_to_the_small_picture_ever_more_nearly():
    rng = np.random.default_rng(11)
    picture, small = (Image.fromarray(rng.integers(90, 160, size, np.uint8)) for size in ((28, 52, 3), (7, 13, 3)))
    found = [picture, *(back_projected(picture, small, times) for times in (1, 2, 4, 30))]
    away = [np.abs(shrunk(image) - np.asarray(small)).mean() for image in found]
    assert all(later < 0.8 * earlier for earlier, later in pairwise(away[:4]))
    assert 0 < np.asarray(found[-1]).min() < np.asarray(found[-1]).max() < 255
    assert np.abs(shrunk(found[-1]) - np.asarray(small)).max() <= 0.5
    assert np.array_equal(np.asarray(back_projected(picture, small)), np.asarray(back_projected(picture, small, 3)))


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("more", [0, 7, -8])
def test_back_projected_leaves_what_agrees_and_adds_one_shade_everywhere(more, times):
    means = np.random.default_rng(13).integers(20, 236, (7, 13, 3))
    pixels = means.repeat(4, 0).repeat(4, 1) + np.tile([[4, -4], [-12, 12]], (14, 26))[..., None]
    found = back_projected(Image.fromarray(pixels.astype(np.uint8)), Image.fromarray((means + more).astype(np.uint8)), times)
    assert np.array_equal(np.asarray(found), pixels + more)
    white = back_projected(Image.fromarray(pixels.astype(np.uint8)), Image.new("RGB", (13, 7), "white"), 40)
    assert np.asarray(white).mean() > 235  # clipped, not wrapped around


@pytest.mark.parametrize("size", [(39, 21), (52, 27), (51, 28), (78, 28), (26, 28), (28, 52), (13, 7)])
def test_back_projected_refuses_what_is_no_whole_number_of_times_as_large(size):
    with pytest.raises(ValueError, match=f"as large as 26 x 14, got {size[0]} x {size[1]}"):
        back_projected(Image.new("RGB", size), Image.new("RGB", (26, 14)))


def test_psnr_is_the_textbooks():
    picture = np.full((5, 7, 3), 100, np.uint8)
    assert psnr(picture, picture + np.uint8(10)) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr(picture, picture - np.uint8(10)) == psnr(picture - np.uint8(10), picture)
    assert psnr(picture, picture) == np.inf
