"""Pictures, masks and layouts as people have them, made ready for the loop; how to put known pixels back after it; how near two are."""

import json
import reprlib
import warnings
from collections.abc import Mapping
from math import ceil, sqrt
from numbers import Real
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 4096  # pixels of an edge
MOST = 2**26  # pixels of a picture that is read, four bytes each
LONGEST = 2**20  # bytes of a layout
Box = tuple[float, float, float, float]
Boxes = Mapping[str, Box]
Pixels = UInt8[np.ndarray, "height width 3"]
Mask = Bool[np.ndarray, "height width"]


def open_picture(path: str | PathLike) -> Image.Image:
    """Any picture that Pillow reads by itself, as it is meant to be seen: upright, RGB, on white where it is transparent.

    Of several frames the first; edges above 4,096 pixels are divided by a whole number. Raises ValueError, naming the file, for what is
    no picture, is cut off, or has more pixels than fit into a quarter of a GiB.
    """
    return _laid_on("white", _opened(path))


def _opened(path):
    """The picture upright and of bounded size, RGB or, where it may be transparent, RGBA."""
    try:
        Image.init()
        known = [kind for kind in Image.OPEN if kind != "EPS"]  # which is a program, run by another program
        with warnings.catch_warnings(action="ignore"), Image.open(Path(path), formats=known) as file:
            file.draft(None, (LARGEST, LARGEST))
            if file.width * file.height > MOST:
                raise Image.DecompressionBombError(f"expected at most {MOST:,} pixels, got {file.width} x {file.height}")
            ImageOps.exif_transpose(file, in_place=True)
            picture = file
            if file.mode.startswith("I"):  # 16 bits of gray, which `convert` would cut off at 255
                picture = Image.fromarray((np.asarray(file, np.float32).clip(0, 65535) / 257).round().astype(np.uint8))
            if file.mode == "F":
                raise ValueError("its pixels are floating point numbers, of which nobody knows which is white")
            mode = "RGBA" if picture.has_transparency_data else "RGB"
            return (picture if picture.mode == mode else picture.convert(mode)).reduce(ceil(max(picture.size) / LARGEST))
    except FileNotFoundError:
        raise
    except Exception as error:  # struct.error, AttributeError, RuntimeError ...: Pillow's readers fail on damage in many ways
        remedies = {UnidentifiedImageError: "convert it to .png or .jpg", Image.DecompressionBombError: "make it smaller first"}
        raise ValueError(f"expected a picture, got {path}, which cannot be read: {str(error) or type(error).__name__}; "
                         f"{remedies.get(type(error), 'save it again, as .png or .jpg')}") from error  # fmt: skip


def _laid_on(colour, picture):
    if picture.mode == "RGB":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, colour), picture).convert("RGB")


def fitting_size(picture: Image.Image, factor: int, area: int) -> tuple[int, int]:
    """Height and width for the loop: the picture's own, at most `area` pixels, the edges brought to multiples of `factor`."""
    scale = min(1.0, sqrt(area / (picture.width * picture.height)))
    return tuple(min(max(round(edge * scale / factor), 1) * factor, LARGEST) for edge in (picture.height, picture.width))


def open_mask(path: str | PathLike, picture: Image.Image, height: int, width: int) -> Mask:
    """A mask from a picture in black and white: white is painted anew, black stays.

    Where it is transparent it is black if all that is drawn on it is white; else it is a hole, which is painted anew. It is brought to
    `height` x `width`, as `picture` is. Warns of one that is white all over. Raises ValueError for what is no black and white, has no
    white, or not the picture's shape.
    """
    drawn = _opened(path)
    if abs(drawn.width * picture.height - drawn.height * picture.width) > 0.02 * drawn.width * picture.height:
        raise ValueError(f"expected a mask of the picture's shape, {picture.width} x {picture.height}, got {path} of {drawn.width} x "
                         f"{drawn.height}; draw the mask over the picture itself")  # fmt: skip
    if drawn.mode == "RGBA":
        ink = np.asarray(drawn.convert("L"))[np.asarray(drawn.getchannel("A")) > 127]
        drawn = _laid_on("white" if ink.min(initial=255) < 192 else "black", drawn)
    pixels = np.asarray(drawn)
    plain = ((pixels < 64) | (pixels > 191)).all(2) & (np.ptp(pixels, 2) < 64)
    if plain.mean() < 0.9:
        raise ValueError(f"expected a mask in black and white, white where the picture is to be painted anew, got {path}, of which "
                         f"{1 - plain.mean():.0%} is neither")  # fmt: skip
    mask = np.asarray(drawn.convert("L").resize((width, height), Image.Resampling.BOX)) > 127
    if not mask.any():
        raise ValueError(f"expected some white in the mask, where the picture is to be painted anew, got {path}, which is "
                         f"all black at {width} x {height}")  # fmt: skip
    if mask.all():
        warnings.warn(f"the mask {path} is white all over: the whole picture is painted anew, and nothing of it stays", stacklevel=2)
    return mask


