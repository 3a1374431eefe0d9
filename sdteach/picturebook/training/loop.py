"""The training loop that CLIP, VAE and UNet share: it can be killed at any moment and goes on where it was."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from .recipe import Phase

LOG_EVERY = 100  # steps
SAVE_EVERY = 60.0  # seconds


def fit(objective: nn.Module, prepare: Callable[[], Callable[[], tuple[Tensor, ...]]], phase: Phase, folder: Path, seed: int,
        accelerator: Accelerator, saved: Callable[[int, nn.Module], None] = lambda step, averaged: None) -> nn.Module:  # fmt: skip
    """Minimise `objective(*draw())` for the steps of `phase`, `draw` being what `prepare` returns; return the average.

    All randomness of a step comes from (seed, step), so a run that resumes from `folder` equals an unbroken one (to the last
    bit on a CPU). Mean losses go to `folder`/loss.jsonl; `saved(step, average)` is called whenever the state was saved.

    Under `accelerate launch` every process draws the same batch and keeps its share of the rows, so that several processes
    train what one does; hence what is random about a row must come from `draw`, and the loss be a mean over rows. Only the
    main process writes and calls `saved`. Raises ValueError if the processes cannot share the batch evenly.
    """
    if phase.batch % accelerator.num_processes:
        raise ValueError(f"expected a batch that {accelerator.num_processes} processes can share evenly, got {phase.batch} for "
                         f"{folder.name}; launch a number of processes that divides it")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    objective.to(accelerator.device)
    optimizer = torch.optim.AdamW(objective.parameters(), phase.learning_rate, (0.9, 0.99), weight_decay=phase.weight_decay)
    averaged = AveragedModel(objective, multi_avg_fn=get_ema_multi_avg_fn(phase.ema_decay))
    done = _load_state(folder / "state.safetensors", objective, averaged, optimizer)
    log = folder / "loss.jsonl"
    if accelerator.is_main_process:
        _cut_back(log, done)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", phase.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, phase.warmup, phase.steps, last_epoch=done - 1)
    model, optimizer = accelerator.prepare(objective, optimizer)
    model.train()
    draw, losses, last = prepare() if done < phase.steps else None, [], time.monotonic()
    bar = tqdm(range(done, phase.steps), folder.name, phase.steps, initial=done, mininterval=5, disable=not accelerator.is_main_process)
    for step in bar:
        torch.manual_seed(seed * 1_000_003 + step)
        share = [part.chunk(accelerator.num_processes)[accelerator.process_index].to(accelerator.device) for part in draw()]
        with accelerator.autocast():
            loss = model(*share)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        averaged.update_parameters(objective)
        losses.append(loss.detach())
        if (step + 1) % LOG_EVERY and step + 1 < phase.steps:
            continue
        mean = accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        losses.clear()
        if not accelerator.is_main_process:
            continue
        bar.set_postfix(loss=f"{mean:.4f}")
        with log.open("a") as file:
            file.write(json.dumps({"step": step + 1, "loss": round(mean, 5)}) + "\n")
        if step + 1 == phase.steps or time.monotonic() - last > SAVE_EVERY:
            _save_state(folder / "state.safetensors", step + 1, objective, averaged, optimizer)
            saved(step + 1, averaged.module)
            model.train()
            last = time.monotonic()
    accelerator.wait_for_everyone()
    return averaged.module.eval()


def _cut_back(log, done):
    """Take from the log of losses what came after the state that was saved last: it will come again."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= done]
        log.write_text("".join(f"{line}\n" for line in lines))


def _save_state(path, step, objective, averaged, optimizer):
    tensors = {f"model.{name}": value for name, value in objective.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    part = path.with_suffix(".part")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, part, {"step": str(step)})
    os.replace(part, path)


def _load_state(path, objective, averaged, optimizer):
    """Bring everything back to where it was saved; returns the number of steps done."""
    if not path.exists():
        return 0
    parts = {"model": {}, "averaged": {}, "optimizer": {}}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors file is not a dict
            part, key = name.split(".", 1)
            parts[part][key] = file.get_tensor(name)
        step = int(file.metadata()["step"])
    objective.load_state_dict(parts["model"])
    averaged.load_state_dict(parts["averaged"])
    moments = {}
    for name, value in parts["optimizer"].items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def load_averaged(objective: nn.Module, folder: Path) -> nn.Module:
    """`objective` with the averaged weights of a run of `fit` in `folder`. Raises FileNotFoundError if there was none."""
    path = folder / "state.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"expected the state of an earlier stage at {path}; run that stage first")
    before = "averaged.module."
    with safe_open(path, "pt") as file:
        weights = {name.removeprefix(before): file.get_tensor(name) for name in file.keys() if name.startswith(before)}  # noqa: SIM118
    objective.load_state_dict(weights)
    return objective.eval()
