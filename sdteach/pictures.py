"""Pictures, masks and layouts as people have them, made ready for the loop; and the two steps after it that put known pixels back."""

import json
import reprlib
import warnings
from collections.abc import Mapping
from math import sqrt
from numbers import Real
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 4096  # pixels of an edge
Box = tuple[float, float, float, float]


def open_picture(path: str | PathLike) -> Image.Image:
    """Any picture that Pillow reads, as it is meant to be seen: upright, RGB, on white where it is transparent.

    Of several frames the first. Raises ValueError, naming the file, for what is no picture, is cut off, or has more pixels than
    Pillow takes for an honest picture.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            return _as_rgb(ImageOps.exif_transpose(file))
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(f"expected a picture, got {path}, which Pillow cannot read; convert it to .png or .jpg") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large: {error}; make it smaller first") from error
    except Exception as error:  # struct.error, AttributeError, RuntimeError ...: Pillow's readers fail on damage in many ways
        raise ValueError(f"cannot read {path}: {str(error) or type(error).__name__}; save it again, as .png or .jpg") from error


def _as_rgb(picture):
    if picture.mode.startswith("I"):  # 16 bits of gray, which `convert` would cut off at 255
        return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("its pixels are floating point numbers, of which nobody knows which is white")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def fitting_size(picture: Image.Image, factor: int, area: int) -> tuple[int, int]:
    """Height and width for the loop: the picture's own, at most `area` pixels, the edges brought to multiples of `factor`."""
    share = min(1.0, sqrt(area / (picture.width * picture.height)))
    return tuple(min(max(round(edge * share / factor), 1) * factor, LARGEST) for edge in (picture.height, picture.width))


def open_mask(path: str | PathLike, picture: Image.Image, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """A mask from a picture in black and white: white is painted anew, black stays.

    It is brought to `height` x `width`, as `picture` is. Raises ValueError for what is no black and white, has no white, or not
    the picture's shape.
    """
    drawn = open_picture(path)
    if abs(drawn.width * picture.height - drawn.height * picture.width) > 0.02 * drawn.width * picture.height:
        raise ValueError(f"expected a mask of the picture's shape, {picture.width} x {picture.height}, got {path} of {drawn.width} x "
                         f"{drawn.height}; draw the mask over the picture itself")  # fmt: skip
    pixels = np.asarray(drawn).astype(int)
    plain = ((pixels < 64) | (pixels > 191)).all(2) & (np.ptp(pixels, 2) < 64)
    if plain.mean() < 0.9:
        raise ValueError(f"expected a mask in black and white, white where the picture is to be painted anew, got {path}, of which "
                         f"{1 - plain.mean():.0%} is neither")  # fmt: skip
    mask = np.asarray(drawn.convert("L").resize((width, height), Image.Resampling.BOX)) > 127
    if not mask.any():
        raise ValueError(f"expected some white in the mask, where the picture is to be painted anew, got {path}, which is "
                         f"all black at {width} x {height}")  # fmt: skip
    return mask


def open_layout(path: str | PathLike) -> dict[str, Box]:
    """A layout from a JSON file such as {"car": [0.1, 0.5, 0.5, 0.9]}; see `checked_layout`. Raises ValueError for anything else."""
    try:
        pairs = json.loads(Path(path).read_text("utf-8-sig"), object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'expected JSON such as {{"car": [0.1, 0.5, 0.5, 0.9]}}, got {path}: {error}') from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError(f"expected one JSON object of words and boxes in {path}, got {reprlib.repr(pairs)}")
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"expected each word once in {path}, got {', '.join(word for word, _ in pairs)}")
    return checked_layout(dict(pairs))


def checked_layout(layout: Mapping[str, Box]) -> dict[str, Box]:
    """Words and their boxes: left, top, right, bottom, as shares of the picture's width and height, 0..1.

    Raises ValueError, naming the word, for a box that is none.
    """
    if not layout:
        raise ValueError("expected at least one word with its box, got none")
    for word, box in layout.items():
        numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(n, Real) and not isinstance(n, bool) for n in box)
        if not numbers or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(f"expected for {word!r} a box as left, top, right, bottom, from 0 to 1 of the picture's width and height, "
                             f"got {reprlib.repr(box)}")  # fmt: skip
    return {word: tuple(map(float, box)) for word, box in layout.items()}


def box_mask(box: Box, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The positions whose centres lie in the box: at least one row and one column, however thin it is."""
    left, top, right, bottom = box
    return np.outer(_between(top, bottom, height), _between(left, right, width))


def _between(low, high, count):
    centres = (np.arange(count) + 0.5) / count
    inside = (centres > low) & (centres < high)
    inside[min(int((low + high) / 2 * count), count - 1)] |= not inside.any()
    return inside


def pasted_back(
    painted: UInt8[np.ndarray, "height width 3"], picture: UInt8[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """After inpainting: what was not masked, exactly as it was. The loop keeps those latents, but the VAE paints them anew."""
    return np.where(mask[..., None], painted, picture)


def back_projected(picture: Image.Image, small: Image.Image, times: int = 3) -> Image.Image:
    """The picture corrected to shrink to `small`: what the shrunk one lacks is enlarged and added (Irani & Peleg, 1991).

    Shrinking takes the mean of each square of pixels, enlarging is bicubic; `times` over, since the two do not quite undo each
    other. Raises ValueError unless the picture is so many times larger, the same way up and across.
    """
    if picture.width % small.width or picture.width * small.height != picture.height * small.width:
        raise ValueError(f"expected a picture a whole number of times as large as {small.width} x {small.height}, got "
                         f"{picture.width} x {picture.height}")  # fmt: skip
    channels = []
    for large, wanted in zip(picture.convert("RGB").split(), small.convert("RGB").split(), strict=True):
        values = np.asarray(large, np.float32)
        for _ in range(times):
            shrunk = Image.fromarray(values).resize(small.size, Image.Resampling.BOX)
            lacking = Image.fromarray(np.asarray(wanted, np.float32) - np.asarray(shrunk))
            values = values + np.asarray(lacking.resize(picture.size, Image.Resampling.BICUBIC))
        channels.append(values)
    return Image.fromarray(np.stack(channels, 2).round().clip(0, 255).astype(np.uint8))
