"""Phase 2: words. The text tower learns to tell at every word what a UNet must know there; a caption needs no picture for that.

Taught by pictures alone it tells in few places which things a relation binds, and how: linear readers of its states find that out.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..captions import THING, RequestedThing, read
from ..imagining import HELD_OUT_SEED, describe
from ..world import COLOURS, OBJECTS, PLACES, RELATIONS
from .contrast import WIDTH

# What a caption says: of the first thing its name and colour, of the second, how they stand, where. Each is an index, the one after
# the last if it is left unsaid.
IDEAS = (OBJECTS, COLOURS, OBJECTS, COLOURS, (*RELATIONS, "and"), PLACES)
SIZES = [len(ideas) + 1 for ideas in IDEAS]
# Which of these a reader finds at the first thing's word, at the second's, at the relation's and, twice, in the padding.
FOUND = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 0], [1] * 6, [1] * 6], dtype=bool)
UNASKED = -100  # cross_entropy passes over it
EAGERNESS = 8.0  # how much faster than the tower the readers learn


class BindingObjective(nn.Module):
    """Cross-entropy of what linear readers find in the states of `FOUND`, while all states are held where they were.

    The end token's, from which CLIP tells pictures, is held six times as hard, those of the padding hardly.
    """

    def __init__(self, text_encoder):
        super().__init__()
        self.text_encoder = text_encoder
        text_encoder.get_input_embeddings().requires_grad_(False)
        self.before = [deepcopy(text_encoder).eval().requires_grad_(False)]  # in a list: no part of the state that is trained and saved
        self.readers = nn.ModuleList(nn.Linear(WIDTH, sum(SIZES)) for _ in range(4))
        for weights in self.readers.parameters():  # who cannot read yet teaches little
            nn.init.normal_(weights, std=0.01)

    def forward(self, ids, places, truths):
        rows = torch.arange(len(ids), device=ids.device)
        states = self.text_encoder(ids).last_hidden_state
        read_out = torch.stack([self.readers[min(k, 3)](states[rows, places[:, k]]) for k in range(len(FOUND))], 1)
        wrong = sum(cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="sum")
                    for logits, truth in zip((EAGERNESS * read_out.float()).split(SIZES, 2), truths.unbind(2), strict=True))  # fmt: skip
        with torch.no_grad():
            before = self.before[0].to(ids.device)(ids).last_hidden_state
        return wrong / (len(ids) * FOUND.sum().item()) + moved(ids, states.float(), before.float())


def moved(ids: Tensor, states: Tensor, before: Tensor) -> Tensor:
    """How far the states (n, 77, width) of the token `ids` are from what they were before, in parts of their variance."""
    place, end = torch.arange(ids.shape[1], device=ids.device), ids.argmax(1, keepdim=True)  # the end token has the highest id
    words, padding = (place < end).float(), (place > end).float()
    weight = words / words.sum(1, keepdim=True) + 6 * (place == end) + 0.05 * padding / padding.sum(1, keepdim=True)
    return ((weight * (states - before).square().mean(2)).sum(1) / before.var((1, 2))).mean()


def questions(tokenizer, grammar, batch):
    """Random batches for `BindingObjective`, of captions imagined without end, three in five of two things."""

    def draw():
        seeds, where = torch.randint(HELD_OUT_SEED, (batch,)).tolist(), torch.rand(batch, 2)
        return asked(tokenizer, [describe(seed, objects=2 if seed % 5 < 3 else None, grammar=grammar).caption for seed in seeds], where)

    return draw


def asked(tokenizer, captions: list[str], where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids (n, 77), the places (n, 5) where something is read, and what it is (n, 5, 6), `UNASKED` for what is not; see `FOUND`.

    `where` (n, 2) in 0..1 chooses the places in the padding.
    """
    encoded = tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt")
    places, truths = torch.zeros(len(captions), len(FOUND), dtype=int), torch.full((len(captions), *FOUND.shape), UNASKED)
    for row, caption in enumerate(captions):
        request, (first, *second) = read(caption), THING.finditer(caption)
        things = (*request.things, RequestedThing(""))[:2]
        said = *(idea for thing in things for idea in (thing.name, thing.colour)), request.relation, request.place
        truth = torch.tensor([(*ideas, idea).index(idea) for ideas, idea in zip(IDEAS, said, strict=True)])
        characters = [first.end() - 1, *(at for word in second[:1] for at in (word.end() - 1, word.start() - 2)), len(caption) - 1]
        *found, last = (encoded.char_to_token(row, at) for at in characters)
        padding = last + 2  # after the end token
        found += [padding + int(share * (77 - padding)) for share in where[row].tolist()]
        asked_of = range(5) if second else [0, 3, 4]
        places[row, asked_of], truths[row, asked_of] = torch.tensor(found), truth.where(FOUND[asked_of], UNASKED)
    return encoded.input_ids, places, truths
