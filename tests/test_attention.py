"""Cross-attention maps are the real ones: they sum to one, times V they give the layer's output, per row and per size.

And what is read can be changed: every change is checked against softmax(Q K^T / sqrt(d)) V, written out from the layer's own
projections.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor

import sdteach
from sdteach import edits
from sdteach.attention import cross_attention_layers, keys_values, layer_grids, reading
from sdteach.edits import edited, layout_kept, masked_out, reweighted
from sdteach.unet import feature_maps

from conftest import hung_on

NEAR = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=["picturebook", "random"])
def any_model(request, model, random_model):
    return {"picturebook": model, "random": random_model}[request.param]


def run(model, latents, text, watched=1):
    with reading(model.unet, keys_values(model.unet, text), tuple(latents.shape[2:]), watched) as maps:
        out = model.unet(latents, 501, text).sample
    return out, maps


def noise(*size, seed=3):
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(seed))


def text_of(model, prompt):
    return sdteach.encode_text(model, prompt).last_hidden_state


def step_of(model, prompt="a red boat", size=(9, 13), guidance_scale=7.5):
    text, negative = sdteach.encode_text(model, prompt), sdteach.encode_text(model, "snow")
    return sdteach.unet_step(model, noise(*size).to(model.dtype), 501, text, negative, guidance_scale)


@contextmanager
def layers_watched(model):
    """What goes into each cross-attention layer and what comes out, by plain hooks."""
    inputs, outputs = {}, {}
    layers = cross_attention_layers(model.unet)
    hooks = [layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]})) for name, layer in layers.items()]
    hooks += [layer.register_forward_hook(lambda _, args, out, name=name: outputs.update({name: out})) for name, layer in layers.items()]
    try:
        yield inputs, outputs
    finally:
        for hook in hooks:
            hook.remove()


def scores_values(layer, hidden, text):
    """Q K^T / sqrt(d), (rows, heads, positions, places), and V, from the layer's own projections."""
    query, key, value = (
        part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in (layer.to_q(hidden), layer.to_k(text), layer.to_v(text))
    )
    return query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, value


def output_of(layer, probabilities, value):
    return layer.to_out[0]((probabilities @ value).transpose(1, 2).flatten(2))


def as_maps(probabilities, grid):
    """(1, heads, positions, places) as a step keeps them: (heads, places, height, width)."""
    return probabilities[0].transpose(1, 2).unflatten(2, grid)


@pytest.mark.parametrize("size", [(13, 9), (16, 16), (1, 7), (5, 22)])
def test_maps_sum_to_one_and_explain_each_layers_output(any_model, size):
    latents = torch.cat([noise(*size), noise(*size, seed=4)])
    text = torch.stack([text_of(any_model, prompt) for prompt in ("", "a red boat")])
    with layers_watched(any_model) as (inputs, outputs):
        plain = any_model.unet(latents, 501, text).sample
        plain_outputs = dict(outputs)
        out, maps = run(any_model, latents, text)
    assert torch.equal(out, plain)
    layers = cross_attention_layers(any_model.unet)
    assert maps.keys() == layers.keys()
    for name, layer in layers.items():
        assert torch.equal(outputs[name], plain_outputs[name])
        torch.testing.assert_close(maps[name].sum(2), torch.ones(maps[name].sum(2).shape))
        scores, value = scores_values(layer, inputs[name][1:], text[1:])
        torch.testing.assert_close(maps[name].flatten(3).transpose(2, 3), scores.softmax(-1))
        torch.testing.assert_close(output_of(layer, scores.softmax(-1), value), outputs[name][1:], **NEAR)


