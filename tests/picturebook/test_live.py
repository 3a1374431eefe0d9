"""Training before one's eyes: it is training, and what is shown of it is so."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sdteach
from sdteach.picturebook.captions import known_grammar, read
from sdteach.picturebook.evaluation.measures import iou
from sdteach.picturebook.scenes import HELD_OUT_SEED
from sdteach.picturebook.training import denoising, live
from sdteach.picturebook.training.packing import new_scheduler


class Line(nn.Module):
    """Squared distance of a line from 3 x + 2; the first layer stands still."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.line = nn.Linear(1, 1)

    def forward(self, x):
        return (self.line(x) - 3 * x - 2).square().mean()


def test_it_learns_and_tells_of_it():
    torch.manual_seed(1)
    line, before = Line(), iter(range(100))
    frozen = line.frozen.weight.item()
    seen = []
    for progress in live.learn(line, lambda: (torch.randn(16, 1),), 300, 0.1, lambda: next(before), looks=4):
        seen.append(len(progress.losses))
    assert seen[0] == 0
    assert seen[-1] == 300
    assert 15 <= len(seen) <= 32
    assert len(progress.losses) == len(progress.weight) == 300
    assert progress.losses[-1] < 0.01
    assert progress.losses[0] > 1
    assert progress.weight[-1] == line.line.weight.item() == pytest.approx(3, abs=0.1)
    assert line.frozen.weight.item() == frozen
    assert sorted(progress.looks) == list(progress.looks)
    assert [*progress.looks][:: len(progress.looks) - 1] == [0, 300]
    assert list(progress.looks.values()) == [0, 1, 2, 3]


def test_the_same_seed_is_the_same_training():
    runs = []
    for seed in (4, 4, 5):
        torch.manual_seed(1)
        *_, progress = live.learn(Line(), lambda: (torch.randn(16, 1),), 20, 0.1, seed=seed)
        runs.append(progress.losses)
    assert runs[0] == runs[1] != runs[2]


def test_points_lie_on_the_thing():
    points = live.points_of("star", 4000).numpy()
    assert np.abs(points.mean(0)).max() < 1e-3
    assert points.std() == pytest.approx(1, abs=1e-3)
    assert np.array_equal(points, live.points_of("star", 4000).numpy())
    ring = live.points_of("star", 4000, 1).numpy()
    cells = [np.histogram2d(*one.T, bins=12, range=[[-3, 3]] * 2)[0] > 0 for one in (points, ring)]
    assert iou(*cells) > 0.85
    assert iou(cells[0], np.histogram2d(*live.points_of("heart", 4000).numpy().T, bins=12, range=[[-3, 3]] * 2)[0] > 0) < 0.8


def test_points_are_denoised_by_the_loop_that_the_sampler_wants():
    """A denoiser that knows that all points are (1, -2) brings all noise there."""
    kept = new_scheduler().alphas_cumprod
    truth = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)

    def knowing(noisy, timestep, _=None):
        return SimpleNamespace(sample=(noisy - kept[timestep] ** 0.5 * truth) / (1 - kept[timestep]) ** 0.5)

    seen = live.denoised_points(knowing, 50, steps=10, seed=3)
    assert len(seen) == 11
    assert torch.equal(seen[0], torch.randn(50, 2, 1, 1, generator=torch.Generator().manual_seed(3)).flatten(1))
    torch.testing.assert_close(seen[-1], truth.view(1, 2).expand(50, 2), atol=0.15, rtol=0)
    assert np.array_equal(live.points_now(knowing, 5), live.denoised_points(knowing, 5)[-1].numpy())


def test_a_star_is_learned_from_points():
    torch.manual_seed(0)
    star, denoiser = live.points_of("star", 5000), live.PointDenoiser(64)
    objective = denoising.DenoisingObjective(denoiser, new_scheduler())
    *_, progress = live.learn(objective, lambda: live.some_of(star, 256), 600, 3e-3)
    made = live.denoised_points(denoiser, 1000)[-1]
    assert np.mean(progress.losses[-50:]) < 0.4
    assert progress.losses[0] > 0.8
    assert made.std().item() == pytest.approx(1, abs=0.2)


