"""Phase 3: the UNet learns to name the noise in a latent, helped by the caption (Ho et al., 2020; Rombach et al., 2022)."""

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import compute_snr
from torch import nn
from tqdm.auto import tqdm

from .clip import WIDTH
from .data import to_tensor

CAPTION_DROPOUT = 0.1
SNR_LIMIT = 5.0


def new_unet() -> UNet2DConditionModel:
    """7 M parameters, cross-attention at three resolutions and in the middle, skip connections as in SD."""
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(64, 128, 128), down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3, layers_per_block=1, cross_attention_dim=WIDTH,
        attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


class DenoisingObjective(nn.Module):
    """Mean squared error of the predicted noise at one random timestep, weighted by min-SNR (Hang et al., 2023)."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.unet, self.scheduler = unet.to(memory_format=torch.channels_last), scheduler

    def forward(self, latents, text):
        noise = torch.randn_like(latents)
        timestep = torch.randint(self.scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        predicted = self.unet(noisy.contiguous(memory_format=torch.channels_last), timestep, text).sample
        snr = compute_snr(self.scheduler, timestep)
        weight = snr.clamp(max=SNR_LIMIT) / snr
        return (weight * (predicted.float() - noise).square().mean(dim=(1, 2, 3))).mean()


@torch.no_grad()
def encode_pictures(vae, pictures, batch=64):
    """Mean and standard deviation of every picture's latents: two float16 tensors (n, 4, size/8, size/8)."""
    means, stds = [], []
    for start in tqdm(range(0, len(pictures), batch), "encoding pictures"):
        posterior = vae.encode(to_tensor(pictures[start : start + batch]).to(vae.device)).latent_dist
        means.append(posterior.mean.half().cpu())
        stds.append(posterior.std.half().cpu())
    return torch.cat(means), torch.cat(stds)


@torch.no_grad()
def encode_captions(text_encoder, tokenizer, captions, batch=256):
    """The distinct captions' last hidden states (m + 1, 77, width) as float16, and each caption's row in them.

    The last row is the empty caption's, which stands in where a caption is dropped.
    """
    distinct, row = np.unique(captions, return_inverse=True)
    texts = [*distinct.tolist(), ""]
    states = []
    for start in tqdm(range(0, len(texts), batch), "encoding captions"):
        ids = tokenizer(texts[start : start + batch], padding="max_length", max_length=77, return_tensors="pt").input_ids
        states.append(text_encoder(ids.to(text_encoder.device)).last_hidden_state.half().cpu())
    return torch.cat(states), torch.from_numpy(row)


def noisy_pairs(vae, text_encoder, tokenizer, scenes, batch):
    """Random batches of (latents sampled and scaled for the UNet, text features), one caption in ten dropped."""
    means, stds = encode_pictures(vae, scenes.pictures)
    states, rows = encode_captions(text_encoder, tokenizer, scenes.captions)

    def draw():
        chosen = torch.randint(len(means), (batch,))
        latents = means[chosen].float() + stds[chosen].float() * torch.randn(means[chosen].shape)
        dropped = torch.rand(batch) < CAPTION_DROPOUT
        row = torch.where(dropped, len(states) - 1, rows[chosen])
        return latents * vae.config.scaling_factor, states[row].float()

    return draw
