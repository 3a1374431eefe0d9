"""The numbers of the training: what `sdteach train --preset cpu` and `--preset accelerator` do. RECIPE.md says what they gave."""

from dataclasses import dataclass, replace

from ..world import SMALL_WORLD, WORLD, Grammar


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
    `small_scenes` (64 pixels), then where things stand on the whole page from `layout_scenes` of the large ones. Last, its
    guidance is set (see `unet.GuidanceObjective`) so that the scale `best_guidance` it is best at is reached at 7.5.
    """

    grammar: Grammar
    large_scenes: int
    small_scenes: int
    single_scenes: int
    layout_scenes: int
    vae_channels: tuple[int, ...]
    unet_channels: tuple[int, ...]
    clip: Phase
    vae: Phase
    decoder: Phase
    unet_single: Phase
    unet_small: Phase
    unet_large: Phase
    unet_guidance: Phase
    best_guidance: float = 2.5
    judge: Phase = Phase(steps=2_100, batch=32, learning_rate=2e-3, ema_decay=0.99, warmup=50)
    held_out_scenes: int = 250
    seed: int = 0

    def shortened(self, share: float) -> "Recipe":
        """The same recipe with `share` (0..1) of all scenes and steps, batches of 32 at most and as many scenes at least: a rehearsal."""
        phases = {name: replace(phase, steps=max(2, round(phase.steps * share)), batch=min(phase.batch, 32), warmup=1)
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
        layout_scenes=12_000,
        vae_channels=(24, 48, 96, 96),
        unet_channels=(64, 128, 128),
        clip=Phase(steps=3_670, batch=192, learning_rate=1e-3, ema_decay=0.99),
        vae=Phase(steps=5_200, batch=32, learning_rate=2e-3, ema_decay=0.99),
        decoder=Phase(steps=5_450, batch=32, learning_rate=1e-3, ema_decay=0.998, warmup=50),
        unet_single=Phase(steps=2_400, batch=48, learning_rate=1e-3, ema_decay=0.998),
        unet_small=Phase(steps=1_200, batch=64, learning_rate=7e-4, ema_decay=0.998),
        unet_large=Phase(steps=9_000, batch=32, learning_rate=5e-4, ema_decay=0.998),
        unet_guidance=Phase(steps=350, batch=24, learning_rate=2e-4, ema_decay=0.99, warmup=50),
    ),
    # One H100 and 16 cores, meant for 25 minutes and not yet run: the whole world.
    "accelerator": Recipe(
        grammar=WORLD,
        large_scenes=240_000,
        small_scenes=120_000,
        single_scenes=60_000,
        layout_scenes=240_000,
        vae_channels=(32, 64, 128, 128),
        unet_channels=(96, 160, 160),
        clip=Phase(steps=3_500, batch=1_024, learning_rate=1e-3, ema_decay=0.995, warmup=500),
        vae=Phase(steps=6_000, batch=192, learning_rate=1.5e-3, ema_decay=0.998, warmup=500),
        decoder=Phase(steps=2_000, batch=192, learning_rate=1e-3, ema_decay=0.998),
        unet_single=Phase(steps=2_000, batch=512, learning_rate=1e-3, ema_decay=0.999, warmup=500),
        unet_small=Phase(steps=2_000, batch=512, learning_rate=8e-4, ema_decay=0.999),
        unet_large=Phase(steps=7_000, batch=512, learning_rate=8e-4, ema_decay=0.9995),
        unet_guidance=Phase(steps=500, batch=256, learning_rate=2e-4, ema_decay=0.99, warmup=50),
    ),
}
