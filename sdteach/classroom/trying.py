"""A learner's function, tried on numbers: is it the stage, one of its usual slips, or something else?"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from runpy import run_path

import numpy as np

from ..files import data_folder
from ..records import Record
from .words import plain

TRIES = 1, 2, 3


class Stage(Record):
    """`right` is the stage; `inputs(n, rng)` what it is given in the n-th try, drawn from a numpy generator.

    `slips` are the stage done wrong, by the names that their hints have. `within` is the largest difference that counts as right, as a
    fraction of the right answer's largest number where that is above 1.
    """

    right: Callable
    inputs: Callable
    slips: dict[str, Callable]
    within: float = 1e-4


@cache
def stages() -> dict[str, Stage]:
    """The stages of `lessons/stages.py` by the numbers of their exercises."""
    return run_path(str(data_folder("lessons") / "stages.py"))["STAGES"]


def tried(stage: Stage, function: object) -> tuple[str, str]:
    """Which text of the exercise an attempt deserves (`question`, `why`, `hint`, a slip's name, or "" for none), and what was seen.

    Whatever the function does is told, never raised; `question` is for one that returns nothing yet, `why` for one that is right.
    """
    try:
        tries = [_once(stage, function, n) for n in TRIES]
    except NotImplementedError as nothing:
        return "question", str(nothing)
    except ValueError as told:
        return "", str(told)
    apart = {name: max(_apart(found, _numbers(way(*inputs))) for inputs, found in tries)
             for name, way in ({"why": stage.right} | stage.slips).items()}  # fmt: skip
    seen = f"Largest difference {apart['why']:.2g} in {len(TRIES)} tries; up to {stage.within:g} is right."
    if apart["why"] == np.inf:
        inputs, found = tries[-1]
        seen = f"It returns {_shape(found)}; expected are {_shape(_numbers(stage.right(*inputs)))}."
    return next((name for name, gap in apart.items() if gap <= stage.within), "hint"), seen


def _once(stage, function, n):
    """The inputs of one try, and what the function made of them; ValueError says what was not well, NotImplementedError for nothing."""
    if not callable(function):
        raise ValueError("The answer is a function: hand it over by its name, without calling it.")
    inputs = stage.inputs(n, np.random.default_rng(n))
    given = deepcopy(inputs)
    try:
        answer = function(*given)
    except Exception as error:  # a learner's code may raise anything
        raise ValueError(f"It stopped with {type(error).__name__}: {error}") from error
    if answer is None or answer is ...:
        raise NotImplementedError("(It returns nothing yet.)")
    if plain(given) != plain(inputs):
        raise ValueError("It changes what it was given. Leave that as it is, and return something new.")
    try:
        found = _numbers(answer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"It returns a {type(answer).__name__}; expected are {_shape(_numbers(stage.right(*inputs)))}.") from error
    if found.dtype == float and not np.isfinite(found).all():
        raise ValueError("Some of what it returns are no numbers (NaN or infinite). Where is something divided by 0?")
    return inputs, found


def _numbers(answer):
    """As an array of float64, or of texts."""
    array = np.array(plain(answer))
    return array if array.dtype.kind == "U" else array.astype(float)


def _shape(array):
    return f"{'numbers' if array.dtype == float else 'texts'} of shape {array.shape}"


def _apart(given, wanted):
    """The largest difference, as a fraction of the largest number where that is above 1; infinite for another shape or kind."""
    if _shape(given) != _shape(wanted):
        return np.inf
    if wanted.dtype != float:
        return float((given != wanted).any())
    return abs(given - wanted).max() / max(1, abs(wanted).max())
