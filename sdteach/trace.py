"""Trace: everything that a run leaves behind, and its file."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .pictures import checked_layout
from .records import Record, StepRecord, Tokens, heat_map

VERSION = 4
PER_STEP = ("latents", "noise", "noise_text", "noise_uncond", "predicted_x0")
_ATTENTION = ("attention", "attention_heads")
_GIVEN = ("start", "mask", "small")
_FACTS = {"prompt": str, "negative_prompt": str, "model": str, "scheduler": str, "guidance_scale": (int, float), "seed": int,
          "height": int, "width": int, "complete": bool}  # fmt: skip
_UNSIGNED = "0" * 64


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Record):
    """One run, from the prompt to the picture. `height` and `width` are the picture's, in pixels.

    `text` is the last hidden state that the UNet read; `final_latents` are what the VAE decoded; `pixels` the
    picture. `complete` is False where the run was interrupted: then the picture is the last predicted one. `attention_sum`
    is what a step's `attention` is, summed over all steps. `start` is the picture that the run began with, `mask` True where it
    was painted anew, `small` what it had to shrink to, `strength` the share of the steps; `layout` has words and their boxes; None
    where the run had none. `layer_areas` is at how many positions each of the `layers` read, where its maps have become smaller
    since (`classroom.recording.recorded`).
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
    final_latents: Float32[np.ndarray, "1 channels _ _"]
    pixels: UInt8[np.ndarray, "height width 3"]
    steps: tuple[StepRecord, ...]
    attention_sum: Mapping[str, Float32[np.ndarray, "_ _ _"]] | None = None
    start: UInt8[np.ndarray, "height width 3"] | None = None
    mask: Bool[np.ndarray, "height width"] | None = None
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
        parts = [self.attention_sum, *(getattr(step, part) for step in self.steps[:1] for part in _ATTENTION)]
        return tuple(next(filter(None, parts), ()))

    def heat_map(
        self, word: str | int, steps: Sequence[int] | None = None, layers: Mapping[str, float] | None = None, head: int | None = None
    ) -> Float32[np.ndarray, "_ _"]:
        """Where the UNet read `word` (see `Tokens.places`): (height/8, width/8), 0..1; see `records.heat_map`.

        By default over the last quarter of the run, when the picture has taken shape, or over all of it where only the sum was
        collected; all layers, by their area; the mean of the heads. `layers` gives some of them weights, `head` picks one, for
        which attention_heads must have been collected. Raises ValueError for a word, step, layer or head that is not there.
        """
        places, maps = self.tokens.places(word), self._attention(steps, layers, head)
        return heat_map(maps, places, *self.final_latents.shape[2:], layers or self.layer_areas)

    def word_cosines(self) -> Float32[np.ndarray, "words words"]:
        """The cosine of every word's vector with every other's, as the UNet read them; a word of several pieces is their mean."""
        vectors = np.stack([self.text[list(self.tokens.places(word))].mean(0) for word in range(len(self.tokens.words))])
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
        return vectors @ vectors.T

    def _attention(self, steps, layers, head):
        """What was read at the steps that are asked for, by layer."""
        known = self.layers
        if layers is not None and (set(layers) - set(known) or not any(layers.values()) or not np.isfinite([*layers.values()]).all()):
            raise ValueError(f"expected layers out of {list(known)}, with finite weights that are not all 0, got {layers}")
        every = [step.attention or mean_of_heads(step.attention_heads) for step in self.steps]
        if head is not None:
            every = [_one_of(step.attention_heads, head, layers or known) for step in self.steps]
        if not every or every[0] is None:
            if head is None and steps is None and self.attention_sum is not None:
                return [self.attention_sum]
            wanted = "attention_heads" if head is not None else "attention"
            raise ValueError(f"expected a trace with {wanted} of its steps, got one without; run generate(..., collect=('{wanted}',))")
        steps = range(3 * len(every) // 4, len(every)) if steps is None else steps
        if not len(steps) or not all(0 <= step < len(every) for step in steps):
            raise ValueError(f"expected steps from 0 to {len(every) - 1}, at least one, got {steps!r}")
        return [every[step] for step in steps]

    def save(self, path: str | os.PathLike) -> None:
        """Write the trace as one safetensors file, exactly; a file that is there is replaced only as a whole.

        Numbers that are all exactly a float16 are written as such: those of a recorded run are.
        """
        write_atomically(path, _to_bytes(self))

    @staticmethod
    def load(path: str | os.PathLike) -> "Trace":
        """Read what `save` wrote. Raises ValueError, naming the file and the reason, for anything else."""
        path = Path(path)
        try:
            data = _read(path)
            trace = _from_bytes(data)
            exact = _to_bytes(trace) == data
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError,
                SafetensorError) as error:  # fmt: skip
            raise ValueError(f"{path} is not a trace that this version of sdteach saved: {error or type(error).__name__}") from error
        if not exact:
            raise ValueError(f"{path} is not exactly what Trace.save writes: its parts fit, its bytes do not")
        return trace


