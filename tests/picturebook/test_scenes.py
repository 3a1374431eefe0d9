"""Drawn truth: masks against pixels, boxes against masks, captions against positions, and the same seed the same scene."""

import dataclasses
import inspect

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdteach.picturebook.imagining import Description, Thing, describe
from sdteach.picturebook.scenes import box_of, draw, scene_from_seed, scene_to_scale
from sdteach.picturebook.world import COLOURS, HELD_OUT_PAIRS, OBJECTS, PLACES, RELATIONS, SIZES, SMALL_WORLD, STYLES, WORLD

FLAT = dataclasses.replace(WORLD, styles=("flat",))
seeds = st.integers(0, 2**32)


def test_a_scene_is_fixed_by_its_seed():
    first, again, other = scene_from_seed(11), scene_from_seed(11), scene_from_seed(12)
    assert np.array_equal(first.picture, again.picture)
    assert first.caption == again.caption
    assert not np.array_equal(first.picture, other.picture)


@pytest.mark.parametrize("edge", [40, 128, 320])
def test_a_scene_to_scale_is_the_same_scene_larger_or_smaller(edge):
    scene, scaled = scene_from_seed(5), scene_to_scale(5, edge)
    assert scaled.picture.shape == (edge, edge, 3)
    assert (scaled.caption, scaled.place) == (scene.caption, scene.place)
    assert np.array_equal(scaled.picture, scene.picture) == (edge == 128)
    for thing, other in zip(scene.objects, scaled.objects, strict=True):
        assert np.array(box_of(other.mask)) == pytest.approx(np.array(box_of(thing.mask)) * edge / 128, abs=2 + edge / 64)


@settings(max_examples=40)
@given(seeds, st.sampled_from([64, 128, 97]))
def test_a_mask_is_where_the_object_changed_the_picture(seed, canvas):
    """Take the objects away and draw again: inside each mask the picture changed, and no two masks meet."""
    description = describe(seed, canvas, grammar=FLAT)
    scene, background = draw(description), draw(dataclasses.replace(description, things=()))
    assert scene.picture.shape == (canvas, canvas, 3)
    for index, thing in enumerate(scene.objects):
        others = np.any([np.zeros_like(thing.mask), *(other.mask for other in scene.objects if other is not thing)], axis=0)
        changed = (scene.picture != background.picture).any(-1)
        assert not (thing.mask & others).any(), f"object {index} overlaps another"
        assert changed[thing.mask].mean() > 0.97


@settings(max_examples=60)
@given(seeds)
def test_pixels_outside_all_masks_are_the_place(seed):
    description = describe(seed, grammar=FLAT)
    scene, place = draw(description), draw(dataclasses.replace(description, things=()))
    far = ~np.any([thing.mask for thing in scene.objects], axis=0)
    for axis in (0, 1):
        far &= np.roll(far, 1, axis) & np.roll(far, -1, axis)
    assert np.array_equal(scene.picture[far], place.picture[far])


@settings(max_examples=60)
@given(seeds, st.sampled_from([64, 128]))
def test_boxes_hold_their_masks_and_stay_inside(seed, canvas):
    for thing in scene_from_seed(seed, canvas).objects:
        left, top, right, bottom = box_of(thing.mask)
        assert 0 <= left < right <= canvas
        assert 0 <= top < bottom <= canvas
        assert thing.mask[top:bottom, left:right].sum() == thing.mask.sum() > 60
        assert thing.mask[top].any()
        assert thing.mask[bottom - 1].any()
        assert thing.mask[:, left].any()
        assert thing.mask[:, right - 1].any()


@settings(max_examples=100)
@given(seeds, st.sampled_from([64, 128]))
@example(999_999, 128)
@example(4_342_611, 64)
def test_the_relation_holds_between_the_boxes(seed, canvas):
    scene = scene_from_seed(seed, canvas, objects=2)
    rim = {"crayon": 2, "line": 1}.get(scene.style, 0)  # pixels, by which a child's hand, and a pen, may go beyond
    (left, top, right, bottom), (left2, top2, right2, bottom2) = (box_of(thing.mask) for thing in scene.objects)
    holds = {"left of": right <= left2 + rim, "right of": left >= right2 - rim,
             "above": bottom <= top2 + rim, "below": top >= bottom2 - rim}  # fmt: skip
    assert any(holds.values())
    if scene.relation != "and":
        assert holds[scene.relation]


