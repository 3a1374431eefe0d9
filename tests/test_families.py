"""Every family of checkpoints goes through the same stages, equal to diffusers' own pipelines to the last bit."""

from functools import cache

import diffusers
import numpy as np
import pytest
import torch

import sdteach

HEIGHT, WIDTH = 104, 136
FAMILIES = ["sd_1", "sd_2", "sd_turbo", "lcm", "xl", "xl_turbo"]
XL = ["xl", "xl_turbo"]
SCHEDULERS = ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
              "PNDMScheduler", "UniPCMultistepScheduler", "LCMScheduler"]  # fmt: skip


@pytest.fixture(scope="module")
def load(family_folder):
    return cache(lambda family: sdteach.load_model(family_folder(family), device="cpu"))


def latents_of(trace):
    return torch.from_numpy(trace.final_latents)


@pytest.mark.parametrize("negative", [None, "a house in the snow"])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_diffusers_with_the_sampler_it_ships_with(family_folder, load, diffusers_latents, family, guidance_scale, negative):
    options = dict(prompt="a red cat's hat", num_inference_steps=4, guidance_scale=guidance_scale, height=HEIGHT, width=WIDTH)
    told = {} if family == "lcm" else {"negative_prompt": negative}
    expected = diffusers_latents(family_folder(family), seed=7, **options, **told)
    trace = sdteach.generate(load(family), "a red cat's hat", negative or "", 4, guidance_scale, 7, HEIGHT, WIDTH)
    assert torch.equal(latents_of(trace), expected)
    assert (trace.steps[0].noise_uncond is None) == (family == "lcm" or guidance_scale <= 1)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("family", ["sd_2", *XL])
def test_equals_diffusers_with_other_samplers(family_folder, load, diffusers_latents, family, scheduler):
    expected = diffusers_latents(
        family_folder(family), getattr(diffusers, scheduler), seed=3, prompt="a boat", negative_prompt="snow", num_inference_steps=5,
        guidance_scale=4.0, height=WIDTH, width=HEIGHT,
    )  # fmt: skip
    trace = sdteach.generate(load(family), "a boat", "snow", 5, 4.0, 3, WIDTH, HEIGHT, scheduler)
    assert torch.equal(latents_of(trace), expected)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("family", ["sd_turbo", "xl_turbo", "lcm"])
def test_few_steps_give_the_picture_of_diffusers(family_folder, load, diffusers_latents, family, steps):
    expected = diffusers_latents(family_folder(family), seed=1, prompt="a boat", num_inference_steps=steps, guidance_scale=0.0,
                                 output_type="pil")  # fmt: skip
    trace = sdteach.generate(load(family), "a boat", steps=steps, guidance_scale=0.0, seed=1)
    assert np.array_equal(trace.pixels, np.asarray(expected[0]))
    assert trace.heat_map("boat").shape == (9, 9)
