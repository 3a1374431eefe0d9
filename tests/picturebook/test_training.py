"""Training: killed and resumed equals unbroken, the losses are the papers', and a rehearsal gives a folder that loads."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

import sdteach
from sdteach.doctor import damaged_files
from sdteach.picturebook.scenes import scene_from_seed
from sdteach.picturebook.training import Recipe, clip, loop, train, unet, vae
from sdteach.picturebook.training.data import draw_scenes
from sdteach.picturebook.training.folder import new_scheduler
from sdteach.picturebook.training.recipe import Phase

from conftest import PICTUREBOOK

PHASE = Phase(steps=30, batch=4, learning_rate=0.01, ema_decay=0.9, warmup=3)


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 1))

    def forward(self, x):
        return (self.net(x) - x.sum(1, keepdim=True)).square().mean()


def fitted(folder, batches=lambda: (torch.randn(4, 3),)):
    torch.manual_seed(1)
    return loop.fit(Regression(), lambda: batches, PHASE, folder, 7, Accelerator(cpu=True))


def stopping_before(step, log):
    """Batches up to `step` of the whole run, counted on from what `log` says is done."""
    done = json.loads(log.read_text().splitlines()[-1])["step"] if log.exists() else 0
    left = iter(range(step - done))

    def batches():
        if next(left, None) is None:
            raise KeyboardInterrupt
        return (torch.randn(4, 3),)

    return batches


@pytest.mark.parametrize("stops", [[5], [11, 11, 23], [29]])
def test_stopped_anywhere_and_resumed_it_ends_the_same(tmp_path, monkeypatch, stops):
    """The state is saved every four steps; what was lost is done again, with the same random numbers."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 4)
    fitted(tmp_path / "unbroken")
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "broken", stopping_before(stop, tmp_path / "broken" / "loss.jsonl"))
    fitted(tmp_path / "broken")
    first, second = (load_file(tmp_path / name / "state.safetensors") for name in ("unbroken", "broken"))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_the_average_is_the_exponential_one(tmp_path):
    averaged = fitted(tmp_path)
    state = load_file(tmp_path / "state.safetensors")
    assert torch.equal(averaged.net[0].weight, state["averaged.module.net.0.weight"])
    assert not torch.equal(averaged.net[0].weight, state["model.net.0.weight"])
    again = loop.load_averaged(Regression(), tmp_path)
    assert torch.equal(again.net[2].bias, averaged.net[2].bias)
    with pytest.raises(FileNotFoundError, match="earlier stage"):
        loop.load_averaged(Regression(), tmp_path / "none")


def test_killed_it_leaves_a_state_that_loads(tmp_path):
    """kill -9 while it trains and saves as fast as it can, several times over."""
    code = f"""
import sys; sys.path.insert(0, {str(PICTUREBOOK.parents[1] / "tests" / "picturebook")!r}); sys.path.insert(0, {str(PICTUREBOOK.parents[1] / "tests")!r})
import test_training as t
t.loop.SAVE_EVERY = 1
t.PHASE = t.Phase(steps=100_000, batch=4, learning_rate=0.01, ema_decay=0.9, warmup=3)
t.fitted(__import__("pathlib").Path(sys.argv[1]))
"""  # noqa: E501
    reached = []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=subprocess.DEVNULL)
        before = len(reached)
        while len(reached) == before or reached[-1] < (reached[-2] if before else 0) + 20:
            time.sleep(0.05)
            log = tmp_path / "loss.jsonl"
            lines = [line for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
            if lines:
                reached[before:] = [json.loads(lines[-1])["step"]]
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        loop.load_averaged(Regression(), tmp_path)
    assert reached[1] > reached[0]


def test_the_contrastive_loss_is_clips():
    """Figure 3 of the paper, in numpy."""
    torch.manual_seed(0)
    objective = clip.ContrastiveObjective().eval()
    ids, pictures = torch.randint(0, 49000, (5, 9)), torch.rand(5, 3, 128, 128) * 2 - 1
    ids[:, -1] = 49407
    with torch.no_grad():
        texts = objective.text_projection(objective.text_encoder(ids).pooler_output).numpy()
        images = objective.image_encoder(pictures).image_embeds.numpy()
        found = objective(ids, pictures).item()
    texts, images = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (texts, images))
    logits = texts @ images.T * np.exp(objective.logit_scale.item())
    log_softmax = [matrix - np.log(np.exp(matrix).sum(1, keepdims=True)) for matrix in (logits, logits.T)]
    assert found == pytest.approx(-np.mean([np.diag(matrix).mean() for matrix in log_softmax]), rel=1e-4)