def test_rows_watched_together_are_those_of_each_alone(any_model):
    """Two prompts and two pictures at once, each with a negative prompt: nothing of one gets into the other's maps."""
    latents, prompts = [noise(9, 13), noise(9, 13, seed=8)], [text_of(any_model, prompt) for prompt in ("a red boat", "a blue fish, snow")]
    _, together = run(any_model, torch.cat(latents * 2), torch.stack([*[text_of(any_model, "a house")] * 2, *prompts]), watched=2)
    for row in range(2):
        _, alone = run(any_model, latents[row], prompts[row][None])
        for name, maps in together.items():
            assert maps.shape == (2, cross_attention_layers(any_model.unet)[name].heads, 77, *alone[name].shape[3:])
            torch.testing.assert_close(maps[row], alone[name][0], rtol=1e-4, atol=1e-6)
            assert not torch.allclose(maps[row], maps[1 - row], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_a_step_keeps_every_head_of_the_prompts_row_and_tells_their_mean(any_model, guidance_scale):
    text = text_of(any_model, "a red boat")[None]
    with layers_watched(any_model) as (inputs, _):
        step = step_of(any_model, guidance_scale=guidance_scale)
    for name, layer in cross_attention_layers(any_model.unet).items():
        assert len(inputs[name]) == (2 if guidance_scale > 1 else 1)
        expected = scores_values(layer, inputs[name][-1:], text)[0].softmax(-1)[0].transpose(1, 2)
        torch.testing.assert_close(step.attention_heads[name].flatten(2), expected)
        torch.testing.assert_close(step.attention[name].flatten(1), sum(expected) / layer.heads)


@pytest.mark.parametrize("slices", [1, "auto", "max"])
def test_attention_slicing_changes_no_map_and_stays_on(random_folders, random_model, slices):
    sliced = sdteach.load_model(random_folders["epsilon"], device="cpu")
    sliced.unet.set_attention_slice(slices)
    before = hung_on(sliced.unet)
    assert {type(processor) for processor in sliced.unet.attn_processors.values()} == {SlicedAttnProcessor}
    found, expected = step_of(sliced), step_of(random_model)
    assert hung_on(sliced.unet) == before
    torch.testing.assert_close(found.noise, expected.noise, **NEAR)
    for name in expected.attention_heads:
        torch.testing.assert_close(found.attention_heads[name], expected.attention_heads[name], **NEAR)


@pytest.fixture(scope="module")
def shallow(random_model):
    """A UNet of one level and no middle, since torch.compile takes its time with every layer."""
    torch.manual_seed(5)
    unet = UNet2DConditionModel(
        sample_size=9, block_out_channels=(8,), layers_per_block=1, cross_attention_dim=24, norm_num_groups=4, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), mid_block_type=None,
    )  # fmt: skip
    return dataclasses.replace(random_model, unet=unet.eval().requires_grad_(False))


def same_step(one, other):
    assert torch.equal(one.noise, other.noise)
    assert one.attention_heads.keys() == other.attention_heads.keys()
    for name, maps in other.attention_heads.items():
        assert torch.equal(one.attention_heads[name], maps)


@pytest.mark.parametrize("way", ["torch.compile", "unet.compile"])
def test_a_compiled_unet_reads_the_same(shallow, way, monkeypatch, unguarded):
    plain, before = step_of(shallow), hung_on(shallow.unet)
    if way == "torch.compile":
        compiled = dataclasses.replace(shallow, unet=torch.compile(shallow.unet, backend="eager"))
    else:
        monkeypatch.setattr(shallow.unet, "_compiled_call_impl", None)  # for the undoing
        shallow.unet.compile(backend="eager")
        compiled = shallow
    same_step(step_of(compiled), plain)
    same_step(step_of(compiled), plain)
    assert hung_on(shallow.unet) == before


def test_a_compiled_unet_reads_the_same_under_an_edit(shallow, unguarded):
    with reweighted(shallow, (2,), 3.0):
        changed = step_of(shallow)
    compiled = dataclasses.replace(shallow, unet=torch.compile(shallow.unet, backend="eager"))
    with reweighted(compiled, (2,), 3.0):
        same_step(step_of(compiled), changed)


def test_half_precision_reads_nearly_what_single_does(model):
    half = sdteach.load_model("picturebook", device="cpu", dtype=torch.float16)
    expected, found = step_of(model), step_of(half)
    for name, maps in found.attention_heads.items():
        assert maps.dtype == torch.float32
        assert maps.isfinite().all()
        torch.testing.assert_close(maps.sum(1), torch.ones_like(maps.sum(1)))
        assert (maps - expected.attention_heads[name]).abs().mean() < 1e-4
        torch.testing.assert_close(maps, expected.attention_heads[name], rtol=0, atol=0.02)


