"""What a training is told: its numbers, those of `sdteach train --preset` in recipe.toml. RECIPE.md says what they gave."""

import json
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import cos, pi

from ...files import data_of
from ..world import SMALL_WORLD, WORLD, Grammar


@dataclass(frozen=True)
class Phase:
    """One optimisation by AdamW, of so many `steps`, or of as many as there are in so many `minutes`.

    The learning rate rises for `warmup` steps and falls along a cosine to zero; the weights are averaged exponentially.
    """

    batch: int
    learning_rate: float
    ema_decay: float
    steps: int = 0
    minutes: float = 0.0
    warmup: int = 200
    weight_decay: float = 0.01
    bfloat16: bool = False  # where the machine multiplies so by itself
    compiled: bool = False  # on a GPU

    def progress(self, step: int, seconds: float) -> float:
        """How much of the phase is done after `step` steps, two at least, and so many seconds: 1 is all."""
        return step / self.steps if self.steps else seconds / (60 * self.minutes) * (step > 1)

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of this step."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * (1 + cos(pi * progress)) / 2


@dataclass(frozen=True)
class Recipe:
    """All that decides the checkpoint.

    CLIP, the VAE and the UNet at last learn from `large_scenes` of 128 pixels. Before that the UNet learns what things look
    like from `single_scenes` (one object on 64 pixels, which cost a quarter and are far quicker to learn), then two objects
    and their relations from `small_scenes` (64 pixels). As soon as `first_scenes` of a kind are drawn, learning from it begins.
    """

    grammar: Grammar
    large_scenes: int
    small_scenes: int
    single_scenes: int
    first_scenes: int
    clip: Phase
    words: Phase
    vae: Phase
    decoder: Phase
    unet_single: Phase
    unet_small: Phase
    unet_large: Phase
    vae_channels: tuple[int, ...] = (24, 48, 96, 96)
    unet_channels: tuple[int, ...] = (64, 128, 128)
    guidance_scale: float = 2.5
    judge: Phase = Phase(steps=2_100, batch=32, learning_rate=2e-3, ema_decay=0.99, warmup=50)
    held_out_scenes: int = 250
    in_memory: bool = False  # scenes lie in /dev/shm until the checkpoint is packed
    seed: int = 0

    @property
    def digest(self) -> str:
        """The sha256 of all these numbers: a state that carries another one is another recipe's."""
        return sha256(json.dumps(asdict(self), sort_keys=True, default=sorted).encode()).hexdigest()

    def shortened(self, share: float) -> "Recipe":
        """The same recipe with `share` (0..1) of all scenes, steps and minutes, batches of 32 at most, not compiled: a rehearsal.

        Two steps and 32 scenes remain at least.
        """
        phases = {name: replace(phase, steps=phase.steps and max(2, round(phase.steps * share)), minutes=phase.minutes * share,
                                batch=min(phase.batch, 32), warmup=1, compiled=False)
                  for name, phase in vars(self).items() if isinstance(phase, Phase)}  # fmt: skip
        counts = {name: max(32, round(count * share)) for name, count in vars(self).items() if name.endswith("_scenes")}
        return replace(self, **phases, **counts)


def _recipe(grammar, **numbers):
    return Recipe(WORLD if grammar == "world" else SMALL_WORLD,
                  **{name: Phase(**number) if isinstance(number, dict) else number for name, number in numbers.items()})  # fmt: skip


PRESETS = {name: _recipe(**preset) for name, preset in data_of(__file__).items()}
