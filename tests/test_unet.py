"""One step, taken apart, against the UNet called plainly and the guidance and x0 formulas; and the UNet, level by level."""

import dataclasses
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import sdteach
from sdteach.edits import skips_scaled
from sdteach.unet import UNetStep, feature_colours, feature_maps, guidance_plane

from conftest import hung_on, random_folder


@pytest.fixture(params=["picturebook", "random"])
def any_model(request, model, random_model):
    return {"picturebook": model, "random": random_model}[request.param]


def step_of(model, guidance_scale=7.5, seed=5):
    latents = torch.randn(1, 4, 9, 13, generator=torch.Generator().manual_seed(seed))
    text, negative = sdteach.encode_text(model, "a red boat"), sdteach.encode_text(model, "snow")
    return sdteach.unet_step(model, latents, 501, text, negative, guidance_scale)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("timestep", "size"), [(981, (9, 13)), (500.5, (8, 8)), (1, (1, 3))])
def test_the_parts_of_a_step(random_models, kind, timestep, size):
    model = random_models[kind]
    latents = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(5))
    text, negative = sdteach.encode_text(model, "a red boat"), sdteach.encode_text(model, "snow")
    step = sdteach.unet_step(model, latents, timestep, text, negative, guidance_scale=5.5)
    with torch.no_grad():
        alone = [model.unet(latents, timestep, features.last_hidden_state[None]).sample for features in (negative, text)]
    kept = model.scheduler.alphas_cumprod[int(timestep)] if timestep == int(timestep) else None
    if kind == "epsilon":
        torch.testing.assert_close(step.noise_uncond, alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(step.noise_text, alone[1], rtol=1e-4, atol=1e-5)
        assert torch.equal(step.noise, step.noise_uncond + 5.5 * (step.noise_text - step.noise_uncond))
        assert torch.equal(step.noise, step.model_output)
    if kept is not None:
        torch.testing.assert_close(kept**0.5 * step.predicted_x0 + (1 - kept) ** 0.5 * step.noise, latents, rtol=1e-4, atol=1e-4)
        if kind == "v_prediction":
            velocity = kept**0.5 * step.noise - (1 - kept) ** 0.5 * step.predicted_x0
            torch.testing.assert_close(velocity, step.model_output, rtol=1e-3, atol=1e-3)


def test_guidance_is_off_at_one_and_below(random_model):
    latents = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(5))
    text = sdteach.encode_text(random_model, "a red boat")
    for scale in (0.0, 0.5, 1.0):
        step = sdteach.unet_step(random_model, latents, 10, text, None, scale)
        assert step.noise_uncond is None
        assert torch.equal(step.noise, step.noise_text)


def test_guidance_needs_a_negative_text(random_model):
    with pytest.raises(ValueError, match="encode_text"):
        sdteach.unet_step(random_model, torch.zeros(1, 4, 9, 9), 10, sdteach.encode_text(random_model, "a boat"))


def test_a_checkpoint_that_predicts_something_else_is_refused(random_folders):
    """By a scheduler that was changed after loading, which refuses it too."""
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    model.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="'sample'"):
        sdteach.unet_step(model, torch.zeros(1, 4, 9, 9), 10, sdteach.encode_text(model, "a boat"), None, 1.0)


