"""The loop equals diffusers, bit for bit, with everything recorded; and bad input is refused before any work."""

import dataclasses
import itertools
import math
import warnings

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPImageProcessorPil

import sdteach
from sdteach import collecting, pipeline

from conftest import PICTUREBOOK, interrupted_after, random_folder

SCHEDULERS = [
    None, "PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler", "LCMScheduler",
    "TCDScheduler", "DEISMultistepScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
]  # fmt: skip


def latents_of(trace):
    return torch.from_numpy(trace.final_latents)


@pytest.mark.parametrize(("scheduler", "kind", "guidance_scale"), [
    *itertools.product(SCHEDULERS, ["epsilon", "v_prediction"], [7.5]),
    (None, "epsilon", 1.0), ("HeunDiscreteScheduler", "v_prediction", 1.0),
])  # fmt: skip
def test_equals_diffusers_on_random_weights(random_folders, random_models, diffusers_latents, scheduler, kind, guidance_scale):
    cls = scheduler and getattr(diffusers, scheduler)
    expected = diffusers_latents(random_folders[kind], cls, prompt="a red cat's hat", negative_prompt="blue", num_inference_steps=5, seed=7,
                                 guidance_scale=guidance_scale, height=104, width=72)  # fmt: skip
    trace = sdteach.generate(random_models[kind], "a red cat's hat", "blue", 5, guidance_scale, 7, 104, 72, scheduler)
    assert torch.equal(latents_of(trace), expected)


@pytest.mark.parametrize("scheduler", [None, "DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize(("prompt", "negative", "guidance_scale", "size"), [
    ("a red car below a yellow star", "", 7.5, (128, 128)), ("a small blue fish", "a house", 3.0, (104, 72)), ("", "", 1.0, (64, 136)),
])  # fmt: skip
def test_equals_diffusers_on_picturebook(model, diffusers_latents, scheduler, prompt, negative, guidance_scale, size):
    cls = scheduler and getattr(diffusers, scheduler)
    expected = diffusers_latents(PICTUREBOOK, cls, prompt=prompt, negative_prompt=negative, num_inference_steps=6, seed=5,
                                 guidance_scale=guidance_scale, height=size[0], width=size[1])  # fmt: skip
    trace = sdteach.generate(model, prompt, negative, 6, guidance_scale, 5, *size, scheduler)
    assert torch.equal(latents_of(trace), expected)


def test_the_bare_pipeline_on_the_folder_makes_the_same_picture(model):
    bare = StableDiffusionPipeline.from_pretrained(PICTUREBOOK)
    picture = bare(
        "a red car", num_inference_steps=5, guidance_scale=model.guidance_scale, generator=torch.Generator().manual_seed(2)
    ).images[0]
    assert np.array_equal(np.asarray(picture), sdteach.generate(model, "a red car", steps=5, seed=2).pixels)


