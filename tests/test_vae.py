"""Pictures to latents and back, against diffusers' own VAE and the normal distribution's formulas."""

import gc
import inspect
import weakref
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import sdteach
from sdteach import plots, vae, widgets
from sdteach.widgets import explorer


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


@pytest.mark.parametrize("which", ["model", "random_model"])
def test_copies_are_encoded_and_decoded_pictures(request, which, picture):
    model = request.getfixturevalue(which)
    expected = sdteach.latents_to_image(model, sdteach.image_to_latents(model, picture).mean)
    assert np.array_equal(np.asarray(vae.copies(model.vae, [picture])[0]), np.asarray(expected))
    pair = vae.copies(model.vae, [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    assert np.abs(np.asarray(pair[0], int) - np.asarray(expected)).max() <= 1
    assert np.abs(np.asarray(pair[1], int) - np.asarray(pair[0])).max() > 1


def test_pixels_and_signed_numbers_are_each_others_inverse_and_what_lies_outside_is_cut_off():
    pixels = torch.arange(256, dtype=torch.uint8).view(4, 64)
    assert torch.equal(vae.to_pixels(vae.to_signed(pixels)), pixels)
    assert vae.to_signed(pixels).aminmax() == (-1, 1)
    assert vae.to_pixels(torch.tensor([-7.0, -1, 0.003, 1, 1.4])).tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_of_any_mode(model, mode):
    assert sdteach.image_to_latents(model, Image.new(mode, (16, 24))).mean.shape == (1, 4, 3, 2)


@pytest.mark.parametrize("size", [(57, 88), (56, 1), (8, 12)])
def test_odd_edges_are_refused_with_the_nearest(model, size):
    with pytest.raises(ValueError, match="multiples of 8"):
        sdteach.image_to_latents(model, Image.new("RGB", size))


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 8, 8), (1, 3, 8, 8), (8, 8)])
@pytest.mark.parametrize("function", [vae.latents_to_image, vae.preview])
def test_other_shapes_are_no_latents(model, shape, function):
    with pytest.raises(ValueError, match="expected latents"):
        inspect.unwrap(function)(model, torch.zeros(shape))


def least_squares(latents, pixels):
    """By the normal equations: the colours are affine in the channels."""
    rows = np.concatenate([latents[0].numpy(), np.ones((1, *latents.shape[2:]))]).reshape(latents.shape[1] + 1, -1).astype(np.float64)
    return np.linalg.solve(rows @ rows.T, rows @ pixels.reshape(-1, 3).astype(np.float64))


@pytest.mark.parametrize("which", ["picturebook", "epsilon"])
def test_a_preview_is_the_least_squares_fit_of_what_the_vae_decodes(random_folders, which):
    model, seen = sdteach.load_model(random_folders.get(which, which), device="cpu"), []
    model.vae.post_quant_conv.register_forward_pre_hook(lambda _, given: seen.append(given[0] * model.vae.config.scaling_factor))
    model.vae.decoder.register_forward_hook(lambda _, __, made: seen.append(made))
    latents = torch.randn(1, 4, 5, 9, generator=torch.Generator().manual_seed(2))
    found = vae.preview(model, latents)
    fitted_on, decoded = seen
    pixels = ((decoded[0] / 2 + 0.5).clamp(0, 1) * 255).round()
    weights = least_squares(fitted_on, torch.nn.functional.avg_pool2d(pixels, 8).round().movedim(0, -1).numpy())
    expected = np.concatenate([latents[0].numpy(), np.ones((1, 5, 9))]).transpose(1, 2, 0) @ weights
    assert (found.shape, found.dtype) == ((5, 9, 3), np.uint8)
    assert np.abs(found - expected.clip(0, 255)).max() < 0.6
    assert np.array_equal(vae.preview(model, latents.numpy()), found)
    assert len(seen) == 2, "fitted once"


def test_previews_of_true_runs_are_near_their_decoded_pictures(model):
    errors, plain, correlations = [], [], []
    for seed, prompt in enumerate(("a red car below a yellow star", "a blue boat on a beach")):
        for step in sdteach.denoise(model, prompt, steps=10, seed=seed, width=96):
            decoded = np.asarray(sdteach.latents_to_image(model, step.predicted_x0).reduce(8), float)
            shown = vae.preview(model, step.predicted_x0)
            errors.append(np.mean((decoded - shown) ** 2))
            plain.append(np.var(decoded))  # the error of the best single gray
            correlations.append(np.corrcoef(decoded.ravel(), shown.ravel())[0, 1])
    decibels = 10 * np.log10(255**2 / np.mean(errors))
    assert decibels > 18  # 19.2 when this was written; over whole runs see tests/benchmarks/preview.py
    assert np.mean(errors) < np.mean(plain) / 2
    assert np.mean(correlations) > 0.85


def test_a_preview_goes_on_where_latents_do_not(model):
    assert vae.preview(model, torch.full((1, 4, 2, 3), torch.nan)).shape == (2, 3, 3)


def test_what_was_fitted_goes_with_its_vae(random_folders):
    passing = sdteach.load_model(random_folders["epsilon"], device="cpu")
    vae.preview(passing, torch.zeros(1, 4, 3, 2))
    held = weakref.ref(passing.vae)
    del passing
    gc.collect()
    assert held() is None


def test_a_run_can_be_watched_live(model, monkeypatch):
    shown = []
    monkeypatch.setattr(explorer, "display", lambda figure, display_id: shown.append(figure) or mock.Mock(update=shown.append))
    widgets.live(
        plots.picture_grid([vae.preview(model, step.predicted_x0)], [""]) for step in sdteach.denoise(model, "a red car", steps=3, width=96)
    )
    assert len(shown) == 3
