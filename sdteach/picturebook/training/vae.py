"""Phase 2: the VAE. Pictures to latents eight times smaller and back (Kingma & Welling, 2014; Rombach et al., 2022)."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss, mse_loss

from .data import to_tensor

CROP = 64
GROUND = 0.3  # how far from the most usual colour, of 2, a pixel is no ground any more


def new_vae(channels: tuple[int, ...]) -> AutoencoderKL:
    """Downsampling by 8, four latent channels, layer for layer the class that SD uses; `channels` by level."""
    return AutoencoderKL(
        block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=128,
    )  # fmt: skip


class AutoencodingObjective(nn.Module):
    """Reconstruction, with edges and colours weighted, plus a light pull of the latents towards N(0, 1)."""

    def __init__(self, channels):
        super().__init__()
        self.vae = new_vae(channels).to(memory_format=torch.channels_last)

    def forward(self, pictures, noise):
        posterior = self.vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
        guess = self.vae.decode(posterior.mean + posterior.std * noise).sample.float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return reconstruction_loss(guess, pictures) + 1e-4 * kl


class DecodingObjective(nn.Module):
    """The decoder alone, its latents as they are: what lies off the ground counts four times.

    Small things and dark ones weigh next to nothing in a mean over the picture, and are what a prompt asks for. As the encoder
    stays, so do the latents, and a UNet that learned them.
    """

    def __init__(self, vae):
        super().__init__()
        self.vae = vae.requires_grad_(False)
        for part in (vae.decoder, vae.post_quant_conv):
            part.requires_grad_(True)

    def forward(self, pictures, noise):
        with torch.no_grad():
            posterior = self.vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
        guess, weight = self.vae.decode(posterior.mean + posterior.std * noise).sample.float(), 1 + 3 * off_ground(pictures).float()
        return reconstruction_loss(guess, pictures) + (weight * (guess - pictures).abs()).mean()


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


def _opponent(rgb):
    """RGB -> (red - green, yellow - blue): zero for every gray."""
    red, green, blue = rgb.unbind(1)
    return torch.stack([red - green, (red + green) / 2 - blue], 1)


def crops(scenes, batch):
    """Random crops, and the noise by which their latents are sampled.

    Of twice as many crops drawn most of those with more ground are thrown away, since flat ground teaches little. A quarter
    of the batch stays as it came: a decoder that never sees empty ground stains it.
    """
    device, edge = scenes.pictures.device, scenes.pictures.shape[1] - CROP + 1
    span = torch.arange(CROP, device=device)

    def draw():
        chosen = torch.randint(len(scenes.pictures), (2 * batch, 1, 1)).to(device)
        top, left = torch.randint(edge, (2, 2 * batch, 1, 1)).to(device)
        pieces = to_tensor(scenes.pictures[chosen, top + span[:, None], left + span])
        kept, others = pieces[: batch // 4], pieces[batch // 4 :]
        best = off_ground(others).float().mean((1, 2, 3)).topk(batch - len(kept)).indices
        return torch.cat([kept, others[best]]), torch.randn(batch, 4, CROP // 8, CROP // 8, device=device)

    return draw


@torch.no_grad()
def psnr(vae, pictures) -> float:
    """Mean peak signal-to-noise ratio (dB) of encoding to the mean and decoding, pictures in -1..1 (peak to peak 2)."""
    guess = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
    error = (guess - pictures).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()