def test_equals_diffusers_where_the_unet_takes_the_guidance_scale(tmp_path, diffusers_latents):
    folder = random_folder(tmp_path, time_cond_proj_dim=14)
    expected = diffusers_latents(folder, diffusers.LCMScheduler, prompt="a boat", num_inference_steps=3, guidance_scale=6.0)
    model = sdteach.load_model(folder, device="cpu")
    trace = sdteach.generate(model, "a boat", steps=3, guidance_scale=6.0, scheduler="LCMScheduler")
    assert torch.equal(latents_of(trace), expected)
    assert trace.steps[0].noise_uncond is None


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_predicted_x0_is_the_samplers_own(random_models, scheduler, kind):
    """The schedulers that tell their predicted x0 tell the one that the trace holds."""
    model = random_models[kind]
    sampler = getattr(diffusers, scheduler).from_config(model.scheduler.config)
    sampler.set_timesteps(5)
    latents = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(3)) * sampler.init_noise_sigma
    text, negative = sdteach.encode_text(model, "a hat"), sdteach.encode_text(model, "")
    for timestep in sampler.timesteps:
        step = sdteach.unet_step(model, sampler.scale_model_input(latents, timestep), timestep, text, negative)
        out = sampler.step(step.model_output, timestep, latents, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(step.predicted_x0, out.pred_original_sample, rtol=2e-4, atol=2e-3)
        latents = out.prev_sample


def test_each_recorded_step_can_be_taken_again_alone(model):
    trace = sdteach.generate(model, "a red car", "snow", steps=4, seed=9, height=72, width=104)
    text, negative = sdteach.encode_text(model, "a red car"), sdteach.encode_text(model, "snow")
    assert [step.timestep for step in trace.steps] == [751.0, 501.0, 251.0, 1.0]
    for step in trace.steps:
        again = sdteach.unet_step(model, torch.from_numpy(step.latents), step.timestep, text, negative)
        for name in ("noise", "noise_text", "noise_uncond", "predicted_x0"):
            assert np.array_equal(getattr(again, name).numpy(), getattr(step, name)), name


def test_denoise_yields_what_generate_keeps(model):
    steps = list(sdteach.denoise(model, "a boat", steps=3, seed=4, guidance_scale=1))
    trace = sdteach.generate(model, "a boat", steps=3, seed=4, guidance_scale=1)
    assert np.array_equal(steps[-1].next_latents.numpy(), trace.final_latents)
    assert [step.index for step in steps] == [0, 1, 2]
    for step, record in zip(steps, trace.steps, strict=True):
        for name in ("latents", "noise", "noise_text", "predicted_x0"):
            assert np.array_equal(getattr(step, name).numpy(), getattr(record, name)), name
        assert step.attention.keys() == record.attention.keys()
    assert all(step.noise_uncond is None for step in trace.steps)


@pytest.mark.fault(9)
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(model):
    first, again, other = (sdteach.generate(model, "a boat", steps=2, seed=seed).pixels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.fault(9)
def test_noise_is_drawn_on_the_cpu_in_float32(model):
    step = next(sdteach.denoise(model, "a boat", seed=6))
    assert torch.equal(step.latents, torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(6)))


def test_collect_keeps_only_what_it_names(model):
    trace = sdteach.generate(model, "a boat", steps=3, collect=("latents", "preview"))
    assert trace.steps[0].latents is not None
    assert trace.steps[0].noise is None
    assert trace.steps[0].attention is None
    previews = [step.preview for step in trace.steps]
    expected = sdteach.latents_to_image(model, torch.from_numpy(trace.steps[1].predicted_x0))
    assert np.array_equal(previews[1], np.asarray(expected))
    with pytest.raises(ValueError, match="without"):
        trace.heat_map("boat")
    for wrong in (("image",), "latents", ("latents", "everything")):
        with pytest.raises(ValueError, match="expected collect"):
            sdteach.generate(model, "a boat", collect=wrong)


@pytest.mark.parametrize(("option", "value", "hint"), [
    ("height", 100, "nearest is 96"), ("width", 127, "nearest is 128"), ("height", 0, "nearest is 8"), ("width", -8, "nearest is 8"),
    ("height", 10**9, "nearest is 4096"), ("height", 64.0, "an int.*nearest is 64"), ("width", "64", "an int, .* got '64'$"),
    ("width", True, "width"),
    ("height", math.nan, "got nan$"), ("height", math.inf, "got inf$"),
    ("steps", 0, "1 to 1000"), ("steps", 1001, "1 to 1000"), ("steps", 2.5, "whole"), ("steps", None, "whole"), ("steps", True, "whole"),
    ("guidance_scale", -1, "0 to 100"), ("guidance_scale", math.nan, "0 to 100"), ("guidance_scale", "7", "0 to 100"),
    ("guidance_scale", math.inf, "0 to 100"), ("seed", -1, "0 to 4294967295"), ("seed", 2**32, "0 to 4294967295"), ("seed", 0.5, "whole"),
    ("scheduler", "Euler", "EulerDiscreteScheduler"), ("scheduler", "EDMEulerScheduler", "expected scheduler"),
    ("scheduler", "StableDiffusionPipeline", "expected scheduler"), ("scheduler", "FlowMatchEulerDiscreteScheduler", "expected scheduler"),
    ("prompt", None, "str"), ("prompt", ["a", "b"], "str"), ("negative_prompt", 3, "str"),
])  # fmt: skip
@pytest.mark.fault(5)
def test_bad_values_are_refused_before_any_work(model, option, value, hint):
    with pytest.raises(ValueError, match=hint):
        sdteach.denoise(model, **{"prompt": "a boat", option: value})


def test_a_sampler_whose_library_is_missing_says_so(model, monkeypatch):
    class LMSDiscreteScheduler:
        @classmethod
        def from_config(cls, config):
            raise ImportError("needs the scipy library")

    monkeypatch.setattr(diffusers, "LMSDiscreteScheduler", LMSDiscreteScheduler)
    with pytest.raises(ValueError, match="scipy"):
        sdteach.denoise(model, "a boat", scheduler="LMSDiscreteScheduler")


@settings(max_examples=12)
@given(st.integers(1, 14), st.integers(1, 14), st.sampled_from([1.0, 4.0]))
def test_any_size_in_eighths_works(model, rows, columns, guidance_scale):
    trace = sdteach.generate(model, "a boat", steps=1, height=8 * rows, width=8 * columns, guidance_scale=guidance_scale)
    assert trace.pixels.shape == (8 * rows, 8 * columns, 3)
    assert trace.heat_map("boat").shape == (rows, columns)
    for maps in trace.steps[0].attention.values():
        np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.fault(10)
def test_an_interrupted_run_returns_what_it_has_and_leaves_no_trace_in_the_model(model, calls, tmp_path):
    whole = sdteach.generate(model, "a red car", steps=4)
    processors = {name: id(layer.processor) for name, layer in model.unet.named_modules() if hasattr(layer, "processor")}
    with interrupted_after(calls):
        partial = sdteach.generate(model, "a red car", steps=4)
    assert not partial.complete
    assert len(partial.steps) == calls
    for step, expected in zip(partial.steps, whole.steps, strict=False):
        assert np.array_equal(step.noise, expected.noise)
    assert np.array_equal(partial.final_latents, partial.steps[-1].predicted_x0)
    partial.save(tmp_path / "partial.safetensors")
    assert not sdteach.Trace.load(tmp_path / "partial.safetensors").complete
    assert {name: id(layer.processor) for name, layer in model.unet.named_modules() if hasattr(layer, "processor")} == processors
    assert np.array_equal(sdteach.generate(model, "a red car", steps=4).pixels, whole.pixels)


def test_interrupted_before_the_first_step_it_has_nothing_to_return(model):
    with interrupted_after(0), pytest.raises(KeyboardInterrupt):
        sdteach.generate(model, "a boat", steps=2)


@pytest.mark.fault(7)
def test_a_safety_checker_that_objects_withholds_the_picture(model):
    class Checker(torch.nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer

        def forward(self, images, clip_input):
            return images, [self.answer]

    fine, objecting = (dataclasses.replace(model, safety_checker=Checker(answer)) for answer in (False, True))
    plain = sdteach.generate(model, "a boat", steps=1).pixels
    assert np.array_equal(sdteach.generate(fine, "a boat", steps=1).pixels, plain)
    card = sdteach.generate(objecting, "a boat", steps=1).pixels
    assert (card == np.array([90, 90, 96], np.uint8)).all(-1).mean() > 0.5
    assert (card > 200).all(-1).any()


@pytest.mark.fault(7)
def test_a_checker_that_a_checkpoint_ships_stays_on(random_folders, tmp_path):
    """Of diffusers' own class, with thresholds that every picture passes."""
    small = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16)
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=small, projection_dim=12))
    checker.concept_embeds_weights.data.fill_(-2.0)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    whole = StableDiffusionPipeline.from_pretrained(random_folders["epsilon"], safety_checker=checker, feature_extractor=processor)
    whole.save_pretrained(tmp_path)
    card = sdteach.generate(sdteach.load_model(tmp_path, device="cpu"), "a boat", steps=1).pixels
    assert (card == np.array([90, 90, 96], np.uint8)).all(-1).mean() > 0.5


