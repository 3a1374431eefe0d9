"""Phase 1: CLIP. Two towers learn to agree on which caption belongs to which picture (Radford et al., 2021)."""

import numpy as np
import torch
from torch import nn
from torch.distributed import all_gather, get_rank, get_world_size, is_initialized
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from ..judge import to_tensor
from ..networks import NETWORKS

TOWER = NETWORKS["clip"]
WIDTH = TOWER["hidden_size"]


class ContrastiveObjective(nn.Module):
    """Symmetric cross-entropy over all pairs of a batch; the temperature is learned (CLIP, figure 3).

    Every caption is told from all pictures of the batch, also those of other processes: so each process sees the whole loss.
    """

    def __init__(self):
        super().__init__()
        self.text_encoder = CLIPTextModel(CLIPTextConfig(**TOWER, pad_token_id=49407))
        self.text_projection = nn.Linear(WIDTH, WIDTH, bias=False)
        self.image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER, image_size=128, patch_size=16))
        self.logit_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))

    def forward(self, ids, pictures):
        texts, images = map(_of_all_processes, features(self, ids, pictures))
        logits = self.logit_scale.clamp(max=np.log(100)).exp() * texts @ images.T
        truth = torch.arange(len(logits), device=logits.device)
        return (cross_entropy(logits, truth) + cross_entropy(logits.T, truth)) / 2


def features(towers, ids, pictures):
    """Where the space that they share has texts and pictures, on the unit sphere."""
    return normalize(towers.text_projection(towers.text_encoder(ids).pooler_output)), normalize(towers.image_encoder(pictures).image_embeds)


def _of_all_processes(features):
    """The rows of the whole batch.

    Gradients come back to a process for its own rows alone, and are then averaged over processes: so each counts for all.
    """
    if not is_initialized():
        return features
    rows = [torch.empty_like(features) for _ in range(get_world_size())]
    all_gather(rows, features.detach())
    features.register_hook(lambda gradient: gradient * len(rows))
    rows[get_rank()] = features
    return torch.cat(rows)


def pairs(scenes, tokenizer, batch):
    """Random batches of (ids, pictures in -1..1). The tower is causal: cutting the padding off changes nothing pooled."""
    device = scenes.pictures.device
    ids = tokenizer(scenes.captions, padding="longest", return_tensors="pt").input_ids.to(device)

    def draw():
        chosen = torch.randperm(len(ids))[:batch].to(device)
        return ids[chosen], to_tensor(scenes.pictures[chosen])

    return draw


@torch.no_grad()
def nearest(towers, tokenizer, scenes) -> torch.Tensor:
    """For every picture of `DrawnScenes` the index of the caption nearest to it."""
    ids = tokenizer(scenes.captions, padding="longest", return_tensors="pt").input_ids
    texts, images = features(towers, ids, to_tensor(scenes.pictures))
    return (images @ texts.T).argmax(1)
