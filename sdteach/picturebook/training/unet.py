"""Phase 3: the UNet learns to name the noise in a latent, helped by the caption (Ho et al., 2020; Rombach et al., 2022)."""

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import compute_snr
from torch import nn
from tqdm.auto import tqdm

from .contrast import WIDTH
from .data import to_tensor
from .folder import new_scheduler

CAPTION_DROPOUT = 0.1
SNR_LIMIT = 5.0
USUAL = 7.5  # the guidance scale of Stable Diffusion


def new_unet(channels: tuple[int, ...]) -> UNet2DConditionModel:
    """Cross-attention at every resolution and in the middle, skip connections as in SD; `channels` by level."""
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=channels, down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3, layers_per_block=1, cross_attention_dim=WIDTH,
        attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


class DenoisingObjective(nn.Module):
    """Mean squared error of the predicted noise at one random timestep, weighted by min-SNR (Hang et al., 2023)."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.unet, self.scheduler = unet.to(memory_format=torch.channels_last), scheduler

    def forward(self, latents, text, noise, timestep):
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        predicted = self.unet(noisy.contiguous(memory_format=torch.channels_last), timestep, text).sample
        snr = compute_snr(self.scheduler, timestep)
        weight = snr.clamp(max=SNR_LIMIT) / snr
        return (weight * (predicted.float() - noise).square().mean(dim=(1, 2, 3))).mean()


class GuidanceObjective(nn.Module):
    """Set the guidance dial: guided by `USUAL`, the UNet shall say what its teacher says guided by `best`.

    Captions of drawn scenes are never wrong, so a UNet trained on them believes them more firmly than one that read the web,
    and breaks up at the scale that the web's models want. Both noises are pulled straight to where they must be: the unguided
    one stays, and the difference that a caption makes shrinks to best / USUAL of what it was. Cf. Meng et al., 2023, who
    distil guidance away; here it is only scaled.
    """

    def __init__(self, unet, teacher, scheduler, best):
        super().__init__()
        self.unet, self.scheduler, self.best = unet, scheduler, best
        self.teacher = [teacher.requires_grad_(False)]  # in a list: no part of the state that is trained and saved

    def forward(self, latents, text, empty, noise, timestep):
        noisy = self.scheduler.add_noise(latents, noise, timestep).repeat(2, 1, 1, 1)
        both = noisy.contiguous(memory_format=torch.channels_last), timestep.repeat(2), torch.cat([empty, text])
        unguided, told = self.unet(*both).sample.float().chunk(2)
        with torch.no_grad():
            true_unguided, true_told = self.teacher[0](*both).sample.float().chunk(2)
        guided = unguided + USUAL * (told - unguided)
        true_guided = true_unguided + self.best * (true_told - true_unguided)
        snr = compute_snr(self.scheduler, timestep)
        weight = snr.clamp(max=SNR_LIMIT) / snr
        error = (guided - true_guided).square() + (unguided - true_unguided).square()
        return (weight * error.mean(dim=(1, 2, 3))).mean()


@torch.no_grad()
def encode_pictures(vae, pictures, batch=64):
    """Mean and standard deviation of every picture's latents: two float16 tensors (n, 4, size/8, size/8)."""
    means, stds = [], []
    for part in tqdm(pictures.split(batch), "encoding pictures"):
        posterior = vae.encode(to_tensor(part).to(vae.device)).latent_dist
        means.append(posterior.mean.half())
        stds.append(posterior.std.half())
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
        states.append(text_encoder(ids.to(text_encoder.device)).last_hidden_state.half())
    return torch.cat(states), torch.from_numpy(row).to(text_encoder.device)


def latents_and_texts(vae, text_encoder, tokenizer, scenes, batch):
    """Random batches of (latents sampled and scaled for the UNet, their caption's features, the empty caption's, noise, timesteps)."""
    means, stds = encode_pictures(vae, scenes.pictures)
    states, rows = encode_captions(text_encoder, tokenizer, scenes.captions)
    timesteps = new_scheduler().config.num_train_timesteps

    def draw():
        chosen = torch.randint(len(means), (batch,)).to(means.device)
        latents = torch.normal(means[chosen].float(), stds[chosen].float()) * vae.config.scaling_factor
        noise, timestep = torch.randn_like(latents), torch.randint(timesteps, (batch,), device=latents.device)
        return latents, states[rows[chosen]].float(), states[-1:].float().expand(batch, -1, -1), noise, timestep

    return draw


def noisy_pairs(vae, text_encoder, tokenizer, scenes, batch):
    """Random batches of (latents, text features, noise, timesteps), one caption in ten dropped."""
    guided = latents_and_texts(vae, text_encoder, tokenizer, scenes, batch)

    def draw():
        latents, texts, empty, noise, timestep = guided()
        dropped = (torch.rand(batch, 1, 1) < CAPTION_DROPOUT).to(texts.device)
        return latents, torch.where(dropped, empty, texts), noise, timestep

    return draw
