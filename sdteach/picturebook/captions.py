"""Captions: a request put into words, and words read back as a request.

>>> read("a big red car below a star at night")  # doctest: +NORMALIZE_WHITESPACE
Request(things=(RequestedThing(name='car', colour='red', size='big'), RequestedThing(name='star', colour=None, size=None)),
        relation='below', place='night', style=None)
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from .world import BOOK, COLOURS, OBJECTS, WORLD, Grammar

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
    if not found or (found["opening"] and found["place"]):
        raise ValueError(f'expected a caption of the picture book, such as "a big red car below a yellow star at night", got {caption!r}; '
                         "sdteach.picturebook.captions lists its words")  # fmt: skip
    things = [*THING.finditer(found["things"])]
    between = found["things"][things[-2].end() : things[-1].start()].strip() if len(things) > 1 else None
    return Request(
        tuple(RequestedThing(*(IDEAS[kind].get(thing[kind]) for kind in ("objects", "colours", "sizes"))) for thing in things),
        IDEAS["relations"].get(between), IDEAS["places"].get(found["opening"] or found["place"]), IDEAS["styles"].get(found["style"]),
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
    known = {word for word in (*OBJECTS, *COLOURS) if word in words}
    places = tuple(name for name, (place, *_) in WORDS["places"].items() if words_of(place) <= {*words})
    styles = tuple(name for name, (style, *_) in WORDS["styles"].items() if name == "flat" or words_of(style) <= {*words})
    return Grammar(frozenset(pair for pair in WORLD.pairs if {*pair} <= known), places, styles, 2)


def _any(kind, named=True):
    return f"(?{'P<' + kind + '>' if named else ':'}{'|'.join(map(re.escape, IDEAS[kind]))})"


def _a_thing(named):
    return rf"\ban? (?:{_any('sizes', named)} )?(?:{_any('colours', named)} )?{_any('objects', named)}\b"


THING, _A_THING = re.compile(_a_thing(True)), _a_thing(False)
_CAPTION = re.compile(
    rf"(?:(?P<opening>{_any('places', False)}), )?(?:(?P<style>{_any('styles', False)}) )?"
    rf"(?P<things>{_A_THING}(?:, {_A_THING} and {_A_THING}| {_any('relations', False)} {_A_THING})?)"
    rf"(?:,? (?P<place>{_any('places', False)}))?"
)
