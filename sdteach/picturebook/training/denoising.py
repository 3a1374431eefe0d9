"""Phase 4: the UNet learns to name the noise in a latent, helped by the caption (Ho et al., 2020; Rombach et al., 2022)."""

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import compute_snr
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, cross_entropy, one_hot, scaled_dot_product_attention
from tqdm.auto import tqdm

from ..captions import WORDS
from ..judge import to_tensor
from ..networks import NETWORKS
from ..world import COLOURS, OBJECTS, WORLD

CAPTION_DROPOUT = 0.1
SNR_LIMIT = 5.0
NOISY, NOISY_SHARE = 600, 0.3  # so many timesteps more are drawn from here on, where the layout is decided
GROUNDING, READING = 0.1, 0.05  # weights of the helpers
GROUNDED = 16  # cells of a layer, at least
KINDS = [len(OBJECTS) + 1, len(COLOURS) + 1, WORLD.most + 1]  # what a reader tells of a cell: name, colour, number; or ground


def new_unet(channels: tuple[int, ...]) -> UNet2DConditionModel:
    """Cross-attention at every resolution and in the middle, skip connections as in SD; `channels` by level."""
    return UNet2DConditionModel(block_out_channels=channels, **NETWORKS["unet"])


class DenoisingObjective(nn.Module):
    """Mean squared error of the predicted noise at one random timestep, weighted by min-SNR (Hang et al., 2023)."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.unet, self.scheduler = unet.to(memory_format=torch.channels_last), scheduler

    def weight(self, timestep):
        snr = compute_snr(self.scheduler, timestep)
        return snr.clamp(max=SNR_LIMIT) / snr

    def forward(self, latents, text, noise, timestep):
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        predicted = self.unet(noisy.contiguous(memory_format=torch.channels_last), timestep, text).sample
        return (self.weight(timestep) * (predicted.float() - noise).square().mean(dim=(1, 2, 3))).mean()


class GroundedObjective(DenoisingObjective):
    """The same, noisy times weighing more, with two helpers that no checkpoint keeps: `grounding` and linear `reading` of every cell.

    Min-SNR weighs what is wrong with the predicted x0 by SNR / 5 where there is much noise and all is still open: that is little
    to learn a layout from. Divided by sqrt(alphas_cumprod) it is up to fifteen times as much.
    """

    def __init__(self, unet, scheduler):
        super().__init__(unet, scheduler)
        unet.set_attn_processor({name: WatchedAttention() if "attn2" in name else FloatAttention() for name in unet.attn_processors})
        self.attentions = [processor for processor in unet.attn_processors.values() if isinstance(processor, WatchedAttention)]
        widths = unet.config.block_out_channels
        self.readers = nn.ModuleList(Reader(width, sum(KINDS), 1) for width in (widths[-1], *reversed(widths)))
        for block, reader in zip((unet.mid_block, *unet.up_blocks), self.readers, strict=True):
            block.register_forward_hook(reader.listen)

    def weight(self, timestep):
        return super().weight(timestep) / self.scheduler.alphas_cumprod.to(timestep.device)[timestep].sqrt()

    def forward(self, latents, text, noise, timestep, nouns, cells, kinds):
        """`nouns` (n, things, 77), `cells` (n, 1 + things, h, w) and `kinds` (n, 1 + things, 2): see `grounded_pairs`."""
        loss = super().forward(latents, text, noise, timestep)
        grounded = [grounding(attention.probabilities, nouns, cells[:, 1:]) for attention in self.attentions
                    if attention.probabilities.shape[1] >= GROUNDED]  # fmt: skip
        read = [reading(reader(reader.heard).float(), cells, kinds) for reader in self.readers]
        return loss + GROUNDING * sum(grounded) / len(grounded) + READING * sum(read) / len(read)


class FloatAttention:
    """Attention in float32 whatever is around it, since bfloat16's takes its time to learn on a CPU."""

    def __call__(self, attention, hidden_states, encoder_hidden_states=None, *_, **__):
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        parts = attention.to_q(hidden_states), attention.to_k(read), attention.to_v(read)
        with torch.autocast(hidden_states.device.type, enabled=False):
            mixed = self.mixed(*(attention.head_to_batch_dim(part, out_dim=4).float() for part in parts))
        return attention.to_out[1](attention.to_out[0](mixed.transpose(1, 2).flatten(2).to(hidden_states.dtype)))

    mixed = staticmethod(scaled_dot_product_attention)


class WatchedAttention(FloatAttention):
    """Keeps how words were attended to: `probabilities` (n, cells, 77), the mean over the heads."""

    def mixed(self, query, key, value):
        probabilities = (query.shape[-1] ** -0.5 * query @ key.mT).softmax(-1)
        self.probabilities = probabilities.mean(1)
        return probabilities @ value


class Reader(nn.Conv2d):
    """Tells linearly from what it heard of a block what stands in every cell."""

    heard = None

    def listen(self, block, inputs, output):
        self.heard = output


