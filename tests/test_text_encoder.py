"""Text features against transformers, CLIP's picture side, cosines against the closed formula."""

import contextlib
import copy
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import sdteach
from sdteach import vectors
from sdteach.text_encoder import interpolate, self_attention, word_cosines


@pytest.mark.parametrize("prompt", ["", "a red car", "a red car below a yellow star in the snow"])
def test_features_are_transformers_own(model, prompt):
    ids = model.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model.text_encoder(ids, output_hidden_states=True)
    text = sdteach.encode_text(model, prompt)
    assert torch.equal(text.last_hidden_state, expected.last_hidden_state[0])
    assert torch.equal(text.layers, torch.cat(expected.hidden_states))
    assert text.layers.shape == (5, 77, 128)
    assert torch.equal(text.pooled, text.last_hidden_state[text.tokens.end])
    torch.testing.assert_close(text.projected, model.text_projection.weight @ text.pooled, rtol=1e-4, atol=1e-5)


def test_tokens_and_their_prompt_give_the_same(model):
    tokens = sdteach.tokenize(model, "a blue fish")
    from_tokens, from_text = sdteach.encode_text(model, tokens), sdteach.encode_text(model, "a blue fish")
    assert torch.equal(from_tokens.last_hidden_state, from_text.last_hidden_state)


def test_the_tower_is_causal(model):
    first, second = (sdteach.encode_text(model, f"a red {noun}").last_hidden_state for noun in ("car", "fish"))
    assert torch.equal(first[:3], second[:3])
    assert not torch.allclose(first[3:], second[3:])


def test_an_attention_mask_is_given_to_towers_that_want_one(random_folders):
    """As diffusers does for checkpoints whose text configuration asks for it."""
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    model.text_encoder.config.use_attention_mask = True
    coded = model.tokenizer("a boat", padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = model.text_encoder(coded.input_ids, attention_mask=coded.attention_mask).last_hidden_state[0]
    assert torch.equal(sdteach.encode_text(model, "a boat").last_hidden_state, expected)


def test_without_projection_and_image_tower_there_is_none(random_model):
    assert sdteach.encode_text(random_model, "a boat").projected is None
    assert sdteach.image_features(random_model, Image.new("RGB", (20, 30))) is None


def test_a_tower_with_its_own_projection(random_folders):

    small = sdteach.load_model(random_folders["epsilon"], device="cpu")
    tower = CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, projection_dim=10,
                       vocab_size=49408, bos_token_id=49406, eos_token_id=49407)
    )  # fmt: skip
    text = sdteach.encode_text(dataclasses.replace(small, text_encoder=tower, text_projection=tower.text_projection), "a boat")
    with torch.no_grad():
        expected = tower(torch.from_numpy(text.tokens.ids)[None]).text_embeds[0]
    torch.testing.assert_close(text.projected, expected)


def test_image_features_see_the_picture(model):
    pictures = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 110, 3), np.uint8)) for seed in (0, 1)]
    first, second = (sdteach.image_features(model, picture) for picture in pictures)
    pixels = model.feature_extractor(images=pictures[0], return_tensors="pt").pixel_values
    with torch.no_grad():
        assert torch.equal(first, model.image_encoder(pixels).image_embeds[0])
    assert first.shape == sdteach.encode_text(model, "a boat").projected.shape
    assert not torch.allclose(first, second)


def eager_attention(model, prompt, masked=False):
    """What transformers' own plain attention reads, (layers, heads, places, places)."""
    tower = copy.deepcopy(model.text_encoder)
    tower.set_attn_implementation("eager")
    coded = model.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = tower(coded.input_ids, attention_mask=coded.attention_mask if masked else None, output_attentions=True)
    return torch.cat(out.attentions)


@pytest.mark.parametrize("checkpoint", ["model", "random_model"])
@pytest.mark.parametrize("prompt", ["", "a red car below a yellow star", "a blue boat " * 40])
@pytest.mark.filterwarnings("ignore:the prompt is longer")
def test_self_attention_is_transformers_own(checkpoint, prompt, request):
    model = request.getfixturevalue(checkpoint)
    maps, config = self_attention(model, prompt), model.text_encoder.config
    torch.testing.assert_close(maps, eager_attention(model, prompt), rtol=1e-4, atol=1e-6)
    assert maps.shape == (config.num_hidden_layers, config.num_attention_heads, 77, 77)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    assert not maps.triu(1).any()
    assert (maps.tril() > 0).float().mean() > 0.4
    assert torch.equal(self_attention(model, sdteach.tokenize(model, prompt)), maps)


