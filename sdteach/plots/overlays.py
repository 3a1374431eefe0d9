"""What lies over a picture: stage 5's heat where words were read, and the regions and boxes that tasks are given."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float32
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from ..pictures import Boxes, checked_layout
from .grids import Grid, Pixels, sheet
from .style import SMALL, first_free, fit, styled, theme, width_of

Heat = Float32[np.ndarray, "_ _"]
Mask = Bool[np.ndarray, "_ _"]
COLOURS, STRENGTH = "inferno", 0.72  # of heat
DIM = 0.75  # how much of the paper lies over what is not the region
DASHES = "-", (0, (3, 1)), (0, (1, 0.6))  # of boxes
HIGH = 0.25  # inches from the middle of one word to that of the next


@styled()
def heat_maps(
    pictures: Sequence[Pixels], maps: Sequence[Heat], captions: Sequence[str],
    columns: int | Sequence[str] = 4, strength: float = STRENGTH, outlines: Sequence[Mask | None] | None = None,
) -> Figure:  # fmt: skip
    """Heat maps (0..1) over their pictures, brightest where a word was read most, in a grid as that of `picture_grid`.

    `outlines` are masks of the pictures' size whose edges are drawn over them: the truth beside the map. One picture stands for
    all maps. Raises ValueError unless there is a caption, and an outline if any, for each map.
    """
    pictures = [*pictures] * (len(maps) if len(pictures) == 1 else 1)
    outlines = outlines or [None] * len(maps)
    if not len(maps) == len(captions) == len(pictures) == len(outlines) > 0:
        raise ValueError(f"expected a picture, a caption and an outline, if any, for each map, at least one, got {len(pictures)}, "
                         f"{len(captions)} and {len(outlines)} for {len(maps)}")  # fmt: skip
    hot = [heated(picture, heat, strength) for picture, heat in zip(pictures, maps, strict=True)]
    grid = Grid(hot, captions, columns, right=0.8)
    page, images = sheet(grid, f"Heat maps over pictures: {grid.told}")
    for image, outline in zip(images, outlines, strict=True):
        if outline is not None:
            draw_outline(image.axes, outline)
    grid.scale(page, ScalarMappable(cmap=COLOURS), "1 = read most")
    return page


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


@styled()
def regions(pictures: Sequence[Pixels], masks: Sequence[Mask | None], captions: Sequence[str]) -> Figure:
    """Pictures with a region clear and outlined, the rest dimmed; with None for a mask as they are. Captions beneath.

    Before, the region and after, side by side, are
    `regions([before, before, after], [None, mask, None], ["before", "region", "after"])`. Raises ValueError unless there is a
    caption and a mask, of the picture's size, for each picture.
    """
    return _drawn_over(draw_region, _extent, pictures, masks, captions)


@styled()
def boxes(pictures: Sequence[Pixels], layouts: Sequence[Boxes | None], captions: Sequence[str]) -> Figure:
    """Pictures with the boxes of their layouts, each with its word; with None for a layout as they are. Captions beneath.

    A box is left, top, right, bottom as shares of the picture, 0..1. Raises ValueError unless there is a caption and a layout for
    each picture, and, naming its word, for a box that is none.
    """
    layouts = [checked_layout(layout) if layout else None for layout in layouts]
    return _drawn_over(draw_boxes, _sides, pictures, layouts, captions)


def _drawn_over(draw, tell, pictures, over, captions):
    if not len(pictures) == len(over) == len(captions) > 0:
        raise ValueError(f"expected for each picture a caption and what is drawn over it, or None, at least one, got {len(pictures)} "
                         f"pictures, {len(captions)} captions and {len(over)} to draw over them")  # fmt: skip
    told = [caption if what is None else f"{caption}, {tell(what)}" for caption, what in zip(captions, over, strict=True)]
    page, images = sheet(Grid(pictures, captions), f"{len(pictures)} pictures: {'; '.join(told)}")
    for image, what in zip(images, over, strict=True):
        if what is not None:
            draw(image.axes, what)
    return page


def _extent(mask):
    if not mask.any():
        return "nowhere"
    (top, bottom), (left, right) = ((there.min(), there.max() + 1) for there in mask.nonzero())
    return f"from {left} to {right} across and {top} to {bottom} down"


def _sides(layout):
    return ", ".join(f"{word} {left:.0%} to {right:.0%} across and {top:.0%} to {bottom:.0%} down"
                     for word, (left, top, right, bottom) in layout.items())  # fmt: skip


def draw_outline(axes, mask):
    """The edge of a mask, seen on any ground, over the picture of its size that `axes` show."""
    if mask.any():
        height, width = mask.shape
        axes.autoscale(False)
        edge = axes.contour(range(-1, width + 1), range(-1, height + 1), np.pad(mask, 1), [0.5], colors="white", linewidths=1.5)
        edge.set_path_effects([withStroke(linewidth=3, foreground="black")])


def draw_region(axes, mask):
    """Dim the picture that `axes` show where it is not masked, and draw the mask's edge. Raises ValueError for another size."""
    if mask.shape != (size := axes.images[0].get_array().shape[:2]):
        raise ValueError(f"expected a mask of the picture's size, {size}, got {mask.shape}; bring one to the other's size")
    axes.imshow(np.where(mask[..., None], 0, to_rgba(theme().paper, DIM)), interpolation="nearest")
    draw_outline(axes, mask)


def draw_frames(axes, layout, thin):
    """Draw boxes over the picture that `axes` show, each in the colour of its index."""
    ground = withStroke(linewidth=2 * thin, foreground=theme().paper, dashes={"dash_offset": 0, "dash_list": None})
    for index, (left, top, right, bottom) in enumerate(layout.values()):
        axes.add_patch(Rectangle(
            (left, 1 - bottom), right - left, bottom - top, transform=axes.transAxes, fill=False, clip_on=False, lw=thin,
            ec=f"C{index}", ls=DASHES[index % len(DASHES)], path_effects=[ground],
        ))  # fmt: skip


def draw_boxes(axes, layout):
    """Draw boxes and their words: above the box, below it, or as near as there is room and no other word stands."""
    axes.apply_aspect()
    draw_frames(axes, layout, 2.5)
    (width, height), taken = axes.bbox.size / axes.figure.dpi, []
    for index, (word, (left, top, _, bottom)) in enumerate(layout.items()):
        name = fit(word, width - 0.4, SMALL)
        wide = width_of(name, SMALL)
        x = min(left * width, width - wide - 0.2) + 0.1
        rows = top * height - 0.17, bottom * height + 0.17, top * height + 0.17, *np.arange(0.14, height, HIGH)
        x, y = first_free([(x, y) for y in rows if 0.13 < y < height - 0.13], wide + 0.1, HIGH, taken)
        axes.text(x / width, 1 - y / height, name, transform=axes.transAxes, fontsize=SMALL, va="center",
                  bbox={"boxstyle": "round,pad=0.15", "facecolor": theme().paper, "edgecolor": f"C{index}"})  # fmt: skip
