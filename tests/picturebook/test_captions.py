"""Captions: what is said is read back whole, and nothing else is read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdteach.picturebook.captions import Request, RequestedThing, read, say, vocabulary
from sdteach.picturebook.imagining import describe
from sdteach.picturebook.world import COLOURS, OBJECTS, PLACES, RELATIONS, SIZES, SMALL_WORLD, STYLES, WORLD

things = st.builds(
    RequestedThing, st.sampled_from(OBJECTS), st.none() | st.sampled_from(list(COLOURS)), st.none() | st.sampled_from(list(SIZES))
)
places, styles = st.none() | st.sampled_from(PLACES), st.none() | st.sampled_from(STYLES)
requests = st.one_of(
    st.builds(Request, st.tuples(things), st.none(), places, styles),
    st.builds(Request, st.tuples(things, things), st.sampled_from([*RELATIONS, "and"]), places, styles),
    st.builds(Request, st.tuples(things, things, things), st.just("and"), places, styles),
)


@settings(max_examples=500)
@given(requests, st.integers(0, 2**32))
def test_what_is_said_is_read_back(request_, seed):
    assert read(say(np.random.default_rng(seed), request_)) == request_


@settings(max_examples=300)
@given(st.integers(0, 2**40), st.sampled_from([WORLD, SMALL_WORLD]))
def test_a_caption_says_nothing_but_the_truth(seed, grammar):
    scene = describe(seed, grammar=grammar)
    said = read(scene.caption)
    assert [thing.name for thing in said.things] == [thing.name for thing in scene.things]
    for word, thing in zip(said.things, scene.things, strict=True):
        assert word.colour in (None, thing.colour)
        assert word.size in (None, thing.size)
    assert said.relation == scene.relation
    assert said.place in (None, scene.place)
    assert said.style == scene.style or (said.style is None and scene.style == "flat")
    assert set(scene.caption.replace(",", "").split()) <= set(vocabulary(grammar))


def test_captions_are_english():
    rng = np.random.default_rng(0)
    one, other = RequestedThing("apple", None, None), RequestedThing("umbrella", "orange", "big")
    said = {say(rng, Request((one, other), "below", "night", "line")) for _ in range(2000)}
    assert "a line drawing of an apple below a big orange umbrella at night" in said
    assert any(caption.startswith("under the stars, a line drawing of an apple ") for caption in said)
    assert any(" an apple beneath a huge orange umbrella" in caption for caption in said)
    three = say(rng, Request((one, RequestedThing("tree", "red"), RequestedThing("sun", "blue")), "and"))
    assert three == "an apple, a red tree and a blue sun"


@pytest.mark.parametrize("caption", ["a zebra", "", "red car", "a red car and", "a red red car", "the car", "a car above a tree and a hat",
                                     "at night, a car in the snow", "a car, a tree, a hat and a key", "a red car\na blue car"])  # fmt: skip
def test_another_sentence_is_refused(caption):
    with pytest.raises(ValueError, match="expected a caption of the picture book") as refusal:
        read(caption)
    assert repr(caption) in str(refusal.value)


def test_capitals_and_spaces_do_not_matter():
    assert read("  A  Red CAR, at night ") == Request((RequestedThing("car", "red"),), None, "night")


def test_a_smaller_world_has_fewer_words():
    few, all_ = set(vocabulary(SMALL_WORLD)), set(vocabulary(WORLD))
    assert few < all_
    assert {"car", "automobile", "grey", "underwater", "beneath"} <= few
    assert not {"kitten", "crayon", "medium"} & few
