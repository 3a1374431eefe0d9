"""The captions that are painted to measure a checkpoint: fixed by the words that it knows, and by nothing else."""

from collections.abc import Iterator
from itertools import islice

from ...model import StableDiffusion
from ..captions import known_grammar, read, vocabulary
from ..imagining import HELD_OUT_SEED, describe_in_words
from ..world import WORLD, Grammar

PROMPTS = {"one_object": 80, "two_objects": 80, "held_out_pairs": 40, "three_objects": 40}


def known_words(model: StableDiffusion) -> frozenset[str]:
    """The words that a checkpoint was trained on; all of the world's if it does not say."""
    return model.vocabulary or frozenset(vocabulary(WORLD))


def prompts(words: frozenset[str]) -> dict[str, list[str]]:
    """The captions to paint, in these `words`, by kind, none twice: every colour is said; two objects stand in a relation;
    held-out pairs stand alone. Three objects are asked only of those who know all words of the world, which has them."""
    grammar = known_grammar(words)
    sources = {"one_object": (10_000, 1, grammar.taught()), "two_objects": (20_000, 2, grammar.taught()),
               "held_out_pairs": (30_000, 1, grammar.held_out())}  # fmt: skip
    if words >= {*vocabulary(WORLD)}:
        sources["three_objects"] = (200_000, 3, WORLD.taught())
    captions = {kind: dict.fromkeys(islice(full_captions(words, *source), 8 * PROMPTS[kind])) for kind, source in sources.items()}
    return {kind: [*distinct][: PROMPTS[kind]] for kind, distinct in captions.items()}


def full_captions(words: frozenset[str], start: int, objects: int, grammar: Grammar) -> Iterator[str]:
    """Captions of so many objects, from a seed on of those that are never trained on, that leave no colour and no relation open."""
    for scene in describe_in_words(words, HELD_OUT_SEED + start, objects, grammar):
        if all(thing.colour for thing in read(scene.caption).things) and (objects, scene.relation) != (2, "and"):
            yield scene.caption
