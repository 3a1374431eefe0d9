"""Tokens: diffusers' own call, the words they belong to, what is dropped, what is unknown."""

import re
import string

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

import sdteach

anything = st.text(st.characters(codec=None, categories=None), max_size=120)


def ids_of(model, prompt):
    return model.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="np").input_ids[0]


def test_the_known_sentence(random_model):
    tokens = sdteach.tokenize(random_model, "a photo of an astronaut riding a horse")
    assert tokens.ids[:10].tolist() == [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 49407]
    assert tokens.words == ("a", "photo", "of", "an", "astronaut", "riding", "a", "horse")
    assert tokens.pieces[5] == "astronaut</w>"
    assert tokens.end == 9
    assert tokens.dropped == ""


@pytest.mark.parametrize(("prompt", "word", "places"), [
    ("a red car", "car", (3,)), ("a car and a CAR", "car", (2, 5)), ("a carpet for a car", "car", (5,)), ("a red car", "red car", (2, 3)),
    ("the year 2024, again", "2024", (3, 4, 5, 6)), ("don't stop", "don't", (1, 2)),
    ("an ice-cream van", "ice-cream", (2, 3, 4)), ("red, car", ",", (2,)),
])  # fmt: skip
def test_a_words_places(random_model, prompt, word, places):
    tokens = sdteach.tokenize(random_model, prompt)
    assert tokens.places(word) == places
    spelled = [tokens.pieces[place].replace("</w>", "") for place in places]
    assert "".join(spelled).startswith(word.lower().replace(" ", ""))


@pytest.mark.parametrize(("prompt", "words"), [
    ("हिन्दी में लाल गाड़ी, एक", ["हिन्दी", "में", "लाल", "गाड़ी", ",", "एक"]), ("ภาษาไทย รถ", ["ภาษาไทย", "รถ"]), ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
    ("a cafe\u0301, x\u0301", ["a", "cafe\u0301", ",", "x\u0301"]), ("👩\u200d🚀 a👍🏽!", ["👩\u200d🚀", "a", "👍🏽!"]),
    ("a <|endoftext|>b", ["a", "<|endoftext|>", "b"]), ("красный, 红色汽车", ["красный", ",", "红色汽车"]),
])  # fmt: skip
def test_words_of_every_script_are_whole_and_found(random_model, prompt, words):
    tokens = sdteach.tokenize(random_model, prompt)
    assert list(tokens.words) == words
    assert [place for word in words for place in tokens.places(word)] == list(range(1, tokens.end))


@pytest.mark.parametrize(("written", "asked"), [("cafe\u0301", "CAFÉ"), ("café", "cafe\u0301"), ("ﬁsh", "fish"), ("STRASSE", "straße")])
def test_a_word_is_found_however_it_is_coded(random_model, written, asked):
    tokens = sdteach.tokenize(random_model, f"a {written} here")
    assert tokens.places(asked) == tokens.places(1)


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_learned_word_is_one_word_and_read_as_diffusers_reads_it(random_folders, vectors):
    model = sdteach.load_model(random_folders["epsilon"], device="cpu")
    pipe = StableDiffusionPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, model.scheduler, None, None, requires_safety_checker=False
    )
    pipe.load_textual_inversion(torch.randn(vectors, 24, generator=torch.Generator().manual_seed(1)), token="<cat-toy>")
    tokens = sdteach.tokenize(model, "a <cat-toy>, red")
    assert tokens.words == ("a", "<cat-toy>", ",", "red")
    assert tokens.places("<cat-toy>") == tuple(range(2, 2 + vectors))
    assert tokens.text == "a <cat-toy>, red"
    expected, _ = pipe.encode_prompt("a <cat-toy>, red", "cpu", 1, do_classifier_free_guidance=False)
    assert torch.equal(sdteach.encode_text(model, tokens).last_hidden_state, expected[0])


