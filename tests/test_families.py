"""Every family of checkpoints goes through the same stages, equal to diffusers' own pipelines to the last bit."""

import json
import shutil
import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from itertools import product

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import sdteach
from sdteach import collecting, pipeline
from sdteach.attention import layer_grids
from sdteach.batch import Order, paint_all
from sdteach.edits import layout_kept, masked_out, reweighted, skips_scaled
from sdteach.text_encoder import interpolate, self_attention, word_cosines
from sdteach.unet import feature_maps

from conftest import HEIGHT, WIDTH, hung_on, interrupted_after

FAMILIES = ["sd_1", "sd_2", "sd_turbo", "lcm", "xl", "xl_turbo", "xl_velocity"]
XL = ["xl", "xl_turbo"]
SCHEDULERS = ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
              "PNDMScheduler", "UniPCMultistepScheduler", "LCMScheduler"]  # fmt: skip


@pytest.fixture(scope="module")
def load(family_folder):
    return cache(lambda family: sdteach.load_model(family_folder(family), device="cpu"))


def latents_of(trace):
    return torch.from_numpy(trace.final_latents)


@pytest.mark.parametrize(
    ("guidance_scale", "negative"), [(0.0, None), (1.0, "a house in the snow"), (6.0, None), (6.0, "a house in the snow")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_diffusers_with_the_sampler_it_ships_with(family_folder, load, diffusers_latents, family, guidance_scale, negative):
    options = dict(prompt="a red cat's hat", num_inference_steps=4, guidance_scale=guidance_scale, height=HEIGHT, width=WIDTH)
    told = {} if family == "lcm" else {"negative_prompt": negative}
    expected = diffusers_latents(family_folder(family), seed=7, **options, **told)
    trace = sdteach.generate(load(family), "a red cat's hat", negative or "", 4, guidance_scale, 7, HEIGHT, WIDTH)
    assert torch.equal(latents_of(trace), expected)
    assert (trace.steps[0].noise_uncond is None) == (family == "lcm" or guidance_scale <= 1)


@pytest.mark.parametrize(("family", "scheduler"), [
    *product(["sd_2", "xl"], SCHEDULERS), *product(["lcm", "xl_turbo"], ["EulerAncestralDiscreteScheduler", "LCMScheduler"]),
])  # fmt: skip
def test_equals_diffusers_with_other_samplers(family_folder, load, diffusers_latents, family, scheduler):
    cls = diffusers.StableDiffusionPipeline if family == "lcm" else diffusers.DiffusionPipeline
    expected = diffusers_latents(
        family_folder(family), getattr(diffusers, scheduler), 3, cls, prompt="a boat", negative_prompt="snow", num_inference_steps=5,
        guidance_scale=4.0, height=WIDTH, width=HEIGHT,
    )  # fmt: skip
    trace = sdteach.generate(load(family), "a boat", "snow", 5, 4.0, 3, WIDTH, HEIGHT, scheduler)
    assert torch.equal(latents_of(trace), expected)


def test_where_all_is_noise_a_velocity_still_tells_the_clean_latents(load):
    model = load("xl_velocity")
    step = next(sdteach.denoise(model, "a boat", steps=3, height=HEIGHT, width=WIDTH, seed=2))
    assert (step.timestep, model.scheduler.alphas_cumprod[999]) == (999.0, 0.0)
    sampler = type(model.scheduler).from_config(model.scheduler.config)
    sampler.set_timesteps(3)
    expected = sampler.step(step.model_output, 999, step.latents).pred_original_sample
    torch.testing.assert_close(step.predicted_x0, expected)
    assert torch.equal(step.noise, step.latents)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("family", ["sd_turbo", "xl_turbo", "lcm"])
def test_few_steps_give_the_picture_of_diffusers(family_folder, load, diffusers_latents, family, steps):
    expected = diffusers_latents(family_folder(family), seed=1, prompt="a boat", num_inference_steps=steps, guidance_scale=0.0,
                                 output_type="pil")  # fmt: skip
    trace = sdteach.generate(load(family), "a boat", steps=steps, guidance_scale=0.0, seed=1)
    assert np.array_equal(trace.pixels, np.asarray(expected[0]))
    assert trace.heat_map("boat").shape == (9, 9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_diffusers(family_folder, load, diffusers_latents, family):
    prompts = ["a red car", "a small blue boat at night", ""]
    told = {} if family == "lcm" else {"negative_prompt": ["snow"] * 3}
    expected = diffusers_latents(family_folder(family), seed=[5, 7, 11], prompt=prompts, num_inference_steps=3, guidance_scale=5.0,
                                 height=HEIGHT, width=WIDTH, output_type="pil", **told)  # fmt: skip
    made = pipeline.generate_batch(load(family), prompts, [5, 7, 11], "snow", 3, 5.0, HEIGHT, WIDTH)
    assert [np.array_equal(one, other) for one, other in zip(made, expected, strict=True)] == [True] * 3


@pytest.mark.parametrize("guidance_scale", [0.0, 5.0])
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("family", XL)
def test_image_to_image_equals_diffusers(family_folder, load, diffusers_latents, picture, family, strength, guidance_scale):
    expected = diffusers_latents(family_folder(family), seed=7, cls=diffusers.StableDiffusionXLImg2ImgPipeline, prompt="a blue boat",
                                 image=picture, strength=strength, num_inference_steps=4, guidance_scale=guidance_scale)  # fmt: skip
    trace = sdteach.generate(load(family), "a blue boat", "", 4, guidance_scale, 7, image=picture, strength=strength)
    assert torch.equal(latents_of(trace), expected)


@pytest.mark.parametrize("scheduler", [None, "DDIMScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_inpainting_equals_diffusers(family_folder, load, diffusers_latents, picture, mask, strength, scheduler):
    expected = diffusers_latents(
        family_folder("xl"), scheduler and getattr(diffusers, scheduler), 7, diffusers.StableDiffusionXLInpaintPipeline, prompt="a boat",
        negative_prompt="snow", image=picture, mask_image=Image.fromarray(mask), strength=strength, num_inference_steps=4,
        guidance_scale=5.0, height=HEIGHT, width=WIDTH,
    )  # fmt: skip
    trace = sdteach.generate(load("xl"), "a boat", "snow", 4, 5.0, 7, scheduler=scheduler, image=picture, mask=mask, strength=strength)
    assert torch.equal(latents_of(trace), expected)


def test_a_batch_of_masked_pictures_equals_diffusers(family_folder, load, diffusers_latents, picture, mask):
    expected = diffusers_latents(
        family_folder("xl"), None, [5, 7], diffusers.StableDiffusionXLInpaintPipeline, prompt=["a car", "a boat"], image=[picture] * 2,
        mask_image=[Image.fromarray(mask)] * 2, strength=0.6, num_inference_steps=4, guidance_scale=5.0, height=HEIGHT, width=WIDTH,
        output_type="pil",
    )  # fmt: skip
    made = pipeline.generate_batch(load("xl"), ["a car", "a boat"], [5, 7], "", 4, 5.0, image=picture, mask=mask, strength=0.6)
    assert [np.array_equal(one, other) for one, other in zip(made, expected, strict=True)] == [True] * 2


def test_two_tokenizers_give_two_rows_that_differ_in_the_padding(load):
    tokens = sdteach.tokenize(load("xl"), "a red cat's hat")
    assert np.array_equal(tokens.ids[: tokens.end + 1], tokens.second_ids[: tokens.end + 1])
    assert set(tokens.ids[tokens.end + 1 :]) == {49407}
    assert set(tokens.second_ids[tokens.end + 1 :]) == {0}
    assert tokens.places("hat") == (5,)
    alone = sdteach.tokenize(load("sd_2"), "a red cat's hat")
    assert alone.second_ids is None
    assert np.array_equal(alone.ids, tokens.second_ids), "OpenCLIP's tokenizer pads so too"


def test_what_does_not_fit_is_told_once_for_both(load):
    with pytest.warns(UserWarning, match="this was dropped: 'boat") as warned:
        tokens = sdteach.tokenize(load("xl"), "boat " * 80)
    assert len(warned) == 1
    assert tokens.ids[-1] == tokens.second_ids[-1] == 49407


@pytest.mark.parametrize("prompt", ["a red cat's hat", "", "odd <|endoftext|> words", "ein Schloß 🏰"])
def test_text_features_are_what_diffusers_hands_its_unet(family_folder, load, prompt):
    oracle = diffusers.StableDiffusionXLPipeline.from_pretrained(family_folder("xl"))
    with torch.no_grad():
        read, _, told, _ = oracle.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    text = sdteach.encode_text(load("xl"), prompt)
    assert text.last_hidden_state.shape == (77, 24 + 40)
    assert torch.equal(text.last_hidden_state, read[0])
    assert torch.equal(text.projected, told[0])
    assert text.pooled.shape == (40,)
    assert text.layers.shape == (4, 77, 24)
    assert torch.equal(text.layers[-2], text.last_hidden_state[:, :24]), "the first tower's"


@pytest.mark.parametrize("prompt", ["a red cat's hat", ""])
def test_text_features_of_openclips_tower_are_what_diffusers_hands_its_unet(family_folder, load, prompt):
    oracle = diffusers.StableDiffusionPipeline.from_pretrained(family_folder("sd_2"))
    with torch.no_grad():
        read, _ = oracle.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    assert torch.equal(sdteach.encode_text(load("sd_2"), prompt).last_hidden_state, read[0])


def test_where_nothing_is_said_against_an_xl_checkpoint_reads_zeros(family_folder, load, diffusers_latents):
    """Unless its folder says that it was trained otherwise; a space is the empty prompt, read as any other."""
    options = dict(seed=2, prompt="a boat", num_inference_steps=2, guidance_scale=5.0)
    for family, negative in (("xl", ""), ("xl", " "), ("xl_without_zeros", "")):
        told = None if negative == "" else ""
        expected = diffusers_latents(family_folder(family), negative_prompt=told, **options)
        assert torch.equal(latents_of(sdteach.generate(load(family), "a boat", negative, 2, 5.0, 2)), expected)


def test_each_recorded_step_can_be_taken_again_alone(load):
    model = load("xl")
    trace = sdteach.generate(model, "a red car", steps=3, seed=9, height=HEIGHT, width=WIDTH)
    text, negative = sdteach.encode_text(model, "a red car"), sdteach.encode_text(model, "")
    for step in trace.steps:
        again = sdteach.unet_step(model, torch.from_numpy(step.latents), step.timestep, text, negative)
        for name in ("noise", "noise_text", "noise_uncond", "predicted_x0"):
            assert np.array_equal(getattr(again, name).numpy(), getattr(step, name)), name
    assert np.array_equal(trace.text, text.last_hidden_state.numpy())


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_the_unet_is_told_the_size_of_the_picture(load, guidance_scale):
    model, told = load("xl"), []
    hook = model.unet.register_forward_pre_hook(lambda _, __, named: told.append(named["added_cond_kwargs"]), with_kwargs=True)
    try:
        next(sdteach.denoise(model, "a boat", "snow", 1, guidance_scale, height=HEIGHT, width=WIDTH))
    finally:
        hook.remove()
    texts = [sdteach.encode_text(model, prompt).projected for prompt in ("snow", "a boat")]
    assert torch.equal(told[0]["text_embeds"], torch.stack(texts if guidance_scale > 1 else texts[1:]))
    assert told[0]["time_ids"].tolist() == [[HEIGHT, WIDTH, 0, 0, HEIGHT, WIDTH]] * (2 if guidance_scale > 1 else 1)


@pytest.mark.parametrize("family", ["xl", "sd_2"])
def test_every_layer_is_seen_with_its_grid_and_every_place_has_one_map(load, family):
    model, seen = load(family), {}
    hooks = [
        part.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: tuple(given[0].shape[2:])}))
        for name, part in model.unet.named_modules() if type(part).__name__ == "Transformer2DModel"
    ]  # fmt: skip
    try:
        trace = sdteach.generate(model, "a red boat", steps=1, height=HEIGHT, width=WIDTH, collect=("attention", "attention_heads"))
    finally:
        for hook in hooks:
            hook.remove()
    grids = layer_grids(model.unet, HEIGHT // 8, WIDTH // 8)
    assert list(trace.layers) == list(grids)
    if family == "xl":
        assert len(grids) == 2 * 2 + 2 * 10 + 10 + 3 * 10 + 3 * 2
        assert set(grids.values()) == {(7, 9), (4, 5)}, "the finest level has no attention"
    for name, maps in trace.steps[0].attention.items():
        assert maps.shape == (trace.tokens.end + 2, *grids[name])
        assert grids[name] == seen[name.split(".transformer_blocks")[0]]
        np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)
    needed = collecting.attention_bytes(model, trace.tokens.end + 2, 1, HEIGHT, WIDTH)
    assert needed["attention_heads"] == sum(maps.nbytes for maps in trace.steps[0].attention_heads.values())
    assert trace.heat_map("boat").shape == (13, 17)
    assert not np.array_equal(trace.heat_map("boat"), trace.heat_map("red"))


@pytest.mark.parametrize("guidance_scale", [0.0, 5.0])
def test_what_is_read_can_be_changed(load, guidance_scale):
    model = load("xl_turbo")
    options = dict(steps=2, guidance_scale=guidance_scale, height=HEIGHT, width=WIDTH, seed=4)
    before = hung_on(model.unet)
    plain = list(sdteach.denoise(model, "a red boat", **options))
    places, region = plain[0].text.tokens.places("boat"), np.zeros((HEIGHT, WIDTH), bool)
    region[:, : WIDTH // 2] = True
    with masked_out(model, places, region):
        hidden = list(sdteach.denoise(model, "a red boat", **options))
    for maps in hidden[0].attention.values():
        assert not maps[list(places), :, 0].any()
        assert maps[list(places), :, -1].all()
    with reweighted(model, places, 3.0):
        louder = list(sdteach.denoise(model, "a red boat", **options))
    for step, other in ((hidden[0], plain[0]), (louder[0], plain[0])):
        assert not torch.equal(step.noise_text, other.noise_text)
        assert step.noise_uncond is None or torch.equal(step.noise_uncond, other.noise_uncond)
    with layout_kept(model, [step.attention_heads for step in plain], 1.0):
        again = list(sdteach.denoise(model, "a red boat", **options))
    torch.testing.assert_close(again[-1].next_latents, plain[-1].next_latents, rtol=1e-3, atol=1e-3)
    assert hung_on(model.unet) == before


@pytest.mark.parametrize("family", ["lcm", "xl"])
def test_the_other_tasks_run(load, picture, family):
    model = load(family)
    small = picture.resize((WIDTH // 4, HEIGHT // 4))
    enlarged = sdteach.generate(model, "a boat", steps=4, small=small, height=HEIGHT, width=WIDTH)
    assert enlarged.pixels.shape == (HEIGHT, WIDTH, 3)
    options = dict(steps=4, seed=3, height=HEIGHT, width=WIDTH)
    drawn = sdteach.generate(model, "a red boat", layout={"boat": (0.0, 0.0, 0.5, 1.0)}, **options)
    plain = sdteach.generate(model, "a red boat", **options)
    left, right = (trace.heat_map("boat", steps=[1])[:, :8].mean() for trace in (drawn, plain))
    assert left > right
    started = sdteach.generate(model, "a red boat", noise=pipeline.initial_noise(model, 3, HEIGHT, WIDTH), **options)
    assert np.array_equal(started.steps[0].latents, plain.steps[0].latents)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_comes_back_whole(load, tmp_path, family):
    trace = sdteach.generate(load(family), "a red boat", steps=2, collect=(*collecting.PARTS,))
    trace.save(tmp_path / "run.safetensors")
    back = sdteach.Trace.load(tmp_path / "run.safetensors")
    assert np.array_equal(back.text, trace.text)
    assert np.array_equal(back.tokens.ids, trace.tokens.ids)
    assert np.array_equal(back.heat_map("boat"), trace.heat_map("boat"))
    if "xl" in family:
        assert np.array_equal(back.tokens.second_ids, trace.tokens.second_ids)
        other = replace(trace, tokens=replace(trace.tokens, second_ids=trace.tokens.ids))
        other.save(tmp_path / "other.safetensors")
        assert not np.array_equal(sdteach.Trace.load(tmp_path / "other.safetensors").tokens.second_ids, trace.tokens.second_ids)
    else:
        assert back.tokens.second_ids is None


def test_an_interrupted_run_returns_what_it_has(load):
    model = load("xl")
    before = hung_on(model.unet)
    with interrupted_after(1):
        trace = sdteach.generate(model, "a boat", steps=3)
    assert (trace.complete, len(trace.steps)) == (False, 1)
    assert hung_on(model.unet) == before


@pytest.mark.parametrize("skips", [None, 0, 2])
def test_the_unets_levels_can_be_watched_and_muted(load, skips):
    model = load("xl")
    latents = torch.randn(1, 4, 13, 17, generator=torch.Generator().manual_seed(1))
    text = sdteach.encode_text(model, "a boat")
    with feature_maps(model) as seen, nullcontext() if skips is None else skips_scaled(model, {skips: 0.0}):
        sdteach.unet_step(model, latents, 501, text, guidance_scale=1.0)
    assert list(seen) == ["in", "down 0", "down 1", "down 2", "middle", "up 2", "up 1", "up 0"]
    assert [tuple(seen[f"up {level}"].shape) for level in range(3)] == [(16, 13, 17), (24, 7, 9), (40, 4, 5)]


def test_texts_can_be_compared_and_mixed(load):
    model = load("xl")
    cosines = word_cosines(model, "a red car", "a blue boat")
    assert cosines.values.shape == (4, 3, 3)
    assert self_attention(model, "a red car").shape == (3, 2, 77, 77)
    first, second = (sdteach.encode_text(model, prompt) for prompt in ("a red car", "a blue boat"))
    with pytest.raises(ValueError, match="weight"):
        interpolate(first, second, 2.0)
    assert torch.equal(interpolate(first, second, 0.0).projected, first.projected)
    mixed = interpolate(first, second, 0.5)
    trace = sdteach.generate(model, mixed, steps=1)
    assert np.array_equal(trace.text, mixed.last_hidden_state.numpy())


def test_files_are_named_after_both_towers(load, tmp_path):
    model = load("xl_turbo")
    changed = load.__wrapped__("xl_turbo")
    next(changed.text_encoder_2.parameters()).data.add_(1.0)
    orders, options = [Order("a boat", 1), Order("a car", 2)], dict(steps=1, guidance_scale=0.0)
    files = [paint_all(one, orders, tmp_path, **options) for one in (model, changed)]
    assert len({*files[0], *files[1]}) == 4
    trace = sdteach.generate(model, "a boat", seed=1, collect=(), **options)
    assert np.abs(np.asarray(Image.open(files[0][0]), float) - trace.pixels).max() <= 1


def test_in_half_precision_an_xl_autoencoder_works_in_single(family_folder, picture):
    oracle = diffusers.StableDiffusionXLPipeline.from_pretrained(family_folder("xl"), dtype=torch.float16)
    model = sdteach.load_model(family_folder("xl"), device="cpu", dtype=torch.float16)
    assert {part.dtype for part in (model.unet, model.text_encoder, model.text_encoder_2)} == {torch.float16}
    assert model.vae.dtype == torch.float32
    expected = oracle("a boat", num_inference_steps=2, latents=pipeline.initial_noise(model, 3).half()).images[0]
    trace = sdteach.generate(model, "a boat", steps=2, seed=3, guidance_scale=5.0)
    assert np.array_equal(trace.pixels, np.asarray(expected))
    assert sdteach.image_to_latents(model, picture).latents.dtype == torch.float16
    assert sdteach.load_model(family_folder("sd_2"), device="cpu", dtype=torch.float16).vae.dtype == torch.float16


def without(folder, part):
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {part: [None, None]}))


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
def test_an_xl_folder_that_lacks_a_tower_is_refused(family_folder, tmp_path, part):
    folder = shutil.copytree(family_folder("xl"), tmp_path / "half")
    without(folder, part)
    with pytest.raises(ValueError, match=rf"found no {part}\b.*picturebook"):
        sdteach.load_model(folder, device="cpu")


def test_a_unet_that_does_not_fit_the_towers_is_refused(family_folder, tmp_path):
    folder = shutil.copytree(family_folder("xl"), tmp_path / "other")
    shutil.rmtree(folder / "unet")
    shutil.copytree(family_folder("sd_1") / "unet", folder / "unet")
    with pytest.raises(ValueError, match=r"expected a UNet that reads texts 64 wide, .* got one that reads 24"):
        sdteach.load_model(folder, device="cpu")
    unet = diffusers.UNet2DConditionModel.from_pretrained(family_folder("xl"), subfolder="unet")
    diffusers.UNet2DConditionModel.from_config(unet.config, projection_class_embeddings_input_dim=20 + 5 * 8).save_pretrained(
        folder / "unet"
    )
    with pytest.raises(ValueError, match=r"takes 68 numbers for the whole text and six sizes, got .* 60"):
        sdteach.load_model(folder, device="cpu")


def test_tokens_of_another_family_are_refused_or_read(load):
    with pytest.raises(ValueError, match=r"expected tokens for two text towers.*tokenize"):
        sdteach.encode_text(load("xl"), sdteach.tokenize(load("sd_1"), "a boat"))
    tokens = sdteach.tokenize(load("xl"), "a boat")
    assert torch.equal(sdteach.encode_text(load("sd_1"), tokens).pooled, sdteach.encode_text(load("sd_1"), "a boat").pooled)


def test_more_steps_than_a_distilled_checkpoint_has_are_refused(load):
    with pytest.raises(ValueError, match="50"):
        sdteach.denoise(load("lcm"), "a boat", steps=51)


@pytest.mark.parametrize(("family", "steps", "guidance_scale", "wanted"), [
    ("sd_turbo", 4, 7.5, "steps=4, guidance_scale=1"), ("sd_turbo", 9, 1, "steps=4, guidance_scale=1"), ("sd_turbo", 4, 1, None),
    ("xl_turbo", 1, 2, "steps=4, guidance_scale=1"), ("xl_turbo", 8, 0, None), ("lcm", 9, 8.5, "expected steps=4 or near"),
    ("lcm", 4, 8.5, None), ("sd_1", 9, 7.5, None), ("sd_2", 9, 7.5, None), ("xl", 9, 5, None), ("xl_velocity", 9, 5, None),
])  # fmt: skip
def test_a_distilled_checkpoint_says_what_it_wants_of_whoever_asks_for_the_usual(load, family, steps, guidance_scale, wanted):
    model = load(family)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sdteach.denoise(model, "a red car", steps=steps, guidance_scale=guidance_scale)
    told = [str(note.message) for note in said if "distilled" in str(note.message)]
    assert len(told) == (wanted is not None)
    assert all(wanted in note and f"got steps={steps}, guidance_scale={guidance_scale}" in note for note in told)
