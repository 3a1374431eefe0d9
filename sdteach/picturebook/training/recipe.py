"""The numbers of the training. The model card says what they gave and how long they took."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Phase:
    """One optimisation: AdamW with warm-up and cosine decay to zero, an exponential moving average of the weights."""

    steps: int
    batch: int
    learning_rate: float
    ema_decay: float
    warmup: int = 200
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Recipe:
    """All that decides the checkpoint.

    CLIP and the VAE learn from `large_scenes` of 128 pixels. The UNet learns what things look like from `single_scenes`
    (one object on 64 pixels, which cost a quarter and are far quicker to learn), then two objects and their relations from
    `small_scenes` (64 pixels), then where things stand on the whole page from `layout_scenes` of the large ones.
    """

    seed: int = 0
    large_scenes: int = 30_000
    small_scenes: int = 30_000
    single_scenes: int = 16_000
    layout_scenes: int = 12_000
    held_out_scenes: int = 250
    clip: Phase = Phase(steps=1_800, batch=192, learning_rate=1e-3, ema_decay=0.99)
    vae: Phase = Phase(steps=2_600, batch=32, learning_rate=2e-3, ema_decay=0.99)
    unet_single: Phase = Phase(steps=2_400, batch=48, learning_rate=1e-3, ema_decay=0.998)
    unet_small: Phase = Phase(steps=1_000, batch=64, learning_rate=7e-4, ema_decay=0.998)
    unet_large: Phase = Phase(steps=3_000, batch=32, learning_rate=5e-4, ema_decay=0.998)

    def shortened(self, share: float) -> "Recipe":
        """The same recipe with `share` (0..1) of all scenes and steps: a rehearsal."""
        phases = {name: replace(phase, steps=max(2, round(phase.steps * share)), warmup=1) for name, phase in vars(self).items()
                  if isinstance(phase, Phase)}  # fmt: skip
        counts = {name: max(16, round(count * share)) for name, count in vars(self).items() if name.endswith("_scenes")}
        return replace(self, **phases, **counts)
