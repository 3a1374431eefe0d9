"""One step, taken apart, against the UNet called plainly and the guidance and x0 formulas."""

import pytest
import torch

import sdteach


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("timestep", "size"), [(981, (9, 13)), (500.5, (8, 8)), (1, (1, 3))])
def test_the_parts_of_a_step(random_folders, kind, timestep, size):
    model = sdteach.load_model(random_folders[kind], device="cpu")
    latents = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(5))
    text, negative = sdteach.encode_text(model, "a red boat"), sdteach.encode_text(model, "snow")
    step = sdteach.unet_step(model, latents, timestep, text, negative, guidance_scale=5.5)
    with torch.no_grad():
        alone = [model.unet(latents, timestep, features.last_hidden_state[None]).sample for features in (negative, text)]
    kept = model.scheduler.alphas_cumprod[int(timestep)] if timestep == int(timestep) else None
    if kind == "epsilon":
        torch.testing.assert_close(step.noise_uncond, alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(step.noise_text, alone[1], rtol=1e-4, atol=1e-5)
        assert torch.equal(step.noise, step.noise_uncond + 5.5 * (step.noise_text - step.noise_uncond))
        assert torch.equal(step.noise, step.model_output)
    if kept is not None:
        torch.testing.assert_close(kept**0.5 * step.predicted_x0 + (1 - kept) ** 0.5 * step.noise, latents, rtol=1e-4, atol=1e-4)
        if kind == "v_prediction":
            velocity = kept**0.5 * step.noise - (1 - kept) ** 0.5 * step.predicted_x0
            torch.testing.assert_close(velocity, step.model_output, rtol=1e-3, atol=1e-3)


def test_guidance_is_off_at_one_and_below(random_model):
    latents = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(5))
    text = sdteach.encode_text(random_model, "a red boat")
    for scale in (0.0, 0.5, 1.0):
        step = sdteach.unet_step(random_model, latents, 10, text, None, scale)
        assert step.noise_uncond is None
        assert torch.equal(step.noise, step.noise_text)


def test_guidance_needs_a_negative_text(random_model):
    with pytest.raises(ValueError, match="encode_text"):
        sdteach.unet_step(random_model, torch.zeros(1, 4, 9, 9), 10, sdteach.encode_text(random_model, "a boat"))


def test_a_checkpoint_that_predicts_something_else_is_refused(random_folders):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    model.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="'sample'"):
        sdteach.unet_step(model, torch.zeros(1, 4, 9, 9), 10, sdteach.encode_text(model, "a boat"), None, 1.0)
