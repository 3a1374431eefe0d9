"""The measures of the other tasks: what they compare, and that better is better."""

import numpy as np
import pytest
from PIL import Image

import sdteach
from sdteach.picturebook.captions import read
from sdteach.picturebook.evaluation import other_tasks, psnr
from sdteach.picturebook.judge import Judge, Seen, SeenThing, load_judge
from sdteach.picturebook.world import HELD_OUT_PAIRS, RELATIONS


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def test_the_scenes_are_held_out_and_in_the_checkpoints_words(model):
    scenes = other_tasks.scenes_for(model, 7)
    assert len({scene.caption for scene in scenes}) > 1
    assert all({*scene.caption.replace(",", "").split()} <= model.vocabulary for scene in scenes)


def test_shrinking_takes_the_mean_of_each_square(model):
    scene = other_tasks.scenes_for(model, 1)[0]
    wanted = scene.picture.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(other_tasks.shrunk(scene), float) - wanted).max() <= 0.5 + 1e-9


def test_enlarging_is_scored_against_the_drawn_scene(model):
    scenes = other_tasks.scenes_for(model, 2)
    measures = other_tasks.enlarging_truth(model, scenes)
    shown = [other_tasks.enlarged(model, scene, seed) for seed, scene in enumerate(scenes)]
    for way, measure in measures.items():
        assert measure.value == pytest.approx(np.mean([psnr(s.picture, np.asarray(p[way])) for s, p in zip(scenes, shown, strict=True)]))
    small = other_tasks.shrunk(scenes[0]).resize((128, 128), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(shown[0]["bicubic"]), np.asarray(small))
    assert measures["bicubic"].value < measures["loop, pixels put back"].value
    assert measures["loop"].value < measures["ceiling"].value


@pytest.mark.parametrize("objects", [1, 2])
def test_layouts_have_a_box_for_each_thing_that_fits_the_caption(model, objects):
    for layout in other_tasks.layouts(model, 12, objects):
        request = read(layout.caption)
        assert [*layout.boxes] == [thing.name for thing in request.things]
        assert all((thing.colour, thing.name) not in HELD_OUT_PAIRS for thing in request.things)
        assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in layout.boxes.values())
        if objects == 2:
            first, second = (np.add(box[:2], box[2:]) / 2 for box in layout.boxes.values())
            along = (first - second) @ np.array(RELATIONS[request.relation])
            assert along == pytest.approx(0.48)


def seen(left, top, right, bottom):
    mask = np.zeros((128, 128), bool)
    mask[top:bottom, left:right] = True
    mask[top + 1 : bottom - 1, left + 1 : right - 1] = False  # a ring: the box around it counts
    return Seen((SeenThing("car", "red", (0.0, 0.0), mask),), "paper", "flat")


@pytest.mark.parametrize(("thing", "wanted"), [
    ((32, 64, 64, 96), 1.0), ((32, 64, 48, 96), 0.5), ((48, 64, 80, 96), 1 / 3), ((96, 0, 128, 32), 0.0),
])  # fmt: skip
def test_the_overlap_is_that_of_two_boxes(thing, wanted):
    assert other_tasks.in_box(seen(*thing), "car", (0.25, 0.5, 0.5, 0.75)) == pytest.approx(wanted)
    assert other_tasks.in_box(seen(*thing), "boat", (0.25, 0.5, 0.5, 0.75)) == 0.0


def test_the_layout_leads_and_without_it_the_run_is_free(model, judge):
    cases, shown = other_tasks.layouts(model, 5, 1), []

    class Noting(Judge):
        def look(self, picture):
            shown.append(picture)
            return judge.look(picture)

    measures = other_tasks.layout_truth(model, Noting(), cases, steps=15)
    assert len(shown) == 10
    assert np.array_equal(shown[6], sdteach.generate(model, cases[3].caption, steps=15, seed=3, collect=()).pixels)
    assert not np.array_equal(shown[6], shown[7])
    assert measures["free"]["overlap"].count == measures["led"]["found"].count == 5
    assert measures["led"]["overlap"].value > measures["free"]["overlap"].value + 0.1