@contextmanager
def crossing(unet):
    """What diffusers gives each block of the way up, by the block's place: its own input, and what crosses over to it."""
    seen = {}
    hooks = [
        block.register_forward_pre_hook(lambda _, args, named, i=i: seen.update({i: named}), with_kwargs=True)
        for i, block in enumerate(unet.up_blocks)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def made_by_each_level(unet):
    """By the names of feature_maps, what diffusers' blocks themselves return, or hand to the layer that changes the resolution."""
    made = {}

    def returned(name, pick=lambda out: out):
        return lambda _, __, out: made.update({name: pick(out)})

    def handed(name):
        return lambda _, args: made.update({name: args[0]})

    hooks = [unet.conv_in.register_forward_hook(returned("in")), unet.mid_block.register_forward_hook(returned("middle"))]
    for level, block in enumerate(unet.down_blocks):
        last = -1 if block.downsamplers is None else -2  # the block returns its output, and all that crosses over from it
        hooks.append(block.register_forward_hook(returned(f"down {level}", lambda out, last=last: out[1][last])))
    for level, block in enumerate(reversed(unet.up_blocks)):
        if block.upsamplers is None:
            hooks.append(block.register_forward_hook(returned(f"up {level}")))
        else:
            hooks.append(block.upsamplers[0].register_forward_pre_hook(handed(f"up {level}")))
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_feature_maps_are_what_each_level_made_in_the_order_of_the_work(any_model, guidance_scale):
    plain = step_of(any_model, guidance_scale)
    with made_by_each_level(any_model.unet) as made, feature_maps(any_model) as maps:
        step = step_of(any_model, guidance_scale)
    assert torch.equal(step.noise, plain.noise)
    assert list(maps) == ["in", "down 0", "down 1", "down 2", "middle", "up 2", "up 1", "up 0"]
    sizes = [(9, 13), (9, 13), (5, 7), (3, 4), (3, 4), (3, 4), (5, 7), (9, 13)]
    assert [tuple(features.shape[1:]) for features in maps.values()] == sizes
    widths = any_model.unet.config.block_out_channels
    assert [len(features) for features in maps.values()] == [widths[i] for i in (0, 0, 1, 2, 2, 2, 1, 0)]
    assert maps.keys() == made.keys()
    for name, features in maps.items():
        assert len(made[name]) == (2 if guidance_scale > 1 else 1)
        assert torch.equal(features, made[name][-1])
        assert features.untyped_storage().nbytes() == features.nbytes  # a copy, which keeps nothing else of the run alive


def test_what_the_way_down_made_crosses_over_to_the_way_up_of_its_level(any_model):
    with crossing(any_model.unet) as given, feature_maps(any_model) as maps:
        step_of(any_model)
    for i, named in given.items():
        assert torch.equal(maps[f"down {2 - i}"], named["res_hidden_states_tuple"][-1][-1])


def test_feature_maps_follow_the_unet_from_call_to_call_and_are_the_readers_own(random_model):
    with feature_maps(random_model) as maps:
        step_of(random_model)
        first = dict(maps)
        kept = {name: features.clone() for name, features in maps.items()}
        step_of(random_model, seed=6)
    with feature_maps(random_model) as again:
        plain = step_of(random_model, seed=6)
    for name, features in maps.items():
        assert torch.equal(features, again[name])
        assert torch.equal(first[name], kept[name])
        assert not torch.equal(first[name], features)
    for features in again.values():
        features.zero_()
    assert torch.equal(step_of(random_model, seed=6).noise, plain.noise)


@pytest.mark.parametrize("factors", [{0: 0.0}, {1: 0.0}, {2: 0.0}, {0: 0.5, 2: -1.5}, {0: 0.0, 1: 0.0, 2: 0.0}])
def test_scaled_skips_are_the_up_blocks_run_on_scaled_ones(any_model, factors, monkeypatch):
    with skips_scaled(any_model, factors):
        step = step_of(any_model)
    plain = step_of(any_model)
    for level, factor in factors.items():
        block = any_model.unet.up_blocks[2 - level]

        def forward(*, res_hidden_states_tuple, own=block.forward, factor=factor, **named):
            return own(res_hidden_states_tuple=tuple(factor * skip for skip in res_hidden_states_tuple), **named)

        monkeypatch.setitem(vars(block), "forward", forward)
    expected = step_of(any_model)
    assert torch.equal(step.noise_text, expected.noise_text)
    assert torch.equal(step.noise_uncond, expected.noise_uncond)
    assert not torch.allclose(step.noise, plain.noise)


def test_skips_scaled_by_one_change_nothing_and_nested_factors_multiply(random_model):
    plain = step_of(random_model)
    for factors in ({}, {0: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0}):
        with skips_scaled(random_model, factors):
            assert torch.equal(step_of(random_model).noise, plain.noise)
    with skips_scaled(random_model, {1: 0.5}), skips_scaled(random_model, {1: 0.25}):
        nested = step_of(random_model)
    with skips_scaled(random_model, {1: 0.125}):
        assert torch.equal(step_of(random_model).noise, nested.noise)


LOOKS_INSIDE = {"feature_maps": feature_maps, "skips_scaled": lambda model: skips_scaled(model, {0: 0.0, 2: 3.0})}


@pytest.mark.parametrize("way", list(LOOKS_INSIDE))
def test_the_unet_is_let_go_of(random_model, way):
    before, plain = hung_on(random_model.unet), step_of(random_model)
    with LOOKS_INSIDE[way](random_model):
        step_of(random_model)
        assert hung_on(random_model.unet) != before
    assert hung_on(random_model.unet) == before
    assert torch.equal(step_of(random_model).noise, plain.noise)
    with pytest.raises(ZeroDivisionError), LOOKS_INSIDE[way](random_model):
        raise ZeroDivisionError
    assert hung_on(random_model.unet) == before
    assert torch.equal(step_of(random_model).noise, plain.noise)


@pytest.mark.parametrize("way", list(LOOKS_INSIDE))
def test_a_compiled_unet_is_refused(random_folders, way):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    wrapped = dataclasses.replace(model, unet=torch.compile(model.unet, backend="eager"))
    with pytest.raises(ValueError, match=r"expected a UNet that can be looked into, got a compiled one; load the model again"):
        LOOKS_INSIDE[way](wrapped).__enter__()
    before = hung_on(model.unet)
    with LOOKS_INSIDE[way](model):
        pass
    model.unet.compile(backend="eager")
    with pytest.raises(ValueError, match=r"expected a UNet that can be looked into, got a compiled one; load the model again"):
        LOOKS_INSIDE[way](model).__enter__()
    assert hung_on(model.unet) == before


@pytest.mark.parametrize("factors", [{3: 1.0}, {-1: 0.0}, {0: float("nan")}, {0: 1.0, 1: float("inf")}])
def test_a_level_that_there_is_not_and_a_factor_that_is_no_number_are_refused(random_model, factors):
    before = hung_on(random_model.unet)
    with pytest.raises(ValueError, match=r"expected a finite factor for levels out of \[0, 1, 2\], got"):
        skips_scaled(random_model, factors).__enter__()
    assert hung_on(random_model.unet) == before


def by_hand(uncond, text):
    return UNetStep(uncond, text, text, text, text, {})


@pytest.mark.parametrize("away", [0.0, 7.0])
def test_the_guidance_plane_by_hand(away):
    """Noises along two axes, so that the distances can be read off: the truth, 2.5 long, is (2, -1.5)."""
    axes = torch.eye(105).reshape(105, 1, 3, 5, 7)
    uncond = away * axes[9]
    truth = 2 * axes[1] - 1.5 * axes[2]
    plane = guidance_plane(by_hand(uncond, uncond + 3 * axes[1]), truth, 7.5)
    length = 2.5
    assert plane.push == pytest.approx(3 / length)
    assert plane.truth == pytest.approx((2 / length, (1.5**2 + away**2) ** 0.5 / length))
    assert plane.best_scale == pytest.approx(2 / 3)
    assert plane.guidance_scale == 7.5


def test_the_text_may_push_away_from_the_truth():
    axes = torch.eye(4).reshape(4, 1, 1, 2, 2)
    plane = guidance_plane(by_hand(axes[3] * 0, axes[0]), -2 * axes[0], 3.0)
    assert plane.truth == pytest.approx((-1, 0))
    assert plane.best_scale == pytest.approx(-2)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_best_scale_is_the_nearest_of_many(random_models, kind):
    """Every distance of the plane, measured in the space of the noises itself."""
    step = step_of(random_models[kind], 3.5)
    u, c = step.noise_uncond.double(), step.noise_text.double()
    noise = u + 2.25 * (c - u) + 0.1 * (c - u).norm() * torch.randn(u.shape, generator=torch.Generator().manual_seed(2)).double()
    plane = guidance_plane(step, noise.float(), 3.5)
    size = noise.norm()
    scales = torch.linspace(-2, 6, 8001).double()
    distances = (u + scales[:, None, None, None] * (c - u) - noise).flatten(1).norm(dim=1) / size
    assert plane.best_scale == pytest.approx(float(scales[distances.argmin()]), abs=2e-3)
    assert plane.truth[1] == pytest.approx(float(distances.min()), rel=1e-4)
    assert plane.truth[0] ** 2 + plane.truth[1] ** 2 == pytest.approx(float((u - noise).norm() / size) ** 2, rel=1e-4)
    assert plane.push == pytest.approx(float((c - u).norm() / size), rel=1e-4)
    assert plane.push * plane.guidance_scale == pytest.approx(float((step.noise.double() - u).norm() / size), rel=1e-4)


def test_a_plane_needs_a_guided_step(random_model):
    step = step_of(random_model, 1.0)
    with pytest.raises(ValueError, match="expected a guided step, got one without guidance; use guidance_scale above 1"):
        guidance_plane(step, step.noise, 1.0)


def test_a_plane_needs_a_text_that_pushes_and_noise_of_the_latents_shape(random_model):
    latents = torch.randn(1, 4, 9, 13, generator=torch.Generator().manual_seed(0))
    text, empty = (sdteach.encode_text(random_model, words) for words in ("a boat", ""))
    step = sdteach.unet_step(random_model, latents, 500, text, empty)
    for noise in (torch.zeros_like(latents), latents[..., :9]):
        with pytest.raises(ValueError, match="not all 0"):
            guidance_plane(step, noise, 7.5)
    with pytest.raises(ValueError, match="read the same"):
        guidance_plane(sdteach.unet_step(random_model, latents, 500, text, text), latents, 7.5)


def test_a_unet_without_a_middle_is_watched_all_the_same(tmp_path):
    model = sdteach.load_model(random_folder(tmp_path, mid_block_type=None), device="cpu")
    with feature_maps(model) as seen:
        sdteach.generate(model, "a boat", steps=1, collect=())
    assert list(seen) == ["in", "down 0", "down 1", "down 2", "up 2", "up 1", "up 0"]


def test_feature_colours_are_the_main_directions_stretched():
    """Three independent directions come back one by one, the strongest first; what is alike gets one colour."""
    base = torch.randn(3, 7 * 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base = torch.linalg.qr((base - base.mean(1, keepdim=True)).T)[0].T * torch.tensor([[9.0], [4.0], [1.0]])
    mixing = torch.linalg.qr(torch.randn(11, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    found = feature_colours((mixing @ base).float().unflatten(1, (7, 5)))
    assert found.shape == (3, 7, 5)
    assert (found.min(), found.max()) == (0, 1)
    for colour, direction in zip(found.flatten(1), base, strict=True):
        inside = (colour > 0) & (colour < 1)
        assert abs(np.corrcoef(colour[inside], direction[inside])[0, 1]) > 0.999
    with pytest.raises(ValueError, match="at least three channels"):
        feature_colours(torch.ones(2, 5, 5))
