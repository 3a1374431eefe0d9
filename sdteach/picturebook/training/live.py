"""Training before one's eyes: the objectives of the recipe, step by step, small enough for a lesson."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from types import SimpleNamespace

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor, nn

from ...model import StableDiffusion
from ...records import Record
from ...text_encoder import encode_text
from ..captions import read
from ..imagining import Description, Thing
from ..judge import to_tensor
from ..scenes import draw, scenes_in_words
from ..world import Grammar
from .contrast import nearest
from .data import DrawnScenes
from .packing import new_scheduler

UPDATES = 16  # how often a training shows itself


class Progress(Record):
    """How far a training has come: the loss of every step so far, the value of one weight, and what `look` made of it, by step."""

    steps: int
    losses: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    looks: dict[int, object] = field(default_factory=dict)


def learn(objective: nn.Module, prepare: Callable[[], tuple[Tensor, ...]], steps: int, learning_rate: float = 1e-3,
          look: Callable[[], object] | None = None, looks: int = 6, seed: int = 0) -> Iterator[Progress]:  # fmt: skip
    """Minimise `objective(*prepare())` over the weights that want a gradient, and yield the progress now and then, and at the end.

    `look()` is kept `looks` times, at steps that grow by a factor, since most happens at the beginning; the first time is
    before the first step. The same `seed` is the same training. AdamW with warm-up and cosine decay, as in `loop.fit`.
    """
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, learning_rate, (0.9, 0.99))
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    progress = Progress(steps)
    shown = {0, *np.geomspace(max(1, steps // 50), steps, looks - 1).astype(int).tolist()} if look else set()
    torch.manual_seed(seed)
    for step in range(steps + 1):
        if step in shown:
            progress.looks[step] = look()
        if step == steps or step % max(1, steps // UPDATES) == 0:
            yield progress
        if step == steps:
            return
        loss = objective(*prepare())
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.losses.append(loss.item())
        progress.weight.append(weights[-2].flatten()[0].item())


class PointDenoiser(nn.Module):
    """A UNet's place taken by three layers: points of the plane (n, 2, 1, 1), their timesteps, and, if there are `names`, their text
    (n, names) to the noise in them."""

    def __init__(self, width: int = 128, names: int = 0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 + 64 + names, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                                    nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))  # fmt: skip

    def forward(self, noisy, timestep, text=None):
        time = get_timestep_embedding(timestep.expand(len(noisy)), 64)
        told = [noisy.flatten(1), time] if text is None else [noisy.flatten(1), time, text]
        return SimpleNamespace(sample=self.layers(torch.cat(told, 1)).view_as(noisy))


def points_of(name: str, number: int, seed: int = 0) -> Tensor:
    """Points (n, 2), spread over a drawn object; mean 0, standard deviation 1, y upwards."""
    thing = Thing(name, "red", "big", (128.0, 128.0), 110.0, 0.0)
    mask = draw(Description((thing,), "paper", "flat", None, "", seed, 256)).objects[0].mask
    generator, cells = np.random.default_rng(seed), np.argwhere(mask)
    chosen = cells[generator.integers(len(cells), size=number)]
    points = chosen[:, ::-1] * [1, -1] + generator.random((number, 2))
    centred = points - points.mean(0)
    return torch.from_numpy(centred / centred.std()).float()


@torch.no_grad()
def denoised_points(denoiser: nn.Module, number: int, steps: int = 25, seed: int = 0) -> list[Tensor]:
    """Noise made points of by the same loop as pictures: the points (n, 2) before the first step and after each."""
    sampler = DDIMScheduler.from_config(new_scheduler().config)
    sampler.set_timesteps(steps)
    seen = [torch.randn(number, 2, 1, 1, generator=torch.Generator().manual_seed(seed))]
    for timestep in sampler.timesteps:
        seen.append(sampler.step(denoiser(seen[-1], timestep).sample, timestep, seen[-1]).prev_sample)
    return [points.flatten(1) for points in seen]


def some_of(points: Tensor, number: int) -> tuple[Tensor, None, Tensor, Tensor]:
    """A random batch for `denoising.DenoisingObjective`: points (n, 2, 1, 1), no text, noise and timesteps."""
    chosen = points[torch.randint(len(points), (number,))][:, :, None, None]
    return chosen, None, torch.randn_like(chosen), torch.randint(1000, (number,))


def some_named(groups: Sequence[Tensor], number: int, dropped: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `some_of`, so many points of each group, with text that names the group: a row of the unit matrix, or zeros where it is
    dropped, as happens to the share `dropped` of all."""
    latents, _, noise, timesteps = zip(*(some_of(points, number) for points in groups), strict=True)
    text = torch.eye(len(groups)).repeat_interleave(number, 0)
    return torch.cat(latents), text * (torch.rand(len(text), 1) >= dropped), torch.cat(noise), torch.cat(timesteps)


def some_scenes(words: frozenset[str], grammar: Grammar, number: int, first_seed: int = 0, canvas: int = 128,
                objects: int | None = None) -> DrawnScenes:  # fmt: skip
    """So many scenes from a seed on, drawn now, whose captions need no other words."""
    drawn = scenes_in_words(words, number, first_seed, grammar, objects, canvas)
    pictures, things = (torch.from_numpy(np.stack([getattr(scene, what) for scene in drawn])) for what in ("picture", "things"))
    return DrawnScenes(pictures, [scene.caption for scene in drawn], things)


@torch.no_grad()
def agreement(towers: nn.Module, tokenizer, scenes: DrawnScenes) -> dict[str, float]:
    """For every picture the caption that CLIP's towers find nearest: how often it says the right place, colours, objects, and all.

    Of places only those count that the picture's own caption says.
    """
    said = {
        "place": lambda request: request.place,
        "colours": lambda request: sorted(str(thing.colour) for thing in request.things),
        "objects": lambda request: sorted(thing.name for thing in request.things),
        "the caption": lambda request: request,
    }
    requests = [read(caption) for caption in scenes.captions]
    pairs = [(own, requests[found]) for own, found in zip(requests, nearest(towers, tokenizer, scenes).tolist(), strict=True)]
    return {name: float(np.mean([what(own) == what(found) for own, found in pairs if what(own)])) for name, what in said.items()}


@torch.no_grad()
def errors_by_time(denoiser: nn.Module, latents: Tensor, texts: Tensor, timesteps: Sequence[int]) -> list[float]:
    """The mean squared error of the predicted noise at each of these timesteps, the same noise for all; 1 is no better than silence."""
    noise, scheduler = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)), new_scheduler()
    errors = []
    for timestep in timesteps:
        time = torch.full((len(latents),), timestep)
        noisy = scheduler.add_noise(latents, noise, time)
        errors.append((denoiser(noisy, time, texts).sample - noise).square().mean().item())
    return errors


def points_now(denoiser: nn.Module, number: int) -> np.ndarray:
    """What the denoiser makes of noise as it is now, (n, 2)."""
    return denoised_points(denoiser, number)[-1].numpy()


@torch.no_grad()
def encoded(model: StableDiffusion, scenes: DrawnScenes) -> tuple[Tensor, Tensor]:
    """The scenes as the UNet meets them: mean latents (n, 4, h, w), scaled, and their captions' features (n, 77, width)."""
    means = model.vae.encode(to_tensor(scenes.pictures)).latent_dist.mean
    texts = [encode_text(model, caption).last_hidden_state for caption in scenes.captions]
    return means * model.vae.config.scaling_factor, torch.stack(texts)
