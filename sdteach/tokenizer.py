"""Stage 1: a prompt becomes tokens, by a table look-up and nothing else (byte-pair encoding, Sennrich et al., 2016)."""

import warnings
from itertools import takewhile

import numpy as np
import regex

from .model import StableDiffusion
from .records import Tokens

LONGEST = 100_000


def tokenize(model: StableDiffusion, prompt: str) -> Tokens:
    """Cut `prompt` into the pieces of the model's vocabulary, always `model_max_length` (77) places long.

    >>> tokens = tokenize(model, "a red car")
    >>> tokens.ids[:5]
    array([49406,   320,   736,  1615, 49407])

    Warns, quoting them, of words that do not fit and of words that a small checkpoint never read.
    Raises ValueError unless `prompt` is a str, of at most 100,000 characters: more takes seconds, and few of them are read.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"expected the prompt as a str, got {type(prompt).__name__}")
    if len(prompt) > LONGEST:
        raise ValueError(f"expected a prompt of at most {LONGEST:,} characters, got {len(prompt):,}; its first 77 tokens are what is read")
    text = prompt.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no character
    ids, read, spans = _encoded(model.tokenizer, text)
    fitting = spans[: len(ids) - 2]
    dropped = read[spans[len(fitting)][0] :].strip() if len(spans) > len(fitting) else ""
    if dropped:
        warnings.warn(f"the prompt is longer than {len(ids)} places; this was dropped: {_shortened(dropped)!r}", stacklevel=2)
    words, word_of = _words(model.tokenizer, read, fitting, len(ids))
    _warn_of_unknown(model, words)
    pieces = tuple(model.tokenizer.convert_ids_to_tokens(ids.tolist()))
    second_ids = None if model.tokenizer_2 is None else _encoded(model.tokenizer_2, text)[0]
    return Tokens(text, ids, pieces, words, word_of, len(fitting) + 1, dropped, second_ids)


def _encoded(tokenizer, text):
    """The ids in all places, the text that was read, and where in it each piece stands, whether it fits or not.

    A learned word with several vectors is read, as by diffusers, as one word for each: "<cat> <cat>_1 <cat>_2".
    """
    if any(word.endswith("_1") for word in tokenizer.added_tokens_encoder):
        from diffusers.loaders import TextualInversionLoaderMixin

        text = TextualInversionLoaderMixin().maybe_convert_prompt(text, tokenizer)
    spans = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"][1:-1]
    coded = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    return np.array(coded["input_ids"], np.int64), text, spans


def _words(tokenizer, text, spans, places):
    """The words that the pieces at `spans` (start, end in `text`) make up, and the word of each place.

    A word is a learned or special one with all its vectors; or letters with all that belongs to them, in any script, joined by
    apostrophe or hyphen; or what stands between, an emoji in one piece.
    """
    learned = "|".join(map(regex.escape, sorted(tokenizer.added_tokens_encoder, key=len, reverse=True))) or "(?!)"
    word = regex.compile(rf"(?i)({learned})(?: \1_\d+)*|\w+(?:['’-]\w+)*|(?:(?!{learned}|[\w\s])\X)+")
    read = max((end for _, end in spans), default=0)
    found = [*takewhile(lambda match: match.start() < read, word.finditer(text))]
    owners = [
        next((i for i, match in enumerate(found) if match.start() < max(end, start + 1) and start < match.end()), -1)
        for start, end in spans
    ]
    used = sorted({*owners} - {-1})
    word_of = np.full(places, -1, np.int64)
    word_of[1 : len(spans) + 1] = [used.index(owner) if owner >= 0 else -1 for owner in owners]
    return tuple(found[i][1] or found[i][0] for i in used), word_of


def _warn_of_unknown(model, words):
    if model.vocabulary is None:
        return
    unknown = list(dict.fromkeys(word for word in words if word.lower() not in model.vocabulary and any(map(str.isalnum, word))))
    if unknown:
        warnings.warn(f"{model.name} never read {_shortened(', '.join(unknown))!r} in its training and may draw anything for it; "
                      f"it knows: {', '.join(sorted(model.vocabulary))}", stacklevel=3)  # fmt: skip


def _shortened(text):
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-100:]}"