def test_only_the_prompts_rows_are_watched(any_model):
    latents = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(3))
    texts = torch.stack([sdteach.encode_text(any_model, prompt).last_hidden_state for prompt in ("a blue fish", "a red boat")])
    _, alone = run(any_model, latents, texts[1:])
    _, both = run(any_model, torch.cat([latents] * 2), texts)
    for name in alone:
        torch.testing.assert_close(both[name], alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(13, 9), (9, 13), (1, 7), (5, 22), (16, 16)])
@pytest.mark.parametrize("which", ["model", "random_model", "shallow"])
def test_the_grid_of_every_level_is_the_features_own(request, which, size):
    model, seen = request.getfixturevalue(which), {}
    hooks = [module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: tuple(args[0].shape[2:])}))
             for name, module in model.unet.named_modules() if type(module).__name__ == "Transformer2DModel"]  # fmt: skip
    _, maps = run(model, noise(*size), text_of(model, "a boat")[None])
    for hook in hooks:
        hook.remove()
    grids = layer_grids(model.unet, *size)
    assert grids.keys() == maps.keys() == cross_attention_layers(model.unet).keys()
    for name, grid in grids.items():
        assert grid == maps[name].shape[3:] == seen[name.split(".transformer_blocks")[0]]


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0, lambda: SlicedAttnProcessor(1)])
def test_the_processors_that_were_there_come_back(random_folders, processor):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    model.unet.set_attn_processor(processor())
    before = dict(model.unet.attn_processors)
    sdteach.generate(model, "a boat", steps=1)
    assert model.unet.attn_processors == before


def test_where_the_picture_reads_itself_a_processor_of_ones_own_is_left_to_it(random_folders):
    class Counted(AttnProcessor2_0):
        calls = []  # noqa: RUF012

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
            self.calls.append(attn)
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    expected = step_of(model)
    model.unet.set_attn_processor(Counted())
    found = step_of(model)
    assert {*Counted.calls} == {layer for name, layer in model.unet.named_modules() if name.endswith("attn1")}
    assert torch.equal(found.noise, expected.noise)


def test_blocks_in_which_the_picture_does_not_read_itself_have_keys_too():
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D"), mid_block_type=None,
        up_block_types=("KCrossAttnUpBlock2D", "KUpBlock2D"), layers_per_block=1, cross_attention_dim=16,
    )  # fmt: skip
    text = keys_values(unet, torch.ones(1, 7, 16))
    assert {name: each.before is not None for name, each in text.items()} == {
        "down_blocks.1.attentions.0.attn2": True, "up_blocks.0.attentions.0.attn2": False,
    }  # fmt: skip
    before = unet.attn_processors
    with reading(unet, text, (8, 8), 1, watch=False):
        assert unet.attn_processors.keys() == before.keys()
        assert not {*unet.attn_processors.values()} & {*before.values()}
    assert unet.attn_processors == before


def test_they_come_back_after_an_error_too(random_model):
    before = dict(random_model.unet.attn_processors)
    text = sdteach.encode_text(random_model, "a boat").last_hidden_state[None]
    with pytest.raises(ZeroDivisionError), reading(random_model.unet, keys_values(random_model.unet, text), (9, 9), 1):
        raise ZeroDivisionError
    assert random_model.unet.attn_processors == before


@pytest.mark.fault(14)
def test_a_capture_that_saw_nothing_raises(random_model):
    text = sdteach.encode_text(random_model, "a boat").last_hidden_state[None]
    with (
        pytest.raises(RuntimeError, match="saw nothing"),
        reading(random_model.unet, keys_values(random_model.unet, text), (9, 9), 1),
    ):
        pass


