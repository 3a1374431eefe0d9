"""Attention against the truth: overlaps are those of the maps and masks, choices are made on other seeds than are reported."""

import json
from dataclasses import fields
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

import sdteach
from sdteach import records
from sdteach.model import fingerprint
from sdteach.picturebook.captions import known_grammar, read
from sdteach.picturebook.evaluation import HEAT, overlap, reading
from sdteach.picturebook.evaluation.measures import Measure
from sdteach.picturebook.evaluation.prompts import full_captions
from sdteach.picturebook.judge import Judge, Seen, SeenThing, load_judge
from sdteach.picturebook.world import COLOURS


@pytest.fixture(scope="module")
def shipped():
    return reading.shipped()


@pytest.fixture(scope="session")
def measured(model):
    """The whole measurement, of few scenes and prompts."""
    return reading.attention_truth(model, load_judge(), steps=12, drawn=2, timesteps=(1, 501), choosing=2, reporting=2, causal=2)


def test_what_the_lessons_quote_was_measured_on_the_shipped_weights(model, shipped):
    """After new weights: sdteach evaluate --attention --json > assets/attention.json"""
    assert shipped.unet == fingerprint(model.unet)
    assert len(shipped.layers) == len(shipped.drawn)
    assert shipped.drawn.shape[1] == len(reading.TIMESTEPS)
    assert {one.count for one in shipped.gone.values()} == {50}


def test_the_default_is_as_good_as_the_best_on_the_seeds_for_choosing(model, shipped):
    best = max(shipped.aggregations.values(), key=lambda way: way.chosen_on.value)
    chosen = shipped.aggregations[reading.CHOSEN]
    assert shipped.aggregations[shipped.best] == best
    assert chosen.chosen_on.value > best.chosen_on.value - 0.25 * (best.chosen_on.high - best.chosen_on.low)
    assert chosen.threshold == HEAT
    trace = sdteach.generate(model, "a red car below a yellow star", steps=7, collect=("attention",), height=72, width=104)
    for word in ("car", "below"):
        found = reading.aggregated(trace, trace.tokens.places(word), *reading.AGGREGATIONS[reading.CHOSEN])
        np.testing.assert_array_equal(found, trace.heat_map(word))


def test_the_best_way_beats_daams_on_seeds_it_was_not_chosen_on(shipped):
    ours, theirs = shipped.aggregations[reading.CHOSEN].reported, shipped.aggregations[reading.DAAM].reported
    assert ours.count == theirs.count > 50
    assert ours.value > theirs.value


def test_daams_way_is_daams(model):
    """Tang et al., 2023, equation 5: the sum of bicubically enlarged maps over layers and steps, here of one word of one piece."""
    trace = sdteach.generate(model, "a red car", steps=3, collect=("attention",))
    total = np.zeros((16, 16))
    for step in trace.steps:
        for maps in step.attention.values():
            total += np.asarray(Image.fromarray(maps[3].astype(np.float32)).resize((16, 16), Image.Resampling.BICUBIC))
    found = reading.aggregated(trace, trace.tokens.places("car"), *reading.AGGREGATIONS[reading.DAAM])
    np.testing.assert_allclose(found, (total - total.min()) / (total.max() - total.min()), atol=1e-5)


def test_overlap_is_intersection_over_union():
    heat = np.zeros((4, 4), np.float32)
    heat[:2] = 1
    mask = np.zeros((4, 4), bool)
    mask[:, :2] = True
    assert overlap(heat, mask, 0.5) == pytest.approx(4 / 12)
    assert overlap(heat, heat > 0, 0.5) == 1
    assert overlap(heat, heat == 0, 0.5) == 0


def test_the_threshold_is_chosen_on_some_seeds_and_scored_on_others():
    low, high = [0.9, *[0.1] * 8], [0.2, *[0.1] * 7, 0.8]
    choosing = {way: [low, low] for way in (*reading.AGGREGATIONS, "a layer")}
    reporting = {way: [high, high, high] for way in choosing}
    ways, layers = reading.choose(choosing, reporting)
    assert [*layers] == ["a layer"]
    assert {*ways} == {*reading.AGGREGATIONS}
    for one in (*ways.values(), *layers.values()):
        assert one.threshold == reading.THRESHOLDS[0]
        assert one.chosen_on.value == pytest.approx(0.9)
        assert (one.reported.value, one.reported.count) == (pytest.approx(0.2), 3)


