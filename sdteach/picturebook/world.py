"""What there is in the picture book: objects, colours, sizes, places, styles, relations, and which of them go together."""

from dataclasses import dataclass, replace
from itertools import product

from ..files import data_of
from .objects import OBJECTS, THINGS

BOOK = {"objects": THINGS, **data_of(__file__)}
COLOURS = {name: tuple(colour["rgb"]) for name, colour in BOOK["colours"].items()}
SIZES = {name: tuple(size["radius"]) for name, size in BOOK["sizes"].items()}  # radius in pixels
PLACES, STYLES = tuple(BOOK["places"]), tuple(BOOK["styles"])
RELATIONS = {name: tuple(idea["direction"]) for name, idea in BOOK["relations"].items() if name != "and"}  # first object seen from second

# One pair in twenty, chosen by hand so that every one of its words is taught with others: whoever paints a purple car
# after training has put together what it never saw together.
HELD_OUT_PAIRS = frozenset(map(tuple, BOOK.pop("held_out")))


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
