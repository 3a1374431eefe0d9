"""Stage 5: where words were read, over the picture that came of it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from .pictures import captioned, draw_outline
from .style import Page, as_array

STRENGTH = 0.72


def heat_maps(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], maps: Sequence[Float32[np.ndarray, "_ _"]], captions: Sequence[str],
    columns: int = 8, strength: float = STRENGTH, outlines: Sequence[Bool[np.ndarray, "_ _"]] | None = None, cell: float = 2.0,
) -> Figure:  # fmt: skip
    """Heat maps (0..1) over their pictures, brightest where a word was read most, row by row with captions beneath.

    `outlines` are masks of the pictures' size whose edges are drawn over them: the truth beside the map. One picture stands for
    all maps; `cell` is its width in inches. Raises ValueError unless there is a caption, and an outline if any, for each map.
    """
    pictures = [*pictures] * (len(maps) if len(pictures) == 1 else 1)
    if not len(maps) == len(captions) == len(pictures) > 0 or (outlines is not None and len(outlines) != len(maps)):
        raise ValueError(f"expected a picture, a caption and at most one outline for each map, at least one, got {len(pictures)}, "
                         f"{len(captions)} and {0 if outlines is None else len(outlines)} for {len(maps)}")  # fmt: skip
    tall = cell * pictures[0].shape[0] / pictures[0].shape[1]
    page, places = captioned(captions, columns, cell, tall, f"Heat maps over pictures: {'; '.join(captions)}")
    for index, (picture, heat, place) in enumerate(zip(pictures, maps, places, strict=True)):
        under = draw_heat(page, picture, heat, *place, strength)
        if outlines is not None:
            draw_outline(under.axes, outlines[index])
    return page.figure


def draw_heat(
    page: Page, picture: UInt8[np.ndarray, "height width 3"], heat: Float32[np.ndarray, "_ _"], left: float, down: float, width: float,
    height: float, caption: str, strength: float = STRENGTH,
) -> AxesImage:  # fmt: skip
    """A gray picture with a heat map over it, in inches from the page's corner."""
    under = page.picture(picture.mean(2), left, down, width, height, caption, cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
    how = {"cmap": "inferno", "alpha": strength, "vmin": 0, "vmax": 1, "aspect": "auto", "interpolation": "bilinear"}
    under.axes.imshow(as_array(heat), extent=extent, **how)
    return under


def heated(
    picture: UInt8[np.ndarray, "height width 3"], heat: Float32[np.ndarray, "_ _"], strength: float = STRENGTH
) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of `draw_heat`: a gray picture with a heat map over it."""
    size = picture.shape[1], picture.shape[0]
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    colours = 255 * mpl.colormaps["inferno"](smooth)[..., :3]
    return ((1 - strength) * picture.mean(2, keepdims=True) + strength * colours).round().astype(np.uint8)


def layer_names(grids: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Cross-attention layers by their grids, as a reader knows them: "down 16 × 16", "middle 4 × 4", "up 16 × 16 (2)".

    The layers of a recorded run are named by their grids and stay as they are.
    """
    named, seen = {}, Counter()
    for layer, (height, width) in grids.items():
        side = re.match(r"down|mid|up", layer)
        name = f"{'middle' if side[0] == 'mid' else side[0]} {height} × {width}" if side else layer
        seen[name] += 1
        named[layer] = f"{name} ({seen[name]})" if seen[name] > 1 else name
    return named
