"""Sizes of known checkpoints: published counts of parameters, and what their small twins have."""

import pytest

from sdteach.classroom.sizes import sizes
from sdteach.files import data_folder


@pytest.mark.parametrize(("family", "latents", "width", "places", "predicts", "unet"), [
    ("sd-1", (4, 64, 64), 768, 16, "epsilon", 859_520_964), ("sd-2", (4, 96, 96), 1024, 16, "v_prediction", 865_910_724),
    ("sd-turbo", (4, 64, 64), 1024, 16, "epsilon", 865_910_724), ("sdxl", (4, 128, 128), 2048, 70, "epsilon", 2_567_463_684),
])  # fmt: skip
def test_sizes_are_those_that_were_published(family, latents, width, places, predicts, unet):
    found = sizes(family)
    assert (found.latents, found.text_width, found.places, found.predicts) == (latents, width, places, predicts)
    assert found.parameters["unet"] == unet
    assert found.parameters["vae"] == 83_653_863
    assert found.parameters["text_encoder"] == (340_387_840 if width == 1024 else 123_060_480)
    assert sum(tower[0] for tower in found.towers) == width
    assert found.padding == {"sd-1": ("<|endoftext|>",), "sdxl": ("<|endoftext|>", "!")}.get(family, ("!",))
    assert found.gigabytes == pytest.approx(2e-9 * sum(found.parameters.values()))


def test_every_family_that_is_packaged_has_sizes_and_no_other():
    for folder in (data_folder("assets") / "configs").iterdir():
        assert sizes(folder.name).parameters["unet"] > 8e8
    with pytest.raises(ValueError, match=r"expected one of sd-1, .*sdxl-turbo, got 'sd-3'"):
        sizes("sd-3")
