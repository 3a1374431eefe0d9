"""Explorers: figures that answer to sliders and to what is typed. They draw with `plots` and compute nothing themselves:
what has to be computed anew comes from a callable that they are given.

Where widgets cannot run, each shows the picture that it starts with.
"""

from .demo import Demo
from .explorer import Explorer, LiveExplorer, TextExplorer, live
from .region import RegionExplorer
from .stages import (
    attention_explorer,
    guidance_dial,
    latent_explorer,
    noise_explorer,
    region_explorer,
    run_scrubber,
    skip_mixer,
    token_explorer,
    vae_explorer,
    vector_explorer,
)

__all__ = [
    "Demo", "Explorer", "LiveExplorer", "RegionExplorer", "TextExplorer", "attention_explorer", "guidance_dial", "latent_explorer", "live",
    "noise_explorer", "region_explorer", "run_scrubber", "skip_mixer", "token_explorer", "vae_explorer", "vector_explorer",
]  # fmt: skip