@settings(max_examples=40)
@given(seeds, st.sampled_from([style for style in STYLES if style != "flat"]))
def test_a_style_keeps_the_truth(seed, style):
    """The same seed in another style: the same things at the same places, their masks the flat ones give or take a rim."""
    flat = describe(seed, grammar=FLAT)
    plain, styled = draw(flat), draw(dataclasses.replace(flat, style=style))
    assert not np.array_equal(plain.picture, styled.picture)
    for thing, other in zip(plain.objects, styled.objects, strict=True):
        assert (thing.mask & other.mask).sum() / (thing.mask | other.mask).sum() > 0.6


@pytest.mark.parametrize("edge", [128, 97, 64])
def test_pixel_art_is_made_of_squares(edge):
    picture = draw(dataclasses.replace(describe(5, edge, grammar=FLAT), style="pixel")).picture
    assert picture.shape == (edge, edge, 3)
    for axis in (0, 1):
        for offset in (1, 2):
            inside = np.arange(0, edge - 2, 3)
            assert np.array_equal(picture.take(inside, axis), picture.take(inside + offset, axis))


def test_a_line_drawing_is_paler_than_paint_and_wax_lets_paper_through():
    flat = describe(4, grammar=dataclasses.replace(FLAT, places=("night",)))
    means = {style: draw(dataclasses.replace(flat, style=style)).picture.mean() for style in STYLES}
    assert means["line"] > means["crayon"] > means["flat"]


@pytest.mark.parametrize("name", OBJECTS)
def test_no_two_of_an_object_are_the_same(name):
    thing = Thing(name, "blue", "big", (64.0, 64.0), 28.0, 0.0)
    drawn = {draw(Description((thing,), "paper", "flat", None, "", seed)).picture.tobytes() for seed in range(6)}
    assert len(drawn) >= 2


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_wears_its_own_colour(name):
    """Counted by pixels: no other named colour covers as much of the mask as its own, the ink of lines and wheels apart."""
    for seed, colour in enumerate(COLOURS):
        rivals = {named: rgb for named, rgb in COLOURS.items() if named in (colour, *(COLOURS.keys() - {"black"}))}
        thing = Thing(name, colour, "big", (64.0, 64.0), 28.0, 0.0)
        scene = draw(Description((thing,), "paper", "flat", None, "", seed))
        pixels = scene.picture[scene.objects[0].mask].astype(int)
        share = {named: (np.abs(pixels - rgb).max(1) <= 8).mean() for named, rgb in rivals.items()}
        assert max(share, key=share.get) == colour
        assert share[colour] > 0.1


def test_the_world_is_all_there():
    drawn = [describe(seed) for seed in range(3000)]
    assert {(thing.colour, thing.name) for scene in drawn for thing in scene.things} == WORLD.pairs
    assert {scene.place for scene in drawn} == set(PLACES)
    assert {scene.style for scene in drawn} == set(STYLES)
    assert {scene.relation for scene in drawn} == {*RELATIONS, "and", None}
    assert {thing.size for scene in drawn for thing in scene.things} == set(SIZES)
    assert {len(scene.things) for scene in drawn} == {1, 2, 3}


@pytest.mark.parametrize("grammar", [WORLD, SMALL_WORLD], ids=["world", "small"])
def test_one_pair_in_twenty_is_held_out(grammar):
    assert len(grammar.held_out().pairs) / len(grammar.pairs) == pytest.approx(0.05, abs=0.005)
    taught = [describe(seed, grammar=grammar.taught()) for seed in range(500)]
    assert not {(thing.colour, thing.name) for scene in taught for thing in scene.things} & HELD_OUT_PAIRS
    held_out = [describe(seed, objects=1, grammar=grammar.held_out()) for seed in range(200)]
    assert {(thing.colour, thing.name) for scene in held_out for thing in scene.things} == grammar.held_out().pairs
    # Every word of a held-out pair is taught with others.
    assert {colour for colour, _ in HELD_OUT_PAIRS} <= {colour for colour, _ in grammar.taught().pairs}
    assert grammar.taught().objects == grammar.objects


def test_a_smaller_world_holds_nothing_else():
    for seed in range(300):
        description = describe(seed, grammar=SMALL_WORLD)
        assert description.style == "flat"
        assert len(description.things) <= 2
        assert {(thing.colour, thing.name) for thing in description.things} <= SMALL_WORLD.pairs


@pytest.mark.parametrize(("canvas", "objects"), [(63, None), (0, 1), (128, 4), (64, 3), (128, 0), (128, -1)])
def test_what_cannot_be_drawn_is_refused(canvas, objects):
    with pytest.raises(ValueError, match="expected a canvas"):
        inspect.unwrap(describe)(1, canvas, objects)
