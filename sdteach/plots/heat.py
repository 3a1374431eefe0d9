"""Stage 5: where words were read, over the picture that came of it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float32
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from PIL import Image

from .grids import Grid, Pixels, sheet
from .overlays import Mask, draw_outline
from .style import styled

Heat = Float32[np.ndarray, "_ _"]
COLOURS, STRENGTH, SCALE = "inferno", 0.72, 0.8


@styled()
def heat_maps(
    pictures: Sequence[Pixels], maps: Sequence[Heat], captions: Sequence[str],
    columns: int | Sequence[str] = 4, strength: float = STRENGTH, outlines: Sequence[Mask] | None = None,
    cell: float | None = None, rows: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Heat maps (0..1) over their pictures, brightest where a word was read most, in a grid as that of `picture_grid`.

    `outlines` are masks of the pictures' size whose edges are drawn over them: the truth beside the map. One picture stands for
    all maps; `cell` is its width in inches. Raises ValueError unless there is a caption, and an outline if any, for each map.
    """
    pictures = [*pictures] * (len(maps) if len(pictures) == 1 else 1)
    if not len(maps) == len(captions) == len(pictures) > 0 or (outlines is not None and len(outlines) != len(maps)):
        raise ValueError(f"expected a picture, a caption and at most one outline for each map, at least one, got {len(pictures)}, "
                         f"{len(captions)} and {0 if outlines is None else len(outlines)} for {len(maps)}")  # fmt: skip
    grid = Grid(
        [heated(picture, heat, strength) for picture, heat in zip(pictures, maps, strict=True)], captions, columns, rows, cell, SCALE
    )
    page, images = sheet(grid, f"Heat maps over pictures: {grid.told}", right=SCALE)
    for image, outline in zip(images, outlines or [], strict=False):
        draw_outline(image.axes, outline)
    page.scale(ScalarMappable(cmap=COLOURS), grid.width, 0.1 + grid.above, grid.tall, "1 = read most")
    return page.figure


def heated(picture: Pixels, heat: Heat, strength: float = STRENGTH) -> Pixels:
    """A heat map (0..1) over its picture in gray, as pixels."""
    smooth = np.asarray(Image.fromarray(heat).resize(picture.shape[1::-1], Image.Resampling.BILINEAR))
    colours = 255 * mpl.colormaps[COLOURS](smooth)[..., :3]
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
