"""Stage 1: a prompt becomes tokens, by a table look-up and nothing else (byte-pair encoding, Sennrich et al., 2016)."""

import re
import warnings

import numpy as np

from .model import StableDiffusion
from .records import Tokens


def tokenize(model: StableDiffusion, prompt: str) -> Tokens:
    """Cut `prompt` into the pieces of the model's vocabulary, always `model_max_length` (77) places long.

    >>> tokens = tokenize(model, "a red car")
    >>> tokens.ids[:5]
    array([49406,   320,   736,  1615, 49407])

    Warns, quoting them, of words that do not fit and of words that a small checkpoint never read.
    Raises ValueError unless `prompt` is a str.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"expected the prompt as a str, got {type(prompt).__name__}")
    tokenizer = model.tokenizer
    room = tokenizer.model_max_length
    text = prompt.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no character
    ids = _padded_ids(tokenizer, text)
    whole = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"][1:-1]
    kept = whole[: room - 2]
    dropped = text[whole[room - 2][0] :].strip() if len(whole) > len(kept) else ""
    if dropped:
        warnings.warn(f"the prompt is longer than {room} places; this was dropped: {_shortened(dropped)!r}", stacklevel=2)
    words, word_of = _words(text, kept, room)
    _warn_of_unknown(model, words)
    pieces = tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))
    second_ids = None if model.tokenizer_2 is None else _padded_ids(model.tokenizer_2, text)
    return Tokens(text, ids, pieces, words, word_of, len(kept) + 1, dropped, second_ids)


def _padded_ids(tokenizer, text):
    coded = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    return np.array(coded["input_ids"], np.int64)


def _words(text, spans, room):
    """The words that the pieces at `spans` (start, end in `text`) make up, and the word of each place."""
    found = [match.span() for match in re.finditer(r"\w+(?:['’-]\w+)*|[^\w\s]+", text)]
    owner, index = [], 0
    for start, end in spans:
        while index + 1 < len(found) and found[index + 1][0] <= start:
            index += 1
        overlaps = found and found[index][0] < max(end, start + 1) and start < found[index][1]
        owner.append(index if overlaps else -1)
    used = sorted(set(owner) - {-1})
    word_of = np.full(room, -1, np.int64)
    word_of[1 : len(spans) + 1] = [used.index(i) if i >= 0 else -1 for i in owner]
    return tuple(text[slice(*found[i])] for i in used), word_of


def _warn_of_unknown(model, words):
    if model.vocabulary is None:
        return
    unknown = list(dict.fromkeys(word for word in words if word.lower() not in model.vocabulary and any(map(str.isalnum, word))))
    if unknown:
        warnings.warn(f"{model.name} never read {_shortened(', '.join(unknown))!r} in its training and may draw anything for it; "
                      f"it knows: {', '.join(sorted(model.vocabulary))}", stacklevel=3)  # fmt: skip


def _shortened(text, limit=200):
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
