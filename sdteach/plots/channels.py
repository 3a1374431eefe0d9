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
    return _channels({"latents": values}, title,
                     "{} channels of {} by {}, from {:.2f} to {:.2f}".format(*values.shape, values.min(), values.max()))  # fmt: skip


@styled()
def latent_distribution(mean, std) -> Figure:
    """What the VAE says of a picture: for every latent number a mean, above, and a standard deviation, below."""
    mean, std = as_array(mean)[0], as_array(std)[0]
    return _channels({"mean": mean, "standard deviation": std}, "Mean and standard deviation",
                     f"The distribution of {mean.size} latents in {len(mean)} channels: means from {mean.min():.2f} to {mean.max():.2f}, "
                     f"standard deviations from {std.min():.4f} to {std.max():.4f}")  # fmt: skip


def _channels(named, title, alt):
    """The channels of each array beneath those of the one before, on a scale around zero where they have a sign."""
    count = min(map(len, named.values()))
    captions = [f"channel {index}" for index in range(count)] * len(named)
    grid = Grid([*np.concatenate([*named.values()])], captions, min(count, 4), right=SCALE)
    page, images = sheet(grid, alt, title)
    for index, (name, values) in enumerate(named.items()):
        colours, low, high = (DIVERGING, -1, 1) if values.min() < 0 else (None, 0, 1)
        own = images[count * index : count * (index + 1)]
        for image in own:
            image.set(cmap=colours, clim=np.abs(values).max() * np.array([low, high]))
        grid.scale(page, own[0], name, index * -(-count // grid.across))
    return page


@styled()
def reconstruction(picture: Pixels, copy: Pixels) -> Figure:
    """A picture, its copy out of the latents, and the mean absolute difference of the three colours at every pixel."""
    error = np.abs(picture.astype(float) - copy).mean(2)
    told = f"error, {error.mean():.1f} on average"
    grid = Grid([picture, copy, error], ["picture", "decoded from its latents", told], right=SCALE)
    page, (*_, image) = sheet(grid, f"A picture, its copy from the latents, at every pixel the {told}, {error.max():.0f} at most")
    image.set_clim(0, error.max() or 1)
    grid.scale(page, image, "error, of 255")
    return page


def latent_colours(latents) -> Pixels:
    """The first three channels of latents (1, channels, height, width) as red, green and blue, -3 .. 3 from dark to bright."""
    return np.clip((as_array(latents)[0, :3].transpose(1, 2, 0) / 6 + 0.5) * 255, 0, 255).astype(np.uint8)
