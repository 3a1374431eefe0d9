"""Stage 3: pictures and latents side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import SMALL, TITLE, Page, as_array, theme, wrapped


def picture_grid(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], captions: Sequence[str], columns: int = 8) -> Figure:
    """Pictures with their captions beneath, row by row. Raises ValueError unless there is one caption for each picture."""
    if len(pictures) != len(captions) or not captions:
        raise ValueError(f"expected as many captions as pictures, at least one, got {len(captions)} and {len(pictures)}")
    page, places = captioned(captions, columns, 2.0, 2.0, f"{len(pictures)} pictures: {'; '.join(captions)}")
    for picture, (*place, text) in zip(pictures, places, strict=True):
        page.picture(picture, *place, text, aspect="equal")
    return page.figure


def captioned(
    captions: Sequence[str], columns: int, wide: float, tall: float, alt: str
) -> tuple[Page, list[tuple[float, float, float, float, str]]]:
    """A page of cells, row by row, so many inches `wide` and `tall`, with room for the captions beneath them: for each cell left,
    down, width and height of its picture, and its caption in lines."""
    gap = 0.07
    texts = ["\n".join(wrapped(caption, wide - 2 * gap, SMALL)) for caption in captions]
    row_height = tall + 0.15 + 0.2 * max(text.count("\n") + 1 for text in texts)
    page = Page(wide * min(columns, len(texts)), row_height * -(-len(texts) // columns), alt)
    corners = [(index % columns * wide + gap, index // columns * row_height + gap) for index in range(len(texts))]
    return page, [(*corner, wide - 2 * gap, tall - 2 * gap, text) for corner, text in zip(corners, texts, strict=True)]


def draw_outline(axes: Axes, mask: Bool[np.ndarray, "height width"]) -> None:
    """The edge of a mask, seen on any ground, over the picture of its size that `axes` show."""
    if mask.any():
        height, width = mask.shape
        axes.autoscale(False)
        for colour, thickness in (("black", 3.0), ("white", 1.5)):
            axes.contour(range(-1, width + 1), range(-1, height + 1), np.pad(mask, 1), [0.5], colors=[colour], linewidths=thickness)


def latent_channels(latents, title: str = "latents") -> Figure:
    """Every channel of latents (1, channels, height, width) as a picture, all on one scale around zero."""
    values = as_array(latents)[0]
    limit = float(np.abs(values).max())
    return _channels(title, {"latents": values}, [(theme().diverging, -limit, limit)],
                     f"{title}: {len(values)} channels of {values.shape[1]} by {values.shape[2]}, "
                     f"from {values.min():.2f} to {values.max():.2f}")  # fmt: skip


def latent_distribution(mean, std) -> Figure:
    """What the VAE says of a picture: for every latent number a mean, above, and a standard deviation, below."""
    mean, std = as_array(mean)[0], as_array(std)[0]
    limit = float(np.abs(mean).max())
    scales = [(theme().diverging, -limit, limit), (theme().sequential, 0.0, float(std.max()))]
    return _channels("mean and standard deviation", {"mean": mean, "standard deviation": std}, scales,
                     f"The distribution of {mean.size} latents in {len(mean)} channels: means from {mean.min():.2f} to {mean.max():.2f}, "
                     f"standard deviations from {std.min():.4f} to {std.max():.4f}")  # fmt: skip


def _channels(title, rows, scales, alt):
    """One row of channels for each name; `scales` are colormap, least and most of each row."""
    channels, height, width = next(iter(rows.values())).shape
    cell, tall = 2.1, 2.0 * height / width
    page = Page(0.2 + cell * channels + 1.2, 0.8 + (tall + 0.45) * len(rows), alt)
    page.text(0.2, 0.38, title, TITLE, fontweight="bold")
    for row, ((name, values), (colours, low, high)) in enumerate(zip(rows.items(), scales, strict=True)):
        down = 0.75 + (tall + 0.45) * row
        for channel, picture in enumerate(values):
            image = page.picture(picture, 0.2 + cell * channel, down, 2.0, tall, f"channel {channel}", cmap=colours, vmin=low, vmax=high)
        page.scale(image, 0.3 + cell * channels, down, tall, name)
    return page.figure


def reconstruction(picture: UInt8[np.ndarray, "height width 3"], copy: UInt8[np.ndarray, "height width 3"]) -> Figure:
    """A picture, its copy out of the latents, and the mean absolute difference of the three colours at every pixel."""
    error = np.abs(picture.astype(float) - copy).mean(2)
    tall = 3.0 * picture.shape[0] / picture.shape[1]
    told = f"error, {error.mean():.1f} on average"
    page = Page(10.4, tall + 0.55, f"A picture, its copy from the latents, at every pixel the {told}, {error.max():.0f} at most")
    for index, (pixels, name) in enumerate([(picture, "picture"), (copy, "decoded from its latents")]):
        page.picture(pixels, 0.1 + 3.1 * index, 0.1, 3.0, tall, name)
    image = page.picture(error, 6.3, 0.1, 3.0, tall, told, cmap=theme().sequential, vmin=0, vmax=error.max() or 1)
    page.scale(image, 9.4, 0.1, tall, "error, of 255")
    return page.figure


def latent_colours(latents) -> UInt8[np.ndarray, "height width 3"]:
    """The first three channels of latents (1, channels, height, width) as red, green and blue, -3 .. 3 from dark to bright."""
    return np.clip((as_array(latents)[0, :3].transpose(1, 2, 0) / 6 + 0.5) * 255, 0, 255).astype(np.uint8)