def test_half_precision_does_not_overflow(random_folders):
    """Queries and keys whose product leaves float16's range unless they are scaled before it."""
    model = sdteach.load_model(random_folders["epsilon"], device="cpu", dtype=torch.float16)
    for layer in cross_attention_layers(model.unet).values():
        for projection in (layer.to_q, layer.to_k):
            projection.register_forward_hook(lambda _, args, out: torch.full_like(out, 110.0))
    text = keys_values(model.unet, sdteach.encode_text(model, "a boat").last_hidden_state[None])
    smallest = min(given.key.shape[-1] for given in text.values())
    assert smallest * 110**2 > 65504 > smallest**0.5 * 110**2
    with reading(model.unet, text, (9, 9), 1) as maps:
        model.unet(torch.randn(1, 4, 9, 9).half(), 501, sdteach.encode_text(model, "a boat").last_hidden_state[None])
    for probabilities in maps.values():
        torch.testing.assert_close(probabilities, torch.full_like(probabilities, 1 / 77))


def each_layer(model, inputs, outputs, prompt="a red boat"):
    """For each layer its name, itself, its grid, scores and values for the prompt's row, and what came out for it."""
    text, grids = text_of(model, prompt)[None], layer_grids(model.unet, 9, 13)
    for name, layer in cross_attention_layers(model.unet).items():
        yield name, layer, grids[name], *scores_values(layer, inputs[name][1:], text), outputs[name][1:]


@pytest.mark.parametrize("factor", [2.5, 0.0, -1.0])
def test_reweighted_places_are_read_factor_times_as_much(any_model, factor):
    with layers_watched(any_model) as (inputs, outputs), reweighted(any_model, (3, 2), factor):
        step = step_of(any_model)
    for name, layer, grid, scores, value, out in each_layer(any_model, inputs, outputs):
        columns = torch.ones(77)
        columns[2] = columns[3] = factor
        expected = scores.softmax(-1) * columns
        torch.testing.assert_close(step.attention_heads[name], as_maps(expected, grid))
        torch.testing.assert_close(out, output_of(layer, expected, value), **NEAR)


REGION = np.zeros((9, 13), bool)
REGION[2:5, 7:12] = REGION[8, 0] = True
PIXELS = np.zeros((72, 104), bool)
PIXELS[17:39, 61:90] = PIXELS[71, 0] = True


def any_part_inside(region, grid):
    """Whether any pixel of the region overlaps a position's share of the picture, in whole numbers."""

    def overlaps(positions, pixels):
        position, pixel = np.arange(positions)[:, None], np.arange(pixels)
        return (pixel * positions < (position + 1) * pixels) & ((pixel + 1) * positions > position * pixels)

    down, across = (overlaps(*edges).astype(int) for edges in zip(grid, region.shape, strict=True))
    return torch.from_numpy(down @ region @ across.T > 0)


@pytest.mark.parametrize("region", [REGION, PIXELS], ids=["latents", "pixels"])
def test_masked_out_is_a_softmax_with_scores_of_minus_infinity(any_model, region):
    with layers_watched(any_model) as (inputs, outputs), masked_out(any_model, (0, 3), region):
        step = step_of(any_model)
    for name, layer, grid, scores, value, out in each_layer(any_model, inputs, outputs):
        inside = any_part_inside(region, grid)
        for place in (0, 3):
            scores[..., inside.flatten(), place] = -torch.inf
        maps = step.attention_heads[name]
        assert 0 < inside.sum() < inside.numel()
        assert (maps[:, (0, 3)][..., inside] == 0).all()
        assert (maps[:, (0, 3)][..., ~inside] > 0).all()
        torch.testing.assert_close(maps.sum(1), torch.ones_like(maps.sum(1)))
        torch.testing.assert_close(maps, as_maps(scores.softmax(-1), grid))
        torch.testing.assert_close(out, output_of(layer, scores.softmax(-1), value), **NEAR)


def test_a_region_in_pixels_is_the_same_region_in_latents(random_model):
    with masked_out(random_model, (0,), REGION):
        coarse = step_of(random_model)
    with masked_out(random_model, (0,), np.kron(REGION, np.ones((8, 8))).astype(bool)):
        fine = step_of(random_model)
    assert torch.equal(coarse.noise, fine.noise)


def test_a_kept_layout_is_read_with_the_new_words(any_model):
    layout = [step_of(any_model, "a blue boat").attention_heads]
    with layers_watched(any_model) as (inputs, outputs), layout_kept(any_model, layout):
        step = step_of(any_model)
    for name, layer, _, _, value, out in each_layer(any_model, inputs, outputs):
        assert torch.equal(step.attention_heads[name], layout[0][name])
        torch.testing.assert_close(out, output_of(layer, layout[0][name].flatten(2).transpose(1, 2)[None], value), **NEAR)


