"""The schedule against closed formulas and diffusers' own samplers."""

import diffusers
import numpy as np
import pytest
import torch

import sdteach
from sdteach.schedule import alpha_cumprod_at


def test_the_schedule_is_stable_diffusions(model):
    schedule = sdteach.noise_schedule(model)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    np.testing.assert_allclose(schedule.betas.numpy(), betas, rtol=1e-4)
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), kept, rtol=1e-4)
    np.testing.assert_allclose(schedule.snr.numpy(), kept / (1 - kept), rtol=2e-4)
    np.testing.assert_allclose(schedule.sigma.numpy(), np.sqrt((1 - kept) / kept), rtol=2e-4)
    assert schedule.sigma[-1].item() == pytest.approx(14.61, abs=0.01)


@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LCMScheduler"])
@pytest.mark.parametrize("timestep", [0, 17, 500, 999])
def test_add_noise_is_the_samplers_own(model, scheduler, timestep):
    latents, noise = (torch.randn(1, 4, 5, 7, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    sampler = getattr(diffusers, scheduler).from_config(model.scheduler.config)
    expected = sampler.add_noise(latents, noise, torch.tensor([timestep]))
    torch.testing.assert_close(sdteach.add_noise(model, latents, noise, timestep), expected, rtol=1e-6, atol=1e-6)


def test_between_timesteps_sigma_is_interpolated_as_euler_does(model):
    euler = diffusers.EulerDiscreteScheduler.from_config(model.scheduler.config, timestep_spacing="linspace")
    euler.set_timesteps(37)
    for timestep, sigma in zip(euler.timesteps, euler.sigmas, strict=False):
        kept = alpha_cumprod_at(euler, timestep)
        assert ((1 - kept) / kept).sqrt().item() == pytest.approx(sigma.item(), rel=1e-4)


@pytest.mark.parametrize("timestep", [-1, 1000, 1e9, float("nan")])
def test_times_outside_are_refused(model, timestep):
    with pytest.raises(ValueError, match="from 0 to 999"):
        sdteach.add_noise(model, torch.zeros(1), torch.zeros(1), timestep)


def test_noise_of_another_shape_is_refused(model):
    with pytest.raises(ValueError, match=r"\(1, 4, 5, 7\)"):
        sdteach.add_noise(model, torch.zeros(1, 4, 5, 7), torch.zeros(4, 5, 7), 10)
