"""Trace: everything that a run leaves behind, and its file.

The file is made of the records' own fields: an array lies in it under the path of fields that leads there ("trace.steps.3.latents"),
all else as JSON in its metadata. Loading puts the records together as their annotations say, and refuses what those do not allow.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin

import numpy as np
from jaxtyping import AbstractArray, Bool, Float32, UInt8, jaxtyped
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load, save

from .files import write_whole
from .pictures import LARGEST, checked_layout
from .records import Latents, Record, StepRecord, Tokens, heat_map

VERSION = 5
SMALLEST = 8  # pixels of an edge: no VAE makes fewer of a latent
_UNSIGNED = "0" * 64
Picture = UInt8[np.ndarray, "picture_height picture_width 3"]


class Trace(Record):
    """One run, from the prompt to the picture. `height` and `width` are the picture's, in pixels.

    `text` is the last hidden state that the UNet read; `final_latents` are what the VAE decoded; `pixels` the
    picture. `complete` is False where the run was interrupted: then the picture is the last predicted one. `start` is the picture that
    the run began with, `mask` True where it was painted anew, `small` what it had to shrink to, `strength` the part of the steps that
    was run; `layout` has words and their boxes; None where the run had none. `layer_areas` is at how many positions each of the
    `layers` read, where its maps have become smaller since (`classroom.recording.recorded`).
    """

    prompt: str
    negative_prompt: str
    model: str
    scheduler: str
    guidance_scale: float
    seed: int
    height: int
    width: int
    complete: bool
    tokens: Tokens
    text: Float32[np.ndarray, "places features"]
    final_latents: Latents
    pixels: Picture
    steps: tuple[StepRecord, ...]
    start: Picture | None = None
    mask: Bool[np.ndarray, "picture_height picture_width"] | None = None
    small: UInt8[np.ndarray, "_ _ 3"] | None = None
    strength: float | None = None
    layout: Mapping[str, tuple[float, float, float, float]] | None = None
    layer_areas: Mapping[str, float] | None = None

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    @property
    def layers(self) -> tuple[str, ...]:
        """The cross-attention layers whose maps are held, in the order of their work; none where no attention was collected."""
        return tuple(next((step.attention or step.attention_heads or () for step in self.steps), ()))

    def heat_map(
        self, word: str | int, steps: Sequence[int] | None = None, layers: Mapping[str, float] | None = None, head: int | None = None
    ) -> Float32[np.ndarray, "_ _"]:
        """Where the UNet read `word` (see `Tokens.places`): (height/8, width/8), 0..1; see `records.heat_map`.

        By default over the last quarter of the run, when the picture has taken shape; all layers, by their area; the mean of the
        heads. `layers` gives some of them weights, `head` picks one, for which attention_heads must have been collected. Raises
        ValueError for a word, step, layer or head that is not there.
        """
        places, maps = self.tokens.places(word), self._attention(steps, layers, head)
        return heat_map(maps, places, *self.final_latents.shape[2:], layers or self.layer_areas)

    def word_cosines(self) -> Float32[np.ndarray, "words words"]:
        """The cosine of every word's vector with every other's, as the UNet read them; a word of several pieces is their mean."""
        vectors = np.stack(self.tokens.by_word(self.text))
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
        return vectors @ vectors.T

    def _attention(self, steps, layers, head):
        """What was read at the steps that are asked for, by layer."""
        known, every, kept = self.layers, len(self.steps), "attention" if head is None else "attention_heads"
        if layers is not None and (set(layers) - set(known) or not any(layers.values()) or not np.isfinite([*layers.values()]).all()):
            raise ValueError(f"expected layers out of {list(known)}, with finite weights that are not all 0, got {layers}")
        if not known or (head is not None and self.steps[0].attention_heads is None):
            raise ValueError(f"expected a trace with {kept} of its steps, got one without; run generate(..., collect=('{kept}',))")
        steps = range(3 * every // 4, every) if steps is None else steps
        if not len(steps) or not all(0 <= step < every for step in steps):
            raise ValueError(f"expected steps from 0 to {every - 1}, at least one, got {steps!r}")
        chosen = [self.steps[step] for step in steps]
        if head is None:
            return [step.attention or mean_of_heads(step.attention_heads) for step in chosen]
        fewest = min(len(chosen[0].attention_heads[layer]) for layer in layers or known)
        if not 0 <= head < fewest:
            raise ValueError(f"expected a head from 0 to {fewest - 1}, got {head}")
        return [{layer: step.attention_heads[layer][head] for layer in layers or known} for step in chosen]

    def save(self, path: str | os.PathLike) -> None:
        """Write the trace as one safetensors file, exactly; a file that is there is replaced only as a whole (`files.write_whole`).

        Numbers that are all exactly a float16 are written as such: those of a recorded run are.
        """
        write_whole(path, _to_bytes(self))

    @staticmethod
    def load(path: str | os.PathLike) -> "Trace":
        """Read what `save` wrote. Raises ValueError, naming the file and the reason, for anything else."""
        try:
            data, trace = _from_file(os.path.expanduser(path))  # noqa: PTH111 - as `save` finds it
            if _to_bytes(trace) != data:
                raise ValueError("its parts fit, its bytes are not exactly what Trace.save writes")
        except FileNotFoundError:
            raise
        except Exception as error:  # SafetensorError, KeyError, RecursionError ...: damage and forgery show in many ways
            raise ValueError(f"{path} is not a trace that this version of sdteach saved: {error or type(error).__name__}") from error
        return trace


def mean_of_heads(heads: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    """A step's `attention_heads` as its `attention`."""
    return heads and {layer: maps.mean(0) for layer, maps in heads.items()}


