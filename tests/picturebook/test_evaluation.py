"""The evaluation: its prompts are fixed, its intervals are the textbooks', its numbers are what the parts say."""

import hashlib
import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

import sdteach
from sdteach.picturebook import evaluation
from sdteach.picturebook.captions import known_grammar, read, vocabulary
from sdteach.picturebook.evaluation import GOALS, Painted, evaluate, measures_of_painted
from sdteach.picturebook.evaluation.measures import average, fraction, retrieved
from sdteach.picturebook.evaluation.prompts import PROMPTS, prompts
from sdteach.picturebook.imagining import HELD_OUT_SEED, describe_in_words
from sdteach.picturebook.judge import Judge, Seen, SeenThing, faults, load_judge
from sdteach.picturebook.scenes import draw, scene_from_seed
from sdteach.picturebook.world import HELD_OUT_PAIRS, RELATIONS, SMALL_WORLD, STYLES, WORLD

WORDS = frozenset(vocabulary(WORLD))
prompts = cache(prompts)  # the same words are asked for often


@pytest.mark.parametrize(("grammar", "digest"), [(WORLD, "ab2fe7383c8dee64"), (SMALL_WORLD, "e5e138befebf3501")], ids=["world", "small"])
def test_the_prompts_are_these(grammar, digest):
    """A changed prompt makes old numbers incomparable: change the digest only with a reason in RECIPE.md."""
    pinned = {kind: captions for kind, captions in prompts(frozenset(vocabulary(grammar))).items() if kind != "three_objects"}
    assert hashlib.sha256(json.dumps(pinned).encode()).hexdigest()[:16] == digest


def test_the_prompts_of_three_objects_are_these_and_for_those_who_know_them():
    captions = prompts(WORDS)["three_objects"]
    assert hashlib.sha256(json.dumps(captions).encode()).hexdigest()[:16] == "45290de77f069791"
    assert len({*captions}) == 40
    for request in map(read, captions):
        assert len(request.things) == 3
        assert all(thing.colour and (thing.colour, thing.name) not in HELD_OUT_PAIRS for thing in request.things)
    for words in (frozenset(vocabulary(SMALL_WORLD)), WORDS - {"crayon"}):
        assert "three_objects" not in prompts(words)


def test_the_prompts_ask_for_what_their_kind_says():
    asked = {kind: [read(prompt) for prompt in texts] for kind, texts in prompts(WORDS).items()}
    assert {kind: len(requests) for kind, requests in asked.items()} == PROMPTS
    pairs = {kind: [(thing.colour, thing.name) for request in requests for thing in request.things] for kind, requests in asked.items()}
    assert all(request.relation in RELATIONS and len(request.things) == 2 for request in asked["two_objects"])
    assert all(len(request.things) == 1 for kind in ("one_object", "held_out_pairs") for request in asked[kind])
    assert set(pairs["held_out_pairs"]) <= HELD_OUT_PAIRS
    assert not set(pairs["one_object"] + pairs["two_objects"]) & HELD_OUT_PAIRS
    assert all(len(set(texts)) == len(texts) for texts in prompts(WORDS).values())
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
def test_fractions_have_wilsons_interval(right, n, low, high):
    """Values from Wilson's formula as tabulated."""
    found = fraction([True] * right + [False] * (n - right))
    assert (found.value, found.count) == (right / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.low <= found.value <= found.high


def test_means_have_the_normal_interval():
    found = average([1.0, 2.0, 4.0, 5.0])
    half = 1.959964 * np.sqrt(10 / 3) / 2
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0 - half, 3.0 + half), rel=1e-5)
    assert math.isnan(average([]).value)
    assert average([]).count == fraction([]).count == 0
    assert math.isnan(fraction([]).value)


def test_retrieval_counts_the_nearest_caption(model):
    scenes = [scene_from_seed(seed, grammar=SMALL_WORLD) for seed in range(6)]
    images = [sdteach.image_features(model, Image.fromarray(scene.picture)).numpy() for scene in scenes]
    texts = [sdteach.encode_text(model, scene.caption).projected.numpy() for scene in scenes]
    unit = [np.stack([v / np.linalg.norm(v) for v in vectors]) for vectors in (images, texts)]
    nearest = (unit[0] @ unit[1].T).argmax(1)
    assert retrieved(model, scenes) == [scenes[i].caption == scenes[k].caption for i, k in enumerate(nearest)]


class Eyes(Judge):
    """A judge that sees the same in every picture."""

    def __init__(self, *things):
        super().__init__()
        self.seen = Seen(things, "paper", "flat")

    def look(self, _):
        return self.seen


def test_attention_overlap_is_intersection_over_union(model):
    prompt, everything = "a red car above a blue star", np.ones((128, 128), bool)
    trace = sdteach.generate(model, prompt, steps=1, collect=("attention",))
    mask = np.asarray(Image.fromarray(trace.heat_map("car")).resize((128, 128), Image.Resampling.BILINEAR)) > evaluation.HEAT
    for name, where, overlaps in (("car", mask, (1.0,)), ("car", everything, (pytest.approx(mask.mean()),)), ("boat", mask, ())):
        judge = Eyes(SeenThing(name, "red", (0.0, 0.0), where))
        (case,) = evaluation.paint(model, judge, [(0, "two_objects", prompt)], steps=1)
        assert case.overlaps == overlaps
        assert np.array_equal(case.pixels, trace.pixels)


def truth(scene):
    """What a judge without fault would see of a drawn scene."""
    things = (SeenThing(thing.name, thing.colour, tuple(np.argwhere(thing.mask).mean(0)[::-1]), thing.mask) for thing in scene.objects)
    return Seen(tuple(things), scene.place, scene.style)


