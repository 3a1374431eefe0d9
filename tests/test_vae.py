"""Pictures to latents and back, against diffusers' own VAE and the normal distribution's formulas."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

import sdteach


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (56, 88, 3), np.uint8))


@pytest.mark.parametrize("which", ["model", "random_model"])
def test_encoding_is_diffusers_own_scaled(request, which, picture):
    model = request.getfixturevalue(which)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        posterior = model.vae.encode(pixels).latent_dist
    scale = model.vae.config.scaling_factor
    found = sdteach.image_to_latents(model, picture, seed=3)
    assert found.mean.shape == (1, 4, 7, 11)
    torch.testing.assert_close(found.mean, posterior.mean * scale, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.std, posterior.logvar.exp().sqrt() * scale, rtol=1e-5, atol=1e-7)
    noise = torch.randn(1, 4, 7, 11, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found.latents, found.mean + found.std * noise)
    assert torch.equal(found.latents, sdteach.image_to_latents(model, picture, seed=3).latents)
    assert not torch.equal(found.latents, sdteach.image_to_latents(model, picture, seed=4).latents)


@pytest.mark.parametrize("shape", [(1, 4, 7, 11), (1, 4, 1, 1)])
def test_decoding_is_diffusers_own(model, shape):
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        decoded = model.vae.decode(latents / model.vae.config.scaling_factor).sample[0]
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(sdteach.latents_to_image(model, latents)), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_of_any_mode(model, mode):
    assert sdteach.image_to_latents(model, Image.new(mode, (16, 24))).mean.shape == (1, 4, 3, 2)


@pytest.mark.parametrize("size", [(57, 88), (56, 1), (8, 12)])
def test_odd_edges_are_refused_with_the_nearest(model, size):
    with pytest.raises(ValueError, match="multiples of 8"):
        sdteach.image_to_latents(model, Image.new("RGB", size))


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 8, 8), (1, 3, 8, 8), (8, 8)])
def test_other_shapes_are_no_latents(model, shape):
    unchecked = inspect.unwrap(sdteach.latents_to_image)
    with pytest.raises(ValueError, match="expected latents"):
        unchecked(model, torch.zeros(shape))
