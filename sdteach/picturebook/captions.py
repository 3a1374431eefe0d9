"""Captions: a request put into words, and words read back as a request.

>>> read("a big red car below a star at night")  # doctest: +NORMALIZE_WHITESPACE
Request(things=(RequestedThing(name='car', colour='red', size='big'), RequestedThing(name='star', colour=None, size=None)),
        relation='below', place='night', style=None)
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from .world import BOOK, WORLD, Grammar

# Every idea's words, the commonest first, and the idea of every word.
WORDS = {kind: {name: idea["words"] for name, idea in ideas.items()} for kind, ideas in BOOK.items()}
IDEAS = {kind: {word: idea for idea, choices in words.items() for word in choices} for kind, words in WORDS.items()}


@dataclass(frozen=True)
class RequestedThing:
    """What a caption asks of one object; None is left unsaid."""

    name: str
    colour: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Request:
    """What a caption asks for; None is left unsaid. `relation` is that of the first object seen from the second, or "and"."""

    things: tuple[RequestedThing, ...]
    relation: str | None = None
    place: str | None = None
    style: str | None = None


def say(rng: np.random.Generator, request: Request) -> str:
    """Put a request into words: one of the templates, now and then a rarer word for the same idea."""

    def word(kind, idea):
        words = WORDS[kind][idea]
        return words[0] if rng.random() < 0.75 else rng.choice(words).item()

    phrases = []
    for thing in request.things:
        ideas = {"sizes": thing.size, "colours": thing.colour, "objects": thing.name}
        words = " ".join(word(kind, idea) for kind, idea in ideas.items() if idea)
        phrases.append(f"{'an' if words[0] in 'aeiou' else 'a'} {words}")
    text = phrases[-1]
    if request.relation:
        text = f"{', '.join(phrases[:-1])} {word('relations', request.relation)} {text}"
    if request.style:
        text = f"{word('styles', request.style)} {text}"
    if request.place:
        place = word("places", request.place)
        text = f"{place}, {text}" if rng.random() < 0.15 else f"{text} {place}"
    return text


def read(caption: str) -> Request:
    """What a caption asks for; whatever `say` said is read back. Raises ValueError for any other sentence."""
    found = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    if not found or (found["opening"] and found["places"]):
        raise ValueError(f'expected a caption of the picture book, such as "a big red car below a yellow star at night", got {caption!r}; '
                         "sdteach.picturebook.captions lists its words")  # fmt: skip
    relation, place, style = (IDEAS[kind].get(found[kind]) for kind in ("relations", "places", "styles"))
    return Request(
        tuple(RequestedThing(*(IDEAS[kind].get(thing[kind]) for kind in ("objects", "colours", "sizes")))
              for thing in THING.finditer(found["things"])),
        relation, place or IDEAS["places"].get(found["opening"]), style,
    )  # fmt: skip


def words_of(caption: str) -> set[str]:
    """The words of a caption, without its commas."""
    return {*caption.replace(",", "").split()}


def vocabulary(grammar: Grammar) -> list[str]:
    """Every word that a caption of this grammar can contain, sorted: what a checkpoint trained on it has ever read."""
    said = {"objects": grammar.objects, "colours": {colour for colour, _ in grammar.pairs}, "places": grammar.places,
            "styles": grammar.styles, "relations": WORDS["relations"] if grammar.most > 1 else (), "sizes": ("small", "big")}  # fmt: skip
    return sorted({"a", "an"}.union(*(words_of(text) for kind, ideas in said.items() for idea in ideas for text in WORDS[kind][idea])))


def known_grammar(words: Collection[str]) -> Grammar:
    """The largest grammar of one or two objects that a checkpoint which has read these `words` can be asked for."""
    words = {*words}
    places = tuple(name for name, (place, *_) in WORDS["places"].items() if words_of(place) <= words)
    styles = tuple(name for name, (style, *_) in WORDS["styles"].items() if name == "flat" or words_of(style) <= words)
    return Grammar(frozenset(pair for pair in WORLD.pairs if {*pair} <= words), places, styles, 2)


def _any(kind, name=None):
    return f"(?P<{name or kind}>{'|'.join(IDEAS[kind])})"


_NAMED = rf"\ban? (?:{_any('sizes')} )?(?:{_any('colours')} )?{_any('objects')}\b"
THING, _A_THING = re.compile(_NAMED), re.sub(r"P<\w+>", ":", _NAMED)
_CAPTION = re.compile(
    rf"(?:{_any('places', 'opening')}, )?(?:{_any('styles')} )?"
    rf"(?P<things>{_A_THING}(?:(?:, {_A_THING}(?= and ))? {_any('relations')} {_A_THING})?)"
    rf"(?:,? {_any('places')})?"
)
