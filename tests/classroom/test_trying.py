"""Exercises that take a function: the stage is right, every slip has its hint, and whatever else a function does is told."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import sdteach
from sdteach.classroom import check
from sdteach.classroom.exercises import exercises
from sdteach.classroom.trying import stages
from sdteach.picturebook.evaluation import overlap

CODE = {number: asked for number, asked in exercises().items() if "slips" in asked}


def test_fourteen_exercises_and_more_ask_for_code_and_each_has_its_stage():
    assert len(CODE) >= 14
    assert [*stages()] == [*CODE]
    assert {number[:2] for number in CODE} >= {f"{lesson:02}" for lesson in range(1, 10)}


@pytest.mark.parametrize("number", CODE)
def test_the_printed_solution_is_right_and_every_slip_has_its_own_hint(number):
    asked, stage, written = CODE[number], stages()[number], {"torch": torch}
    assert set(asked) == {"question", "right", "why", "hint", "slips"}
    exec(asked["right"], written)
    (solution,) = (made for name, made in written.items() if callable(made) and not name.startswith("_"))
    assert f"{solution.__name__}(" in asked["question"]
    for right in (solution, stage.right):
        told = check(number, right)
        assert told.state == "right"
        assert told.text.startswith(asked["why"])
    assert {*asked["slips"]} == {*stage.slips}
    assert len({*asked["slips"].values(), asked["hint"]}) == len(stage.slips) + 1 >= 3
    for name, slip in stage.slips.items():
        told = check(number, slip)
        assert told.state == "wrong"
        assert told.text.startswith(asked["slips"][name]), told


def returns(value):
    return lambda *given: value


class Grumpy:
    def __call__(self, *given):
        raise RuntimeError("not today")


def overwrites(latents, noise, alpha):
    latents *= alpha**0.5
    return latents + (1 - alpha) ** 0.5 * noise


@pytest.mark.parametrize(("answer", "state", "told"), [
    (None, "unanswered", "Write"), (..., "unanswered", "Write"), (returns(None), "unanswered", "It returns nothing yet"),
    (returns(...), "unanswered", "It returns nothing yet"),
    (torch.ones(3), "wrong", "hand it over by its name"), (0.5, "wrong", "hand it over by its name"), ("√ᾱ", "wrong", "by its name"),
    (Grumpy(), "wrong", "It stopped with RuntimeError: not today"), (lambda latents: latents, "wrong", "It stopped with TypeError"),
    (lambda latents, noise, alpha: latents[0], "wrong", r"of shape \(4, 5, 7\); expected are numbers of shape \(3, 4, 5, 7\)"),
    (lambda latents, noise, alpha: latents / 0, "wrong", "NaN or infinite"), (overwrites, "wrong", "changes what it was given"),
    (returns({1, 2}), "wrong", "returns a set"), (returns("noise"), "wrong", "returns texts of shape"),
    (returns(b"x"), "wrong", "returns "),
    (returns([[1], [2, 3]]), "wrong", "returns a list"), (returns(len), "wrong", "returns a builtin"),
    (returns(7), "wrong", r"of shape \(\);"),
    (lambda latents, noise, alpha: latents + noise, "wrong", r"The formula of .* Largest difference \d"),
])  # fmt: skip
def test_whatever_a_function_does_is_told_calmly(answer, state, told):
    verdict = check("04.5", answer)
    assert verdict.state == state
    assert re.search(told, verdict.text), verdict


@pytest.mark.parametrize("made", [
    lambda latents, noise, alpha: (alpha.sqrt() * latents + (1 - alpha).sqrt() * noise).requires_grad_(),
    lambda latents, noise, alpha: alpha.numpy() ** 0.5 * latents.numpy() + (1 - alpha.numpy()) ** 0.5 * noise.numpy(),
    lambda latents, noise, alpha: (alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise).double().tolist(),
])  # fmt: skip
def test_tensors_arrays_and_lists_are_all_numbers(made):
    assert check("04.5", made).state == "right"


def test_a_tensor_is_an_answer_where_numbers_are_asked_for():
    assert check("04.1", torch.tensor([0.25, 0.75]).sqrt()).state == "right"
    assert check("03.2", torch.zeros(1, 4, 64, 96).shape).state == "right"


def test_the_stages_are_those_of_the_kit_and_of_diffusers(model):
    """Where the kit has the stage itself it is held against that; where it is inside of a longer function, here."""
    latents, noise = torch.randn(2, 1, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    a, schedule = sdteach.noise_schedule(model).alphas_cumprod, sdteach.noise_schedule(model)
    right = {number: stage.right for number, stage in stages().items()}
    torch.testing.assert_close(right["04.5"](latents, noise, a[300]), sdteach.add_noise(model, latents, noise, 300))
    torch.testing.assert_close(right["04.6"](schedule.betas), schedule.snr)
    text, empty = (sdteach.encode_text(model, words) for words in ("a red car", ""))
    step = sdteach.unet_step(model, latents, 300, text, empty, 7.5)
    torch.testing.assert_close(right["05.5"](latents, step.noise, a[300]), step.predicted_x0)
    torch.testing.assert_close(right["06.5"](torch.cat([step.noise_uncond, step.noise_text]), 7.5), step.noise)
    sampler = DDIMScheduler.from_config(model.scheduler.config)
    sampler.set_timesteps(10)
    torch.testing.assert_close(right["06.6"](latents, noise, a[901], a[801]), sampler.step(noise, 901, latents).prev_sample)
    velocity = sampler.get_velocity(latents, noise, torch.tensor([300]))
    noisy = right["04.5"](latents, noise, a[300])
    torch.testing.assert_close(right["05.6"](noisy, velocity, a[300]), latents)
    encoded = sdteach.image_to_latents(model, sdteach.latents_to_image(model, latents[..., :8, :]), seed=0)
    scale = model.vae.config.scaling_factor
    drawn = (encoded.latents - encoded.mean) / encoded.std
    torch.testing.assert_close(right["03.5"](encoded.mean / scale, encoded.std / scale, drawn, scale), encoded.latents)
    heat, mask = np.random.default_rng(0).random((9, 7), np.float32), np.eye(9, 7) > 0
    assert right["07.6"](torch.from_numpy(heat), torch.from_numpy(mask), 0.35) == pytest.approx(overlap(heat, mask, 0.35))


def test_merge_after_merge_makes_the_tokenizers_pieces(model):
    merge, pairs = stages()["01.5"].right, model.tokenizer.backend_tokenizer.to_str()
    ranked = [tuple(pair) for pair in json.loads(pairs)["model"]["merges"]]
    for word in ("car", "umbrellas", "photosynthesis"):
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while found := [pair for pair in pairwise(pieces) if pair in set(ranked)]:
            pieces = merge(pieces, min(found, key=ranked.index))
        assert pieces == model.tokenizer.tokenize(word)


def test_one_gradient_step_is_that_of_torch():
    weight, x, y, rate = stages()["09.6"].inputs(2, np.random.default_rng(0))
    before = weight.clone()
    torch.nn.functional.mse_loss(x @ weight.requires_grad_().T, y).backward()
    torch.optim.SGD([weight], rate).step()
    torch.testing.assert_close(stages()["09.6"].right(before, x, y, rate), weight.detach())
