"""Stage 3: latents, channel by channel, and pictures through the VAE."""

import numpy as np
from matplotlib.figure import Figure

from .grids import Grid, Pixels, sheet
from .style import DIVERGING, as_array, styled

SCALE = 0.9  # inches beside the pictures


@styled()
def latent_channels(latents, title: str = "latents") -> Figure:
    """Every channel of latents (1, channels, height, width) as a picture, all on one scale around zero."""
    values = as_array(latents)[0]
    limit = float(np.abs(values).max())
    return _channels({"latents": (values, DIVERGING, -limit, limit)}, title,
                     "{} channels of {} by {}, from {:.2f} to {:.2f}".format(*values.shape, values.min(), values.max()))  # fmt: skip


@styled()
def latent_distribution(mean, std) -> Figure:
    """What the VAE says of a picture: for every latent number a mean, above, and a standard deviation, below."""
    mean, std = as_array(mean)[0], as_array(std)[0]
    limit = float(np.abs(mean).max())
    rows = {"mean": (mean, DIVERGING, -limit, limit), "standard deviation": (std, None, 0.0, float(std.max()))}
    return _channels(rows, "Mean and standard deviation",
                     f"The distribution of {mean.size} latents in {len(mean)} channels: means from {mean.min():.2f} to {mean.max():.2f}, "
                     f"standard deviations from {std.min():.4f} to {std.max():.4f}")  # fmt: skip


def _channels(rows, title, alt):
    """A row of channels for each name, with its colormap, least and most."""
    pictures = [channel for values, *_ in rows.values() for channel in values]
    across = min(len(pictures) // len(rows), 4)
    grid = Grid(pictures, [f"channel {index}" for values, *_ in rows.values() for index in range(len(values))], across, right=SCALE)
    page, images = sheet(grid, alt, title, SCALE)
    for row, (name, (values, colours, low, high)) in enumerate(rows.items()):
        for image in (own := images[len(values) * row : len(values) * (row + 1)]):
            image.set(cmap=colours, clim=(low, high))
        page.scale(own[0], grid.width, 0.5 + grid.step * row * -(-len(values) // across), grid.tall, name)
    return page.figure


@styled()
def reconstruction(picture: Pixels, copy: Pixels) -> Figure:
    """A picture, its copy out of the latents, and the mean absolute difference of the three colours at every pixel."""
    error = np.abs(picture.astype(float) - copy).mean(2)
    told = f"error, {error.mean():.1f} on average"
    grid = Grid([picture, copy, error], ["picture", "decoded from its latents", told], right=SCALE)
    page, (*_, image) = sheet(grid, f"A picture, its copy from the latents, at every pixel the {told}, {error.max():.0f} at most",
                              right=SCALE)  # fmt: skip
    image.set_clim(0, error.max() or 1)
    page.scale(image, grid.width, 0.1, grid.tall, "error, of 255")
    return page.figure


def latent_colours(latents) -> Pixels:
    """The first three channels of latents (1, channels, height, width) as red, green and blue, -3 .. 3 from dark to bright."""
    return np.clip((as_array(latents)[0, :3].transpose(1, 2, 0) / 6 + 0.5) * 255, 0, 255).astype(np.uint8)
