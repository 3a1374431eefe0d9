"""The numbers of the training: what `sdteach train --preset cpu` and `--preset accelerator` do. RECIPE.md says what they gave."""

import json
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import cos, pi

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
    vae_channels: tuple[int, ...]
    unet_channels: tuple[int, ...]
    clip: Phase
    words: Phase
    vae: Phase
    decoder: Phase
    unet_single: Phase
    unet_small: Phase
    unet_large: Phase
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


PRESETS = {
    # Two cores, hours: a dozen objects, up to two of them, no styles.
    "cpu": Recipe(
        grammar=SMALL_WORLD,
        large_scenes=30_000,
        small_scenes=30_000,
        single_scenes=16_000,
        first_scenes=30_000,
        vae_channels=(24, 48, 96, 96),
        unet_channels=(64, 128, 128),
        clip=Phase(steps=3_670, batch=192, learning_rate=1e-3, ema_decay=0.99),
        words=Phase(steps=600, batch=96, learning_rate=6e-4, ema_decay=0.98, warmup=50),
        vae=Phase(steps=5_200, batch=32, learning_rate=2e-3, ema_decay=0.99, bfloat16=True),
        decoder=Phase(steps=5_450, batch=32, learning_rate=1e-3, ema_decay=0.998, warmup=50, bfloat16=True),
        unet_single=Phase(steps=3_600, batch=32, learning_rate=1e-3, ema_decay=0.998, bfloat16=True),
        unet_small=Phase(steps=10_000, batch=32, learning_rate=7e-4, ema_decay=0.999, bfloat16=True),
        unet_large=Phase(steps=9_000, batch=32, learning_rate=5e-4, ema_decay=0.999, bfloat16=True),
    ),
    # One H100 and 16 cores, meant for 25 minutes and not yet run: the whole world.
    "accelerator": Recipe(
        grammar=WORLD,
        large_scenes=400_000,
        small_scenes=120_000,
        single_scenes=60_000,
        first_scenes=20_000,
        vae_channels=(24, 48, 96, 96),
        unet_channels=(64, 128, 128),
        clip=Phase(minutes=1.5, batch=1_024, learning_rate=1e-3, ema_decay=0.995, warmup=500, bfloat16=True),
        words=Phase(minutes=0.5, batch=96, learning_rate=6e-4, ema_decay=0.98, warmup=50),
        vae=Phase(minutes=3, batch=192, learning_rate=1.5e-3, ema_decay=0.998, warmup=500, bfloat16=True, compiled=True),
        decoder=Phase(minutes=1.5, batch=192, learning_rate=1e-3, ema_decay=0.998, bfloat16=True, compiled=True),
        unet_single=Phase(minutes=1, batch=256, learning_rate=1e-3, ema_decay=0.998, warmup=500, bfloat16=True, compiled=True),
        unet_small=Phase(minutes=5, batch=256, learning_rate=8e-4, ema_decay=0.999, bfloat16=True, compiled=True),
        unet_large=Phase(minutes=8, batch=256, learning_rate=8e-4, ema_decay=0.9995, bfloat16=True, compiled=True),
        in_memory=True,
    ),
}
