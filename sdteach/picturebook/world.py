"""What there is in the picture book: objects, colours, sizes, places, styles, relations, and which of them go together."""

from dataclasses import dataclass, replace
from itertools import product

from .objects import PAINTERS

OBJECTS = tuple(PAINTERS)
COLOURS = {
    "red": (218, 48, 46), "orange": (244, 136, 38), "yellow": (250, 212, 52), "green": (66, 164, 76),
    "blue": (48, 104, 214), "purple": (134, 72, 184), "pink": (245, 146, 186), "brown": (140, 88, 54),
    "black": (54, 53, 60), "white": (250, 250, 246), "gray": (146, 148, 152),
}  # fmt: skip
SIZES = {"small": (13.0, 14.5), "medium": (19.0, 22.0), "big": (26.0, 29.0)}  # radius in pixels
PLACES = ("paper", "sky", "night", "meadow", "beach", "snow", "desert", "sea")
STYLES = ("flat", "line", "crayon", "pixel")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # first object seen from second

# One pair in twenty, chosen by hand so that every one of its words is taught with others: whoever paints a purple car
# after training has put together what it never saw together.
HELD_OUT_PAIRS = frozenset({
    ("red", "fish"), ("green", "house"), ("blue", "mushroom"), ("yellow", "heart"), ("purple", "car"), ("orange", "boat"),
    ("pink", "tree"), ("blue", "sun"), ("green", "cat"), ("red", "snowman"), ("purple", "rocket"), ("orange", "key"),
    ("gray", "butterfly"),
})  # fmt: skip


@dataclass(frozen=True)
class Grammar:
    """The scenes that may be imagined: which (colour, object) pairs, at which places, in which styles, at most how many."""

    pairs: frozenset[tuple[str, str]]
    places: tuple[str, ...] = PLACES
    styles: tuple[str, ...] = STYLES
    most: int = 3

    @property
    def objects(self) -> tuple[str, ...]:
        named = {name for _, name in self.pairs}
        return tuple(name for name in OBJECTS if name in named)

    def taught(self) -> "Grammar":
        """Without the pairs that training never sees."""
        return replace(self, pairs=self.pairs - HELD_OUT_PAIRS)

    def held_out(self) -> "Grammar":
        """Nothing but the pairs that training never sees."""
        return replace(self, pairs=self.pairs & HELD_OUT_PAIRS)


WORLD = Grammar(frozenset(product(COLOURS, OBJECTS)))
SMALL_WORLD = Grammar(frozenset(product(COLOURS, OBJECTS[:12])), styles=("flat",), most=2)