RUN = dict(steps=4, seed=3, height=72, width=104)  # PNDM calls the UNet five times


def layout_of(model, prompt="a red boat", **options):
    return [step.attention_heads for step in sdteach.denoise(model, prompt, **RUN | options)]


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.2, 1), (0.5, 3), (0.8, 4), (1.0, 5)])
def test_the_first_share_of_the_calls_keeps_the_layout(random_model, share, kept):
    layout = layout_of(random_model)
    with layout_kept(random_model, layout, share):
        found = layout_of(random_model, "a blue fish")
    assert len(found) == len(layout) == 5
    for call, (maps, given) in enumerate(zip(found, layout, strict=True)):
        for name in given:
            assert torch.equal(maps[name], given[name]) == (call < kept)


def changes_nothing(model, way):
    return {
        "an edit that returns what it got": lambda: edited(model, lambda name, grid, probabilities: probabilities),
        "factor one": lambda: reweighted(model, (1, 2), 1.0),
        "an empty region": lambda: masked_out(model, (1, 2), np.zeros((9, 13), bool)),
        "its own layout": lambda: layout_kept(model, layout_of(model), 1.0),
        "no share of another's layout": lambda: layout_kept(model, layout_of(model, "a blue fish"), 0.0),
    }[way]()


@pytest.mark.parametrize(
    "way",
    ["an edit that returns what it got", "factor one", "an empty region", "its own layout", "no share of another's layout"],
)
def test_what_changes_nothing_gives_the_plain_run(any_model, way):
    plain = list(sdteach.denoise(any_model, "a red boat", **RUN))
    with changes_nothing(any_model, way):
        found = list(sdteach.denoise(any_model, "a red boat", **RUN))
    for step, expected in zip(found, plain, strict=True):
        torch.testing.assert_close(step.next_latents, expected.next_latents, rtol=1e-3, atol=1e-3)
        for name, maps in expected.attention_heads.items():
            torch.testing.assert_close(step.attention_heads[name], maps, rtol=1e-3, atol=1e-4)


def interventions(model):
    return {
        "reweighted": lambda: reweighted(model, (2, 3), 4.0),
        "masked out": lambda: masked_out(model, (0,), REGION),
        "layout kept": lambda: layout_kept(model, [step_of(model, "a blue fish").attention_heads] * 9),
        "edited": lambda: edited(model, lambda name, grid, probabilities: probabilities.flip(-1)),
    }


@pytest.mark.parametrize("way", ["reweighted", "masked out", "layout kept", "edited"])
def test_the_negative_prompts_half_is_not_touched(any_model, way):
    plain = step_of(any_model)
    with interventions(any_model)[way]():
        step = step_of(any_model)
        unguided = step_of(any_model, guidance_scale=1.0)
    assert torch.equal(step.noise_uncond, plain.noise_uncond)
    assert (step.noise_text - plain.noise_text).abs().max() > 1e-5
    torch.testing.assert_close(unguided.noise, step.noise_text, **NEAR)


def test_edits_add_up_in_the_order_of_entering(random_model):
    with (
        layers_watched(random_model) as (inputs, outputs),
        edited(random_model, lambda name, grid, probabilities: probabilities * 2),
        edited(random_model, lambda name, grid, probabilities: probabilities + grid[1]),
        reweighted(random_model, (5,), 10.0),
    ):
        step = step_of(random_model)
    for name, layer, grid, scores, value, out in each_layer(random_model, inputs, outputs):
        expected = 2 * scores.softmax(-1) + grid[1]
        expected[..., 5] *= 10
        torch.testing.assert_close(step.attention_heads[name], as_maps(expected, grid))
        torch.testing.assert_close(out, output_of(layer, expected, value), rtol=1e-4, atol=1e-3)


def test_of_nested_edits_the_inner_one_goes_first(random_model):
    with reweighted(random_model, (2,), 3.0):
        outer = step_of(random_model)
        with masked_out(random_model, (0,), REGION):
            assert not torch.equal(step_of(random_model).noise, outer.noise)
        assert torch.equal(step_of(random_model).noise, outer.noise)


