"""The lessons' exercises: an answer is not given yet, right, or wrong with a hint for that particular misconception.

>>> check("03.1", 48)
Right. 3 × 8 × 8 numbers of pixels for 4 of latents: 192 / 4.

Questions, answers and hints stand in `lessons/exercises.toml`, where a teacher can change them; the code that is asked for in
`lessons/stages.py`.
"""

from dataclasses import dataclass
from functools import cache
from html import escape

from ..files import data_folder, data_of
from .trying import stages, tried
from .words import fits, kind, plain, read_as

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
    """Check the answer to an exercise such as "02.1": a number, a word, several of either, or the function that it asks for.

    None or `...` is no answer yet, nor is a function that returns one of them. Raises ValueError for an exercise that there is not.
    """
    known = exercises()
    if exercise not in known:
        raise ValueError(f"expected an exercise out of {', '.join(known)}, got {exercise!r}")
    asked, given = known[exercise], plain(answer)
    if given is None or given is ... or (isinstance(given, list) and ... in given):
        return Verdict("unanswered", asked["question"])
    if "slips" in asked:
        text, seen = tried(stages()[exercise], answer)
        state = {"question": "unanswered", "why": "right"}.get(text, "wrong")
        return Verdict(state, " ".join(filter(None, [(asked | asked["slips"]).get(text), seen])))
    right = asked["right"]
    if fits(given, right, asked):
        return Verdict("right", asked["why"])
    for mistake in asked["wrong"]:
        if fits(given, mistake["answer"], asked | {"also": ()} | mistake):
            return Verdict("wrong", mistake["hint"])
    alike = kind(read_as(right, given, asked)) == kind(right)
    return Verdict("wrong", asked["hint"] if alike else f"The answer is {kind(right)}, this is {kind(given)}.")


@cache
def exercises() -> dict[str, dict]:
    """Every exercise by its number: question, right answer, why, usual wrong answers with their hints, a hint for all others."""
    return data_of(data_folder("lessons") / "exercises")


@cache
def tests() -> dict[str, dict]:
    """What is asked before and after a lesson, by the number of the skill, such as "04.1": its name, and two questions and answers."""
    return data_of(data_folder("lessons") / "before_and_after")
