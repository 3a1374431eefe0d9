"""The judge: finds what was drawn, names every fault, and cannot be talked into a thing that is not there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sdteach.picturebook.captions import Request, RequestedThing, read
from sdteach.picturebook.imagining import HELD_OUT_SEED, Description, Thing
from sdteach.picturebook.judge import (
    NAMES,
    Judge,
    Seen,
    SeenThing,
    change_on_grid,
    cut_out,
    faults,
    load_judge,
    matched,
    relation_right,
)
from sdteach.picturebook.objects import BLOT
from sdteach.picturebook.scenes import draw, scene_from_seed
from sdteach.picturebook.world import OBJECTS, SMALL_WORLD, STYLES, WORLD


@pytest.fixture(scope="module")
def judge():
    return load_judge()


def seen(*things, place="paper", style="flat"):
    return Seen(tuple(SeenThing(name, colour, centre, np.ones((2, 2), bool)) for name, colour, centre in things), place, style)


CAR, STAR = ("car", "red", (64.0, 96.0)), ("star", "yellow", (60.0, 30.0))


@pytest.mark.parametrize("caption", ["a red car", "a car", "a red automobile on white paper", "a picture of a red car"])
def test_what_was_asked_for_has_no_fault(caption):
    assert faults(seen(CAR), read(caption)) == []


@pytest.mark.parametrize(
    ("things", "caption", "expected"),
    [
        ([CAR], "a blue car", ["no blue car", "an extra red car"]),
        ([CAR], "a red boat", ["no red boat", "an extra red car"]),
        ([], "a red car", ["no red car"]),
        ([CAR, CAR], "a red car", ["an extra red car"]),
        ([CAR, STAR], "a red car", ["an extra yellow star"]),
        ([CAR, (BLOT, "pink", (1.0, 1.0))], "a red car", ["something pink that is no object"]),
        ([CAR, STAR], "a red car above a yellow star", ["the car is not above the star"]),
        ([CAR, STAR], "a red car left of a yellow star", ["the car is not left of the star"]),
        ([CAR, STAR], "a red car below a yellow star", []),
        ([STAR, CAR], "a red car below a yellow star", []),
        ([CAR, STAR], "a yellow star and a red car", []),
        ([CAR, STAR], "a yellow star over a red car", []),
        ([CAR], "a red car at night", ["the place is paper, not night"]),
        ([CAR], "pixel art of a red car", ["the style is flat, not pixel"]),
    ],
)
def test_every_fault_is_named(things, caption, expected):
    assert faults(seen(*things), read(caption)) == expected


@pytest.mark.parametrize(
    ("direction", "centre"), [("left of", (20.0, 60.0)), ("right of", (100.0, 60.0)), ("above", (60.0, 20.0)), ("below", (60.0, 100.0))]
)
def test_a_relation_is_where_the_first_is_seen_from_the_second(direction, centre):
    picture = seen(("car", "red", centre), ("star", "yellow", (60.0, 62.0)))
    for asked in ("left of", "right of", "above", "below"):
        request = Request((RequestedThing("car"), RequestedThing("star")), asked)
        assert bool(faults(picture, request)) == (asked != direction)
        assert relation_right(picture, request) == (asked == direction)


@pytest.mark.parametrize("caption", ["a red car and a yellow star", "a car", "a blue car above a star", "a car above a boat"])
def test_where_no_direction_is_asked_or_a_thing_is_missing_no_relation_is_judged(caption):
    assert relation_right(seen(CAR, STAR), read(caption)) is None


def test_for_each_thing_that_is_asked_for_one_is_found():
    red, blue, star = (SeenThing(*thing, np.ones((2, 2), bool)) for thing in (CAR, ("car", "blue", (1.0, 1.0)), STAR))
    picture = Seen((red, blue, star), "paper", "flat")
    assert matched(picture, read("a car, a red car and a hat")) == (blue, red, None)
    assert matched(picture, read("a blue car above a car")) == (blue, red)


def test_of_two_alike_the_one_in_the_right_colour_is_taken():
    picture = seen(("car", "blue", (20.0, 60.0)), ("car", "red", (100.0, 60.0)))
    assert faults(picture, read("a red car right of a blue car")) == []
    assert faults(picture, read("a car left of a red car")) == []
    assert faults(picture, read("a car right of a red car")) == ["the car is not right of the car"]


def test_it_sees_what_was_drawn(judge):
    """Masks and centres against the truth, over all styles and places."""
    overlaps = []
    for seed in range(HELD_OUT_SEED + 500, HELD_OUT_SEED + 540):
        scene = scene_from_seed(seed)
        found = judge.look(scene.picture)
        for thing in scene.objects:
            overlaps.append(max(((thing.mask & other.mask).sum() / (thing.mask | other.mask).sum() for other in found.things), default=0))
    assert np.median(overlaps) > 0.85
    assert np.mean(overlaps) > 0.75


@pytest.mark.parametrize("grammar", [WORLD, SMALL_WORLD], ids=["world", "small"])
def test_it_is_right_about_drawn_scenes_and_not_fooled(judge, grammar):
    scenes = [scene_from_seed(HELD_OUT_SEED + 1000 + index, grammar=grammar) for index in range(100)]
    looked, requests = [judge.look(scene.picture) for scene in scenes], [read(scene.caption) for scene in scenes]
    assert np.mean([not faults(found, request) for found, request in zip(looked, requests, strict=True)]) >= 0.94
    assert np.mean([not faults(found, request) for found, request in zip(looked, requests[1:] + requests[:1], strict=True)]) <= 0.05


def test_it_takes_no_blot_for_an_object(judge):
    named = []
    for seed in range(30):
        thing = Thing(BLOT, "blue", "big", (64.0, 64.0), 27.0, 0.0)
        named += [found.name for found in judge.look(draw(Description((thing,), "paper", "flat", None, "", seed)).picture).things]
    assert np.mean([name in OBJECTS for name in named]) < 0.3


@pytest.mark.parametrize("fill", [0, 127, 255])
def test_an_empty_page_shows_nothing(judge, fill):
    assert faults(judge.look(np.full((128, 128, 3), fill, np.uint8)), read("a red car"))[0] == "no red car"


def test_noise_shows_nothing_that_was_asked_for(judge):
    rng = np.random.default_rng(0)
    for _ in range(10):
        picture = np.asarray(Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize((128, 128)))
        assert faults(judge.look(picture), read("a red car"))


def test_other_sizes_are_looked_at_too(judge):
    found = judge.look(scene_from_seed(HELD_OUT_SEED, 96, objects=1, grammar=SMALL_WORLD).picture)
    assert [thing.mask.shape for thing in found.things] == [(96, 96)]


def test_pixel_art_changes_on_its_grid_alone():
    for seed in range(5):
        shares = {style: change_on_grid(scene_from_seed(seed, grammar=replace(WORLD, styles=(style,))).picture) for style in STYLES}
        assert shares.pop("pixel") == 1
        assert all(share == pytest.approx(1 / 3, abs=0.1) for share in shares.values())
    assert change_on_grid(np.zeros((16, 16, 3), np.uint8)) == 0


@pytest.mark.parametrize("shape", [(100, 128, 3), (128, 72, 3)])
def test_a_picture_of_another_grid_is_refused(judge, shape):
    with pytest.raises(ValueError, match="multiples of 16"):
        judge.look(np.zeros(shape, np.uint8))


def test_a_thing_is_cut_out_whole_and_square():
    picture, mask = np.zeros((128, 128, 3), np.uint8), np.zeros((128, 128), bool)
    picture[0:20, 90:128] = 255
    mask[0:20, 90:128] = True
    cut = cut_out(picture, mask)
    assert cut.shape == (40, 40, 3)
    assert cut.max() == 255
    assert cut[0, 0, 0] == 127  # beyond the picture
    assert 0.3 < (cut == 255).mean() < 0.6


def test_looking_changes_nothing():
    torch.manual_seed(0)
    picture = scene_from_seed(2).picture
    before = picture.copy()
    Judge().eval().look(picture)
    assert np.array_equal(picture, before)
    assert len(NAMES) == len(OBJECTS) + 1