def test_words_of_several_pieces_and_repeated_words(random_model):
    tokens = sdteach.tokenize(random_model, "a supercalifragilistic cat, a cat")
    assert len(tokens.places("supercalifragilistic")) > 3
    first, second = (i for i, word in enumerate(tokens.words) if word == "cat")
    assert tokens.places("cat") == tokens.places(first) + tokens.places(second)
    assert tokens.places(first) != tokens.places(second)


@pytest.mark.parametrize("word", ["ca", "cars", "", "blue", 7, -1])
def test_a_word_that_is_not_there(random_model, word):
    with pytest.raises(ValueError, match="car"):
        sdteach.tokenize(random_model, "a red car").places(word)


@pytest.mark.fault(3)
def test_what_does_not_fit_is_quoted(random_model):
    prompt = "one " * 74 + "last dropped words"
    with pytest.warns(UserWarning, match="'dropped words'"):
        tokens = sdteach.tokenize(random_model, prompt)
    assert tokens.dropped == "dropped words"
    assert tokens.words[-1] == "last"
    assert np.array_equal(tokens.ids, ids_of(random_model, prompt))


def test_a_prompt_longer_than_anybody_writes_is_refused(random_model):
    with pytest.warns(UserWarning, match="dropped"):
        sdteach.tokenize(random_model, "a " * 50_000)
    with pytest.raises(ValueError, match=r"at most 100,000 characters, got 100,001; its first 77 tokens"):
        sdteach.tokenize(random_model, "a" * 100_001)


def test_a_prompt_that_just_fits_drops_nothing(random_model, recwarn):
    tokens = sdteach.tokenize(random_model, "one " * 75)
    assert tokens.dropped == ""
    assert tokens.end == 76
    assert not recwarn


@pytest.mark.fault(4)
def test_a_prompt_of_a_hundred_thousand_letters(random_model):
    with pytest.warns(UserWarning, match="longer") as caught:
        tokens = sdteach.tokenize(random_model, "ab " * 33_333)
    assert len(tokens.dropped) > 90_000
    assert len(str(caught[0].message)) < 400


@pytest.mark.fault(4)
def test_unknown_words_are_named(model, recwarn):
    sdteach.tokenize(model, "A small RED car, above a white star at night!")
    assert not recwarn
    with pytest.warns(UserWarning, match="'zebra, wearing'"):
        sdteach.tokenize(model, "a zebra wearing a red star")


@settings(max_examples=300)
@given(anything)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.fault(4)
def test_any_text_works(random_model, prompt):
    tokens = sdteach.tokenize(random_model, prompt)
    assert tokens.ids.shape == tokens.word_of.shape == (77,)
    assert tokens.ids[0] == 49406
    assert tokens.ids[tokens.end] == 49407
    assert (tokens.word_of[tokens.end :] == -1).all()
    owned = tokens.word_of[1 : tokens.end]
    assert sorted(set(owned.tolist()) - {-1}) == list(range(len(tokens.words)))
    for index, word in enumerate(tokens.words):
        assert set(tokens.places(index)) <= set(tokens.places(word))
    if prompt.isascii() and prompt.isprintable():
        assert (owned >= 0).all()


@settings(max_examples=100)
@given(st.lists(st.text(string.ascii_letters + string.digits, min_size=1, max_size=9), max_size=9))
def test_plain_words_come_back_and_ids_are_diffusers(random_model, words):
    tokens = sdteach.tokenize(random_model, " ".join(words))
    assert np.array_equal(tokens.ids, ids_of(random_model, " ".join(words)))
    assert list(tokens.words) == words
    for index, word in enumerate(words):
        spelled = "".join(re.sub("</w>$", "", tokens.pieces[place]) for place in tokens.places(index))
        assert spelled == word.lower()


@pytest.mark.parametrize("prompt", [None, 3, b"bytes", ["a"]])
def test_only_text_is_text(model, prompt):
    with pytest.raises(ValueError, match="str"):
        sdteach.tokenize(model, prompt)