def test_self_attention_keeps_to_the_mask_of_towers_that_want_one(random_folders):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    free = self_attention(model, "a boat")
    model.text_encoder.config.use_attention_mask = True
    masked = self_attention(model, "a boat")
    torch.testing.assert_close(masked, eager_attention(model, "a boat", masked=True), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(masked, free)


@pytest.mark.parametrize("broken", [False, True])
def test_self_attention_leaves_the_tower_as_it_was(random_folders, broken):
    def fail(*_):
        raise OSError("out of memory")

    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    before = sdteach.encode_text(model, "a boat").last_hidden_state
    if broken:
        model.text_encoder.register_forward_hook(fail)
    hooks = {name: list(module._forward_hooks) for name, module in model.text_encoder.named_modules()}
    with pytest.raises(OSError, match="out of memory") if broken else contextlib.nullcontext():
        self_attention(model, "a boat")
    assert {name: list(module._forward_hooks) for name, module in model.text_encoder.named_modules()} == hooks
    assert broken or torch.equal(sdteach.encode_text(model, "a boat").last_hidden_state, before)


@pytest.mark.filterwarnings("ignore:picturebook never read")
@pytest.mark.parametrize(("first", "second"), [
    ("a red car", "a blue fish in the snow"), ("a car and a car", "a hyperlanguage of unreadability"), ("star", "star"),
    ("it's, well", "A STAR"),
])  # fmt: skip
def test_word_cosines_compare_the_means_of_pieces(model, first, second):
    cosines = word_cosines(model, first, second)
    texts = [sdteach.encode_text(model, prompt) for prompt in (first, second)]
    assert (cosines.first, cosines.second) == tuple(text.tokens.words for text in texts)
    assert cosines.values.shape == (len(texts[0].layers), len(cosines.first), len(cosines.second))
    for layer, row, column in np.ndindex(*cosines.values.shape):
        a, b = (
            np.mean([text.layers[layer, place].double().numpy() for place in range(77) if text.tokens.word_of[place] == word], 0)
            for text, word in zip(texts, (row, column), strict=True)
        )
        assert cosines.values[layer, row, column].item() == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)), abs=1e-5)


def test_words_that_stand_twice_are_two_and_long_ones_have_several_pieces(model):
    """What the comparison above rests on."""
    with pytest.warns(UserWarning, match="never read"):
        tokens = sdteach.tokenize(model, "a car and a hyperlanguage car")
    assert tokens.words.count("car") == 2
    assert len(tokens.places(tokens.words.index("hyperlanguage"))) > 1
    values = word_cosines(model, "a car and a car", "a car").values
    assert values[0, 1, 1] != values[0, 4, 1]


@pytest.mark.parametrize(("first", "second"), [("", "a car"), ("a car", "  "), ("", "")])
def test_word_cosines_need_words(model, first, second):
    with pytest.raises(ValueError, match="at least one word each"):
        word_cosines(model, first, second)


def test_the_ends_of_what_lies_between_two_texts_are_those_texts(model):
    first, second = (sdteach.encode_text(model, words) for words in ("a red car", "a blue boat"))
    for weight, end in ((0.0, first), (1.0, second)):
        made = interpolate(first, second, weight)
        for name in ("last_hidden_state", "layers", "pooled", "projected"):
            torch.testing.assert_close(getattr(made, name), getattr(end, name), rtol=1e-5, atol=1e-5)
        assert made.tokens.words == first.tokens.words


def test_what_lies_between_two_texts_lies_on_the_arc_at_every_place(model):
    first, second = (sdteach.encode_text(model, words) for words in ("a red car", "a blue boat"))
    mixed = interpolate(first, second, 0.3)
    for place in (0, 2, 76):
        wanted = vectors.slerp(first.layers[:, place], second.layers[:, place], 0.3)
        assert torch.equal(mixed.layers[:, place], wanted)
    assert torch.equal(mixed.pooled[None], vectors.slerp(first.pooled[None], second.pooled[None], 0.3))
    assert mixed.tokens.text == "a red car (70%), a blue boat (30%)"
