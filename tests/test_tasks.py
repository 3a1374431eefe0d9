"""Other tasks on the same loop: equal to diffusers' pipelines where there are such, and true to what was given."""

from itertools import pairwise, product

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image

import sdteach
from sdteach import pipeline
from sdteach.pictures import back_projected, box_mask, pasted_back
from sdteach.text_encoder import interpolate
from sdteach.vectors import slerp

from conftest import HEIGHT, PICTUREBOOK, WIDTH, interrupted_after

SCHEDULERS = ["PNDMScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "DDIMScheduler"]
# One step, some, and all; the ends for those samplers that call the UNet more often than there are steps.
STRENGTHS = [*((scheduler, 0.5) for scheduler in SCHEDULERS), *product(["PNDMScheduler", "HeunDiscreteScheduler"], [0.2, 1.0])]


@pytest.fixture(scope="module")
def theirs(model):
    """A pipeline of diffusers on picturebook's folder, of a class and with a scheduler: the oracle."""
    made = {}

    def run(cls, scheduler, seeds, prompt, **options):
        if cls not in made:
            made[cls] = cls.from_pretrained(PICTUREBOOK)
            made[cls].set_progress_bar_config(disable=True)
        made[cls].scheduler = getattr(diffusers, scheduler).from_config(made[cls].scheduler.config)
        options = {"guidance_scale": model.guidance_scale} | options
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return made[cls](prompt, generator=generators if len(seeds) > 1 else generators[0], **options).images

    return run


@pytest.mark.parametrize(("scheduler", "strength"), STRENGTHS)
def test_image_to_image_equals_diffusers(model, picture, theirs, scheduler, strength):
    expected = theirs(StableDiffusionImg2ImgPipeline, scheduler, [7], "a blue boat", image=picture, strength=strength,
                      num_inference_steps=5, guidance_scale=3.0, output_type="latent")  # fmt: skip
    trace = sdteach.generate(
        model, "a blue boat", steps=5, seed=7, guidance_scale=3.0, scheduler=scheduler, image=picture, strength=strength
    )
    assert torch.equal(torch.from_numpy(trace.final_latents), expected)
    assert (trace.height, trace.width, trace.strength) == (HEIGHT, WIDTH, strength)
    assert np.array_equal(trace.start, np.asarray(picture))


@pytest.mark.parametrize(("scheduler", "strength"), STRENGTHS)
def test_inpainting_equals_diffusers(model, picture, mask, theirs, scheduler, strength):
    expected = theirs(StableDiffusionInpaintPipeline, scheduler, [7], "a blue boat", image=picture, mask_image=Image.fromarray(mask),
                      strength=strength, num_inference_steps=5, height=HEIGHT, width=WIDTH, output_type="latent")  # fmt: skip
    trace = sdteach.generate(model, "a blue boat", steps=5, seed=7, scheduler=scheduler, image=picture, mask=mask, strength=strength)
    assert torch.equal(torch.from_numpy(trace.final_latents), expected)


def test_without_a_strength_diffusers_usual_ones_are_used(model, picture, mask, theirs):
    options = {"num_inference_steps": 5, "output_type": "latent"}
    expected = theirs(StableDiffusionImg2ImgPipeline, "PNDMScheduler", [2], "a boat", image=picture, **options)
    assert torch.equal(
        torch.from_numpy(sdteach.generate(model, "a boat", steps=5, seed=2, image=picture, scheduler="PNDMScheduler").final_latents),
        expected,
    )
    expected = theirs(StableDiffusionInpaintPipeline, "PNDMScheduler", [2], "a boat", image=picture, mask_image=Image.fromarray(mask),
                      height=HEIGHT, width=WIDTH, **options)  # fmt: skip
    trace = sdteach.generate(model, "a boat", steps=5, seed=2, image=picture, mask=mask, scheduler="PNDMScheduler")
    assert torch.equal(torch.from_numpy(trace.final_latents), expected)
    assert trace.strength == 1.0


def test_the_tasks_work_on_a_v_prediction_checkpoint_too(random_folders, random_models, picture, mask):
    model = random_models["v_prediction"]
    oracle = StableDiffusionInpaintPipeline.from_pretrained(random_folders["v_prediction"])
    expected = oracle("a boat", image=picture, mask_image=Image.fromarray(mask), strength=0.5, num_inference_steps=4, height=HEIGHT,
                      width=WIDTH, generator=torch.Generator().manual_seed(1), output_type="latent").images  # fmt: skip
    trace = sdteach.generate(model, "a boat", steps=4, seed=1, image=picture, mask=mask, strength=0.5)
    assert torch.equal(torch.from_numpy(trace.final_latents), expected)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_is_not_masked_keeps_its_latents_and_pasted_back_its_pixels(model, picture, mask, scheduler):
    trace = sdteach.generate(model, "a blue boat", steps=3, seed=11, image=picture, mask=mask, scheduler=scheduler)
    given = sdteach.image_to_latents(model, picture, 11).latents.numpy()
    kept = ~np.broadcast_to(mask[::8, ::8], given.shape)
    assert np.array_equal(trace.final_latents[kept], given[kept])
    assert (trace.final_latents[~kept] != given[~kept]).mean() > 0.99
    assert not np.array_equal(trace.pixels[~mask], np.asarray(picture)[~mask]), "the VAE paints all of it anew"
    pasted = pasted_back(trace.pixels, np.asarray(picture), mask)
    assert np.array_equal(pasted[~mask], np.asarray(picture)[~mask])
    assert np.array_equal(pasted[mask], trace.pixels[mask])


def test_between_the_steps_the_rest_is_as_noisy_as_the_next_timestep(model, picture, mask):
    """The formula of the forward process, on the noise that the seed draws after the VAE's sample."""
    steps = list(sdteach.denoise(model, "a boat", steps=4, seed=3, image=picture, mask=mask, scheduler="DDIMScheduler"))
    generator = torch.Generator().manual_seed(3)
    clean = sdteach.image_to_latents(model, picture, generator).latents
    noise = torch.randn(clean.shape, generator=generator)
    kept = torch.from_numpy(~mask[::8, ::8]).expand(clean.shape)
    for step, after in pairwise(steps):
        wanted = sdteach.add_noise(model, clean, noise, after.timestep)
        torch.testing.assert_close(step.next_latents[kept], wanted[kept], rtol=1e-5, atol=1e-5)


def test_the_stronger_the_further_from_the_picture(model, picture):
    distances = [
        np.abs(
            sdteach.generate(model, "a boat", steps=10, seed=1, image=picture, strength=strength).pixels - np.asarray(picture, float)
        ).mean()
        for strength in (0.1, 0.4, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.75 * distances[2]


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "EulerAncestralDiscreteScheduler", "DDPMScheduler"])
def test_a_batch_equals_diffusers(model, theirs, scheduler):
    prompts = ["a red car", "a small blue boat at night", "a star"]
    expected = theirs(StableDiffusionPipeline, scheduler, [5, 7, 11], prompts, negative_prompt=["snow"] * 3, num_inference_steps=4,
                      height=72, width=104)  # fmt: skip
    made = pipeline.generate_batch(model, prompts, [5, 7, 11], "snow", 4, height=72, width=104, scheduler=scheduler)
    assert [np.array_equal(one, other) for one, other in zip(made, expected, strict=True)] == [True] * 3


def test_a_batch_of_masked_pictures_equals_diffusers(model, picture, mask, theirs):
    expected = theirs(StableDiffusionInpaintPipeline, "DDIMScheduler", [5, 7], ["a car", "a boat"], image=[picture] * 2,
                      mask_image=[Image.fromarray(mask)] * 2, strength=0.6, num_inference_steps=5, height=HEIGHT, width=WIDTH)  # fmt: skip
    options = {"image": picture, "mask": mask, "strength": 0.6, "scheduler": "DDIMScheduler"}
    made = pipeline.generate_batch(model, ["a car", "a boat"], [5, 7], steps=5, **options)
    assert [np.array_equal(one, other) for one, other in zip(made, expected, strict=True)] == [True] * 2


def test_a_batch_of_one_is_a_run(model):
    alone = sdteach.generate(model, "a boat", steps=3, seed=4, collect=())
    assert np.array_equal(pipeline.generate_batch(model, ["a boat"], [4], steps=3)[0], alone.pixels)


def test_without_attention_to_keep_none_is_computed_and_nothing_changes(model):
    watched, bare = (sdteach.generate(model, "a boat", steps=3, seed=4, collect=collect) for collect in (("attention",), ("latents",)))
    assert np.array_equal(watched.pixels, bare.pixels)
    assert not bare.layers


def test_noise_may_be_given_and_is_the_seeds_by_default(model, diffusers_latents):
    noise = pipeline.initial_noise(model, 6, 72, 104)
    assert noise.shape == (1, 4, 9, 13)
    plain = sdteach.generate(model, "a boat", steps=3, seed=6, height=72, width=104)
    given = sdteach.generate(model, "a boat", steps=3, seed=1, height=72, width=104, noise=noise)
    assert np.array_equal(plain.final_latents, given.final_latents)
    other = slerp(noise, pipeline.initial_noise(model, 7, 72, 104), 0.3)
    expected = diffusers_latents(PICTUREBOOK, prompt="a boat", num_inference_steps=3, height=72, width=104, latents=other,
                                 guidance_scale=model.guidance_scale)  # fmt: skip
    trace = sdteach.generate(model, "a boat", steps=3, height=72, width=104, noise=other)
    assert torch.equal(torch.from_numpy(trace.final_latents), expected)


def test_text_features_may_stand_for_the_prompt(model, diffusers_latents):
    first, second = (sdteach.encode_text(model, words) for words in ("a red car", "a blue boat"))
    mixed = interpolate(first, second, 0.4)
    empty = sdteach.encode_text(model, "").last_hidden_state[None]
    expected = diffusers_latents(PICTUREBOOK, prompt_embeds=mixed.last_hidden_state[None], negative_prompt_embeds=empty,
                                 num_inference_steps=3, guidance_scale=model.guidance_scale)  # fmt: skip
    trace = sdteach.generate(model, mixed, steps=3)
    assert torch.equal(torch.from_numpy(trace.final_latents), expected)
    assert trace.prompt == trace.tokens.text == "a red car (60%), a blue boat (40%)"
    assert np.array_equal(trace.text, mixed.last_hidden_state.numpy())


def test_a_small_picture_is_agreed_with_at_every_step(model, picture):
    small = picture.crop((0, 0, 128, 104)).resize((32, 26), Image.Resampling.BOX)
    steps = list(
        sdteach.denoise(
            model, "a boat", steps=10, seed=2, small=small, height=104, width=128, guidance_scale=2.0, scheduler="DDIMScheduler"
        )
    )
    assert len(steps) == 3
    wanted = np.asarray(small, float)

    def distance(image):
        return np.abs(np.asarray(image.resize(small.size, Image.Resampling.BOX), float) - wanted).mean()

    for step in steps:
        said = model.scheduler.alphas_cumprod[int(step.timestep)]
        x0 = (step.latents - (1 - said) ** 0.5 * step.model_output) / said**0.5
        torch.testing.assert_close(x0, step.predicted_x0, rtol=1e-3, atol=1e-3)
        free = (step.latents - (1 - said) ** 0.5 * (step.noise_uncond + 2.0 * (step.noise_text - step.noise_uncond))) / said**0.5
        drawn = back_projected(sdteach.latents_to_image(model, free), small)
        torch.testing.assert_close(step.predicted_x0, sdteach.image_to_latents(model, drawn).mean, rtol=1e-2, atol=1e-2)
        assert distance(sdteach.latents_to_image(model, step.predicted_x0)) < distance(sdteach.latents_to_image(model, free))
    trace = sdteach.generate(model, "a boat", steps=10, seed=2, small=small, height=104, width=128, guidance_scale=2.0)
    enlarged = small.resize((128, 104), Image.Resampling.BICUBIC)
    assert np.array_equal(trace.start, np.asarray(enlarged))
    assert np.array_equal(trace.small, wanted)
    assert distance(back_projected(trace.image, small)) < 1 < distance(trace.image)


def test_a_v_prediction_checkpoint_agrees_too(random_models, picture):
    model = random_models["v_prediction"]
    small = picture.resize((34, 26), Image.Resampling.BOX)
    step = next(sdteach.denoise(model, "a boat", steps=5, small=small, height=104, width=136))
    kept = model.scheduler.alphas_cumprod[int(step.timestep)]
    x0 = kept**0.5 * step.latents - (1 - kept) ** 0.5 * step.model_output
    torch.testing.assert_close(x0, step.predicted_x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheduler", [None, "EulerDiscreteScheduler"])
def test_a_layout_draws_the_words_into_their_boxes(model, scheduler):
    box, seeds = (0.5, 0.25, 1.0, 0.75), range(4)
    inside = box_mask(box, 16, 16)

    def share(layout, seed):
        trace = sdteach.generate(model, "a red car on paper", steps=10, seed=seed, scheduler=scheduler, layout=layout)
        heat = trace.heat_map("car")
        return heat[inside].sum() / heat.sum()

    free, led = (np.mean([share(layout, seed) for seed in seeds]) for layout in (None, {"car": box}))
    assert led > free + 0.1


def test_a_layout_leaves_the_later_steps_to_themselves(model):
    layout = {"car": (0.0, 0.0, 0.5, 0.5)}
    steps = list(sdteach.denoise(model, "a red car", steps=9, seed=3, layout=layout))
    moved = [not torch.equal(before.next_latents, after.latents) for before, after in pairwise(steps)]
    assert moved == [True] * 2 + [False] * 6
    trace = sdteach.generate(model, "a red car", steps=2, layout=layout)
    assert trace.layout == layout


def test_a_layout_needs_latents_with_room_for_boxes(model):
    with pytest.raises(ValueError, match="at least 4 x 4 for a layout, got 3 x 3"):
        sdteach.generate(model, "a red car", steps=2, layout={"car": (0.0, 0.0, 0.5, 0.5)}, height=24, width=24)


def test_an_interrupted_task_returns_what_it_has(model, picture, mask):
    with interrupted_after(2):
        trace = sdteach.generate(model, "a boat", steps=6, image=picture, mask=mask)
    assert not trace.complete
    assert len(trace.steps) == 2
    assert trace.mask is not None


def test_a_trace_of_a_task_comes_back_from_its_file(model, picture, mask, tmp_path):
    trace = sdteach.generate(model, "a boat", steps=4, image=picture, mask=mask, strength=0.5, layout={"boat": (0.25, 0.25, 0.5, 1)})
    trace.save(tmp_path / "t.safetensors")
    again = sdteach.Trace.load(tmp_path / "t.safetensors")
    assert np.array_equal(again.start, np.asarray(picture))
    assert np.array_equal(again.mask, mask)
    assert (again.strength, again.layout) == (0.5, {"boat": (0.25, 0.25, 0.5, 1.0)})


@pytest.mark.parametrize(("options", "told"), [
    ({"strength": 0.5}, "expected an image with strength"),
    ({"mask": np.ones((HEIGHT, WIDTH), bool)}, "expected an image with mask"),
    ({"image": "picture", "strength": 0.0}, "above 0 and up to 1"),
    ({"image": "picture", "strength": 1.01}, "above 0 and up to 1"),
    ({"image": "picture", "strength": float("nan")}, "above 0 and up to 1"),
    ({"image": "picture", "strength": True}, "above 0 and up to 1"),
    ({"image": "picture", "strength": "much"}, "above 0 and up to 1"),
    ({"image": "picture", "strength": 0.1}, "use at least 10 steps"),
    ({"image": np.zeros((HEIGHT, WIDTH, 3), np.uint8)}, "Image.fromarray"),
    ({"image": "picture", "height": 96}, r"image.resize\(\(136, 96\)\)"),
    ({"image": Image.new("RGB", (131, 104))}, "the nearest is 128"),
    ({"image": "picture", "mask": np.ones((HEIGHT, WIDTH))}, "a mask of booleans"),
    ({"image": "picture", "mask": np.ones((13, 17), bool)}, "a mask of booleans"),
    ({"image": "picture", "mask": np.zeros((HEIGHT, WIDTH), bool)}, "covers nothing"),
    ({"small": Image.new("RGB", (30, 30))}, "a whole number of times"),
    ({"small": Image.new("RGB", (32, 64))}, "a whole number of times"),
    ({"small": Image.new("RGB", (32, 32)), "image": "picture"}, "got both"),
    ({"noise": torch.zeros(1, 4, 13, 17)}, "as initial_noise makes it"),
    ({"layout": {}}, "at least one word"),
    ({"layout": {"boat": (0.5, 0.5, 0.4, 1.0)}}, "left, top, right, bottom"),
    ({"layout": {"house": (0.0, 0.0, 1.0, 1.0)}}, "a word of the prompt"),
    ({"height": 0, "image": "picture"}, "a multiple of 8"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused_before_any_work(model, picture, options, told):
    options = {name: picture if isinstance(value, str) and name == "image" else value for name, value in options.items()}
    with interrupted_after(0), pytest.raises(ValueError, match=told):
        sdteach.generate(model, "a boat", steps=5, **options)


@pytest.mark.parametrize(("prompts", "seeds"), [([], []), (["a boat"], [1, 2]), ("ab", [1, 2])])
def test_a_batch_needs_a_seed_for_each_prompt(model, prompts, seeds):
    with pytest.raises(ValueError, match="as many prompts as seeds"):
        pipeline.generate_batch(model, prompts, seeds)


def test_larger_pictures_come_nearer_to_the_truth_than_bicubic(model):
    """On a few held-out scenes: an eighth of what lesson 08 measures."""
    from sdteach.picturebook.captions import known_grammar
    from sdteach.picturebook.evaluation import psnr
    from sdteach.picturebook.scenes import HELD_OUT_SEED, scenes_in_words

    gains = []
    for scene in scenes_in_words(model.vocabulary, 4, HELD_OUT_SEED + 900, known_grammar(model.vocabulary)):
        small = Image.fromarray(scene.picture).resize((32, 32), Image.Resampling.BOX)
        trace = sdteach.generate(model, scene.caption, steps=20, guidance_scale=2.0, small=small, height=128, width=128, collect=())
        ours, theirs = back_projected(trace.image, small), small.resize((128, 128), Image.Resampling.BICUBIC)
        gains.append(psnr(np.asarray(ours), scene.picture) - psnr(np.asarray(theirs), scene.picture))
    assert np.mean(gains) > 1.5