def grounding(probabilities: Tensor, nouns: Tensor, cells: Tensor) -> Tensor:
    """How much of the attention to every noun lies outside of its thing, squared (TokenCompose: Wang et al., 2024), 0..1.

    `probabilities` (n, cells, 77) of one layer, `nouns` (n, things, 77) true at their tokens, and `cells` (n, things, h, w) the
    share of each cell that the thing covers.
    """
    edge = round(probabilities.shape[1] ** 0.5)
    attention = nouns.float() @ probabilities.mT
    inside = (attention * adaptive_avg_pool2d(cells, edge).flatten(2)).sum(2) / attention.sum(2).clamp(min=1e-6)
    said = nouns.any(2)
    return (((1 - inside).square() * said).sum(1) / said.sum(1).clamp(min=1)).mean()


def reading(logits: Tensor, cells: Tensor, kinds: Tensor) -> Tensor:
    """Cross-entropy of what is read in every cell (n, `KINDS`, h, w) against what covers it: the names, the colours, the numbers."""
    covered = adaptive_avg_pool2d(cells, logits.shape[2:])
    truths = [torch.einsum("nkc,nkhw->nchw", one_hot(kinds[:, :, k], KINDS[k]).float(), covered) for k in (0, 1)]
    return sum(cross_entropy(part, truth) for part, truth in zip(logits.split(KINDS, 1), (*truths, covered), strict=True))


@torch.no_grad()
def encode_pictures(vae, pictures):
    """Mean and standard deviation of every picture's latents: two float16 tensors (n, 4, size/8, size/8)."""
    means, stds = [], []
    for part in tqdm(pictures.split(64), "encoding pictures"):
        posterior = vae.encode(to_tensor(part).to(vae.device)).latent_dist
        means.append(posterior.mean.half())
        stds.append(posterior.std.half())
    return torch.cat(means), torch.cat(stds)


@torch.no_grad()
def encode_captions(text_encoder, tokenizer, captions):
    """The distinct captions' token ids (m + 1, 77), their last hidden states (m + 1, 77, width) as float16, and each caption's row.

    The last row is the empty caption's, which stands in where a caption is dropped.
    """
    distinct, row = np.unique(captions, return_inverse=True)
    ids = tokenizer([*distinct.tolist(), ""], padding="max_length", max_length=77, return_tensors="pt").input_ids.to(text_encoder.device)
    states = [text_encoder(part).last_hidden_state.half() for part in tqdm(ids.split(256), "encoding captions")]
    return ids, torch.cat(states), torch.from_numpy(row).to(ids.device)


def noisy_pairs(vae, text_encoder, tokenizer, scenes, batch):
    """Random batches of (latents sampled and scaled for the UNet, text features, noise, timesteps), one caption in ten dropped."""
    draw = _pairs(vae, text_encoder, tokenizer, scenes, batch)
    return lambda: (*draw()[2:], torch.randint(1000, (batch,)).to(vae.device))


def grounded_pairs(vae, text_encoder, tokenizer, scenes, batch):
    """As `noisy_pairs`, more of them with much noise, for `GroundedObjective`: with what is known of the scenes, drawn as they are.

    That is which tokens name each thing, what share of each latent cell the ground and each thing cover, and `DrawnScenes.kinds`.
    """
    pairs, kinds = _pairs(vae, text_encoder, tokenizer, scenes, batch), scenes.kinds.long().to(vae.device)
    numbers = torch.arange(WORLD.most + 1)[:, None, None]
    cells = torch.cat([avg_pool2d((part[:, None] == numbers).half(), 8) for part in scenes.things.split(256)]).to(vae.device)
    words = tokenizer([*map(" ".join, WORDS["objects"].values()), ""], add_special_tokens=False, padding=True, return_tensors="pt")
    words = words.input_ids.where(words.attention_mask.bool(), -1).to(vae.device)

    def draw():
        chosen, ids, *pair = pairs()
        time, noisy = torch.rand(batch), torch.rand(batch) < NOISY_SHARE
        timestep = torch.where(noisy, NOISY + (1000 - NOISY) * time, 1000 * time).long().to(vae.device)
        nouns = (ids[:, None, :, None] == words[kinds[chosen, 1:, 0]][:, :, None]).any(3)
        return *pair, timestep, nouns, cells[chosen].float(), kinds[chosen]

    return draw


def _pairs(vae, text_encoder, tokenizer, scenes, batch):
    """Random batches of (which scenes, the token ids that are read, latents, text features, noise)."""
    means, stds = encode_pictures(vae, scenes.pictures)
    ids, states, rows = encode_captions(text_encoder, tokenizer, scenes.captions)

    def draw():
        chosen, dropped = torch.randint(len(means), (batch,)).to(vae.device), (torch.rand(batch) < CAPTION_DROPOUT).to(vae.device)
        latents = torch.normal(means[chosen].float(), stds[chosen].float()) * vae.config.scaling_factor
        row = rows[chosen].masked_fill(dropped, len(ids) - 1)
        return chosen, ids[row], latents, states[row].float(), torch.randn_like(latents)

    return draw
