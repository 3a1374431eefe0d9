"""Phase 2: the VAE. Pictures to latents eight times smaller and back (Kingma & Welling, 2014; Rombach et al., 2022)."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss, max_pool2d, mse_loss

from ..judge import to_tensor
from ..networks import NETWORKS
from ..world import WORLD

CROP = 64
GROUND = 0.3  # how far from the most usual colour, of 2, a pixel is no ground any more
SEEN = 30  # pixels of a thing that a crop must show
ENOUGH = 120  # pixels of things, beyond which a crop is as good as any


def new_vae(channels: tuple[int, ...]) -> AutoencoderKL:
    """Downsampling by 8, four latent channels, layer for layer the class that SD uses; `channels` by level."""
    return AutoencoderKL(block_out_channels=channels, **NETWORKS["vae"])


class AutoencodingObjective(nn.Module):
    """Reconstruction, with edges and colours weighted, plus a light pull of the latents towards N(0, 1)."""

    def __init__(self, channels):
        super().__init__()
        self.vae = new_vae(channels).to(memory_format=torch.channels_last)

    def forward(self, pictures, noise):
        guess, posterior = self.copied(pictures, noise)
        return reconstruction_loss(guess, pictures) + 1e-4 * (posterior.kl().mean() / posterior.mean[0].numel())

    def copied(self, pictures, noise):
        """Pictures through the VAE, by latents that `noise` samples from their distribution, and this."""
        posterior = self.vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
        return self.vae.decode(posterior.mean + posterior.std * noise).sample.float(), posterior


class DecodingObjective(AutoencodingObjective):
    """The decoder alone, its latents as they are: what lies off the ground counts four times, and each thing as one.

    Small things and dark ones weigh next to nothing in a mean over the picture, and are what a prompt asks for. As the encoder
    stays, so do the latents, and a UNet that learned them.
    """

    def __init__(self, vae):
        nn.Module.__init__(self)
        self.vae = vae.requires_grad_(False)
        for part in (vae.decoder, vae.post_quant_conv):
            part.requires_grad_(True)

    def forward(self, pictures, noise, things):
        guess, _ = self.copied(pictures, noise)
        off = ((1 + 3 * off_ground(pictures).float()) * (guess - pictures).abs()).mean()
        return reconstruction_loss(guess, pictures) + off + 2 * thing_loss(guess, pictures, things)


def off_ground(pictures: Tensor) -> Tensor:
    """Which pixels of pictures (n, 3, h, w) in -1..1 are not of the most usual colour: (n, 1, h, w)."""
    usual = pictures.flatten(2).median(2).values[:, :, None, None]
    return (pictures - usual).abs().amax(1, keepdim=True) > GROUND


def reconstruction_loss(guess, truth):
    """L1 + MSE + L1 of edges + L1 of colour differences, fine and coarse: small VAEs get colours wrong first."""
    edges = sum(l1_loss(guess.diff(dim=axis), truth.diff(dim=axis)) for axis in (2, 3))
    colour, true_colour = _opponent(guess), _opponent(truth)
    coarse = l1_loss(avg_pool2d(colour, 8), avg_pool2d(true_colour, 8))
    return l1_loss(guess, truth) + mse_loss(guess, truth) + edges + 0.5 * l1_loss(colour, true_colour) + coarse


def thing_loss(guess: Tensor, truth: Tensor, things: Tensor) -> Tensor:
    """Every thing of pictures (n, 3, h, w), by `Scene.things` (n, 1, h, w), as one, however small: the mean over pictures of the sum.

    Of a thing counts the mean error of its pixels and of two around them, which hold its outline, and how far its mean colour
    is off, in red, green, blue and both opponent colours. Things of which less than `SEEN` pixels are there count nothing.
    """
    masks = (things == torch.arange(1, WORLD.most + 1, device=things.device)[:, None, None]).float()
    near, area = max_pool2d(masks, 5, 1, 2), masks.sum((2, 3))
    error = (near * (guess - truth).abs().mean(1, keepdim=True)).sum((2, 3)) / near.sum((2, 3)).clamp(min=1)
    off = torch.cat([guess - truth, _opponent(guess) - _opponent(truth)], 1)
    colour = torch.einsum("nkhw,nchw->nkc", masks, off).abs().mean(2) / area.clamp(min=1)
    return ((area >= SEEN) * (error + colour)).sum(1).mean()


def _opponent(rgb):
    """RGB -> (red - green, yellow - blue): zero for every gray."""
    red, green, blue = rgb.unbind(1)
    return torch.stack([red - green, (red + green) / 2 - blue], 1)


def crops(scenes, batch):
    """Random crops, and the noise by which their latents are sampled.

    Of twice as many crops drawn most of those with more ground are thrown away, since flat ground teaches little.
    """

    def draw():
        pieces = to_tensor(scenes.pictures[_windows(scenes, 2 * batch)])
        pieces = pieces[_best(off_ground(pieces).float().mean((1, 2, 3)), batch)]
        return pieces, _noise(pieces)

    return draw


def crops_of_things(scenes, batch):
    """As `crops`, for `DecodingObjective`: those with things are kept, small ones as much as large ones, and come with the things."""

    def draw():
        windows = _windows(scenes, 2 * batch)
        things = scenes.things[windows][:, None]
        size = (things > 0).sum((1, 2, 3)).clamp(max=ENOUGH)
        best = _best(size + torch.rand(len(size)).to(size.device), batch)  # among equals by chance
        pieces = to_tensor(scenes.pictures[windows][best])
        return pieces, _noise(pieces), things[best]

    return draw


def _windows(scenes, number):
    """Where to cut: the indices of so many scenes, rows and columns, drawn on the CPU to be the same on any device."""
    count, height, *_ = scenes.pictures.shape
    chosen, (top, left) = torch.randint(count, (number, 1, 1)), torch.randint(height - CROP + 1, (2, number, 1, 1))
    span = torch.arange(CROP)
    return tuple(index.to(scenes.pictures.device) for index in (chosen, top + span[:, None], left + span))


def _best(score, batch):
    """Three quarters of the batch by score; a quarter stays as it came: a decoder that never sees empty ground stains it."""
    kept = batch // 4
    return torch.cat([torch.arange(kept, device=score.device), kept + score[kept:].topk(batch - kept).indices])


def _noise(pieces):
    return torch.randn(len(pieces), 4, CROP // 8, CROP // 8, device=pieces.device)
