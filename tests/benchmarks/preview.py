"""Previews of latents: how near the fitted colours come to the decoded picture, on what they are best fitted, and how long both take.

    python tests/benchmarks/preview.py [--model picturebook] [--steps 20]

The predicted latents of every step of four runs are decoded, shrunk to an eighth, and held against `vae.preview`, and against the same
fit on the VAE's own view of coloured squares, and, as a bound, on the runs themselves.
"""

import argparse
import statistics
import time
from unittest import mock

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import sdteach
from sdteach import vae

PROMPTS = ("a red car below a yellow star", "a blue boat on a beach", "a green tree in the snow", "a purple house")
SEEDS = range(5)


def shrunk(model, latents):
    return np.asarray(sdteach.latents_to_image(model, latents).reduce(model.vae_scale_factor), np.float32)


def runs(model, steps):
    """The predicted latents of every step, and each one's picture."""
    found = [step.predicted_x0 for seed, prompt in enumerate(PROMPTS) for step in sdteach.denoise(model, prompt, steps=steps, seed=seed)]
    return found, [shrunk(model, latents) for latents in found]


def squares(model, seed):
    """Latents of squares in random colours, 64 pixels wide."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return [sdteach.image_to_latents(model, Image.fromarray(colours).resize((256, 256), Image.Resampling.NEAREST)).mean]


def smooth(model, seed):
    """What `preview` is fitted on, of another seed."""
    coarse = torch.randn(1, model.vae.config.latent_channels, 16, 16, generator=torch.Generator().manual_seed(seed))
    return [torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bicubic")]


def fitted(latents, pictures):
    rows = torch.cat([vae._with_one(one).flatten(0, 1).cpu() for one in latents])
    return torch.linalg.lstsq(rows, torch.cat([torch.from_numpy(one).flatten(0, 1) for one in pictures])).solution


def decibels(model, weights, latents, pictures):
    with mock.patch.dict(vae._COLOURS, {model.vae: weights}):
        errors = [np.mean((vae.preview(model, one) - seen) ** 2) for one, seen in zip(latents, pictures, strict=True)]
    return statistics.mean(float(10 * np.log10(255**2 / error)) for error in errors)


def seconds(run):
    run()
    start = time.perf_counter()
    for _ in range(20):
        run()
    return (time.perf_counter() - start) / 20


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--model", default="picturebook")
    asked.add_argument("--steps", type=int, default=20)
    options = asked.parse_args()
    model = sdteach.load_model(options.model)
    latents, pictures = runs(model, options.steps)
    table = Table("fitted on", "dB on true runs, the mean of each fit")
    for told, make in {"smooth random latents": smooth, "coloured squares": squares}.items():
        tried = [(given, [shrunk(model, one) for one in given]) for given in (make(model, seed) for seed in SEEDS)]
        table.add_row(told, ", ".join(f"{decibels(model, fitted(*one), latents, pictures):.1f}" for one in tried))
    table.add_row("the runs themselves", f"{decibels(model, fitted(latents, pictures), latents, pictures):.1f}")
    Console().print(table)
    fit = seconds(lambda: vae.fitted_colours(model))
    look, decode = (seconds(lambda one=one: one(model, latents[-1])) for one in (vae.preview, sdteach.latents_to_image))
    Console().print(f"fit {fit:.3f} s, preview {1e3 * look:.3f} ms, decode {1e3 * decode:.1f} ms: {decode / look:.0f} times")


if __name__ == "__main__":
    main()