ALL_ATTENTION = ("attention", "attention_heads")
CALLS = {None: 4, "DDIMScheduler": 3, "PNDMScheduler": 4, "HeunDiscreteScheduler": 5}  # of three steps: n, n + 1 or 2 n - 1


def kept_bytes(layers):
    return sum(maps.nbytes for maps in layers.values())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("prompt", ["a red cat's hat", "", "a red boat " * 40])
@pytest.mark.parametrize("scheduler", list(CALLS))
def test_attention_bytes_are_those_that_are_kept(random_model, scheduler, prompt):
    trace = sdteach.generate(random_model, prompt, steps=3, height=72, width=104, scheduler=scheduler, collect=ALL_ATTENTION)
    told = collecting.attention_bytes(random_model, trace.tokens.end + 2, CALLS[scheduler], 72, 104)
    assert len(trace.steps) == CALLS[scheduler]
    assert told == {
        "attention": sum(kept_bytes(step.attention) for step in trace.steps),
        "attention_heads": sum(kept_bytes(step.attention_heads) for step in trace.steps),
    }


def test_attention_bytes_by_hand(model):
    """128 x 128 pixels: 16 x 16 positions above, 8 x 8 below it, 4 x 4 below that, of four heads each."""
    grids = 3 * 16**2 + 3 * 8**2 + 4 * 4**2
    layers = {name: maps.shape for name, maps in next(sdteach.denoise(model, "a red car", steps=1)).attention_heads.items()}
    assert sum(math.prod(shape[2:]) for shape in layers.values()) == grids
    assert collecting.attention_bytes(model, 6, 51, 128, 128) == {
        "attention": 51 * 4 * 6 * grids, "attention_heads": 51 * 4 * 6 * 4 * grids,
    }  # fmt: skip


