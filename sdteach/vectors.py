"""Vectors: how alike two are, what lies between two, and in which directions many of them spread."""

import torch
from jaxtyping import Float
from torch import Tensor


def cosine_similarity(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """The cosine of the angle between every row of `a` and every row of `b`, in float32; 0 where a row is all zeros.

    >>> cosine_similarity(torch.eye(2), torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000],
            [0.8000]])

    Raises ValueError unless both are matrices of equally long rows.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected (n, d) and (m, d), got {tuple(a.shape)} and {tuple(b.shape)}; one vector v is v[None]")
    return torch.nn.functional.normalize(a.float()) @ torch.nn.functional.normalize(b.float()).T


def slerp(first: Float[Tensor, "n *d"], second: Float[Tensor, "n *d"], weight: float) -> Float[Tensor, "n *d"]:
    """From every row of `first` (weight 0) to that of `second` (weight 1) along the arc between them (Shoemake, 1985).

    Halfway between two noises the mean is too short by the square root of two; the arc keeps what the UNet expects.

    >>> slerp(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]]), 0.5)
    tensor([[2.1213, 2.1213]])

    Raises ValueError for shapes that differ or a weight outside 0..1.
    """
    if first.shape != second.shape or not 0 <= weight <= 1:
        raise ValueError(f"expected two of one shape and a weight from 0 to 1, got {[*first.shape]}, {[*second.shape]} and {weight}")
    rows = [given.flatten(1).double() for given in (first, second)]
    cosines = torch.nn.functional.cosine_similarity(*rows).clamp(-1, 1)
    angle = cosines.arccos()[:, None]
    straight = angle.sin() < 1e-4  # along one line there is no arc
    weights = [torch.where(straight, each, (each * angle).sin() / angle.sin()) for each in (1 - weight, weight)]
    return (weights[0] * rows[0] + weights[1] * rows[1]).to(first).view_as(first)


def main_directions(vectors: Float[Tensor, "n d"], count: int = 2) -> tuple[Float[Tensor, "n {count}"], Float[Tensor, " {count}"]]:
    """Vectors along their `count` main directions (principal components), and the fraction of the variance along each.

    Raises ValueError for fewer than `count` + 1 vectors, which always lie in so few directions.
    """
    if len(vectors) <= count:
        raise ValueError(f"expected at least {count + 1} vectors, got {len(vectors)}; so few always lie in {count} directions")
    centred = vectors.float() - vectors.float().mean(0)
    u, lengths, _ = torch.linalg.svd(centred, full_matrices=False)
    return u[:, :count] * lengths[:count], lengths[:count] ** 2 / (lengths**2).sum().clamp(min=1e-12)
