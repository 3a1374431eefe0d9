"""Answers in words and numbers, however they are written: "the UNet" is "UNet", "1/4" and "25 %" are 0.25."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from numbers import Real

NUMBER = re.compile(r"(?:\w+ ?= ?)?([-+]?[\d.]+(?:/\d+|e[-+]?\d\d?)?)\s*(.*)")
SIGNS = str.maketrans(",−", ".-")
BETWEEN = re.compile(r"\s*(?:,|;|\band\b|×|->|→|(?<=[\d ])x(?=[\d ]))\s*")  # the parts of a list that was written as one text


def plain(answer: object) -> object:
    """Numbers out of tensors and arrays; words without space around; sequences as lists of these."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if isinstance(answer, str):
        return answer.strip()
    if isinstance(answer, Sequence) and not isinstance(answer, bytes | bytearray):
        return [plain(part) for part in answer]
    return answer


def fits(answer: object, right: object, asked: Mapping) -> bool:
    """Whether an answer, which is `plain`, is `right` or one of `also`.

    `asked` says what else is allowed: `within` how far off numbers may be, which `units` may follow them, `shape` a leading 1.
    """
    return any(_same(read_as(wanted, answer, asked), wanted, asked.get("within", 0)) for wanted in (right, *asked.get("also", ())))


def read_as(wanted: object, answer: object, asked: Mapping) -> object:
    """The answer in the form of the wanted one, where it can be read so."""
    if isinstance(wanted, list):
        parts = BETWEEN.split(answer.strip("()[] ")) if isinstance(answer, str) else answer
        if asked.get("shape") and kind(parts) == f"a list of {len(wanted) + 1}" and parts[0] in (1, "1"):
            parts = parts[1:]
        return [read_as(*pair, asked) for pair in zip(wanted, parts, strict=True)] if kind(parts) == kind(wanted) else answer
    if isinstance(wanted, str):
        if isinstance(answer, list) and all(isinstance(part, str) for part in answer):
            return " and ".join(answer)
        return str(answer).removesuffix(".0") if kind(answer) == "a number" else answer
    if isinstance(answer, str) and (found := NUMBER.fullmatch(re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer).translate(SIGNS))):
        unit = found[2].lower()
        if unit in ("", "%", *asked.get("units", ())):
            with suppress(ValueError, ZeroDivisionError):
                return Fraction(found[1]) / (100 if unit == "%" else 1)
    return answer


def kind(answer: object) -> str:
    """What an answer is, as a learner would call it."""
    if isinstance(answer, list):
        return f"a list of {len(answer)}"
    if isinstance(answer, Real) and not isinstance(answer, bool):
        return "a number"
    if isinstance(answer, Callable):
        return "a function"
    return "a word" if isinstance(answer, str) else f"a {type(answer).__name__}"


def _same(given, wanted, within):
    if kind(given) != kind(wanted):
        return False
    if isinstance(wanted, list):
        return all(_same(*pair, within) for pair in zip(given, wanted, strict=True))
    return _letters(given) == _letters(wanted) if isinstance(wanted, str) else wanted - within <= given <= wanted + within


def _letters(words):
    """What is left of words when case, articles, spaces, hyphens, and the order around an "and" play no part."""
    parts = re.split(r"\band\b|[,&]", re.sub(r"\b(?:an?|the)\s", "", words.lower().replace("_", " ")))
    return sorted(re.sub(r"[^\w+√/.]", "", part).rstrip(".") for part in parts)
