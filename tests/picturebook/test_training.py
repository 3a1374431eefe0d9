"""Training: killed and resumed equals unbroken, the losses are the papers', and a rehearsal gives a folder that loads."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

import sdteach
from sdteach.files import damaged_files
from sdteach.picturebook import training
from sdteach.picturebook.captions import WORDS, read
from sdteach.picturebook.judge import NAMES
from sdteach.picturebook.scenes import scene_from_seed
from sdteach.picturebook.training import (
    PRESETS,
    USUAL_STAGES,
    Watch,
    autoencoding,
    binding,
    contrast,
    denoising,
    loop,
    seeing,
    train,
)  # fmt: skip
from sdteach.picturebook.training.data import Drawing, DrawnScenes, all_painters
from sdteach.picturebook.training.packing import new_scheduler
from sdteach.picturebook.training.recipe import Phase
from sdteach.picturebook.world import COLOURS, HELD_OUT_PAIRS, OBJECTS, SMALL_WORLD, WORLD

import toy_training
from conftest import PICTUREBOOK

PHASE = Phase(steps=30, batch=4, learning_rate=0.01, ema_decay=0.9, warmup=3)


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 1))

    def forward(self, x):
        return (self.net(x) - x.sum(1, keepdim=True)).square().mean()


def fitted(folder, batches=lambda: (torch.randn(4, 3),), phase=PHASE, digest="this recipe", **often):
    torch.manual_seed(1)
    return loop.fit(Regression(), batches, phase, folder, 7, digest, Accelerator(cpu=True), **often)


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
def test_stopped_anywhere_and_resumed_it_ends_the_same(tmp_path, stops):
    """The state is saved every four steps; what was lost is done again, with the same random numbers, and logged once."""
    fitted(tmp_path / "unbroken", log_every=4, save_every=0.0)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "broken", stopping_before(stop, tmp_path / "broken" / "loss.jsonl"), log_every=4, save_every=0.0)
    fitted(tmp_path / "broken", log_every=4, save_every=0.0)
    first, second = (load_file(tmp_path / name / "state.safetensors") for name in ("unbroken", "broken"))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    logs = [(tmp_path / name / "loss.jsonl").read_text() for name in ("unbroken", "broken")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == [4, 8, 12, 16, 20, 24, 28, 30]


def test_what_was_logged_after_the_last_state_is_logged_again(tmp_path):
    fitted(tmp_path / "unbroken", log_every=4)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "broken", stopping_before(14, tmp_path / "none"), log_every=4)
    assert len((tmp_path / "broken" / "loss.jsonl").read_text().splitlines()) == 3
    fitted(tmp_path / "broken", log_every=4)
    assert (tmp_path / "broken" / "loss.jsonl").read_text() == (tmp_path / "unbroken" / "loss.jsonl").read_text()


def test_a_phase_of_minutes_takes_up_its_time_where_it_was_stopped(tmp_path, monkeypatch):
    """By a clock that goes on by a second whenever it is looked at, by 1,000 while it is stopped: the rates fall all the same."""
    clock, rates = [0.0], []

    def tick():
        clock[0] += 1
        return clock[0]

    class Noting(Phase):
        def rate(self, step, progress):
            rates.append((step, progress))
            return 0.01 * (1 - progress)

    monkeypatch.setattr(time, "monotonic", tick)
    phase = Noting(minutes=0.5, batch=4, learning_rate=0.01, ema_decay=0.9, warmup=1)
    learn = partial(fitted, tmp_path, phase=phase, log_every=4, save_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        learn(stopping_before(10, tmp_path / "none"))
    first = json.loads((tmp_path / "loss.jsonl").read_text().splitlines()[-1])["step"]
    clock[0] += 1_000
    rates.clear()
    learn()
    assert rates[0][0] == first == 8
    assert 0.2 < rates[0][1] < rates[-1][1] < 1
    assert all(0 <= after - before < 0.2 for (_, before), (_, after) in pairwise(rates))
    assert 12 < rates[-1][0] < 31
    rates.clear()
    learn()
    assert not rates  # it is finished


def test_the_rate_rises_and_falls():
    phase = Phase(steps=100, batch=1, learning_rate=0.3, ema_decay=0.9, warmup=10)
    assert [phase.rate(step, phase.progress(step, 0)) for step in (0, 4, 50, 75, 100)] == pytest.approx(
        [0.03, 0.15 * (1 + np.cos(0.04 * np.pi)) / 2, 0.15, 0.15 * (1 - 0.5**0.5), 0], abs=1e-9
    )
    timed = Phase(minutes=2, batch=1, learning_rate=0.3, ema_decay=0.9)
    assert [timed.progress(1, 500), timed.progress(2, 30), timed.progress(9, 120)] == [0, 0.25, 1]


def test_the_average_is_the_exponential_one(tmp_path):
    averaged = fitted(tmp_path)
    state = load_file(tmp_path / "state.safetensors")
    assert torch.equal(averaged.net[0].weight, state["averaged.module.net.0.weight"])
    assert not torch.equal(averaged.net[0].weight, state["model.net.0.weight"])
    again = loop.load_averaged(Regression(), tmp_path, "this recipe")
    assert torch.equal(again.net[2].bias, averaged.net[2].bias)
    with pytest.raises(FileNotFoundError, match="earlier stage"):
        loop.load_averaged(Regression(), tmp_path / "none", "this recipe")


@pytest.mark.parametrize("damage", ["recipe", "cut", "version", "weights"])
def test_a_state_of_another_recipe_or_damaged_is_refused(tmp_path, damage):
    fitted(tmp_path)
    path = tmp_path / "state.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "version":
        save_file(load_file(path), path, {"step": "30"})
    elif damage == "weights":
        save_file({name: value for name, value in load_file(path).items() if not name.endswith("bias")}, path,
                  {"recipe": "this recipe", "at": "[30, 0.0, []]"})  # fmt: skip
    digest = "another recipe" if damage == "recipe" else "this recipe"
    for open_it in (lambda: fitted(tmp_path, digest=digest), lambda: loop.load_averaged(Regression(), tmp_path, digest)):
        with pytest.raises(ValueError, match=r"expected .*state.safetensors as this version and this recipe leave it"):
            open_it()


def test_killed_it_leaves_a_state_that_loads(tmp_path):
    """kill -9 while it trains and saves as fast as it can; and it goes on from there."""
    code = f"""