def test_a_trace_tells_what_was_read_under_an_edit(random_model):
    with masked_out(random_model, (2,), np.ones((9, 13), bool)):
        trace = sdteach.generate(random_model, "a red boat", collect=("attention",), **RUN)
    for step in trace.steps:
        for maps in step.attention.values():
            assert (maps[2] == 0).all()
            np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("way", ["reweighted", "masked out", "layout kept", "edited"])
def test_an_edit_lets_go_of_the_unet(random_model, way):
    before, plain = hung_on(random_model.unet), step_of(random_model)
    with interventions(random_model)[way]():
        assert not torch.equal(step_of(random_model).noise, plain.noise)
        assert hung_on(random_model.unet) != before
    assert hung_on(random_model.unet) == before
    assert torch.equal(step_of(random_model).noise, plain.noise)
    with pytest.raises(ZeroDivisionError), interventions(random_model)[way]():
        raise ZeroDivisionError
    assert hung_on(random_model.unet) == before
    assert torch.equal(step_of(random_model).noise, plain.noise)


def test_an_edit_that_fails_amid_the_unet_lets_go_of_it(random_model):
    before, plain = hung_on(random_model.unet), step_of(random_model)

    def fails_in_the_middle(name, grid, probabilities):
        return probabilities if name.startswith("down") else 1 / 0

    with pytest.raises(ZeroDivisionError), edited(random_model, fails_in_the_middle):
        step_of(random_model)
    assert hung_on(random_model.unet) == before
    assert torch.equal(step_of(random_model).noise, plain.noise)


def test_a_call_past_the_stages_is_refused_while_attention_is_edited(random_model):
    before = hung_on(random_model.unet)
    with pytest.raises(RuntimeError, match="expected the UNet to run in unet_step"), reweighted(random_model, (2,), 3.0):
        random_model.unet(noise(9, 9), 501, text_of(random_model, "a boat")[None])
    assert hung_on(random_model.unet) == before


@pytest.mark.parametrize(("options", "remedy"), [
    (dict(steps=6), "same steps"), (dict(height=64), "same height and width"), (dict(width=64), "same height and width"),
])  # fmt: skip
def test_a_layout_of_another_run_is_refused(random_model, options, remedy):
    layout, before = layout_of(random_model), hung_on(random_model.unet)
    with pytest.raises(ValueError, match=rf"expected a run .* got .*{remedy}"), layout_kept(random_model, layout, 1.0):
        layout_of(random_model, **options)
    assert hung_on(random_model.unet) == before


def test_a_layout_is_for_one_run(random_model):
    layout = layout_of(random_model)
    with layout_kept(random_model, layout):
        layout_of(random_model, "a blue fish")
        with pytest.raises(ValueError, match="new `with` for each run"):
            layout_of(random_model, "a blue fish")


HERE = np.ones((9, 13), bool)


@pytest.mark.parametrize("places", [(), (-1,), (77,), (3, 900), "boat", ("boat",), (1.0,), [None]])
def test_places_that_there_are_not_are_refused(random_model, unguarded, places):
    for refuses in (lambda: reweighted(random_model, places, 2.0), lambda: masked_out(random_model, places, HERE)):
        with pytest.raises(ValueError, match=r"expected places of the prompt from 0 to 76, at least one.*got"):
            refuses()


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), float("-inf"), "2", None, 1j])
def test_a_factor_that_is_no_finite_number_is_refused(random_model, unguarded, factor):
    with pytest.raises(ValueError, match=r"expected a finite number as the factor.*got"):
        reweighted(random_model, (2,), factor)


@pytest.mark.parametrize("region", [np.ones((9, 13)), np.ones((9, 13), np.uint8), np.ones(9, bool), np.ones((9, 13, 3), bool)])
def test_a_region_that_is_no_mask_is_refused(random_model, unguarded, region):
    with pytest.raises(ValueError, match=r"expected a region as a mask of booleans \(height, width\), got \w+ \(9"):
        masked_out(random_model, (2,), region)