def mean_of_heads(heads: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    """A step's `attention_heads` as its `attention`."""
    return heads and {layer: maps.mean(0) for layer, maps in heads.items()}


def _one_of(heads, head, layers):
    fewest = min(len(heads[layer]) for layer in layers) if heads else 0
    if heads and not 0 <= head < fewest:
        raise ValueError(f"expected a head from 0 to {fewest - 1}, got {head}")
    return heads and {layer: heads[layer][head] for layer in layers}


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` beside `path`, then move it there, so that `path` holds the old or the new whole at any moment."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _to_bytes(trace):
    arrays = {"tokens.ids": trace.tokens.ids, "tokens.word_of": trace.tokens.word_of, "text": trace.text,
              "final_latents": trace.final_latents, "pixels": trace.pixels}  # fmt: skip
    if trace.tokens.second_ids is not None:
        arrays["tokens.second_ids"] = trace.tokens.second_ids
    steps = trace.steps
    arrays |= {
        name: np.stack([getattr(step, name) for step in steps]) for name in PER_STEP if steps and getattr(steps[0], name) is not None
    }
    for part in _ATTENTION:
        if steps and (layers := getattr(steps[0], part)) is not None:
            arrays |= {f"{part}.{layer}": np.stack([getattr(step, part)[layer] for step in steps]) for layer in layers}
    arrays |= {f"attention_sum.{layer}": maps for layer, maps in (trace.attention_sum or {}).items()}
    arrays |= {f"preview.{step.index:04}": step.preview for step in steps if step.preview is not None}
    arrays |= {name: getattr(trace, name) for name in _GIVEN if getattr(trace, name) is not None}
    facts = {name: getattr(trace, name) for name in _FACTS}
    facts["tokens"] = {name: getattr(trace.tokens, name) for name in ("text", "pieces", "words", "end", "dropped")}
    facts["layers"] = list(trace.layers)  # safetensors keeps no order
    facts["timesteps"] = [step.timestep for step in steps]
    facts |= {"strength": trace.strength, "layout": trace.layout, "layer_areas": trace.layer_areas}
    # One metadata key, since safetensors writes several in random order; the digest covers every other byte of the file.
    metadata = {"sdteach": json.dumps({"version": VERSION, "sha256": _UNSIGNED, **facts})}
    unsigned = save({name: np.ascontiguousarray(_smallest(array)) for name, array in arrays.items()}, metadata)
    return _with_digest(unsigned, _UNSIGNED, hashlib.sha256(unsigned).hexdigest())


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


def _read(path):
    """The file's bytes, read only if its first bytes announce a file of just this length."""
    with open(path, "rb") as file:
        total = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(total - 8, 2**24):
            raise ValueError(f"{total} bytes with a header of {length} is no safetensors file")
        header = file.read(length)
        described = json.loads(header)
        payload = max((entry["data_offsets"][1] for name, entry in described.items() if name != "__metadata__"), default=0)
        if total != 8 + length + payload:
            raise ValueError(f"expected {8 + length + payload} bytes, got {total}: the file was cut off or added to")
        return length.to_bytes(8, "little") + header + file.read()


def _from_bytes(data):
    length = int.from_bytes(data[:8], "little")
    facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["sdteach"])
    if facts["version"] != VERSION:
        raise ValueError(f"expected version {VERSION}, got {facts['version']}")
    digest = hashlib.sha256(_with_digest(data, facts["sha256"], _UNSIGNED)).hexdigest()
    if digest != facts["sha256"]:
        raise ValueError("the contents do not match their sha256: some bytes were changed")
    arrays = load(data)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        if array.dtype == np.float16:
            arrays[name] = array.astype(np.float32)
    trace = _assemble(facts, arrays)
    _check(trace)
    return trace


def _assemble(facts, arrays):
    told = facts["tokens"]
    tokens = Tokens(told["text"], arrays["tokens.ids"], tuple(told["pieces"]), tuple(told["words"]), arrays["tokens.word_of"],
                    told["end"], told["dropped"], arrays.get("tokens.second_ids"))  # fmt: skip
    told_layers = facts["layers"]
    parts = {part: _of_layers(arrays, part, told_layers) for part in _ATTENTION}
    steps = tuple(
        StepRecord(
            index, timestep, **{name: arrays[name][index] for name in PER_STEP if name in arrays},
            **{part: {layer: maps[index] for layer, maps in layers.items()} or None for part, layers in parts.items()},
            preview=arrays.get(f"preview.{index:04}"),
        )
        for index, timestep in enumerate(facts["timesteps"])
    )  # fmt: skip
    return Trace(**{name: facts[name] for name in _FACTS}, tokens=tokens, text=arrays["text"],
                 final_latents=arrays["final_latents"], pixels=arrays["pixels"], steps=steps,
                 attention_sum=_of_layers(arrays, "attention_sum", told_layers) or None,
                 **{name: arrays.get(name) for name in _GIVEN}, strength=facts["strength"],
                 layout=facts["layout"] and {word: tuple(box) for word, box in facts["layout"].items()},
                 layer_areas=facts["layer_areas"])  # fmt: skip


def _of_layers(arrays, part, layers):
    return {layer: arrays[f"{part}.{layer}"] for layer in layers if f"{part}.{layer}" in arrays}


def _check(trace):
    """Raise ValueError unless the parts fit each other as `generate` makes them."""
    for name, kind in _FACTS.items():
        if not isinstance(getattr(trace, name), kind):
            raise ValueError(f"{name} is a {type(getattr(trace, name)).__name__}")
    latent_shape, places, tokens = trace.final_latents.shape, len(trace.tokens.ids), trace.tokens
    texts = (tokens.text, tokens.dropped, *tokens.pieces, *tokens.words)
    rows = [row for row in (tokens.ids, tokens.second_ids, tokens.word_of) if row is not None]
    steps = trace.steps
    fits = {
        "guidance_scale": 0 <= trace.guidance_scale <= 100,
        "seed": 0 <= trace.seed < 2**63,
        "pixels": trace.pixels.dtype == np.uint8 and trace.pixels.shape == (trace.height, trace.width, 3),
        "final_latents": trace.final_latents.dtype == np.float32 and trace.final_latents.ndim == 4 and latent_shape[0] == 1,
        "text": trace.text.dtype == np.float32 and trace.text.ndim == 2 and len(trace.text) == places,
        "tokens": all(isinstance(text, str) for text in texts) and len(tokens.pieces) == places
        and isinstance(tokens.end, int) and 0 < tokens.end < places
        and all(row.dtype == np.int64 and row.shape == (places,) for row in rows)
        and bool(np.all((tokens.word_of >= -1) & (tokens.word_of < len(tokens.words)))),
        "timesteps": all(isinstance(time := step.timestep, (int, float)) and not isinstance(time, bool) and abs(time) < 2**31
                         for step in steps),
        "steps": all(array.dtype == np.float32 and array.shape == latent_shape for step in steps
                     for array in (getattr(step, name) for name in PER_STEP) if array is not None),
        "attention": all(maps.dtype == np.float32 and maps.ndim == 3 and len(maps) == tokens.end + 2
                         for layers in (trace.attention_sum, *(step.attention for step in steps)) for maps in (layers or {}).values()),
        "attention_heads": all(maps.dtype == np.float32 and maps.ndim == 4 and maps.shape[1] == tokens.end + 2
                               for step in steps for maps in (step.attention_heads or {}).values()),
        "start": trace.start is None or (trace.start.dtype == np.uint8 and trace.start.shape == trace.pixels.shape),
        "mask": trace.mask is None or (trace.mask.dtype == bool and trace.mask.shape == (trace.height, trace.width)),
        "small": trace.small is None or (trace.small.dtype == np.uint8 and trace.small.ndim == 3 and trace.small.shape[2] == 3),
        "strength": trace.strength is None or (isinstance(trace.strength, float) and 0 < trace.strength <= 1),
        "layer_areas": trace.layer_areas is None or (set(trace.layer_areas) == set(trace.layers) != set()
                       and all(isinstance(area, float) and 0 < area < math.inf for area in trace.layer_areas.values())),
        "preview": all(step.preview.dtype == np.uint8 and step.preview.ndim == 3 for step in steps if step.preview is not None),
    }  # fmt: skip
    if trace.layout is not None:
        checked_layout(trace.layout)
    wrong = [name for name, fit in fits.items() if not fit]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: the shapes or types do not fit the run they describe")