import sys; sys.path[:0] = {[str(PICTUREBOOK.parents[1] / "tests" / "picturebook"), str(PICTUREBOOK.parents[1] / "tests")]!r}
import test_training as t
phase = t.Phase(steps=100_000, batch=4, learning_rate=0.01, ema_decay=0.9, warmup=3)
t.fitted(t.Path(sys.argv[1]), phase=phase, log_every=1, save_every=0.0)
"""
    process, log = subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=subprocess.DEVNULL), tmp_path / "loss.jsonl"
    while not log.exists() or log.read_text().count("\n") < 20:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    loop.load_averaged(Regression(), tmp_path, "this recipe")
    with safe_open(tmp_path / "state.safetensors", "pt") as state:
        reached, *_ = json.loads(state.metadata()["at"])
    fitted(tmp_path, phase=replace(PHASE, steps=reached + 9), log_every=1)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [*range(1, reached + 10)]


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(PICTUREBOOK / "tokenizer")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, tokenizer):
    """Every phase of a toy recipe, one after the other, in this process."""
    folder = tmp_path_factory.mktemp("training") / "unbroken"
    torch.manual_seed(3)
    train(folder, tokenizer, toy_training.RECIPE, USUAL_STAGES[:-1], Watch(log_every=2, save_every=0.0, captions=0))
    return folder


def test_two_processes_cut_off_once_train_what_one_does(tmp_path, unbroken):
    """The same loss curves, weights and, since Adam hides their scale, gradients."""
    toy, launch = Path(__file__).with_name("toy_training.py"), ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    environment = os.environ | {"PYTHONPATH": str(PICTUREBOOK.parents[1]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    shared = [sys.executable, *launch, "--main_process_port", "0", toy, tmp_path / "shared"]
    start = partial(subprocess.Popen, shared, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cut_off = start()
    while not (tmp_path / "shared" / "clip" / "state.safetensors").exists():
        time.sleep(0.05)
        assert cut_off.poll() is None, cut_off.stdout.read()
    cut_off.terminate()
    cut_off.communicate(timeout=60)
    assert cut_off.returncode != 0
    process = start()
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert told.count("painted samples_000006.png") == 3
    assert told.count("clip: top-1") == 2
    for phase in toy_training.USUAL_PHASES:
        folders = [unbroken / phase, tmp_path / "shared" / phase]
        logs = [[json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()] for folder in folders]
        assert [line["step"] for line in logs[1]] == [2, 4, 6]
        assert [line["loss"] for line in logs[1]] == pytest.approx([line["loss"] for line in logs[0]], rel=1e-4, abs=1.1e-5)
        one, two = (load_file(folder / "state.safetensors") for folder in folders)
        # A weight whose gradient is next to nothing may go either way, since Adam hides that too.
        off = torch.cat([((two[name] - one[name]).abs() > 1e-4).flatten() for name in one])
        assert off.float().mean() < 1e-4, phase
    assert damaged_files(tmp_path / "shared" / "picturebook") == []


def test_every_phase_stopped_and_resumed_ends_the_same(tmp_path, tokenizer, unbroken):
    """To the last bit, whatever the generator was at when the command was given."""
    stopped = set()

    def stop(folder):
        if folder not in stopped:
            stopped.add(folder)
            raise KeyboardInterrupt

    for seed, stage in enumerate([name for name in USUAL_STAGES[:-1] for _ in range(4 if name == "unet" else 2)]):
        torch.manual_seed(seed)
        with suppress(KeyboardInterrupt):
            train(tmp_path, tokenizer, toy_training.RECIPE, (stage,), Watch(stop, log_every=2, save_every=0.0, captions=0))
    assert {folder.name for folder in stopped} == {*toy_training.USUAL_PHASES}
    for phase in toy_training.USUAL_PHASES:
        one, two = (load_file(folder / phase / "state.safetensors") for folder in (unbroken, tmp_path))
        assert all(torch.equal(two[name], one[name]) for name in one), phase
        logs = [(folder / phase / "loss.jsonl").read_text() for folder in (unbroken, tmp_path)]
        assert logs[0] == logs[1]
        assert [json.loads(line)["step"] for line in logs[0].splitlines()] == [2, 4, 6]
    with pytest.raises(ValueError, match=r"clip.state\.safetensors as this version and this recipe leave it"):
        train(tmp_path, tokenizer, replace(toy_training.RECIPE, guidance_scale=3.0), ("clip",))


def test_two_trainings_in_one_folder_are_refused(tmp_path, tokenizer):
    """As long as the other one lives."""
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    (tmp_path / "work").mkdir()
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path / "work" / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(ValueError, match="nothing else trains"):
        train(tmp_path / "work", tokenizer, toy_training.RECIPE, ("none",))
    other.kill()
    other.wait()
    train(tmp_path / "work", tokenizer, toy_training.RECIPE, ("none",))


def test_what_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(ValueError, match="3 processes can share evenly, got 4 for odd"):
        fitted(tmp_path / "odd")
    with pytest.raises(ValueError, match="expected one process for the judge, got 3"):
        train(tmp_path, None, PRESETS["cpu"].shortened(0), ("judge",))


def test_the_contrastive_loss_is_clips():
    """Figure 3 of the paper, in numpy."""
    torch.manual_seed(0)
    objective = contrast.ContrastiveObjective().eval()
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
    objective = denoising.DenoisingObjective(deepcopy(random_model.unet), new_scheduler())  # it lays the weights out anew
    latents, text = torch.randn(3, 4, 9, 9), torch.randn(3, 77, 24)
    noise, timestep = torch.randn_like(latents), torch.randint(1000, (3,))
    with torch.no_grad():
        found = objective(latents, text, noise, timestep).item()
        losses = []
        for i, t in enumerate(timestep.tolist()):
            kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[t]
            noisy = kept**0.5 * latents[i] + (1 - kept) ** 0.5 * noise[i]
            error = (random_model.unet(noisy[None].float(), t, text[i][None]).sample - noise[i]).square().mean().item()
            losses.append(error * min(kept / (1 - kept), 5) / (kept / (1 - kept)))
    assert found == pytest.approx(np.mean(losses), rel=1e-3)


def test_grounding_is_what_of_a_nouns_attention_lies_outside_of_its_thing():
    nouns, cells = torch.zeros(2, 3, 77, dtype=bool), torch.zeros(2, 3, 8, 8)
    nouns[0, 0, 3] = nouns[0, 1, 8] = nouns[0, 1, 9] = True  # the second caption names nothing
    cells[0, 0, :4], cells[0, 1, 4:, :4] = 1, 1
    attention = torch.rand(2, 16, 77)
    attention[0, :8, 3], attention[0, 8:, 3], attention[0, :, 8:10] = 0.3, 0.0, 0.0  # a layer of 4 x 4 cells: the upper half, then
    attention[0, [8, 9, 0], [8, 9, 9]] = torch.tensor([0.1, 0.2, 0.1])  # three quarters of it in the lower left
    assert denoising.grounding(attention, nouns, cells).item() == pytest.approx(0.25**2 / 2 / 2, rel=1e-4)
    learned = torch.zeros(2, 16, 77, requires_grad=True)
    before = denoising.grounding(learned.softmax(2), nouns, cells)
    before.backward()
    assert denoising.grounding((learned - 100 * learned.grad).softmax(2), nouns, cells) < 0.9 * before


@pytest.fixture
def lesson(model):
    """What a UNet learns from, of a scene of two things on 64 pixels: the scene, and one batch of four times it."""
    scene = scene_from_seed(31, 64, 2, SMALL_WORLD)
    kinds = [[denoising.KINDS[0] - 1, denoising.KINDS[1] - 1]] * 4
    kinds[1:3] = [[OBJECTS.index(thing.name), [*COLOURS].index(thing.colour)] for thing in scene.objects]
    drawn = DrawnScenes(torch.tensor(scene.picture)[None], [scene.caption], torch.tensor(scene.things)[None],
                        torch.tensor([kinds], dtype=torch.uint8))  # fmt: skip
    torch.manual_seed(5)
    return scene, denoising.grounded_pairs(model.vae, model.text_encoder, model.tokenizer, drawn, 64)()


def test_a_unet_learns_from_where_things_are_and_what_they_are_called(model, lesson):
    scene, (latents, _, _, timestep, nouns, cells, _) = lesson
    assert latents.shape == (64, 4, 8, 8)
    assert (timestep >= 600).float().mean() > 0.45  # 58 % of them
    for number, thing in enumerate(scene.objects, 1):
        expected = thing.mask.reshape(8, 8, 8, 8).mean((1, 3))
        assert np.allclose(cells[0, number].numpy(), expected, atol=1e-3)
    assert torch.allclose(cells.sum(1), torch.ones(64, 8, 8), atol=1e-3)
    ids = model.tokenizer(scene.caption).input_ids
    said = [{model.tokenizer.decode(ids[place]).strip() for place in row.nonzero().flatten()} for row in nouns[nouns.any((1, 2))][0]]
    words = [thing.name for thing in read(scene.caption).things]
    assert [{word} & {*WORDS["objects"][name]} for word, name in zip(map("".join, said), words, strict=False)] == [*said[:2]]
    assert said[2] == set()
    assert 0 < (~nouns.any((1, 2))).sum() < 20  # dropped captions name nothing


def test_readers_find_in_every_cell_what_was_drawn_there(lesson):
    """The truth read out costs its own entropy alone, which falls on the cells that show two things; anything else costs more."""
    _, (*_, cells, kinds) = lesson
    truth = torch.cat([torch.einsum("nkc,nkhw->nchw", torch.nn.functional.one_hot(kinds[:, :, k], size).float(), cells)
                       for k, size in enumerate(denoising.KINDS[:2])] + [cells], 1)  # fmt: skip
    best = denoising.reading((truth + 1e-9).log(), cells, kinds).item()
    assert best == pytest.approx(-(truth * (truth + 1e-9).log()).sum(1).mean().item(), rel=1e-3)
    assert best < 1 < denoising.reading((truth.flip(2) + 1e-9).log(), cells, kinds).item()
    assert denoising.reading(torch.zeros_like(truth), cells, kinds).item() == pytest.approx(np.log(denoising.KINDS).sum(), rel=1e-3)


def test_the_helpers_leave_the_unet_what_it_was(lesson):
    """Its predictions, its weights' names, and the noisy error of the loss; and one graph holds the whole objective."""
    _, batch = lesson
    batch = [part[:3] for part in batch]
    torch.manual_seed(0)
    plain, grounded = denoising.new_unet((32,) * 3), denoising.new_unet((32,) * 3)
    grounded.load_state_dict(plain.state_dict())
    objective = denoising.GroundedObjective(grounded, new_scheduler())
    with torch.no_grad():
        found = torch.compile(objective, backend="eager", fullgraph=True)(*batch).item()
        maps = [attention.probabilities for attention in objective.attentions if attention.probabilities.shape[1] >= 16]
        helped = 0.1 * np.mean([denoising.grounding(one, batch[4], batch[5][:, 1:]).item() for one in maps])
        helped += 0.05 * np.mean([denoising.reading(reader(reader.heard), *batch[5:]).item() for reader in objective.readers])
        kept = new_scheduler().alphas_cumprod[batch[3]]
        noisy = kept.sqrt()[:, None, None, None] * batch[0] + (1 - kept).sqrt()[:, None, None, None] * batch[2]
        predicted = plain(noisy, batch[3], batch[1]).sample
        torch.testing.assert_close(grounded(noisy, batch[3], batch[1]).sample, predicted)
        errors = (predicted - batch[2]).square().mean((1, 2, 3))
        weighed = (errors * (kept / (1 - kept)).clamp(max=5) / (kept / (1 - kept)) / kept.sqrt()).mean().item()
    assert len(maps) == 6  # of 8 x 8 cells on the way down and, twice, up; of 4 x 4 likewise
    assert found == pytest.approx(weighed + helped, rel=1e-3)