@cache
def drawn(words=WORDS, bent=None):
    """What a painter who cannot err paints of the prompts: the scenes that they are the captions of. `bent` changes those of two
    objects, and then there are no others."""
    grammar, cases = known_grammar(words), []
    sources = {"one_object": (10_000, 1, grammar.taught()), "two_objects": (20_000, 2, grammar.taught()),
               "held_out_pairs": (30_000, 1, grammar.held_out()), "three_objects": (200_000, 3, WORLD.taught())}  # fmt: skip
    for kind, captions in prompts(words).items():
        if bent and kind != "two_objects":
            continue
        (start, objects, grammar), left = sources[kind], dict.fromkeys(captions)
        descriptions = describe_in_words(words, HELD_OUT_SEED + start, objects, grammar)
        while None in left.values():
            description = next(descriptions)
            if left.get(description.caption, description) is None:
                left[description.caption] = draw(bent(description) if bent else description)
        cases += [Painted(kind, caption, scene.picture, truth(scene), (0.5,)) for caption, scene in left.items()]
    return cases


def mirrored(description):
    """The first where the second was, and the other way round."""
    things = description.things
    centres = [thing.centre for thing in things][::-1]
    return replace(description, things=tuple(replace(thing, centre=centre) for thing, centre in zip(things, centres, strict=True)))


def recoloured(description):
    return replace(description, things=tuple(replace(t, colour="pink" if t.colour != "pink" else "black") for t in description.things))


def test_what_was_drawn_is_right_in_every_measure():
    found = measures_of_painted(drawn())
    kinds = [*PROMPTS, "relation", *(f"right_{style}" for style in STYLES)]
    assert {name: measure.value for name, measure in found.items()} == {**dict.fromkeys(kinds, 1.0), "attention_miou": 0.5}
    assert found["relation"].count == 80
    assert found["three_objects"].count == 40
    assert sum(found[f"right_{style}"].count for style in STYLES) == sum(PROMPTS.values())


def test_changed_places_are_wrong_in_the_relation_alone():
    cases = drawn(bent=mirrored)
    found = measures_of_painted(cases)
    assert found["relation"].value == found["two_objects"].value == 0
    assert found["relation"].count == 80
    assert all(case.faults == [f"the {case.request.things[0].name} is not {case.request.relation} the {case.request.things[1].name}"]
               for case in cases)  # fmt: skip


def test_wrong_colours_leave_the_relation_right():
    found = measures_of_painted(drawn(bent=recoloured))
    assert found["two_objects"].value == 0
    assert (found["relation"].value, found["relation"].count) == (1, 80)


def test_where_one_thing_is_missing_no_relation_is_counted():
    cases = [replace(case, seen=Seen(case.seen.things[:1], case.seen.place, case.seen.style)) for case in drawn()]
    found = measures_of_painted(cases)
    assert found["relation"].count == found["two_objects"].value == found["three_objects"].value == 0
    assert found["one_object"].value == found["held_out_pairs"].value == 1


def test_one_style_that_fails_is_seen_by_its_name():
    cases = [replace(case, seen=replace(case.seen, style="flat")) if case.request.style == "line" else case for case in drawn()]
    found = measures_of_painted(cases)
    assert {style: found[f"right_{style}"].value for style in STYLES} == {"flat": 1, "line": 0, "crayon": 1, "pixel": 1}


def test_a_checkpoint_of_one_style_is_not_measured_by_style():
    found = measures_of_painted(drawn(frozenset(vocabulary(SMALL_WORLD))))
    assert [*found] == ["one_object", "two_objects", "held_out_pairs", "attention_miou", "relation"]
    assert all(found[kind].value == 1 for kind in ("one_object", "two_objects", "held_out_pairs", "relation"))


def test_every_number_is_there_and_inside_its_interval(model):
    judge = load_judge()
    result = evaluate(model, judge, guidance_scale=2.5, scenes=4, most=1, scales=(4.0,))
    assert [*result.measures] == [*GOALS, "relation", "guidance_4"]
    assert result.left_out == ("three_objects", "styles")
    for name, measure in result.measures.items():
        assert measure.count == 0 or measure.low <= measure.value <= measure.high or math.isnan(measure.low), name
    kinds = ("one_object", "two_objects", "held_out_pairs")
    assert [case.kind for case in result.painted] == [*kinds]
    for kind in kinds:
        cases = [case for case in result.painted if case.kind == kind]
        assert result.measures[kind].value == np.mean([not case.faults for case in cases])
        assert result.measures[kind].count == len(cases)
    assert result.measures["judge_true"].count == result.measures["judge_shuffled"].count == 8
    prompt = result.painted[0].prompt  # the only one of two that is painted again, in fewer steps
    seen, measure = judge.look(sdteach.generate(model, prompt, guidance_scale=4.0, steps=20).pixels), result.measures["guidance_4"]
    assert (measure.value, measure.count) == (float(not faults(seen, read(prompt))), 1)


def test_a_checkpoint_without_an_image_tower_is_refused(random_model):
    with pytest.raises(ValueError, match="CLIP's image tower"):
        evaluate(random_model, load_judge())


def test_a_copy_is_what_the_vae_makes_of_it(model):
    picture = scene_from_seed(HELD_OUT_SEED + 55, grammar=SMALL_WORLD).picture
    given = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        made = model.vae.decode(model.vae.encode(given).latent_dist.mean).sample[0]
    expected = ((made.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).numpy()
    assert np.abs(evaluation.copied(model, picture) - expected).max() <= 1