def open_layout(path: str | PathLike) -> dict[str, Box]:
    """A layout from a JSON file such as {"car": [0.1, 0.5, 0.5, 0.9]}; see `checked_layout`. Raises ValueError for anything else."""
    with open(path, "rb") as file:
        text = file.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise ValueError(f"expected words and boxes in at most {LONGEST:,} bytes, got {path}, which has more")
    try:
        pairs = json.loads(text.decode("utf-8-sig"), object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'expected JSON such as {{"car": [0.1, 0.5, 0.5, 0.9]}}, got {path}: {error}') from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError(f"expected one JSON object of words and boxes in {path}, got {reprlib.repr(pairs)}")
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"expected each word once in {path}, got {', '.join(word for word, _ in pairs)}")
    return checked_layout(dict(pairs))


def checked_layout(layout: Boxes) -> dict[str, Box]:
    """Words and their boxes: left, top, right, bottom, from 0 to 1 of the picture's width and height.

    Raises ValueError, naming the word, for a box that is none.
    """
    if not layout:
        raise ValueError("expected at least one word with its box, got none")
    for word, box in layout.items():
        four = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(n, Real) and not isinstance(n, bool) for n in box)
        if not (four and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(f"expected for {word!r} a box as left, top, right, bottom, from 0 to 1 of the picture's width and height, "
                             f"got {reprlib.repr(box)}")  # fmt: skip
    return {word: tuple(map(float, box)) for word, box in layout.items()}


def box_mask(box: Box, height: int, width: int) -> Mask:
    """The positions whose centres lie in the box: at least one row and one column, however thin it is."""
    left, top, right, bottom = box
    return np.outer(_inside(top, bottom, height), _inside(left, right, width))


def _inside(low, high, count):
    centres = (np.arange(count) + 0.5) / count
    inside = (centres > low) & (centres < high)
    inside[min(int((low + high) / 2 * count), count - 1)] |= not inside.any()
    return inside


def pasted_back(painted: Pixels, picture: Pixels, mask: Mask) -> Pixels:
    """After inpainting: what was not masked, exactly as it was. The loop keeps those latents, but the VAE paints them anew."""
    return np.where(mask[..., None], painted, picture)


def psnr(picture: UInt8[np.ndarray, "*shape"], copy: UInt8[np.ndarray, "*shape"]) -> float:
    """Peak signal-to-noise ratio in dB of two pictures; infinite if they are the same."""
    error = np.square(picture.astype(float) - copy).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def check_shrinks(width: int, height: int, small: Image.Image) -> None:
    """Raise ValueError unless a picture of this size is so many times larger than `small`, the same way up and across."""
    if width % small.width or width * small.height != height * small.width:
        raise ValueError(f"expected a picture a whole number of times as large as {small.width} x {small.height}, got "
                         f"{width} x {height}; give a height and a width that are")  # fmt: skip


def back_projected(picture: Image.Image, small: Image.Image, times: int = 3) -> Image.Image:
    """The picture corrected to shrink to `small`: what the shrunk one lacks is enlarged and added (Irani & Peleg, 1991).

    Shrinking takes the mean of each square of pixels, enlarging is bicubic; `times` over, since the two do not quite undo each
    other. Raises ValueError unless the picture is so many times larger, the same way up and across.
    """
    check_shrinks(*picture.size, small)
    channels = []
    for large, wanted in zip(picture.convert("RGB").split(), small.convert("RGB").split(), strict=True):
        values = np.asarray(large, np.float32)
        for _ in range(times):
            shrunk = Image.fromarray(values).resize(small.size, Image.Resampling.BOX)
            lacking = Image.fromarray(np.asarray(wanted, np.float32) - np.asarray(shrunk))
            values = values + np.asarray(lacking.resize(picture.size, Image.Resampling.BICUBIC))
        channels.append(values)
    return Image.fromarray(np.stack(channels, 2).round().clip(0, 255).astype(np.uint8))