def test_readers_are_asked_where_the_caption_says_it(tokenizer):
    captions = ["a big red car below a yellow star at night", "a crayon drawing of a toadstool"]
    ids, places, truths = binding.asked(tokenizer, captions, torch.tensor([[0.0, 0.999], [0.5, 0.5]]))
    words = [[tokenizer.decode(row[place]) for place in at] for row, at in zip(ids, places, strict=True)]
    assert words[0][:3] == ["car", "star", "below"]
    assert ids[0].tolist().index(49407) + 1 == places[0, 3] < places[0, 4] == 76
    car, star, relation = [OBJECTS.index("car"), 0], [OBJECTS.index("star"), 2], [3, WORLD.places.index("night")]
    assert truths[0].tolist() == [
        [*car, *[-100] * 4], [*car, *star, relation[0], -100], [*car, -100, -100, relation[0], -100], *[[*car, *star, *relation]] * 2
    ]  # fmt: skip
    alone = [OBJECTS.index("mushroom"), len(COLOURS)]
    assert truths[1].tolist() == [
        [*alone, *[-100] * 4],
        *[[-100] * 6] * 2,
        *[[*alone, len(OBJECTS), len(COLOURS), 5, len(WORLD.places)]] * 2,
    ]
    assert tokenizer.decode(ids[1][: places[1, 0] + 1]).strip().endswith("stool")


