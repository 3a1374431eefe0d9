"""The schedule against closed formulas and diffusers' own samplers."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import sdteach
from sdteach.schedule import alpha_cumprod_at, forward_process


def test_the_schedule_is_stable_diffusions(model):
    schedule = sdteach.noise_schedule(model)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas_cumprod = np.cumprod(1 - betas)
    np.testing.assert_allclose(schedule.betas.numpy(), betas, rtol=1e-4)
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), alphas_cumprod, rtol=1e-4)
    np.testing.assert_allclose(schedule.snr.numpy(), alphas_cumprod / (1 - alphas_cumprod), rtol=2e-4)
    np.testing.assert_allclose(schedule.sigma.numpy(), np.sqrt((1 - alphas_cumprod) / alphas_cumprod), rtol=2e-4)
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
        alpha_prod_t = alpha_cumprod_at(euler, timestep)
        assert ((1 - alpha_prod_t) / alpha_prod_t).sqrt().item() == pytest.approx(sigma.item(), rel=1e-4)


@pytest.mark.parametrize("timestep", [-1, 1000, 1e9, float("nan")])
def test_times_outside_are_refused(model, timestep):
    with pytest.raises(ValueError, match="from 0 to 999"):
        sdteach.add_noise(model, torch.zeros(1), torch.zeros(1), timestep)


def test_noise_of_another_shape_is_refused(model):
    with pytest.raises(ValueError, match=r"\(1, 4, 5, 7\)"):
        sdteach.add_noise(model, torch.zeros(1, 4, 5, 7), torch.zeros(4, 5, 7), 10)


@pytest.mark.parametrize("checkpoint", ["picturebook", "epsilon", "v_prediction"])
@pytest.mark.parametrize(("timestep", "seed", "mode"), [(0, 0, "RGB"), (17, 3, "RGBA"), (999, 1, "L")])
def test_the_forward_process_noises_pixels_and_latents_as_the_sampler_does(model, random_folders, checkpoint, timestep, seed, mode):
    model = model if checkpoint == "picturebook" else sdteach.load_model(random_folders[checkpoint], device="cpu")
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 56, 3), np.uint8)).convert(mode)
    noised = forward_process(model, picture, timestep, seed)
    sampler = diffusers.DDPMScheduler.from_config(model.scheduler.config)
    generator = torch.Generator().manual_seed(seed)
    clean = sdteach.image_to_latents(model, picture).mean
    latents = sampler.add_noise(clean, torch.randn(1, 4, 5, 7, generator=generator), torch.tensor([timestep]))
    torch.testing.assert_close(noised.latents, latents, rtol=1e-5, atol=1e-5)
    colours = torch.from_numpy(np.array(picture.convert("RGB"))).double() / 127.5 - 1
    noise = torch.randn(40, 56, 3, generator=generator)
    pixels = ((sampler.add_noise(colours, noise.double(), torch.tensor([timestep])) + 1) * 127.5).clamp(0, 255).numpy()
    assert noised.pixels.shape == (40, 56, 3)
    np.testing.assert_allclose(noised.pixels, pixels, atol=0.502)
    assert np.array_equal(noised.decoded, np.asarray(sdteach.latents_to_image(model, noised.latents)))
    alpha_prod_t = np.prod(1 - model.scheduler.betas.double().numpy()[: timestep + 1])
    assert (noised.timestep, noised.alpha_cumprod) == (timestep, pytest.approx(alpha_prod_t, rel=1e-4))


def test_the_forward_process_has_other_noise_for_another_seed_and_the_same_at_every_time(model):
    picture = Image.new("RGB", (56, 40), (10, 200, 30))
    start = sdteach.image_to_latents(model, picture).mean
    noises = {}
    for timestep, seed in ((500, 0), (900, 0), (500, 1)):
        noised = forward_process(model, picture, timestep, seed)
        noises[timestep, seed] = (noised.latents - noised.alpha_cumprod**0.5 * start) / (1 - noised.alpha_cumprod) ** 0.5
    torch.testing.assert_close(noises[500, 0], noises[900, 0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(noises[500, 0], noises[500, 1], atol=0.1)


def test_the_forward_process_refuses_what_does_not_fit(model):
    with pytest.raises(ValueError, match="multiples of 8"):
        forward_process(model, Image.new("RGB", (50, 40)), 10)
    with pytest.raises(ValueError, match="from 0 to 999"):
        forward_process(model, Image.new("RGB", (56, 40)), 1000)
