"""Answers: what counts as right, what each mistake is told, and that the lessons' own exercises keep the rules."""

import dataclasses
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from sdteach.classroom import exercises
from sdteach.classroom.exercises import check
from sdteach.files import data_folder

NAN = float("nan")
THE_LESSONS = exercises.exercises


def exercise(right, *wrong, **more):
    mistakes = [{"answer": answer, "hint": f"hint for {answer}"} for answer in wrong]
    return {"question": "What <i>is</i> it?", "right": right, "why": "Because 1 < 2 & so on.", "hint": "Think.", "wrong": mistakes} | more


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Exercises of every kind."""
    known = {
        "number": exercise(48, 16, -3), "near": exercise(0.25, 0.5, within=0.01), "word": exercise("UNet", "VAE", "text encoder"),
        "list": exercise(["tokenizer", "UNet"], ["UNet", "tokenizer"]), "row": exercise([1, 2.5, 3], [3, 2.5, 1], within=0.1),
    }  # fmt: skip
    monkeypatch.setattr(exercises, "exercises", lambda: known)


@pytest.mark.parametrize("answer", [
    48, 48.0, np.int64(48), np.float32(48), np.array(48), torch.tensor(48), torch.tensor(48.0, requires_grad=True), Fraction(96, 2),
])  # fmt: skip
def test_a_number_is_right_whatever_holds_it(answer):
    verdict = check("number", answer)
    assert (verdict.state, verdict.text) == ("right", "Because 1 < 2 & so on.")
    assert repr(verdict) == "Right. Because 1 < 2 & so on."


@pytest.mark.parametrize(("answer", "state"), [(0.25, "right"), (0.2401, "right"), (0.2599, "right"), (np.float32(0.255), "right"),
                                               (0.239, "wrong"), (0.261, "wrong"), (0.75, "wrong"), (-0.25, "wrong")])  # fmt: skip
def test_a_number_may_be_a_little_off_where_the_exercise_says_so(answer, state):
    assert check("near", answer).state == state
    assert check("number", 48 + answer / 100).state == "wrong"


@pytest.mark.parametrize(
    "answer", ["UNet", "unet", "  UNET\n", np.str_("UNet"), np.array("unet"), "the UNet", "a U-Net.", "u_net", ["UNet"]]
)
def test_a_word_is_right_in_any_case_with_any_space_or_article(answer):
    assert check("word", answer).state == "right"


@pytest.mark.parametrize(
    "answer", [["tokenizer", "UNet"], ("Tokenizer ", "unet"), np.array(["tokenizer", "UNet"]), "the tokenizer, the UNet"]
)
def test_a_list_of_words_is_right_in_its_order(answer):
    assert check("list", answer).state == "right"


@pytest.mark.parametrize(("answer", "state"), [([1, 2.5, 3], "right"), (np.array([1.05, 2.45, 3]), "right"),
                                               (torch.tensor([1.0, 2.5, 3.2]), "wrong"), ([2.5, 1, 3], "wrong")])  # fmt: skip
def test_a_list_of_numbers_is_right_if_each_is(answer, state):
    assert check("row", answer).state == state


@pytest.mark.parametrize("number", ["number", "near", "word", "list", "row"])
@pytest.mark.parametrize("answer", [None, ...])
def test_no_answer_is_asked_for_one(number, answer):
    verdict = check(number, answer)
    assert (verdict.state, verdict.text, repr(verdict)) == ("unanswered", "What <i>is</i> it?", "What <i>is</i> it?")
    assert check(number) == verdict
    assert check("list", ["tokenizer", ...]).state == check("row", [...]).state == "unanswered"


@pytest.mark.parametrize(("number", "answer", "hint"), [
    ("number", 16, "hint for 16"), ("number", torch.tensor(-3.0), "hint for -3"), ("near", 0.505, "hint for 0.5"),
    ("word", " vae", "hint for VAE"), ("word", "Text  Encoder", "hint for text encoder"),
    ("list", ("unet", "tokenizer"), "hint for ['UNet', 'tokenizer']"), ("row", np.array([3, 2.5, 1]), "hint for [3, 2.5, 1]"),
    ("number", 17, "Think."), ("number", NAN, "Think."), ("near", NAN, "Think."), ("near", float("inf"), "Think."),
    ("near", 10**400, "Think."), ("near", -(10**400), "Think."), ("word", "", "Think."), ("list", ["", ""], "Think."),
    ("row", [1, 2.5, NAN], "Think."), ("row", [1, 2.5, None], "Think."), ("row", [1, 2.5, "three"], "Think."),
    ("row", [1, [2.5], 3], "Think."),
])  # fmt: skip
def test_every_mistake_has_its_hint_and_all_others_the_general_one(number, answer, hint):
    verdict = check(number, answer)
    assert (verdict.state, verdict.text) == ("wrong", hint)
    assert repr(verdict) == f"Not yet. {hint}"


@pytest.mark.parametrize(("number", "answer", "told"), [
    ("number", "many", "a number, this is a word"), ("number", True, "a number, this is a bool"),
    ("number", "48 apples", "a number, this is a word"), ("number", "1/0", "a number, this is a word"),
    ("number", "1e999999999", "a number, this is a word"), ("number", "4.8.0", "a number, this is a word"),
    ("number", [48], "a number, this is a list of 1"),
    ("list", "UNet", "a list of 2, this is a word"),
    ("number", torch.tensor(True), "a number, this is a bool"), ("number", 48j, "a number, this is a complex"),
    ("number", {"n": 48}, "a number, this is a dict"), ("number", {48}, "a number, this is a set"), ("number", len, "a number, this is a "),
    ("word", [3], "a word, this is a list of 1"), ("word", b"UNet", "a word, this is a bytes"), ("word", len, "a word, this is a function"),
    ("list", ["UNet"], "a list of 2, this is a list of 1"),
    ("list", [], "a list of 2, this is a list of 0"), ("row", 1, "a list of 3, this is a number"),
    ("row", bytearray(3), "a list of 3, this is a bytearray"),
    ("row", np.ones((2, 3)), "a list of 3, this is a list of 2"),
])  # fmt: skip
def test_an_answer_of_another_kind_is_told_so(number, answer, told):
    verdict = check(number, answer)
    assert verdict.state == "wrong"
    assert verdict.text.startswith(f"The answer is {told}")


@pytest.mark.parametrize("number", ["numbers", "", 48, None])
def test_an_exercise_that_there_is_not_is_explained(number):
    with pytest.raises(ValueError, match="out of number, near, word, list, row, got"):
        check(number, 48)


@pytest.mark.parametrize(("answer", "mark"), [(None, "…"), (48, "✓"), (16, "✗")])
def test_in_a_notebook_a_verdict_is_escaped_html_with_a_mark(answer, mark):
    verdict = dataclasses.replace(check("number", answer), text="<script>\"'&")
    assert verdict._repr_html_().startswith(f"<p><strong>{mark}</strong> ")
    assert verdict._repr_html_().endswith("&lt;script&gt;&quot;&#x27;&amp;</p>")


RIGHT = {
    "00.1": ["tokenizer, text encoder, UNet, VAE decoder", ["the tokenizer", "text_encoder", "u-net", "VAE"],
             "Tokenizer -> text encoder -> UNet -> decoder"],
    "00.2": ["1024", "1,024", "1,024 numbers", 1024.0, torch.tensor(1024)],
    "00.3": ["the noise", "noise image", "Noise.", ["noise"]],
    "01.2": ["table", "the table", "a look-up table", "dictionary"],
    "01.3": ["can't tell", "Cannot tell", "can not tell", "can’t tell", "neither"],
    "02.1": ["1/√2", "√2/2", "0,71", "0.7071", 2**-0.5, torch.tensor([0.5]).sqrt()[0]],
    "02.3": ["the end", "end token", "<|endoftext|>"],
    "03.1": ["48 times", "48x", "48 ×", "forty-eight", np.float32(48)],
    "03.2": [torch.Size([1, 4, 64, 96]), torch.Size([4, 64, 96]), "4 x 64 x 96", "4x64x96", "(1, 4, 64, 96)",
             (4.0, 64.0, 96.0), np.array([4, 64, 96])],
    "03.3": ["the UNet", "U-Net", "unet"],
    "03.4": ["8 pixels", "8 px", "eight"],
    "04.1": ["0.5, 0.866", "1/2, 0.866", np.sqrt([0.25, 0.75]), "0.5 and 0.866"],
    "04.2": ["t = 354", "350", 354.0],
    "04.3": ["once", "one", "1", "1 time"],
    "05.2": ["the noise", "all of the noise"],
    "05.3": ["the mean", "mean of many pictures", "the average"],
    "06.3": ["one", "1.0"],
    "06.4": ["Euler Ancestral", "euler_ancestral", "EulerAncestral", "Euler a"],
    "07.1": ["1/2", "50 %", "50%", "half", "0,5"],
    "07.2": ["the query", "Q", "queries"],
    "07.3": ["1/4", "25 %", "a quarter", 10 / 40],
    "07.4": ["padding", "the padding", "the later places", "end token and the padding",
             "the padding and the end token", ["padding", "end token"]],
    "08.1": ["12 steps", "twelve"],
    "08.3": ["the pasting", "pasting back"],
    "09.4": ["CLIP and VAE", "the VAE and CLIP", ["CLIP", "VAE"], "VAE, CLIP", "CLIP & VAE", "both"],
    "10.1": ["-1", "−1", "minus one"],
    "10.2": ["2048 numbers", "2,048"],
    "10.3": ["100 times", "100x"],
}  # fmt: skip
HINTED = {"00.3": "the ids", "01.2": "neural network", "01.3": 737, "02.1": "1/2", "02.3": "the start token", "03.2": "1, 4, 96, 64",
          "04.1": "1/4, 3/4", "05.2": "a picture with a little less noise", "07.1": "100 %", "07.3": "50 %", "09.4": ["VAE"]}  # fmt: skip
WRONG = {"01.3": ["736", "tell"], "02.1": ["2/√2", "1/√3", "7071"], "03.1": ["48 %", "48 apples", "4.8"],
         "03.2": ["1, 1, 4, 64, 96", [2, 4, 64, 96]],
         "04.1": [[1, 0.5, 0.866]], "05.2": ["no noise", "noise and picture"], "07.4": ["padding and start token", "place"],
         "09.4": ["UNet and CLIP", "CLIP"],
         "10.1": ["1/1", "−11"]}  # fmt: skip


@pytest.mark.parametrize(("number", "answer"), [(number, answer) for number, answers in RIGHT.items() for answer in answers])
def test_a_right_answer_is_right_however_it_is_written(monkeypatch, number, answer):
    monkeypatch.setattr(exercises, "exercises", THE_LESSONS)
    assert check(number, answer).state == "right"


def test_a_wrong_answer_stays_wrong_however_it_is_written(monkeypatch):
    monkeypatch.setattr(exercises, "exercises", THE_LESSONS)
    for number, answer in HINTED.items():
        assert check(number, answer).text in {mistake["hint"] for mistake in THE_LESSONS()[number]["wrong"]}, (number, answer)
    for number, answers in WRONG.items():
        assert {check(number, answer).state for answer in answers} == {"wrong"}, number


def test_no_hint_gives_the_answer_away():
    for number, asked in THE_LESSONS().items():
        if isinstance(asked["right"], int | float):
            for hint in (asked["hint"], *(mistake["hint"] for mistake in asked["wrong"])):
                numbers = re.findall(r"(?<![\d.,])-?\d+(?:\.\d+)?(?![\d.,]\d)", hint)
                assert abs(asked["right"]) <= 2 or f"{asked['right']:g}" not in numbers, (number, hint)


def test_the_lessons_exercises_are_whole_and_answer_as_they_say(monkeypatch):
    monkeypatch.setattr(exercises, "exercises", THE_LESSONS)
    assert (data_folder("lessons") / "exercises.toml").is_file(), "lessons/exercises.toml is missing"
    known = exercises.exercises()
    assert known
    for number, asked in known.items():
        if "slips" in asked:
            continue
        assert set(asked) - {"within", "also", "units", "shape"} == {"question", "right", "why", "hint", "wrong"}, number
        assert all(asked[key].strip() for key in ("question", "why", "hint")), number
        right, within = asked["right"], asked.get("within", 0)
        told = check(number, right)
        assert (told.state, told.text) == ("right", asked["why"]), number
        assert check(number).text == asked["question"], number
        mistakes = asked["wrong"]
        assert len(mistakes) >= 2, number
        assert len({mistake["hint"] for mistake in mistakes} | {asked["hint"]}) == len(mistakes) + 1, f"{number}: a hint stands there twice"
        for also in asked.get("also", ()):
            assert check(number, also).state == "right", (number, also)
        for mistake in mistakes:
            for also in mistake.get("also", ()):
                assert check(number, also).text == mistake["hint"], (number, also)
            told = check(number, mistake["answer"])
            assert (told.state, told.text) == ("wrong", mistake["hint"]), (number, mistake)
            assert type(mistake["answer"]) is type(right) or {type(mistake["answer"]), type(right)} == {int, float}, (number, mistake)
        other = elsewhere(right)
        told = check(number, other)
        assert (told.state, told.text) == ("wrong", asked["hint"]), (number, other)
        if isinstance(right, int | float):
            assert all(abs(mistake["answer"] - right) > 2 * within for mistake in mistakes), f"{number}: a mistake is nearly right"


def elsewhere(right):
    """An answer of the same kind that nobody would give."""
    if isinstance(right, list):
        return [elsewhere(part) for part in right]
    return "something quite else" if isinstance(right, str) else 123456789.5