def test_words_are_taught_while_the_pooled_state_stays(model, tokenizer):
    """Three steps: what readers find becomes better; the state that CLIP tells pictures from moves less than the words do."""
    torch.manual_seed(2)
    objective = binding.BindingObjective(deepcopy(model.text_encoder).requires_grad_(True))
    batch = binding.questions(tokenizer, SMALL_WORLD, 16)()
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        losses.append(objective(*batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]
    with torch.no_grad():
        before, after = (tower(batch[0]).last_hidden_state for tower in (objective.before[0], objective.text_encoder))
    assert binding.moved(batch[0], before, before) == 0 < binding.moved(batch[0], after, before)
    moved, rows = (after - before).square().mean(2), torch.arange(16)
    assert moved[rows, batch[0].argmax(1)].mean() < moved[rows, batch[1][:, 0]].mean()
    assert not any("before" in name for name in objective.state_dict())


def test_the_reconstruction_loss_is_zero_for_the_truth_alone():
    truth = torch.rand(2, 3, 64, 64) * 2 - 1
    assert autoencoding.reconstruction_loss(truth, truth).item() == 0
    assert autoencoding.reconstruction_loss(truth + 0.1, truth).item() == pytest.approx(0.1 + 0.01, rel=1e-3)
    grayed, reddened = truth.clone(), truth.clone()
    grayed += 0.1
    reddened[:, 0] += 0.1
    assert autoencoding.reconstruction_loss(reddened, truth) > autoencoding.reconstruction_loss(grayed, truth)


def test_the_flatter_crops_are_thrown_away():
    class Scenes:
        pictures = torch.stack([torch.full((128, 128, 3), 9), torch.randint(255, (128, 128, 3))]).to(torch.uint8)

    torch.manual_seed(0)
    crops, noise = autoencoding.crops(Scenes, 40)()
    assert crops.shape == (40, 3, 64, 64)
    assert noise.shape == autoencoding.new_vae((8,) * 4).encode(crops).latent_dist.mean.shape
    assert (crops.std(dim=(1, 2, 3)) > 0.1).sum() >= 30


def test_one_caption_in_ten_is_dropped(model):
    class Scenes:
        pictures = torch.zeros(40, 64, 64, 3, dtype=torch.uint8)
        captions = ["a red car"] * 40

    torch.manual_seed(0)
    draw = denoising.noisy_pairs(model.vae, model.text_encoder, model.tokenizer, Scenes, 500)
    latents, text, noise, timestep = draw()
    empty = sdteach.encode_text(model, "").last_hidden_state
    dropped = torch.isclose(text[:, 5], empty[5], atol=1e-2).all(1)
    assert latents.shape == noise.shape == (500, 4, 8, 8)
    assert timestep.min() >= 0
    assert 900 < timestep.max() < 1000
    assert 25 < dropped.sum() < 80


def test_a_crop_is_a_piece_of_a_picture():
    class Scenes:
        pictures = torch.arange(3 * 70 * 66 * 3).reshape(3, 70, 66, 3).remainder(251).to(torch.uint8)

    Scenes.pictures = Scenes.pictures[:, :66]
    crops, _ = autoencoding.crops(Scenes, 4)()
    pixels = ((crops + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    pieces = [Scenes.pictures[i, y : y + 64, x : x + 64] for i in range(3) for y in range(3) for x in range(3)]
    for crop in pixels:
        assert any(torch.equal(crop, piece) for piece in pieces)


def test_ground_is_what_has_the_most_usual_colour():
    picture = torch.full((1, 3, 9, 7), -0.5)
    picture[:, 2, 2:5, 1:4] = 0.1  # a thing that differs in one colour only
    picture[:, :, 8, 6] = -0.3  # nearly ground
    expected = torch.zeros(1, 1, 9, 7, dtype=bool)
    expected[:, :, 2:5, 1:4] = True
    assert torch.equal(autoencoding.off_ground(picture), expected)


def test_the_decoder_learns_alone_and_things_count_four_times(tmp_path):
    torch.manual_seed(2)
    autoencoder = autoencoding.new_vae((8, 8, 8, 8))
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    picture = torch.full((1, 3, 16, 16), -0.5)
    picture[:, 0, 3:8, 3:8] = 0.5
    objective, noise, things = autoencoding.DecodingObjective(autoencoder), torch.randn(1, 4, 2, 2), torch.zeros(1, 1, 16, 16)
    things[:, :, 3:8, 3:9] = 1
    with torch.no_grad():
        posterior = autoencoder.encode(picture).latent_dist
        guess = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        found = (
            objective(picture, noise, things)
            - autoencoding.reconstruction_loss(guess, picture)
            - 2 * autoencoding.thing_loss(guess, picture, things)
        )
    error = (guess - picture).abs()
    assert found.item() == pytest.approx((error.mean() + 3 * error[:, :, 3:8, 3:8].sum() / error.numel()).item(), rel=1e-4)
    loop.fit(objective, lambda: (picture, noise, things), PHASE, tmp_path, 7, "this recipe", Accelerator(cpu=True))
    moved = {name.split(".")[0] for name, value in autoencoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"decoder", "post_quant_conv"}


def test_a_small_thing_counts_as_much_as_a_large_one():
    """Two things of one picture, three colours that are off by 0.3, -0.1, 0.2, in a field of noise that is nobody's."""
    things = torch.zeros(2, 1, 64, 48, dtype=torch.uint8)
    things[0, :, 4:10, 5:12], things[0, :, 30:60, 8:40], things[1, :, 4:9, 5:10] = 1, 2, 1  # the last is of 25 pixels: too small
    truth = torch.rand(2, 3, 64, 48) * 2 - 1
    assert autoencoding.thing_loss(truth, truth, things).item() == 0
    off = torch.tensor([0.3, -0.1, 0.2])[:, None, None]
    guess = truth.clone()
    guess[0, :, 4:10, 5:12] += off
    colour = (0.3 + 0.1 + 0.2 + abs(0.3 - -0.1) + abs((0.3 - 0.1) / 2 - 0.2)) / 5
    assert autoencoding.thing_loss(guess, truth, things).item() == pytest.approx((0.2 * 42 / (10 * 11) + colour) / 2, rel=1e-4)
    guess = truth.clone()
    guess[0, :, 30:60, 8:40] += off
    assert autoencoding.thing_loss(guess, truth, things).item() == pytest.approx((0.2 * 960 / (34 * 36) + colour) / 2, rel=1e-4)
    guess = truth.clone()
    guess[1] += off
    assert autoencoding.thing_loss(guess, truth, things).item() == 0
    guess = truth.clone()
    guess[0, :, 10:12, 5:12] -= 0.5  # the ground just below the small thing: its outline, not its colour
    assert autoencoding.thing_loss(guess, truth, things).item() == pytest.approx(0.5 * 14 / 110 / 2, rel=1e-4)


def test_crops_of_things_show_things_and_say_which():
    class Scenes:
        things = torch.zeros(40, 128, 128, dtype=torch.uint8)
        things[::4, 58:70, 50:70], things[2::4, 60:72, 60:70] = 3, 2

    Scenes.pictures = torch.stack([80 * Scenes.things, *torch.randint(255, (2, 40, 128, 128))], -1).to(torch.uint8)
    torch.manual_seed(0)
    crops, noise, things = autoencoding.crops_of_things(Scenes, 40)()
    assert crops.shape == (40, 3, 64, 64)
    assert noise.shape == (40, 4, 8, 8)
    assert torch.equal(((crops[:, :1] + 1) * 127.5).round().to(torch.uint8), 80 * things)
    size = (things > 0).sum((1, 2, 3))
    assert (size[10:] >= 120).sum() >= 25  # whole, of about forty that there are
    assert (size[:10] == 0).any()
    assert {*things.unique().tolist()} == {0, 2, 3}
    assert len({*size[10:].tolist()}) > 1  # from 120 pixels on the largest are not preferred


def test_what_the_judge_learns_from_is_the_truth():
    blots = 0
    for seed in range(30):
        drawn, picture, things, colours, place, style, boxes, names = seeing.sight(seed)
        scene = scene_from_seed(seed)
        assert drawn.shape == picture.shape == (128, 128, 3)
        assert (place, style) == (WORLD.places.index(scene.place), WORLD.styles.index(scene.style))
        assert np.array_equal(things, colours != seeing.UNKNOWN)
        assert len(boxes) == len(names) == len(scene.objects)
        if "blot" in (NAMES[name] for name in names):  # drawn with other strokes than the scene of this seed
            blots += 1
            continue
        assert np.array_equal(drawn, scene.picture)
        for thing, name, box in zip(scene.objects, names, boxes, strict=True):
            assert (box & thing.mask).sum() >= 0.5 * thing.mask.sum()
            inside = thing.mask[1::2, 1::2]
            assert NAMES[name] == thing.name
            assert things[inside].all()
            assert set(colours[inside].tolist()) == {list(COLOURS).index(thing.colour)}
    assert 2 <= blots <= 12


def test_a_degraded_picture_is_still_the_picture():
    picture = scene_from_seed(3).picture
    degraded = [seeing.degrade(np.random.default_rng(seed), picture) for seed in range(40)]
    errors = [np.abs(other.astype(int) - picture).mean() for other in degraded]
    assert min(errors) > 1
    assert max(errors) < 25
    assert len({other.tobytes() for other in degraded}) == 40


def test_drawn_scenes_are_the_seeds_own_and_drawn_once(tmp_path):
    with all_painters() as painters:
        scenes = Drawing(tmp_path / "scenes", 5, 64, SMALL_WORLD, 31, painters=painters).first(5)
    for index in range(5):
        expected = scene_from_seed(31 + index, 64, grammar=SMALL_WORLD)
        assert np.array_equal(scenes.pictures[index].numpy(), expected.picture)
        assert scenes.captions[index] == expected.caption
        assert scenes.kinds[index, 0].tolist() == [len(OBJECTS), len(COLOURS)]
        for number, thing in enumerate(expected.objects, 1):
            assert np.array_equal(scenes.things[index].numpy() == number, thing.mask)
            assert scenes.kinds[index, number].tolist() == [OBJECTS.index(thing.name), [*COLOURS].index(thing.colour)]
    again = Drawing(tmp_path / "scenes", 5, 64, SMALL_WORLD, 31, painters=None)
    assert again.jobs == []
    assert torch.equal(again.first(3).pictures, scenes.pictures[:3])
    for other in ((6, 64, SMALL_WORLD, 31), (5, 128, SMALL_WORLD, 31), (5, 64, WORLD, 31), (5, 64, SMALL_WORLD, 0)):
        with pytest.raises(ValueError, match=r"scenes.json as this version and this recipe leave it"):
            Drawing(tmp_path / "scenes", *other)


def test_drawing_that_was_cut_off_goes_on(tmp_path):
    with all_painters() as painters:
        Drawing(tmp_path, 70, 64, SMALL_WORLD, painters=painters)
    sheets = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r+") for name in ("drawn", "pictures")}
    sheets["drawn"][66:68], sheets["pictures"][[3, 66]] = False, 7
    cut_off = Drawing(tmp_path, 70, 64, SMALL_WORLD)
    assert cut_off.drawn(0) == 66
    with all_painters() as painters:
        scenes = Drawing(tmp_path, 70, 64, SMALL_WORLD, painters=painters).first(70)
    assert np.array_equal(scenes.pictures[66].numpy(), scene_from_seed(66, 64, grammar=SMALL_WORLD).picture)
    assert (scenes.pictures[3] == 7).all()  # what is drawn is not drawn again


@pytest.mark.parametrize("damage", ["things missing", "pictures cut", "facts cut", "other shape"])
def test_damaged_scenes_are_refused_in_a_sentence(tmp_path, damage):
    with all_painters() as painters:
        Drawing(tmp_path, 2, 64, SMALL_WORLD, painters=painters)
    name = {"things missing": "things.npy", "pictures cut": "pictures.npy", "facts cut": "scenes.json", "other shape": "kinds.npy"}[damage]
    path = tmp_path / name
    if damage == "things missing":
        path.unlink()
    elif damage == "other shape":
        np.save(path, np.zeros((2, 3), np.uint8))
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"expected .*{name} as this version and this recipe leave it"):
        Drawing(tmp_path, 2, 64, SMALL_WORLD)


def test_learning_begins_with_the_scenes_that_are_drawn(tmp_path):
    """And goes on with more as soon as twice as many are there."""
    drawing = type("Drawing", (), {"count": 100, "there": 10, "first": lambda self, number: torch.tensor(number)})()
    drawing.drawn = lambda least: max(drawing.there, least)
    recipe = replace(PRESETS["cpu"], first_scenes=20)
    seen = SimpleNamespace(recipe=recipe, scenes={"large": drawing}, accelerator=SimpleNamespace(device="cpu"))
    draw = training.Training.of(seen, "large", lambda scenes, batch: lambda: (scenes.item(), batch))(batch=3)
    for there, known in ((10, 20), (39, 20), (41, 41), (81, 41), (82, 82), (99, 82), (100, 100), (100, 100)):
        drawing.there = there
        assert draw() == (known, 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_rehearsal_trains_every_stage_and_packs_a_checkpoint(tmp_path, tokenizer, preset):
    recipe = PRESETS[preset].shortened(0.00005)
    if preset == "accelerator":  # networks of the same size, seen in the other one
        recipe = replace(recipe, vae_channels=(16,) * 4, unet_channels=(32,) * 3)
    in_memory = recipe.in_memory and training.MEMORY.is_dir()
    before = {*training.MEMORY.glob("sdteach-*")}
    seen, sheets = set(), {}
    watch = Watch(
        lambda folder: seen.add(folder.name),
        lambda file, pictures, captions: sheets.update({file: (pictures, captions)}),
        captions=1,
    )
    train(tmp_path, tokenizer, recipe, watch=watch)
    assert seen == {*toy_training.USUAL_PHASES}
    assert {file.parent.name for file in sheets} == {"unet_single", "unet_small", "unet_large"}
    for file, (pictures, captions) in sheets.items():
        edge = 128 if file.parent.name == "unet_large" else 64
        assert len(captions) == 1
        assert all(picture.shape == (edge, edge, 3) for picture in pictures)
    model = sdteach.load_model(tmp_path / "picturebook", device="cpu")
    assert sdteach.generate(model, "a red car", steps=1).pixels.shape == (128, 128, 3)
    assert damaged_files(tmp_path / "picturebook") == []
    assert model.scheduler.config.clip_sample is False
    latents = sdteach.image_to_latents(model, sdteach.generate(model, "a red car", steps=1).image).mean
    assert 0.05 < latents.std() < 20
    assert sum(part.numel() for part in model.vae.parameters()) <= 4e6
    cross = {name.rsplit(".", 5)[0] for name, part in model.unet.named_modules() if name.endswith("attn2")}
    assert len(cross) == 7  # three resolutions on the way down, three on the way up, the middle
    assert (tmp_path / "large" / "scenes.json").exists() == (not in_memory)
    assert {*training.MEMORY.glob("sdteach-*")} == before
    assert model.guidance_scale == recipe.guidance_scale
    assert recipe.grammar.pairs & HELD_OUT_PAIRS
    assert not recipe.grammar.taught().pairs & HELD_OUT_PAIRS


def test_a_stage_that_needs_an_earlier_one_says_so(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="run that stage first"):
        train(tmp_path, tokenizer, PRESETS["cpu"].shortened(0.00005), ("scenes", "unet"))