@pytest.mark.parametrize("scheduler", list(CALLS))
def test_every_call_of_the_unet_keeps_what_it_read(random_model, scheduler):
    """The mean over the heads and all of them, against the loop's own maps of all 77 places."""
    options = dict(steps=3, seed=4, height=72, width=104, scheduler=scheduler)
    trace = sdteach.generate(random_model, "a red boat", collect=ALL_ATTENTION, **options)
    loop = [step.attention_heads for step in sdteach.denoise(random_model, "a red boat", **options)]
    assert len(trace.steps) == len(loop) == CALLS[scheduler]
    assert trace.tokens.end == 4
    for step, layers in zip(trace.steps, loop, strict=True):
        assert step.attention.keys() == step.attention_heads.keys() == layers.keys()
        for name, maps in layers.items():
            heads = np.concatenate([maps[:, :5].numpy(), maps[:, 5:].numpy().sum(1, keepdims=True)], 1)
            np.testing.assert_allclose(step.attention_heads[name], heads, atol=1e-6)
            np.testing.assert_allclose(step.attention[name], heads.mean(0), atol=1e-6)
            np.testing.assert_allclose(step.attention[name], step.attention_heads[name].mean(0), atol=1e-6)
            np.testing.assert_allclose(step.attention_heads[name].sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("collect", [("attention",), ("attention_heads",), ()])
def test_attention_is_kept_as_asked_and_changes_nothing(random_model, collect):
    plain = sdteach.generate(random_model, "a boat", steps=2)
    trace = sdteach.generate(random_model, "a boat", steps=2, collect=collect)
    for step in trace.steps:
        assert (step.attention is not None) == ("attention" in collect)
        assert (step.attention_heads is not None) == ("attention_heads" in collect)
        assert step.latents is None
    assert np.array_equal(trace.final_latents, plain.final_latents)


@pytest.mark.parametrize("collect", [(name,) for name in ALL_ATTENTION] + [ALL_ATTENTION, ("latents", "attention_heads")])
def test_more_attention_than_fits_is_refused_before_any_work(random_model, monkeypatch, collect):
    options = dict(steps=3, height=72, width=104, scheduler="HeunDiscreteScheduler", collect=collect)
    needed = collecting.attention_bytes(random_model, 6, 5, 72, 104)  # the start, a, boat, the full stop, the end, the padding
    total = sum(size for name, size in needed.items() if name in collect)
    calls = []
    monkeypatch.setattr(collecting, "MOST_ATTENTION", total - 1)
    hook = random_model.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(ValueError, match=r"expected to keep at most .* MiB of attention, got .*: collect less of it, or make fewer"):
            sdteach.generate(random_model, "a boat .", **options)
        assert not calls
        sdteach.generate(random_model, "a boat", **options)
        assert len(calls) == 5
        monkeypatch.setattr(collecting, "MOST_ATTENTION", total)
        sdteach.generate(random_model, "a boat .", **options)
        assert len(calls) == 10
    finally:
        hook.remove()


def test_attention_that_is_not_collected_takes_no_room(random_model, monkeypatch):
    monkeypatch.setattr(collecting, "MOST_ATTENTION", 0)
    sdteach.generate(random_model, "a boat", steps=1, collect=("latents", "noise", "x0"))
    with pytest.raises(ValueError, match="'attention' 0 MiB, 'attention_heads' 0 MiB"):
        sdteach.generate(random_model, "a boat", steps=1)


def with_a_schedule_that_fails(model):
    """Karras' levels of noise lie beyond those of a cosine schedule, which this sampler only finds out as it goes."""
    made_of = dict(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    return dataclasses.replace(model, scheduler=diffusers.DPMSolverMultistepScheduler(**made_of))


def test_a_sampler_that_fails_says_so_in_a_sentence(random_model):
    told = "expected a scheduler that works .* got DPMSolverMultistepScheduler, which fails: index 6 is out of bounds .*; choose another"
    with pytest.raises(ValueError, match=told):
        sdteach.generate(with_a_schedule_that_fails(random_model), "a boat", steps=5)


@pytest.mark.parametrize(("scheduler", "steps", "most"), [
    (None, 1000, 999), ("EulerDiscreteScheduler", 1000, 999), ("UniPCMultistepScheduler", 999, 998), ("TCDScheduler", 51, 50),
])  # fmt: skip
def test_steps_beyond_the_times_of_the_training_are_refused_before_any_work(random_model, scheduler, steps, most):
    with pytest.raises(ValueError, match=f"expected at most {most} steps, .* got {steps}; choose fewer"):
        sdteach.denoise(random_model, "a boat", steps=steps, scheduler=scheduler)
    sdteach.denoise(random_model, "a boat", steps=most, scheduler=scheduler)


def test_a_seed_is_one_that_the_generator_tells_from_others(random_model):
    last, first = (pipeline.initial_noise(random_model, seed) for seed in (2**32 - 1, 0))
    assert torch.equal(last, torch.randn(last.shape, generator=torch.Generator().manual_seed(2**32 - 1)))
    assert not torch.equal(last, first)
    for seed in (-1, 2**32, 1.0, True):
        with pytest.raises(ValueError, match="expected seed to be a whole number from 0 to 4294967295"):
            pipeline.initial_noise(random_model, seed)


@pytest.mark.parametrize(("negative", "guidance_scale", "times"), [("blue", 1.0, 1), ("blue", 0.0, 1), ("blue", 1.1, 0), (" ", 1.0, 0)])
def test_a_negative_prompt_that_is_not_read_is_told(random_model, negative, guidance_scale, times):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sdteach.denoise(random_model, "a boat", negative, guidance_scale=guidance_scale)
    assert sum("'blue' is not read, since guidance is off" in str(warning.message) for warning in caught) == times
