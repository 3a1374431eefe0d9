"""The lessons' exercises: an answer is not given yet, right, or wrong with a hint for that particular misconception.

>>> check("03.1", 48)
Right. 3 × 128 × 128 numbers became 4 × 16 × 16.

Questions, answers and hints stand in `lessons/exercises.toml`, where a teacher can change them.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from numbers import Real

from ..files import data_folder

STATES = {"unanswered": ("…", ""), "right": ("✓", "Right. "), "wrong": ("✗", "Not yet. ")}  # the mark and the lead of what is said


@dataclass(frozen=True)
class Verdict:
    """What `check` says of an answer: `state` is "unanswered", "right" or "wrong"."""

    state: str
    text: str

    def __repr__(self):
        return STATES[self.state][1] + self.text

    def _repr_html_(self):
        return f"<p><strong>{STATES[self.state][0]}</strong> {escape(repr(self))}</p>"


def check(exercise: str, answer: object = None) -> Verdict:
    """Check the answer to an exercise such as "02.1": a number, a word, or several of either. None or `...` is no answer yet.

    Raises ValueError for an exercise that there is not.
    """
    known = exercises()
    if exercise not in known:
        raise ValueError(f"expected an exercise out of {', '.join(known)}, got {exercise!r}")
    asked, given = known[exercise], _plain(answer)
    right, question, within = asked["right"], asked["question"], asked.get("within", 0)
    if given is None or given is ... or (isinstance(given, list) and ... in given):
        return Verdict("unanswered", question)
    if _kind(given) != _kind(right):
        return Verdict("wrong", f"The answer is {_kind(right)}, this is {_kind(given)}.")
    if _fits(given, right, within):
        return Verdict("right", asked["why"])
    hints = (mistake["hint"] for mistake in asked["wrong"] if _fits(given, mistake["answer"], within))
    return Verdict("wrong", next(hints, asked["hint"]))


@cache
def exercises() -> dict[str, dict]:
    """Every exercise by its number: question, right answer, why, usual wrong answers with their hints, a hint for all others."""
    return tomllib.loads((data_folder("lessons") / "exercises.toml").read_text("utf-8"))


def _plain(answer):
    """Numbers out of tensors and arrays; words without case and spaces around; sequences of these."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if isinstance(answer, str):
        return " ".join(answer.lower().split())
    if isinstance(answer, Sequence) and not isinstance(answer, bytes | bytearray):
        return [_plain(part) for part in answer]
    return answer


def _kind(answer):
    if isinstance(answer, list):
        return f"a list of {len(answer)}"
    if isinstance(answer, Real) and not isinstance(answer, bool):
        return "a number"
    return "a word" if isinstance(answer, str) else f"a {type(answer).__name__}"


def _fits(given, wanted, within):
    if _kind(given) != _kind(wanted):
        return False
    if isinstance(wanted, list):
        return all(_fits(*pair, within) for pair in zip(given, wanted, strict=True))
    return given == wanted.lower() if isinstance(wanted, str) else wanted - within <= given <= wanted + within
