"""Training: killed and resumed equals unbroken, the losses are the papers', and a rehearsal gives a folder that loads."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

import sdteach
from sdteach.files import damaged_files
from sdteach.picturebook import training
from sdteach.picturebook.judge import NAMES
from sdteach.picturebook.scenes import scene_from_seed
from sdteach.picturebook.training import PRESETS, Watch, autoencoding, contrast, loop, seeing, train, unet
from sdteach.picturebook.training.data import draw_scenes
from sdteach.picturebook.training.folder import new_scheduler
from sdteach.picturebook.training.recipe import Phase
from sdteach.picturebook.world import COLOURS, HELD_OUT_PAIRS, SMALL_WORLD, WORLD

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
    """The state is saved every four steps; what was lost is done again, with the same random numbers, and logged once."""
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    fitted(tmp_path / "unbroken")
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "broken", stopping_before(stop, tmp_path / "broken" / "loss.jsonl"))
    fitted(tmp_path / "broken")
    first, second = (load_file(tmp_path / name / "state.safetensors") for name in ("unbroken", "broken"))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    logs = [(tmp_path / name / "loss.jsonl").read_text() for name in ("unbroken", "broken")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == [4, 8, 12, 16, 20, 24, 28, 30]


def test_what_was_logged_after_the_last_state_is_logged_again(tmp_path, monkeypatch):
    """Killed between the log and the state: the log is cut back to the state."""
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    fitted(tmp_path / "unbroken")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(loop, "_save_state", stop_at(16, loop._save_state))
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "broken")
    monkeypatch.undo()
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    assert len((tmp_path / "broken" / "loss.jsonl").read_text().splitlines()) == 4
    fitted(tmp_path / "broken")
    assert (tmp_path / "broken" / "loss.jsonl").read_text() == (tmp_path / "unbroken" / "loss.jsonl").read_text()


def stop_at(step, save):
    def stopping(path, reached, *parts):
        if reached == step:
            raise KeyboardInterrupt
        save(path, reached, *parts)

    return stopping


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
t.loop.LOG_EVERY, t.loop.SAVE_EVERY = 1, 0.0
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


def test_two_processes_cut_off_once_train_what_one_does(tmp_path):
    """Every phase of a toy recipe, one after the other: the same loss curves, weights and, since Adam hides their scale, gradients."""
    toy, launch = Path(__file__).with_name("toy_training.py"), ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    environment = os.environ | {"PYTHONPATH": str(PICTUREBOOK.parents[1]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    start = partial(subprocess.Popen, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    shared = [sys.executable, *launch, "--main_process_port", "0", toy, tmp_path / "shared"]
    alone, cut_off = start([sys.executable, toy, tmp_path / "alone"]), start(shared)
    while not (tmp_path / "shared" / "clip" / "state.safetensors").exists():
        time.sleep(0.05)
        assert cut_off.poll() is None, cut_off.stdout.read()
    cut_off.terminate()
    cut_off.communicate(timeout=60)
    for process in (start(shared), alone):
        told, _ = process.communicate(timeout=300)
        assert process.returncode == 0, told
        assert told.count("painted samples_000006.png") == 4
        assert told.count("clip: top-1") == 1
    assert cut_off.returncode != 0
    for phase in ("clip", "vae", "decoder", "unet_single", "unet_small", "unet_large", "unet_guidance"):
        folders = [tmp_path / name / phase for name in ("alone", "shared")]
        logs = [[json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()] for folder in folders]
        assert [line["step"] for line in logs[1]] == [2, 4, 6]
        assert [line["loss"] for line in logs[1]] == pytest.approx([line["loss"] for line in logs[0]], rel=1e-4, abs=1.1e-5)
        one, two = (load_file(folder / "state.safetensors") for folder in folders)
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-4, msg=f"{phase}: {name}")
    assert damaged_files(tmp_path / "shared" / "picturebook") == []


def test_what_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(ValueError, match="3 processes can share evenly, got 4 for odd"):
        fitted(tmp_path / "odd")
    with pytest.raises(ValueError, match="expected one process for the judge, got 3"):
        train(tmp_path, None, PRESETS["cpu"], ("judge",))


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
    objective = unet.DenoisingObjective(random_model.unet, new_scheduler())
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
    draw = unet.noisy_pairs(model.vae, model.text_encoder, model.tokenizer, Scenes, 500)
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
    loop.fit(objective, lambda: lambda: (picture, noise, things), PHASE, tmp_path, 7, Accelerator(cpu=True))
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


def test_guided_by_the_usual_scale_it_says_what_its_teacher_says_guided_by_the_best(random_model):
    """The loss in plain numbers; and it is zero for the student whose caption makes 3 / 7.5 of the difference."""
    teacher, best = random_model.unet, 3.0
    empty, text, latents = torch.randn(2, 77, 24), torch.randn(2, 77, 24), torch.randn(2, 4, 9, 9)
    noise, timestep = torch.randn_like(latents), torch.randint(1000, (2,))

    class Shrunk(torch.nn.Module):
        def forward(self, noisy, timestep, states):
            unguided, told = teacher(noisy, timestep, states).sample.chunk(2)
            return type("Output", (), {"sample": torch.cat([unguided, unguided + best / 7.5 * (told - unguided)])})

    right, itself = (unet.GuidanceObjective(student, teacher, new_scheduler(), best) for student in (Shrunk(), teacher))
    with torch.no_grad():
        assert right(latents, text, empty, noise, timestep).item() < 1e-10
        found = itself(latents, text, empty, noise, timestep).item()
        assert found > 1e-6
        losses = []
        for i, t in enumerate(timestep.tolist()):
            kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[t]
            noisy = (kept**0.5 * latents[i] + (1 - kept) ** 0.5 * noise[i])[None].float()
            gap = teacher(noisy, t, text[i][None]).sample - teacher(noisy, t, empty[i][None]).sample
            losses.append(((7.5 - best) * gap).square().mean().item() * min(kept / (1 - kept), 5) / (kept / (1 - kept)))
    assert found == pytest.approx(np.mean(losses), rel=1e-3)
    assert not any(name.startswith("teacher") for name in itself.state_dict())


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
    scenes = draw_scenes(tmp_path / "scenes", 5, 64, SMALL_WORLD, first_seed=31)
    for index in range(5):
        expected = scene_from_seed(31 + index, 64, grammar=SMALL_WORLD)
        assert np.array_equal(scenes.pictures[index].numpy(), expected.picture)
        assert scenes.captions[index] == expected.caption
        for number, thing in enumerate(expected.objects, 1):
            assert np.array_equal(scenes.things[index].numpy() == number, thing.mask)
    before = (tmp_path / "scenes" / "pictures.npy").stat().st_mtime_ns
    draw_scenes(tmp_path / "scenes", 5, 64, SMALL_WORLD, first_seed=31)
    assert (tmp_path / "scenes" / "pictures.npy").stat().st_mtime_ns == before
    for count, canvas, grammar, first in ((6, 64, SMALL_WORLD, 31), (5, 128, SMALL_WORLD, 31), (5, 64, WORLD, 31), (5, 64, SMALL_WORLD, 0)):
        with pytest.raises(ValueError, match="5 of 64"):
            draw_scenes(tmp_path / "scenes", count, canvas, grammar, first_seed=first)


def test_drawing_that_was_cut_off_is_begun_again(tmp_path):
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "pictures.npy").write_bytes(b"half")
    scenes = draw_scenes(tmp_path / "scenes", 3, 64, SMALL_WORLD)
    assert np.array_equal(scenes.pictures[2].numpy(), scene_from_seed(2, 64, grammar=SMALL_WORLD).picture)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_rehearsal_trains_every_stage_and_packs_a_checkpoint(tmp_path, monkeypatch, preset):
    monkeypatch.setattr(training, "SHEET", 2)
    tokenizer, recipe = CLIPTokenizer.from_pretrained(PICTUREBOOK / "tokenizer"), PRESETS[preset].shortened(0.00005)
    seen, sheets = set(), {}
    watch = Watch(lambda folder: seen.add(folder.name), lambda file, pictures, captions: sheets.update({file: (pictures, captions)}))
    train(tmp_path, tokenizer, recipe, watch=watch)
    assert seen == {"clip", "vae", "decoder", "unet_single", "unet_small", "unet_large", "unet_guidance"}
    assert {file.parent.name for file in sheets} == seen - {"clip", "vae", "decoder"}
    for file, (pictures, captions) in sheets.items():
        edge = 128 if file.parent.name in ("unet_large", "unet_guidance") else 64
        assert len(captions) == 2
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
    captions = json.loads((tmp_path / "large" / "scenes.json").read_text())["captions"]
    assert captions[3] == scene_from_seed(3, grammar=recipe.grammar.taught()).caption
    assert recipe.grammar.pairs & HELD_OUT_PAIRS
    assert not recipe.grammar.taught().pairs & HELD_OUT_PAIRS


def test_a_stage_that_needs_an_earlier_one_says_so(tmp_path):
    tokenizer = CLIPTokenizer.from_pretrained(PICTUREBOOK / "tokenizer")
    with pytest.raises(FileNotFoundError, match="run that stage first"):
        train(tmp_path, tokenizer, PRESETS["cpu"].shortened(0.00005), ("scenes", "unet"))