def test_points_have_the_name_of_their_group_unless_it_is_dropped():
    groups = torch.zeros(3, 2), torch.ones(5, 2)
    torch.manual_seed(0)
    points, text, noise, timesteps = live.some_named(groups, 400, 0.1)
    assert points.shape == noise.shape == (800, 2, 1, 1)
    assert timesteps.shape == (800,)
    named = text.any(1)
    assert torch.equal(text[named].argmax(1).float(), points[named, 0, 0, 0])
    assert text.sum(1).unique().tolist() == [0, 1]
    assert named.float().mean().item() == pytest.approx(0.9, abs=0.04)
    assert live.some_named(groups, 9, 0.0)[1].any(1).all()
    denoiser = live.PointDenoiser(8, names=2)
    assert not torch.equal(denoiser(points, timesteps, text).sample, denoiser(points, timesteps, torch.zeros_like(text)).sample)


def test_scenes_are_in_the_words_that_are_asked_for(model):
    grammar = known_grammar(model.vocabulary)
    scenes = live.some_scenes(model.vocabulary, grammar, 9, HELD_OUT_SEED, 64, 1)
    assert scenes.pictures.shape == (9, 64, 64, 3)
    assert all({*caption.replace(",", "").split()} <= model.vocabulary for caption in scenes.captions)
    again = live.some_scenes(model.vocabulary, grammar, 3, HELD_OUT_SEED, 64, 1)
    assert torch.equal(again.pictures, scenes.pictures[:3])


def test_agreement_tells_what_the_nearest_caption_says(model):
    scenes = live.some_scenes(model.vocabulary, known_grammar(model.vocabulary), 24, HELD_OUT_SEED)
    shares = live.agreement(model, model.tokenizer, scenes)
    pictures = torch.stack([sdteach.image_features(model, Image.fromarray(picture)) for picture in scenes.pictures.numpy()])
    texts = torch.stack([sdteach.encode_text(model, caption).projected for caption in scenes.captions])
    nearest = [read(scenes.captions[index]) for index in sdteach.cosine_similarity(pictures, texts).argmax(1).tolist()]
    wanted = [read(caption) for caption in scenes.captions]
    assert shares["the caption"] == pytest.approx(np.mean([one == other for one, other in zip(wanted, nearest, strict=True)]))
    things = [[{thing.name for thing in request.things} for request in requests] for requests in (wanted, nearest)]
    names = [one == other for one, other in zip(*things, strict=True)]
    assert shares["objects"] == pytest.approx(np.mean(names))
    assert shares["the caption"] > 0.5


def test_errors_by_time_are_one_for_silence_and_none_for_the_truth():
    latents, kept = torch.randn(6, 4, 8, 8), new_scheduler().alphas_cumprod
    silent = lambda noisy, time, texts: SimpleNamespace(sample=torch.zeros_like(noisy))  # noqa: E731

    def knowing(noisy, time, _):
        share = kept[time].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(noisy - share**0.5 * latents) / (1 - share) ** 0.5)

    assert live.errors_by_time(silent, latents, None, (1, 500, 999)) == pytest.approx([1.0] * 3, abs=0.1)
    assert live.errors_by_time(knowing, latents, None, (1, 500, 999)) == pytest.approx([0.0] * 3, abs=1e-5)


def test_latents_and_texts_are_those_that_the_stages_make(model):
    scenes = live.some_scenes(model.vocabulary, known_grammar(model.vocabulary), 3)
    latents, texts = live.encoded(model, scenes)
    for index, caption in enumerate(scenes.captions):
        alone = sdteach.image_to_latents(model, Image.fromarray(scenes.pictures[index].numpy())).mean[0]
        torch.testing.assert_close(latents[index], alone, rtol=1e-4, atol=1e-4)
        assert torch.equal(texts[index], sdteach.encode_text(model, caption).last_hidden_state)