def test_cutting_the_padding_off_changes_nothing_pooled(model):
    short = model.tokenizer("a red car", return_tensors="pt").input_ids
    with torch.no_grad():
        pooled = model.text_encoder(short).pooler_output[0]
    torch.testing.assert_close(pooled, sdteach.encode_text(model, "a red car").pooled, rtol=1e-4, atol=1e-5)


def test_the_denoising_loss_is_weighted_by_min_snr(random_model):
    objective = unet.DenoisingObjective(random_model.unet, new_scheduler())
    latents, text = torch.randn(3, 4, 9, 9), torch.randn(3, 77, 24)
    with torch.no_grad():
        torch.manual_seed(4)
        found = objective(latents, text).item()
        torch.manual_seed(4)
        noise, timestep = torch.randn_like(latents), torch.randint(1000, (3,))
        losses = []
        for i, t in enumerate(timestep.tolist()):
            kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[t]
            noisy = kept**0.5 * latents[i] + (1 - kept) ** 0.5 * noise[i]
            error = (random_model.unet(noisy[None].float(), t, text[i][None]).sample - noise[i]).square().mean().item()
            losses.append(error * min(kept / (1 - kept), 5) / (kept / (1 - kept)))
    assert found == pytest.approx(np.mean(losses), rel=1e-3)


def test_the_reconstruction_loss_is_zero_for_the_truth_alone():
    truth = torch.rand(2, 3, 64, 64) * 2 - 1
    assert vae.reconstruction_loss(truth, truth).item() == 0
    assert vae.reconstruction_loss(truth + 0.1, truth).item() == pytest.approx(0.1 + 0.01, rel=1e-3)
    grayed, reddened = truth.clone(), truth.clone()
    grayed += 0.1
    reddened[:, 0] += 0.1
    assert vae.reconstruction_loss(reddened, truth) > vae.reconstruction_loss(grayed, truth)


def test_the_flatter_crops_are_thrown_away():
    class Scenes:
        pictures = np.stack([np.full((128, 128, 3), 9, np.uint8), np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)])

    torch.manual_seed(0)
    (crops,) = vae.crops(Scenes, 8)()
    assert crops.shape == (8, 3, 64, 64)
    assert (crops.std(dim=(1, 2, 3)) > 0.1).sum() >= 6


def test_one_caption_in_ten_is_dropped(model):
    class Scenes:
        pictures = np.zeros((40, 64, 64, 3), np.uint8)
        captions = ["a red car"] * 40

    torch.manual_seed(0)
    draw = unet.noisy_pairs(model.vae, model.text_encoder, model.tokenizer, Scenes, 500)
    latents, text = draw()
    empty = sdteach.encode_text(model, "").last_hidden_state
    dropped = torch.isclose(text[:, 5], empty[5], atol=1e-2).all(1)
    assert latents.shape == (500, 4, 8, 8)
    assert 25 < dropped.sum() < 80


def test_drawn_scenes_are_the_seeds_own_and_drawn_once(tmp_path):
    scenes = draw_scenes(tmp_path / "scenes", 5, 64, first_seed=31)
    for index in range(5):
        expected = scene_from_seed(31 + index, 64)
        assert np.array_equal(scenes.pictures[index], expected.picture)
        assert scenes.captions[index] == expected.caption
    before = (tmp_path / "scenes" / "pictures.npy").stat().st_mtime_ns
    draw_scenes(tmp_path / "scenes", 5, 64, first_seed=31)
    assert (tmp_path / "scenes" / "pictures.npy").stat().st_mtime_ns == before
    for count, canvas in ((6, 64), (5, 128)):
        with pytest.raises(ValueError, match="5 of 64"):
            draw_scenes(tmp_path / "scenes", count, canvas, first_seed=31)


def test_a_rehearsal_trains_every_stage_and_packs_a_checkpoint(tmp_path):
    tokenizer = CLIPTokenizer.from_pretrained(PICTUREBOOK / "tokenizer")
    train(tmp_path, tokenizer, Recipe().shortened(0.0001))
    model = sdteach.load_model(tmp_path / "picturebook", device="cpu")
    assert sdteach.generate(model, "a red car", steps=1).pixels.shape == (128, 128, 3)
    assert damaged_files(tmp_path / "picturebook") == []
    assert model.scheduler.config.clip_sample is False
    latents = sdteach.image_to_latents(model, sdteach.generate(model, "a red car", steps=1).image).mean
    assert 0.05 < latents.std() < 20