def _to_bytes(trace):
    arrays = {}
    facts = {"version": VERSION, "sha256": _UNSIGNED, "trace": _taken_apart(trace, "trace", arrays)}
    # One metadata key, since safetensors writes several in random order; the digest covers every other byte of the file.
    unsigned = save(arrays, {"sdteach": json.dumps(facts)})
    return _with_digest(unsigned, _UNSIGNED, hashlib.sha256(unsigned).hexdigest())


def _taken_apart(value, path, arrays):
    """`value` as JSON has it; its arrays go into `arrays`, and are None here."""
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(_smallest(value))
        return None
    if isinstance(value, Record):
        value = vars(value)
    if isinstance(value, Mapping):
        return {name: _taken_apart(part, f"{path}.{name}", arrays) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_taken_apart(part, f"{path}.{index}", arrays) for index, part in enumerate(value)]
    return value


def _put_together(kind, value, path, arrays):
    """What was taken apart, as its annotation says: ValueError if it is anything else."""
    of = get_args(kind)
    if NoneType in of:
        if value is None and path not in arrays:
            return None
        kind, of = of[0], get_args(of[0])
    if issubclass(get_origin(kind) or kind, Record):
        return kind(**{part.name: _put_together(part.type, value[part.name], f"{path}.{part.name}", arrays) for part in fields(kind)})
    if get_origin(kind) is Mapping:
        return {name: _put_together(of[1], part, f"{path}.{name}", arrays) for name, part in value.items()}
    if get_origin(kind) is tuple:
        kinds = of[:1] * len(value) if Ellipsis in of else of
        return tuple(_put_together(*part, f"{path}.{i}", arrays) for i, part in enumerate(zip(kinds, value, strict=True)))
    if issubclass(kind, AbstractArray):
        array = arrays[path]
        array = array.astype(np.float32) if array.dtype == np.float16 else array
        if not isinstance(array, kind) or not array.size or not np.isfinite(array).all():
            raise ValueError(f"{path}: expected {kind.__name__}, not empty and of finite numbers, got {array.dtype} {array.shape}")
        return array
    if type(value) is not kind:
        raise ValueError(f"{path}: expected a {kind.__name__}, got {value!r:.80}")
    return value


def _smallest(array):
    """Numbers that are all exactly a float16 take half the room."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half, array) else array


def _with_digest(data, old, new):
    """The digest stands first, escaped once; in a prompt that quotes it, it would be escaped twice."""
    template = '\\"sha256\\": \\"{}\\"'
    return data.replace(template.format(old).encode(), template.format(new).encode(), 1)


def _from_file(path):
    """The file's bytes, all read only if its head is that of a trace, and the trace that they are."""
    with safe_open(path, "np") as file:
        facts = json.loads(file.metadata()["sdteach"])
    if facts["version"] != VERSION:
        raise ValueError(f"expected version {VERSION}, got {facts['version']}; make the run again with this version of sdteach")
    data = Path(path).read_bytes()
    digest = hashlib.sha256(_with_digest(data, facts["sha256"], _UNSIGNED)).hexdigest()
    if digest != facts["sha256"]:
        raise ValueError("the contents do not match their sha256: some bytes were changed")
    with jaxtyped("context"):  # a name of a size means one size in the whole trace
        trace = _put_together(Trace, facts["trace"], "trace", load(data))
    _check(trace)
    return data, trace


def _check(trace):
    """Raise ValueError unless the parts, each of its kind, fit each other as `generate` makes them."""
    tokens, steps, (height, width) = trace.tokens, trace.steps, trace.final_latents.shape[2:]
    places, factor = len(tokens.ids), trace.height // height
    fits = {
        "guidance_scale": 0 <= trace.guidance_scale <= 100,
        "seed": 0 <= trace.seed < 2**63,
        "pixels": trace.pixels.shape == (trace.height, trace.width, 3) == (factor * height, factor * width, 3)
        and all(SMALLEST <= edge <= LARGEST for edge in (trace.height, trace.width)),
        "tokens": len(tokens.pieces) == places > tokens.end > 0 and set(tokens.word_of[[0, *range(tokens.end, places)]]) == {-1}
        and {-1, *tokens.word_of} == {*range(-1, len(tokens.words))},
        "timestep": all(step.index == index and abs(step.timestep) < 2**31 for index, step in enumerate(steps)),
        "steps": all(_kept(step) == _kept(steps[0]) for step in steps),
        "attention": all(maps.shape[-3] == tokens.end + 2 for step in steps for part in (step.attention, step.attention_heads)
                         for maps in (part or {}).values()),
        "strength": trace.strength is None or 0 < trace.strength <= 1,
        "layer_areas": trace.layer_areas is None or (set(trace.layer_areas) == set(trace.layers) != set()
                                                     and all(0 < area < math.inf for area in trace.layer_areas.values())),
    }  # fmt: skip
    if wrong := [name for name, fit in fits.items() if not fit]:
        raise ValueError(f"{', '.join(wrong)}: the shapes or numbers do not fit the run they describe")
    for word in () if trace.layout is None else checked_layout(trace.layout):
        tokens.places(word)


def _kept(step):
    """What was collected of a step: of each field whether it is there, of each layer's maps the shape. Not every step has a preview."""
    return {name: {layer: maps.shape for layer, maps in part.items()} if isinstance(part, Mapping) else part is None
            for name, part in vars(step).items() if name != "preview"}  # fmt: skip
