"""Numbers with their 95 % intervals, and what they are made of: copies, overlaps, retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from ...model import StableDiffusion
from ...pictures import Mask, Pixels
from ...records import Tokens
from ...text_encoder import encode_text, image_features
from ...vae import copies
from ...vectors import cosine_similarity
from ..captions import WORDS
from ..scenes import Scene

HEAT = 0.2  # a word was read wherever its heat map (0..1) is above this; chosen by `reading`


@dataclass(frozen=True)
class Measure:
    """The mean, or the fraction, of `count` cases and its 95 % interval; not a number where there was no case."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self):
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def fraction(right: Sequence[bool]) -> Measure:
    """How many are right, 0..1, and its interval (Wilson, 1927)."""
    from scipy.stats import binomtest  # a second of a cold start: only those who measure wait for it

    if not right:
        return average(right)
    interval = binomtest(sum(right), len(right)).proportion_ci(method="wilson")
    return Measure(sum(right) / len(right), float(interval.low), float(interval.high), len(right))


def average(values: Sequence[float | bool] | np.ndarray) -> Measure:
    """A mean and its normal interval."""
    n = len(values)
    mean = float(np.mean(values)) if n else float("nan")
    half = float(NormalDist().inv_cdf(0.975) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Measure(mean, mean - half, mean + half, n)


def copied(model: StableDiffusion | nn.Module, picture: Pixels) -> Pixels:
    """A picture through the VAE of a model, or of what trains one, and back."""
    return np.asarray(copies(model.vae, [Image.fromarray(picture)])[0])


def retrieved(model: StableDiffusion, scenes: Sequence[Scene]) -> list[bool]:
    """For every scene, whether its caption is the one that CLIP finds nearest to its picture."""
    captions = [scene.caption for scene in scenes]
    images = torch.stack([image_features(model, scene.image) for scene in tqdm(scenes, "CLIP looks")])
    texts = torch.stack([encode_text(model, caption).projected for caption in tqdm(captions, "CLIP reads")])
    nearest = cosine_similarity(images, texts).argmax(1).tolist()
    return [captions[found] == caption for found, caption in zip(nearest, captions, strict=True)]


def word_for(tokens: Tokens, name: str) -> int:
    """Which word of a prompt says this object."""
    return next(index for index, word in enumerate(tokens.words) if word.lower() in WORDS["objects"][name])


def overlap(heat: Float32[np.ndarray, "_ _"], mask: Mask, threshold: float) -> float:
    """`iou` of a mask and of where a heat map, brought to its size, is above a threshold."""
    stretched = Image.fromarray(heat).resize(mask.shape[::-1], Image.Resampling.BILINEAR)
    return iou(np.asarray(stretched) > threshold, mask)


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks, of which at least one is not empty."""
    return float((first & second).sum() / (first | second).sum())