@pytest.mark.parametrize("places", [range(77), [*range(77), 5, 5]])
def test_a_region_must_have_something_left_to_read(random_model, places):
    with pytest.raises(ValueError, match="expected some places to be left for the region to read, got all of them; leave place 0"):
        masked_out(random_model, places, HERE)


@pytest.mark.parametrize("share", [1.5, -0.1, float("nan"), float("inf"), "0.8", None])
def test_a_share_outside_zero_to_one_is_refused(random_model, unguarded, share):
    with pytest.raises(ValueError, match="expected a fraction of the calls from 0 to 1, got"):
        layout_kept(random_model, [], share)


def test_whole_numbers_will_do_as_factor_and_share(random_model, unguarded):
    with reweighted(random_model, (2,), 3):
        whole = step_of(random_model)
    with reweighted(random_model, (2,), 3.0):
        assert torch.equal(step_of(random_model).noise, whole.noise)
    layout_kept(random_model, [], 1)


def test_a_layout_of_another_size_or_length_is_refused(random_model, unguarded):
    """Transposed, it has as many positions; shorter, a run would follow the wrong times."""
    run = {"steps": 4, "height": 72, "width": 104}
    layout = [step.attention_heads for step in sdteach.denoise(random_model, "a boat", **run)]
    with layout_kept(random_model, layout), pytest.raises(ValueError, match="same height and width"):
        sdteach.generate(random_model, "a boat", steps=4, height=104, width=72)
    with pytest.warns(UserWarning, match="made 3 calls of the UNet, its layout has 5"), layout_kept(random_model, layout):
        sdteach.generate(random_model, "a boat", **run | {"steps": 2})
    kept = sdteach.generate(random_model, "a boat", **run, collect=("attention_heads",))
    with (
        layout_kept(random_model, [step.attention_heads for step in kept.steps]),
        pytest.raises(ValueError, match="attention_heads of `denoise`"),
    ):
        sdteach.generate(random_model, "a boat", **run)
    with layout_kept(random_model, layout):
        pass  # nothing ran: nothing was wrong


def test_edits_that_hide_everything_together_are_refused(random_model):
    region = np.ones((9, 9), bool)
    both = masked_out(random_model, range(5), region), masked_out(random_model, range(5, 77), region)
    with both[0], both[1], pytest.raises(ValueError, match="several edits together"):
        sdteach.generate(random_model, "a boat", steps=1)


@pytest.mark.parametrize("shape", [(9, 13), (104, 72), (1, 1), (3, 200)])
def test_a_region_of_another_size_is_refused(random_model, shape):
    with masked_out(random_model, [3], np.ones(shape, bool)), pytest.raises(ValueError, match="region of the picture's size"):
        sdteach.generate(random_model, "a boat", steps=1, height=72, width=72)


def test_numbers_and_masks_of_numpy_will_do(random_model, unguarded):
    with reweighted(random_model, [*np.flatnonzero([0, 1, 1])], np.float32(2)), masked_out(random_model, [1], [[True] * 9] * 9):
        sdteach.generate(random_model, "a boat", steps=1)


def test_two_threads_on_one_model_paint_what_one_does(random_model):
    """One of them plain, one with words read louder, skips muted and features watched: nothing of it gets into the other's picture."""
    before = hung_on(random_model.unet)

    def plain():
        return sdteach.generate(random_model, "a blue fish", **RUN), {}

    def changed():
        with reweighted(random_model, (2,), 5.0), edits.skips_scaled(random_model, {0: 0.5}), feature_maps(random_model) as seen:
            return sdteach.generate(random_model, "a red boat", **RUN), seen

    alone = [plain(), changed()] * 2
    with ThreadPoolExecutor(4) as threads:
        together = [made.result() for made in [threads.submit(run) for run in (plain, changed) * 2]]
    for (trace, seen), (expected, expected_seen) in zip(together, alone, strict=True):
        assert np.array_equal(trace.final_latents, expected.final_latents)
        assert all(torch.equal(seen[name], features) for name, features in expected_seen.items())
        for step, other in zip(trace.steps, expected.steps, strict=True):
            assert all(np.array_equal(step.attention[name], maps) for name, maps in other.attention.items())
    assert hung_on(random_model.unet) == before
