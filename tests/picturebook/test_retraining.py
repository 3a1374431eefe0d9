"""A picturebook taught on: what it learns from, and what stands still."""

import pytest
import torch

from sdteach.picturebook.captions import known_grammar
from sdteach.picturebook.training import live, retraining


@pytest.fixture(scope="module")
def scenes(model):
    return live.some_scenes(model.vocabulary, known_grammar(model.vocabulary), 6, 0, 64, 1)


def test_only_what_was_added_learns_and_the_shipped_model_stays(model, scenes):
    pupil, training = retraining.retrained(scenes.pictures, scenes.captions, 3)
    before = {name: weight.clone() for name, weight in pupil.unet.named_parameters()}
    *_, progress = training
    changed = {name for name, weight in pupil.unet.named_parameters() if not torch.equal(weight, before[name])}
    assert len(progress.losses) == 3
    assert changed
    assert all("lora" in name for name in changed)
    pupil.unet.disable_adapters()
    latents, text = live.encoded(model, scenes)
    with torch.no_grad():
        ours, shipped = (one.unet.to(memory_format=torch.contiguous_format)(latents, 500, text).sample for one in (pupil, model))
    torch.testing.assert_close(ours, shipped)


def test_the_same_seed_is_the_same_training(scenes):
    losses = []
    for seed in (0, 0, 1):
        *_, progress = retraining.retrained(scenes.pictures, scenes.captions, 2, seed)[1]
        losses.append(progress.losses)
    assert losses[0] == losses[1] != losses[2]
