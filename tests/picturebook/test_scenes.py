"""Drawn truth: masks against pixels, boxes against masks, captions against positions, and the same seed the same scene."""

import dataclasses
import inspect
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdteach.picturebook import scenes
from sdteach.picturebook.scenes import COLOURS, OBJECTS, PLACES, RELATIONS, describe, draw, scene_from_seed, vocabulary

seeds = st.integers(0, 2**32)


def test_a_scene_is_fixed_by_its_seed():
    first, again, other = scene_from_seed(11), scene_from_seed(11), scene_from_seed(12)
    assert np.array_equal(first.picture, again.picture)
    assert first.caption == again.caption
    assert not np.array_equal(first.picture, other.picture)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([64, 128, 97]))
def test_a_mask_is_where_the_object_changed_the_picture(seed, canvas):
    """Take the objects away and draw again: inside each mask the picture changed, and no two masks meet."""
    description = describe(seed, canvas)
    scene = draw(description)
    assert scene.picture.shape == (canvas, canvas, 3)
    for index, thing in enumerate(scene.objects):
        background = draw(dataclasses.replace(description, things=()))
        others = np.any([np.zeros_like(thing.mask), *(other.mask for other in scene.objects if other is not thing)], axis=0)
        changed = (scene.picture != background.picture).any(-1)
        assert not (thing.mask & others).any(), f"object {index} overlaps another"
        assert changed[thing.mask].mean() > 0.97


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_pixels_outside_all_masks_are_the_place(seed):
    description = describe(seed)
    scene, place = draw(description), draw(dataclasses.replace(description, things=()))
    far = ~np.any([thing.mask for thing in scene.objects], axis=0)
    for axis in (0, 1):
        far &= np.roll(far, 1, axis) & np.roll(far, -1, axis)
    assert np.array_equal(scene.picture[far], place.picture[far])


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([64, 128]))
def test_boxes_hold_their_masks_and_stay_inside(seed, canvas):
    for thing in scene_from_seed(seed, canvas).objects:
        left, top, right, bottom = thing.box
        assert 0 <= left < right <= canvas
        assert 0 <= top < bottom <= canvas
        assert thing.mask[top:bottom, left:right].sum() == thing.mask.sum() > 60
        assert thing.mask[top].any()
        assert thing.mask[bottom - 1].any()
        assert thing.mask[:, left].any()
        assert thing.mask[:, right - 1].any()


@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from([64, 128]))
def test_the_relation_holds_between_the_boxes(seed, canvas):
    scene = scene_from_seed(seed, canvas, objects=2)
    (left, top, right, bottom), (left2, top2, right2, bottom2) = (thing.box for thing in scene.objects)
    holds = {"left of": right <= left2, "right of": left >= right2, "above": bottom <= top2, "below": top >= bottom2}
    assert any(holds.values())
    if scene.relation != "and":
        assert holds[scene.relation]


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_the_caption_names_the_objects_in_order_and_only_known_words(seed):
    scene = scene_from_seed(seed)
    words = scene.caption.split()
    assert set(words) <= set(vocabulary())
    assert [word for word in words if word in OBJECTS] == [thing.name for thing in scene.objects]
    said = [word for word in words if word in COLOURS and words[words.index(word) - 1 :][:2] != ["on", "white"]]
    drawn = [thing.colour for thing in scene.objects]
    assert all(colour in drawn for colour in said)
    for word, following in pairwise(words):
        if word in {"a", "an"}:
            assert (word == "an") == (following[0] in "aeiou")
    if len(scene.objects) == 2:
        assert f" {scene.relation} " in scene.caption


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_wears_its_own_colour(name):
    """Counted by pixels: no other named colour covers as much of the mask as its own, the ink of lines and wheels apart."""
    for seed, colour in enumerate(COLOURS):
        rivals = {named: rgb for named, rgb in COLOURS.items() if named in (colour, *(COLOURS.keys() - {"black"}))}
        thing = scenes.Thing(name, colour, "big", (64.0, 64.0), 28.0, 0.0)
        scene = draw(scenes.Description((thing,), "white", None, "", seed))
        pixels = scene.picture[scene.objects[0].mask].astype(int)
        share = {named: (np.abs(pixels - rgb).max(1) <= 8).mean() for named, rgb in rivals.items()}
        assert max(share, key=share.get) == colour
        assert share[colour] > 0.15


def test_the_world_is_all_there():
    drawn = [scene_from_seed(seed) for seed in range(400)]
    assert {thing.name for scene in drawn for thing in scene.objects} == set(OBJECTS)
    assert {thing.colour for scene in drawn for thing in scene.objects} == set(COLOURS)
    assert {scene.place for scene in drawn} == set(PLACES)
    assert {scene.relation for scene in drawn} == {*RELATIONS, "and", None}
    assert {thing.size for scene in drawn for thing in scene.objects} == set(scenes.SIZES)


@pytest.mark.parametrize(("canvas", "objects"), [(63, None), (0, 1), (128, 3), (128, 0)])
def test_what_cannot_be_drawn_is_refused(canvas, objects):
    with pytest.raises(ValueError, match="expected a canvas"):
        inspect.unwrap(describe)(1, canvas, objects)
