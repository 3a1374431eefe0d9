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

    def of_texts(self, ids):
        """Where CLIP's space has them, on the unit sphere."""
        return normalize(self.text_projection(self.text_encoder(ids).pooler_output))

    def of_pictures(self, pictures):
        return normalize(self.image_encoder(pictures).image_embeds)

    def forward(self, ids, pictures):
        texts, images = _of_all_processes(self.of_texts(ids)), _of_all_processes(self.of_pictures(pictures))
        logits = self.logit_scale.clamp(max=np.log(100)).exp() * texts @ images.T
        truth = torch.arange(len(logits), device=logits.device)
        return (cross_entropy(logits, truth) + cross_entropy(logits.T, truth)) / 2


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
    texts = towers.of_texts(tokenizer(scenes.captions, padding="longest", return_tensors="pt").input_ids)
    return (towers.of_pictures(to_tensor(scenes.pictures)) @ texts.T).argmax(1)
