"""Captions: a request put into words, and words read back as a request.

>>> read("a big red car below a star at night")  # doctest: +NORMALIZE_WHITESPACE
Request(things=(RequestedThing(name='car', colour='red', size='big'), RequestedThing(name='star', colour=None, size=None)),
        relation='below', place='night', style=None)
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from .world import COLOURS, OBJECTS, WORLD, Grammar

# Every idea's words, the commonest first.
OBJECT_WORDS = {name: [name] for name in OBJECTS} | {
    "ball": ["ball", "sphere"], "box": ["box", "cube"], "house": ["house", "hut"], "car": ["car", "automobile"],
    "boat": ["boat", "ship"], "flower": ["flower", "blossom"], "mushroom": ["mushroom", "toadstool"], "cat": ["cat", "kitten"],
    "rocket": ["rocket", "spaceship"], "hat": ["hat", "cap"], "train": ["train", "locomotive"],
}  # fmt: skip
COLOUR_WORDS = {name: [name] for name in COLOURS} | {"gray": ["gray", "grey"], "purple": ["purple", "violet"]}
SIZE_WORDS = {"small": ["small", "little", "tiny"], "medium": ["medium"], "big": ["big", "large", "huge"]}
RELATION_WORDS = {
    "left of": ["left of", "to the left of"], "right of": ["right of", "to the right of"],
    "above": ["above", "over"], "below": ["below", "under", "beneath"], "and": ["and"],
}  # fmt: skip
PLACE_WORDS = {
    "paper": ["on white paper", "on paper"], "sky": ["in the sky", "among the clouds"], "night": ["at night", "under the stars"],
    "meadow": ["in a meadow", "on the grass"], "beach": ["on a beach", "by the sea"], "snow": ["in the snow", "in winter"],
    "desert": ["in the desert", "on a dune"], "sea": ["in the sea", "underwater"],
}  # fmt: skip
STYLE_WORDS = {"flat": ["a picture of"], "line": ["a line drawing of"], "crayon": ["a crayon drawing of"], "pixel": ["pixel art of"]}


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

    def word(words, idea):
        return words[idea][0] if rng.random() < 0.75 else rng.choice(words[idea]).item()

    phrases = []
    for thing in request.things:
        words = [word(SIZE_WORDS, thing.size)] if thing.size else []
        words += [word(COLOUR_WORDS, thing.colour)] if thing.colour else []
        words += [word(OBJECT_WORDS, thing.name)]
        phrases.append(f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}")
    text = ", ".join(phrases[:-1]) + f" {word(RELATION_WORDS, request.relation)} {phrases[-1]}" if request.relation else phrases[0]
    if request.style:
        text = f"{word(STYLE_WORDS, request.style)} {text}"
    if request.place:
        place = word(PLACE_WORDS, request.place)
        text = f"{place}, {text}" if rng.random() < 0.15 else f"{text} {place}"
    return text


def read(caption: str) -> Request:
    """What a caption asks for; whatever `say` said is read back. Raises ValueError for any other sentence."""
    found = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    if not found or (found["opening"] and found["place"]):
        raise ValueError(f'expected a caption of the picture book, such as "a big red car below a yellow star at night", got {caption!r}; '
                         "sdteach.picturebook.captions lists its words")  # fmt: skip
    things = list(THING.finditer(found["things"]))
    relation = found["things"][things[-2].end() : things[-1].start()].strip() if len(things) > 1 else None
    return Request(
        tuple(RequestedThing(_OBJECTS[t["object"]], _COLOURS.get(t["colour"]), _SIZES.get(t["size"])) for t in things),
        _RELATIONS.get(relation), _PLACES.get(found["opening"] or found["place"]), _STYLES.get(found["style"]),
    )  # fmt: skip


def vocabulary(grammar: Grammar) -> list[str]:
    """Every word that a caption of this grammar can contain, sorted: what a checkpoint trained on it has ever read."""
    objects = [word for name in grammar.objects for word in OBJECT_WORDS[name]]
    colours = [word for name in {colour for colour, _ in grammar.pairs} for word in COLOUR_WORDS[name]]
    places = [word for name in grammar.places for word in PLACE_WORDS[name]]
    styles = [word for name in grammar.styles for word in STYLE_WORDS[name]]
    relations = [word for words in RELATION_WORDS.values() for word in words] if grammar.most > 1 else []
    sizes = [word for words in SIZE_WORDS.values() for word in words]
    texts = [*objects, *colours, *places, *styles, *relations, *sizes, "a an"]
    return sorted({word for text in texts for word in text.split()} - {"medium"})


def known_grammar(words: Collection[str]) -> Grammar:
    """The largest grammar of one or two objects that a checkpoint which has read these `words` can be asked for."""
    known = {word for word in (*OBJECTS, *COLOURS) if word in words}
    places = tuple(name for name, (place, *_) in PLACE_WORDS.items() if {*place.split()} <= {*words})
    styles = tuple(name for name, (style, *_) in STYLE_WORDS.items() if name == "flat" or {*style.split()} <= {*words})
    return Grammar(frozenset(pair for pair in WORLD.pairs if {*pair} <= known), places, styles, 2)


def _ideas(words):
    return {word: idea for idea, choices in words.items() for word in choices}


_OBJECTS, _COLOURS, _SIZES = _ideas(OBJECT_WORDS), _ideas(COLOUR_WORDS), _ideas(SIZE_WORDS)
_RELATIONS, _PLACES, _STYLES = _ideas(RELATION_WORDS), _ideas(PLACE_WORDS), _ideas(STYLE_WORDS)


def _any(ideas):
    return "|".join(map(re.escape, ideas))


_A_THING = rf"an? (?:(?:{_any(_SIZES)}) )?(?:(?:{_any(_COLOURS)}) )?(?:{_any(_OBJECTS)})"
THING = re.compile(rf"\ban? (?:(?P<size>{_any(_SIZES)}) )?(?:(?P<colour>{_any(_COLOURS)}) )?(?P<object>{_any(_OBJECTS)})\b")
_CAPTION = re.compile(
    rf"(?:(?P<opening>{_any(_PLACES)}), )?(?:(?P<style>{_any(_STYLES)}) )?"
    rf"(?P<things>{_A_THING}(?:, {_A_THING} and {_A_THING}| (?:{_any(_RELATIONS)}) {_A_THING})?)"
    rf"(?:,? (?P<place>{_any(_PLACES)}))?"
)
