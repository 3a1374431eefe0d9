"""The evaluation: its prompts are fixed, its intervals are the textbooks', its numbers are what the parts say."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import sdteach
from sdteach.picturebook import evaluation
from sdteach.picturebook.captions import known_grammar, read, vocabulary
from sdteach.picturebook.evaluation import GOALS, average, evaluate, prompts, retrieved, share
from sdteach.picturebook.judge import Seen, SeenThing, load_judge
from sdteach.picturebook.scenes import HELD_OUT_SEED, scene_from_seed
from sdteach.picturebook.world import HELD_OUT_PAIRS, RELATIONS, SMALL_WORLD, WORLD


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(evaluation, "SCENES", 4)
    monkeypatch.setattr(evaluation, "PROMPTS", {"one_object": 1, "two_objects": 2, "held_out_pairs": 1})


@pytest.mark.parametrize(("grammar", "digest"), [(WORLD, "ab2fe7383c8dee64"), (SMALL_WORLD, "e5e138befebf3501")], ids=["world", "small"])
def test_the_prompts_are_these(grammar, digest):
    """A changed prompt makes old numbers incomparable: change the digest only with a reason in RECIPE.md."""
    assert hashlib.sha256(json.dumps(prompts(frozenset(vocabulary(grammar)))).encode()).hexdigest()[:16] == digest


def test_the_prompts_ask_for_what_their_kind_says():
    asked = {kind: [read(prompt) for prompt in texts] for kind, texts in prompts(frozenset(vocabulary(WORLD))).items()}
    assert {kind: len(requests) for kind, requests in asked.items()} == {"one_object": 80, "two_objects": 80, "held_out_pairs": 40}
    pairs = {kind: [(thing.colour, thing.name) for request in requests for thing in request.things] for kind, requests in asked.items()}
    assert all(request.relation in RELATIONS and len(request.things) == 2 for request in asked["two_objects"])
    assert all(len(request.things) == 1 for kind in ("one_object", "held_out_pairs") for request in asked[kind])
    assert set(pairs["held_out_pairs"]) <= HELD_OUT_PAIRS
    assert not set(pairs["one_object"] + pairs["two_objects"]) & HELD_OUT_PAIRS
    assert all(len(set(texts)) == len(texts) for texts in prompts(frozenset(vocabulary(WORLD))).values())
    assert not any(None in pair for several in pairs.values() for pair in several)


@pytest.mark.parametrize("grammar", [WORLD, SMALL_WORLD], ids=["world", "small"])
def test_the_grammar_is_known_by_its_words(grammar):
    known = known_grammar(frozenset(vocabulary(grammar)))
    assert (known.pairs, known.places, known.styles, known.most) == (grammar.pairs, grammar.places, grammar.styles, 2)


def test_prompts_keep_to_the_words_that_are_known():
    for words in (frozenset(vocabulary(SMALL_WORLD)), frozenset(vocabulary(SMALL_WORLD)) - {"picture", "cube", "ship", "under"}):
        asked = prompts(words)
        assert {kind: len(texts) for kind, texts in asked.items()} == {"one_object": 80, "two_objects": 80, "held_out_pairs": 40}
        assert {word for texts in asked.values() for text in texts for word in text.replace(",", "").split()} <= words


@pytest.mark.parametrize(("right", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)])
def test_shares_have_wilsons_interval(right, n, low, high):
    """Values from Wilson's formula as tabulated."""
    found = share([True] * right + [False] * (n - right))
    assert (found.value, found.count) == (right / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_means_have_the_normal_interval():
    found = average([1.0, 2.0, 4.0, 5.0])
    half = 1.959964 * np.sqrt(10 / 3) / 2
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0 - half, 3.0 + half), rel=1e-5)
    assert math.isnan(average([]).value)
    assert average([]).count == 0


def test_retrieval_counts_the_nearest_caption(model):
    scenes = [scene_from_seed(seed, grammar=SMALL_WORLD) for seed in range(6)]
    images = [sdteach.image_features(model, Image.fromarray(scene.picture)).numpy() for scene in scenes]
    texts = [sdteach.encode_text(model, scene.caption).projected.numpy() for scene in scenes]
    unit = [np.stack([v / np.linalg.norm(v) for v in vectors]) for vectors in (images, texts)]
    nearest = (unit[0] @ unit[1].T).argmax(1)
    assert retrieved(model, scenes) == [scenes[i].caption == scenes[k].caption for i, k in enumerate(nearest)]


def test_attention_overlap_is_intersection_over_union(model):
    trace = sdteach.generate(model, "a red car above a blue automobile", steps=1, collect=("attention",))
    mask = np.asarray(Image.fromarray(trace.heat_map(2)).resize((128, 128), Image.Resampling.BILINEAR)) > evaluation.HEAT
    everything = np.ones((128, 128), bool)
    seen = [Seen((SeenThing(name, "red", (0.0, 0.0), where),), "paper", "flat") for name, where in
            (("car", mask), ("car", everything), ("star", mask))]  # fmt: skip
    assert evaluation.attention_iou(trace, seen[0], "car") == 1.0
    assert evaluation.attention_iou(trace, seen[1], "car") == pytest.approx(mask.mean())
    assert evaluation.attention_iou(trace, seen[2], "car") is None


def test_every_number_is_there_and_inside_its_interval(model, few):
    result = evaluate(model, load_judge(), guidance_scale=2.5)
    assert result.measures.keys() == GOALS.keys()
    for name, measure in result.measures.items():
        assert measure.count == 0 or measure.low <= measure.value <= measure.high or math.isnan(measure.low), name
    assert [case.kind for case in result.painted] == ["one_object", "two_objects", "two_objects", "held_out_pairs"]
    for kind in ("one_object", "two_objects", "held_out_pairs"):
        cases = [case for case in result.painted if case.kind == kind]
        assert result.measures[kind].value == np.mean([not case.faults for case in cases])
        assert result.measures[kind].count == len(cases)
    case = result.painted[2]
    assert np.array_equal(case.pixels, sdteach.generate(model, case.prompt, guidance_scale=2.5, seed=2).pixels)
    assert result.measures["judge_true"].count == result.measures["judge_shuffled"].count == 8


def test_a_checkpoint_without_an_image_tower_is_refused(random_model, few):
    with pytest.raises(ValueError, match="CLIP's image tower"):
        evaluate(random_model, load_judge())


def test_a_copy_is_what_the_vae_makes_of_it(model):
    picture = scene_from_seed(HELD_OUT_SEED + 55, grammar=SMALL_WORLD).picture
    given = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        made = model.vae.decode(model.vae.encode(given).latent_dist.mean).sample[0]
    expected = ((made.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).numpy()
    assert np.abs(evaluation.copied(model, picture) - expected).max() <= 1
