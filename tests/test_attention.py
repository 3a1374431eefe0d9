"""Cross-attention maps are the real ones: they sum to one, times V they give the layer's output, per row and per size."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor

import sdteach
from sdteach.attention import cross_attention_layers, keys_values, reading


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=["picturebook", "random"])
def any_model(request, model, random_model):
    return {"picturebook": model, "random": random_model}[request.param]


def run(model, latents, text, watched=1):
    with reading(keys_values(model.unet, text), latents.shape[2:], watched) as maps:
        out = model.unet(latents, 501, text).sample
    return out, maps


@pytest.mark.parametrize("size", [(13, 9), (16, 16), (1, 7), (5, 22)])
def test_maps_sum_to_one_and_explain_each_layers_output(any_model, size):
    latents = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(3))
    text = torch.stack([sdteach.encode_text(any_model, prompt).last_hidden_state for prompt in ("", "a red boat")])
    layers, inputs, outputs = cross_attention_layers(any_model.unet), {}, {}
    hooks = [layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]})) for name, layer in layers.items()]
    hooks += [layer.register_forward_hook(lambda _, args, out, name=name: outputs.update({name: out})) for name, layer in layers.items()]
    plain = any_model.unet(latents, 501, text).sample
    plain_outputs = dict(outputs)
    out, maps = run(any_model, latents, text)
    for hook in hooks:
        hook.remove()
    assert torch.equal(out, plain)
    assert maps.keys() == layers.keys()
    for name, layer in layers.items():
        assert torch.equal(outputs[name], plain_outputs[name])
        torch.testing.assert_close(maps[name].sum(0), torch.ones(maps[name].shape[1:]))
        query, key, value = layer.to_q(inputs[name][1:]), layer.to_k(text[1:]), layer.to_v(text[1:])
        query, key, value = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in (query, key, value))
        probabilities = (query @ key.transpose(-1, -2) * layer.scale).softmax(-1)
        torch.testing.assert_close(maps[name].flatten(1).T, probabilities.mean((0, 1)))
        times_value = layer.to_out[0]((probabilities @ value).transpose(1, 2).flatten(2))
        torch.testing.assert_close(times_value, outputs[name][1:], rtol=1e-4, atol=1e-5)


def test_only_the_prompts_rows_are_watched(any_model):
    latents = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(3))
    texts = torch.stack([sdteach.encode_text(any_model, prompt).last_hidden_state for prompt in ("a blue fish", "a red boat")])
    _, alone = run(any_model, latents, texts[1:])
    _, both = run(any_model, torch.cat([latents] * 2), texts)
    for name in alone:
        torch.testing.assert_close(both[name], alone[name], rtol=1e-4, atol=1e-6)


def test_the_grid_of_every_level_is_the_features_own(random_model):
    seen = {}
    hooks = [module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].shape[2:]}))
             for name, module in random_model.unet.named_modules() if type(module).__name__ == "Transformer2DModel"]  # fmt: skip
    _, maps = run(random_model, torch.randn(1, 4, 13, 6), sdteach.encode_text(random_model, "a boat").last_hidden_state[None])
    for hook in hooks:
        hook.remove()
    for name, probabilities in maps.items():
        assert probabilities.shape[1:] == seen[name.split(".transformer_blocks")[0]]


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0, lambda: SlicedAttnProcessor(1)])
def test_the_processors_that_were_there_come_back(random_folders, processor):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    model.unet.set_attn_processor(processor())
    before = dict(model.unet.attn_processors)
    sdteach.generate(model, "a boat", steps=1)
    assert model.unet.attn_processors == before


def test_they_come_back_after_an_error_too(random_model):
    before = dict(random_model.unet.attn_processors)
    text = sdteach.encode_text(random_model, "a boat").last_hidden_state[None]
    with pytest.raises(ZeroDivisionError), reading(keys_values(random_model.unet, text), (9, 9), 1):
        raise ZeroDivisionError
    assert random_model.unet.attn_processors == before


def test_a_capture_that_saw_nothing_raises(random_model):
    text = sdteach.encode_text(random_model, "a boat").last_hidden_state[None]
    with pytest.raises(RuntimeError, match="saw nothing"), reading(keys_values(random_model.unet, text), (9, 9), 1):
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
    with reading(text, (9, 9), 1) as maps:
        model.unet(torch.randn(1, 4, 9, 9).half(), 501, sdteach.encode_text(model, "a boat").last_hidden_state[None])
    for probabilities in maps.values():
        torch.testing.assert_close(probabilities, torch.full_like(probabilities, 1 / 77))
