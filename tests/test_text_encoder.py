"""Text features against transformers, CLIP's picture side, cosines against the closed formula."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import sdteach


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


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 11), st.integers(0, 99))
def test_cosine_similarity_is_the_formula(n, m, d, seed):
    a, b = (torch.randn(k, d, generator=torch.Generator().manual_seed(seed + k)) for k in (n, m))
    for i, row in enumerate(sdteach.cosine_similarity(a, b)):
        for j, value in enumerate(row):
            x, y = a[i].double().numpy(), b[j].double().numpy()
            assert value.item() == pytest.approx(x @ y / np.sqrt(x @ x * (y @ y)), abs=1e-5)


def test_cosine_similarity_of_zeros_is_zero_and_of_half_precision_is_exact_enough():
    assert sdteach.cosine_similarity(torch.zeros(2, 3), torch.ones(4, 3)).tolist() == [[0.0] * 4] * 2
    large = torch.full((1, 5), 3e4, dtype=torch.float16)
    assert sdteach.cosine_similarity(large, large).item() == pytest.approx(1)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (2, 5)), ((2, 3), (3,)), ((1, 2, 3), (2, 3))])
def test_cosine_similarity_wants_two_matrices(shapes):
    unchecked = inspect.unwrap(sdteach.cosine_similarity)
    with pytest.raises(ValueError, match="expected"):
        unchecked(*(torch.ones(shape) for shape in shapes))
