"""Memory: where the parts of a checkpoint stay, and what to do where there is too little."""

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakSet

import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn

Result = TypeVar("Result")
ADVICE = ("make a smaller picture, or fewer at once, or collect less of the run; load the model with offload=True (--offload), which keeps "
          "its weights in the CPU's memory; and in float16, the default on CUDA")  # fmt: skip


@contextmanager
def advised(stage: str) -> Iterator[None]:
    """A stage at work, without gradients; an error for want of memory goes on from here with a note: at which stage it ran out, and
    what helps.

    The error's traceback, which a notebook keeps until the next one, lets go of the stage's tensors, so that the next try has their room.
    """
    try:
        with torch.no_grad():
            yield
    except RuntimeError as error:
        if should_reduce_batch_size(error) and not getattr(error, "__notes__", None):
            error.add_note(f"Memory ran out in {stage}: {ADVICE}.")
            traceback.clear_frames(error.__traceback__)
        raise


_SETTLED = WeakSet()  # the parts that were loaded, as long as somebody holds them


def settle(parts: Sequence[nn.Module], device: torch.device, offload: bool = False) -> None:
    """Bring parts to `device`. If they do not fit there, those loaded before make room: their weights go to the CPU's memory and each
    layer's travel when it works, which is slow, but they go on working. If that is not enough, or with `offload`, these do so
    themselves. The former two are said aloud.

    On CUDA the convolutions' weights lie with the channels last, as its tensor cores want them; the CPU keeps diffusers' order.
    """
    if device.type == "cuda":
        for part in parts:
            part.to(memory_format=torch.channels_last)
    if not offload and not _moved(parts, device):
        if earlier := _resident(device):
            _offload(earlier, device)
            warnings.warn(f"{device} has too little memory for two checkpoints: the weights of what was loaded before go to the CPU's and "
                          "travel layer by layer, which is slow; `del` a model that is no longer needed", stacklevel=3)  # fmt: skip
        if offload := not (earlier and _moved(parts, device)):
            warnings.warn(f"{device} has too little memory for this checkpoint: its weights stay in the CPU's and travel layer by layer, "
                          "which is slow; a smaller checkpoint, or float16, would fit better", stacklevel=3)  # fmt: skip
    if offload:
        _offload(parts, device)
    _SETTLED.update(parts)


def let_go() -> None:
    """Free what nobody holds any more. Offloaded parts go in circles with their hooks, and explorers with their sliders, which only the
    collector breaks; of small models in the CPU's memory it need not make haste."""
    if any(hasattr(part, "_hf_hook") or part.device.type != "cpu" for part in _SETTLED):
        clear_device_cache(garbage_collection=True)


def _moved(parts, device):
    """Whether they all fit; if not, they are back in the CPU's memory."""
    try:
        for part in parts:
            part.to(device)
        return True
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    for part in parts:
        part.to("cpu")
    clear_device_cache()
    return False


def _resident(device):
    """The parts loaded before that lie on this device; the CPU's memory has none better to go to."""
    there = torch.empty(0, device=device).device
    return [part for part in _SETTLED if part.device == there != torch.device("cpu") and not hasattr(part, "_hf_hook")]


def _offload(parts, device):
    for part in parts:
        cpu_offload(part.to("cpu"), device)
    clear_device_cache()


def tiled_if_needed(vae: nn.Module, run: Callable[[], Result]) -> Result:
    """What `run` returns, which uses `vae`; if memory runs out, once more with the picture in tiles, which is said aloud and stays so."""
    try:
        return run()
    except RuntimeError as error:
        if vae.use_tiling or not should_reduce_batch_size(error):
            raise
    vae.enable_tiling()
    clear_device_cache()
    warnings.warn("too little memory for the VAE to work on the whole picture: from now on it works in tiles, whose seams may show",
                  stacklevel=4)  # fmt: skip
    return run()


@contextmanager
def in_float32(part: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside the `with`, `part` computes in float32, all of it on `device`; on the way out it is as it was."""
    before, offloaded = next(part.parameters()).dtype, hasattr(part, "_hf_hook")
    remove_hook_from_submodules(part)
    part.to(device, torch.float32)
    try:
        yield
    finally:
        part.to(dtype=before)
        if offloaded:
            cpu_offload(part.to("cpu"), device)


def placement(model) -> str:
    """Where and how a loaded model computes, in a few words."""
    words = [str(model.device), str(model.dtype).removeprefix("torch.")]
    if model.device.type == "cuda":
        words.append("channels last")
    if hasattr(model.unet, "_hf_hook"):
        words.append("weights in the CPU's memory")
    return ", ".join(words)


def range_advice(model) -> str:
    """What helps where numbers left the range of the model's dtype: that depends on how it was trained and is loaded."""
    schedule = model.scheduler.config
    if schedule.get("rescale_betas_zero_snr") and schedule.get("prediction_type") == "epsilon":
        return ("its schedule ends in pure noise (rescale_betas_zero_snr), where a UNet that predicts epsilon says nothing of the picture; "
                "set rescale_betas_zero_snr to false in scheduler_config.json, or prediction_type to what it was trained for")  # fmt: skip
    if model.dtype == torch.float32:
        return "choose a lower guidance_scale, another scheduler or more steps"
    return f"load the model with dtype={'torch.bfloat16 or ' * (model.dtype == torch.float16)}torch.float32"
