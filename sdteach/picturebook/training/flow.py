"""Score, velocity and flow, with closed forms wherever what is learned is a finite set of points.

Time goes from 0, clean, to 1, noise, as in diffusers' FlowMatchEulerDiscreteScheduler. A field is a function of noisy points (n, d)
and a time that answers a velocity for each.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

Field = Callable[[Tensor, float], Tensor]


def interpolate(clean: Tensor, noise: Tensor, time: Tensor | float) -> Tensor:
    """The straight way from clean to noise: (1 - t) x_0 + t noise (Lipman et al., 2023; Liu et al., 2023)."""
    return (1 - time) * clean + time * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """How fast, and where to, `interpolate` moves: the same at every time."""
    return noise - clean


def euler_step(noisy: Tensor, velocity: Tensor, time: float, then: float) -> Tensor:
    """As far along the velocity as the time goes on; backwards, if `then` is earlier."""
    return noisy + (then - time) * velocity


def walk(field: Field, noisy: Tensor, times: Sequence[float]) -> list[Tensor]:
    """Where Euler's steps along a field lead: the points at each of the times."""
    seen = [noisy]
    for time, then in pairwise(times):
        seen.append(euler_step(seen[-1], field(seen[-1], time), time, then))
    return seen


def expected(noisy: Tensor, points: Tensor, alpha: float, sigma: float) -> Tensor:
    """What a perfect denoiser thinks that noisy points (n, d) = alpha x_0 + sigma noise were: the mean of the `points` (m, d) that x_0
    may be, each weighed by how likely it is. `sigma` is above 0."""
    return (-(torch.cdist(noisy, alpha * points) / sigma).square() / 2).softmax(1) @ points


def score(noisy: Tensor, points: Tensor, alpha: float, sigma: float) -> Tensor:
    """The gradient of the log density of `points` under noise, a mixture of Gaussians; the noise is -sigma times it (Tweedie)."""
    return (alpha * expected(noisy, points, alpha, sigma) - noisy) / sigma**2


def exact(points: Tensor, noisy: Tensor, time: float) -> Tensor:
    """The field that flow matching on `points` (m, d) would learn if nothing were left to learn; `time` is above 0."""
    return (noisy - expected(noisy, points, 1 - time, time)) / time


@torch.no_grad()
def learned(denoiser: nn.Module, noisy: Tensor, time: float, text=None) -> Tensor:
    """The field that a denoiser answers."""
    return denoiser(noisy, torch.full((len(noisy),), 1000 * time), text).sample


def guided(field: Field, without: Field, guidance_scale: float, noisy: Tensor, time: float) -> Tensor:
    """Guidance on velocities: beyond what a field says with the text, away from what one says without (Ho & Salimans, 2022)."""
    base = without(noisy, time)
    return base + guidance_scale * (field(noisy, time) - base)


class FlowObjective(nn.Module):
    """Mean squared error of the velocity at one random time of 0..1."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, clean, text, noise, time):
        """`time` (n,); the rest as for `denoising.DenoisingObjective`."""
        noisy = interpolate(clean, noise, time.view(-1, *[1] * (clean.ndim - 1)))
        return (self.unet(noisy, 1000 * time, text).sample - velocity(clean, noise)).square().mean()


def batch(clean: Tensor, number: int, noise: Tensor | None = None, text: Tensor | None = None) -> tuple:
    """At random for `FlowObjective`: each with noise of its own, fresh if there is none, and with its text if there is one."""
    chosen = torch.randint(len(clean), (number,))
    fresh = torch.randn_like(clean[chosen]) if noise is None else noise[chosen]
    return clean[chosen], None if text is None else text[chosen], fresh, torch.rand(number)


def distance(points: Tensor, others: Tensor) -> float:
    """How far points lie on average from as many others when they are paired as cheaply as can be (earth mover's distance)."""
    apart = torch.cdist(points, others)
    return apart[linear_sum_assignment(apart)].mean().item()
