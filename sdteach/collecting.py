"""What `collect` means: which parts of a step are kept, and what they take."""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch

from .attention import cross_attention_layers, layer_grids
from .model import StableDiffusion
from .records import StepRecord
from .trace import Trace
from .vae import latents_to_image

# What `collect` may name, and the fields of a step that it keeps.
PARTS = {
    "latents": ("latents",),
    "noise": ("noise", "noise_text", "noise_uncond"),
    "x0": ("predicted_x0",),
    "attention": ("attention",),
    "attention_heads": ("attention_heads",),
    "preview": ("predicted_x0",),
}
USUAL = ("latents", "noise", "x0", "attention")
PREVIEWS = 8
MOST_ATTENTION = 4 * 2**30  # bytes of attention maps that a trace may hold


def check_parts(collect: Collection[str]) -> None:
    """Raise ValueError for what is no tuple of parts."""
    if isinstance(collect, str) or set(collect) - set(PARTS):
        raise ValueError(f"expected collect to be a tuple of names out of {tuple(PARTS)}, got {collect!r}")


def attention_bytes(model: StableDiffusion, places: int, calls: int, height: int, width: int) -> dict[str, int]:
    """How many bytes each way to collect attention keeps of a run with `calls` of the UNet: the mean over the heads, all heads.

    `places` are those of the prompt that are kept: the start token, the pieces, the end token, and one for all the padding.
    """
    factor = model.vae_scale_factor
    layers = cross_attention_layers(model.unet)
    maps = {name: 4 * calls * places * math.prod(grid) for name, grid in layer_grids(model.unet, height // factor, width // factor).items()}
    return {"attention": sum(maps.values()), "attention_heads": sum(size * layers[name].heads for name, size in maps.items())}


def check_attention(run, collect: Collection[str]) -> None:
    """Raise ValueError if a `pipeline.Run` would leave more attention than fits."""
    needed = attention_bytes(run.model, run.texts[0].tokens.end + 2, len(run.timesteps), run.height, run.width)
    if (total := sum(size for name, size in needed.items() if name in collect)) > MOST_ATTENTION:
        each = ", ".join(f"{name!r} {size / 2**20:,.0f} MiB" for name, size in needed.items())
        raise ValueError(f"expected to keep at most {MOST_ATTENTION / 2**20:,.0f} MiB of attention, got {total / 2**20:,.0f} MiB; "
                         f"this run needs for {each}: collect less of it, or make fewer steps or a smaller picture")  # fmt: skip


def record(step, collect: Collection[str]) -> StepRecord:
    """Copy what is wanted of a `pipeline.DenoisingStep` to the CPU, where it no longer changes."""
    fields = {name: getattr(step, name) for part in collect for name in PARTS[part]}
    kept = {name: by_layer(value, step.text.tokens.end) if isinstance(value, dict) else to_numpy(value)
            for name, value in fields.items() if value is not None}  # fmt: skip
    return StepRecord(step.index, step.timestep, **kept)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy."""
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def by_layer(maps, end):
    """Maps ([heads,] places, height, width) on the CPU, the padding's places summed into one. All layers, one beneath the other,
    make the way in one copy."""
    rows = [layer.movedim(-3, -1) for layer in maps.values()]
    joined = torch.cat([row.flatten(0, -2) for row in rows])
    joined = torch.cat([joined[:, : end + 1], joined[:, end + 1 :].sum(1, keepdim=True)], 1).cpu()
    parts = joined.split([row[..., 0].numel() for row in rows])
    return {name: part.view(*row.shape[:-1], -1).movedim(-1, -3).numpy() for name, row, part in zip(maps, rows, parts, strict=True)}


def decoded(model: StableDiffusion, record: StepRecord) -> StepRecord:
    """The step with its preview."""
    return replace(record, preview=np.asarray(latents_to_image(model, record.predicted_x0)))


def some_decoded(model: StableDiffusion, records: list[StepRecord]) -> list[StepRecord]:
    """The steps, eight of them, evenly spread, with their previews."""
    shown = set(np.linspace(0, len(records) - 1, PREVIEWS).round().astype(int).tolist())
    return [decoded(model, record) if record.index in shown else record for record in records]


def with_previews(model: StableDiffusion, trace: Trace) -> Trace:
    """The run with a preview of every step that holds its predicted x0, decoded by the model that made the run.

    Raises ValueError for a model whose latents have other channels.
    """
    steps = (step if step.preview is not None or step.predicted_x0 is None else decoded(model, step) for step in trace.steps)
    return replace(trace, steps=tuple(steps))
