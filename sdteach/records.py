"""The vocabulary: what each stage leaves behind, as frozen dataclasses of CPU numpy arrays.

Nothing here needs torch. Places are the 77 positions of CLIP's input; `height` and `width` of latents and
attention maps are counted in latent pixels, an eighth of the picture's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import dataclass_transform
from unicodedata import normalize

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

Latents = Float32[np.ndarray, "1 channels height width"]
Map = Float32[np.ndarray, "height width"]
Maps = Float32[np.ndarray, "places height width"]
Places = Int64[np.ndarray, " places"]


@dataclass_transform(frozen_default=True, eq_default=False)
class Record:
    """A frozen dataclass, as every subclass is, whose repr has names, shapes, dtypes and ranges instead of walls of numbers: at most
    80 columns a field, and none that is None."""

    def __init_subclass__(cls):
        dataclass(frozen=True, eq=False, repr=False)(cls)

    def __repr__(self):
        lines = [f"  {name}: {_summary(value)}" for name, value in vars(self).items() if value is not None]
        return "\n".join([f"{type(self).__name__}(", *(line if len(line) <= 80 else f"{line[:77]}..." for line in lines), ")"])


def _summary(value):
    if isinstance(value, Record):
        return " ".join(repr(value).split())
    if isinstance(value, Mapping):
        return f"{len(value)} x {{" + ", ".join(f"{name}: {_summary(part)}" for name, part in islice(value.items(), 2)) + "}"
    if isinstance(value, tuple) and (len(value) > 8 or any(isinstance(part, Record) for part in value)):
        return f"{len(value)} x {type(value[0]).__name__}"
    if not hasattr(value, "shape"):
        return repr(value)
    numbers = f", {float(value.min()):.4g} .. {float(value.max()):.4g}" if np.prod(value.shape) else ""
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{numbers}"


class Tokens(Record):
    """A prompt as CLIP reads it.

    `pieces` are the byte-pair pieces, one per place ("</w>" ends a word); `words` the words that the model
    sees, punctuation apart; `word_of` the index in `words` of each place's word, -1 at start, end and padding;
    `end` the place of the end token, which padding follows; `dropped` the end of the text that did not fit.
    `second_ids` are what the second text tower of an XL checkpoint reads, which pads with another token; else None.
    """

    text: str
    ids: Places
    pieces: tuple[str, ...]
    words: tuple[str, ...]
    word_of: Places
    end: int
    dropped: str
    second_ids: Places | None = None

    def places(self, word: str | int) -> tuple[int, ...]:
        """The places of a word of the prompt, or of several in a row ("red car"), wherever it stands.

        A number picks one word by its index in `words`, which tells two equal words apart. Only whole words
        match, upper and lower case alike, and however their accents are coded. Raises ValueError for a word that is not there.
        """
        if isinstance(word, str):
            words = [*map(_plain, self.words)]
            wanted = [_plain(word)] if _plain(word) in words else [*map(_plain, word.split())]
            starts = [i for i in range(len(words)) if wanted and words[i : i + len(wanted)] == wanted]
            chosen = [i + offset for i in starts for offset in range(len(wanted))]
        else:
            chosen = [word] if 0 <= word < len(self.words) else []
        if not chosen:
            raise ValueError(f"expected a word of the prompt or its index, one of {list(enumerate(self.words))}, got {word!r}")
        return tuple(np.flatnonzero(np.isin(self.word_of, chosen)).tolist())

    def by_word(self, vectors):
        """Vectors by place (..., places, features), of numpy or torch, by word: a word of several pieces is their mean."""
        return [vectors[..., list(self.places(word)), :].mean(-2) for word in range(len(self.words))]


def _plain(word):
    """A word in the one form in which it is compared with others."""
    return normalize("NFKC", word.casefold())


class StepRecord(Record):
    """One call of the UNet. What was not collected is None; `noise_uncond` is None where guidance is off.

    `latents` are x_t as the UNet saw them; `noise` is the guided prediction of the noise in them and
    `predicted_x0` the clean latents that it implies. `attention` maps each cross-attention layer to the mean
    over its heads: how much each place of the prompt, from the start token to the end token, was read at each
    position; the last row sums up the padding, so that rows sum to one. `attention_heads` is the same before the mean over
    the heads. `preview` is `predicted_x0` decoded.
    """

    index: int
    timestep: float
    latents: Latents | None = None
    noise: Latents | None = None
    noise_text: Latents | None = None
    noise_uncond: Latents | None = None
    predicted_x0: Latents | None = None
    attention: Mapping[str, Float32[np.ndarray, "read _ _"]] | None = None
    attention_heads: Mapping[str, Float32[np.ndarray, "_ read _ _"]] | None = None
    preview: UInt8[np.ndarray, "_ _ 3"] | None = None


def over_text(maps: Maps) -> Maps:
    """Probabilities renormalised: what each place has of what the words and the end token were read, together one everywhere.

    The start token (first) and the padding (last) get 0. They take most of the mass and say little of the prompt.
    """
    shares = maps / maps[1:-1].sum(0).clip(min=1e-12)
    shares[[0, -1]] = 0
    return shares


def by_area(maps: Mapping[str, np.ndarray]) -> dict[str, float]:
    """A weight for each layer: the number of positions at which it reads. What a fine layer says counts more."""
    return {layer: float(np.prod(values.shape[1:])) for layer, values in maps.items()}


def heat_map(
    attention: Iterable[Mapping[str, np.ndarray]], places: tuple[int, ...], height: int, width: int,
    weights: Mapping[str, float] | None = None, view: Callable[[np.ndarray], np.ndarray] = over_text,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Map:  # fmt: skip
    """Where some places of the prompt were read: the weighted mean over steps, layers and places, stretched to 0..1.

    `attention` holds a step's maps by layer, each (places, h, w) with the padding's sum last; every map is seen through `view`
    and brought to `height` x `width`. Without `weights` layers weigh `by_area`. A map that is the same everywhere becomes 0.
    DAAM (Tang et al., 2023) is `view=np.asarray`, equal weights and bicubic. The defaults are those whose maps overlap most
    with the things that were painted (`sdteach evaluate --attention`).
    """
    total = np.zeros((height, width), np.float64)
    for layers in attention:
        for layer, weight in (by_area(layers) if weights is None else weights).items():
            word = Image.fromarray(view(layers[layer])[list(places)].mean(0).astype(np.float32))
            total += weight * np.asarray(word.resize((width, height), resample))
    total -= total.min()
    return (total / (total.max() or 1)).astype(np.float32)