def test_where_nothing_was_found_nothing_can_be_chosen():
    with pytest.raises(ValueError, match="found none"):
        reading.choose({}, {})


def test_a_steps_heat_is_that_of_its_maps_by_area(model):
    text = sdteach.encode_text(model, "a red car")
    step = sdteach.unet_step(model, torch.randn(1, 4, 9, 13), 300, text, guidance_scale=1.0)
    places, total = text.tokens.places("car"), np.zeros((9, 13))
    for maps in step.attention.values():
        shares = (maps / maps[1 : text.tokens.end + 1].sum(0))[list(places)].mean(0).numpy()
        total += shares.size * np.asarray(Image.fromarray(shares).resize((13, 9), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(reading.heat_of(step, text.tokens, "car"), (total - total.min()) / np.ptp(total), atol=1e-4)


@pytest.mark.parametrize(
    ("caption", "other", "expected"),
    [
        ("a big red car in the snow", "blue", "a big blue car in the snow"),
        ("a red car", "orange", "an orange car"),
        ("an orange car in the snow", "red", "a red car in the snow"),
        ("in the snow, a grey car", "pink", "in the snow, a pink car"),
    ],
)
def test_a_colour_is_swapped_word_for_word(model, caption, other, expected):
    found = reading.with_colour(caption, other)
    assert found == expected
    assert read(found).things[0].colour == other
    ends = [sdteach.tokenize(model, text).end for text in (caption, found)]
    assert ends[0] == ends[1]


class Eyes(Judge):
    """A judge that sees what it is told to, picture by picture."""

    def __init__(self, *seen):
        super().__init__()
        self.seen = [*seen]

    def look(self, _):
        return self.seen.pop(0)


def test_an_intervention_says_what_became_of_a_thing(model):
    """Of the second prompt: the first one's thing is not there."""
    mask = np.zeros((128, 128), bool)
    mask[32:64, 32:64] = True
    _, caption = islice(full_captions(model.vocabulary, 80_000, 1, known_grammar(model.vocabulary)), 2)
    (wanted,), nothing = read(caption).things, Seen((), "snow", "flat")
    colours = [*COLOURS]
    other = colours[(colours.index(wanted.colour) + 2) % len(colours)]

    def still(colour=wanted.colour, by=0):
        return Seen((SeenThing(wanted.name, colour, (48.0, 48.0), np.roll(mask, by, 1)),), "snow", "flat")

    judge = Eyes(nothing, still(), still(), nothing, still(), still(other, 16), nothing)
    gone, overlaps, recoloured = reading.interventions(model, judge, 7.5, model.vocabulary, 1, 1)
    assert gone == {"word": [False], "word and later": [True], "control": [False]}
    assert overlaps == {"kept": [pytest.approx(1 / 3)], "free": [0.0]}
    assert recoloured == {"kept": [True], "free": [False]}


def test_the_whole_measurement_runs_and_is_told_as_plain_numbers(measured):
    assert measured.layers[-1] == "all layers, by area"
    assert measured.drawn.shape == (11, 2)
    assert measured.drawn_things >= 2
    assert {*measured.aggregations} == {*reading.AGGREGATIONS}
    assert {one.count for one in (*measured.gone.values(), *measured.kept.values(), *measured.recoloured.values())} == {2}
    plain = reading.as_plain(measured)
    again = reading.from_json(json.dumps(plain))
    np.testing.assert_allclose(again.drawn, measured.drawn, atol=1e-4)
    assert {*plain} == {field.name for field in fields(measured)}
    hidden = measured.gone["word"]
    assert again.gone["word"] == Measure(*(round(value, 4) for value in (hidden.value, hidden.low, hidden.high)), 2)
    assert json.dumps(reading.as_plain(again)) == json.dumps(plain)  # as text, since NaN, of a mean of one, equals nothing


def test_the_same_measurement_again_gives_the_same_numbers(model):
    first, second = (reading.painted_overlaps(model, load_judge(), 7.5, ("a red car in the snow",), 3, steps=10) for _ in range(2))
    assert first == second


def test_raw_and_renormalised_are_told_apart():
    maps = np.random.default_rng(0).random((6, 3, 4), np.float32)
    shares = records.over_text(maps)
    np.testing.assert_allclose(shares[1:-1], maps[1:-1] / maps[1:-1].sum(0), rtol=1e-5)
    assert not shares[[0, -1]].any()
