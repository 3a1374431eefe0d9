"""The training loop that all phases share: it can be killed at any moment and goes on where it was."""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from ...files import write_whole
from .data import as_one_error
from .recipe import Phase

BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def fit(objective: nn.Module, draw: Callable[[], tuple[Tensor, ...]], phase: Phase, folder: Path, seed: int, digest: str,
        accelerator: Accelerator, saved: Callable[[int, nn.Module, bool], None] = lambda *state: None,
        log_every: int = 100, save_every: float = 60.0) -> nn.Module:  # fmt: skip
    """Minimise `objective(*draw())` for the steps or minutes of `phase`; return the average.

    All randomness of a step comes from (seed, step), so a run of steps that resumes from `folder` equals an unbroken one (to the
    last bit on a CPU). The minutes are those spent learning: neither a break counts nor the first step after it, which compiles.
    Mean losses of `log_every` steps go to `folder`/loss.jsonl; when `save_every` seconds have passed then, and at the end, the state
    is saved and `saved(step, average, finished)` called.

    Under `accelerate launch` every process draws the same batch and keeps its share of the rows, so that several processes
    train what one does; hence what is random about a row must come from `draw`, and the loss be a mean over rows. Only the
    main process writes and calls `saved`. Raises ValueError if the processes cannot share the batch evenly, or if the state in
    `folder` is damaged or not of the recipe of this `digest`.
    """
    if phase.batch % accelerator.num_processes:
        raise ValueError(f"expected a batch that {accelerator.num_processes} processes can share evenly, got {phase.batch} for "
                         f"{folder.name}; launch a number of processes that divides it")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    objective.to(accelerator.device)
    groups = [{"params": [weight for weight in objective.parameters() if (weight.ndim > 1) == matrices],
               "weight_decay": matrices * phase.weight_decay} for matrices in (True, False)]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
    averaged = AveragedModel(objective, multi_avg_fn=get_ema_multi_avg_fn(phase.ema_decay))
    state = folder / "state.safetensors"
    step, seconds, history = _load_state(state, digest, objective, averaged, optimizer) if state.exists() else (0, 0.0, [])
    gpu = accelerator.device.type == "cuda"
    model, optimizer = accelerator.prepare(torch.compile(objective) if gpu and phase.compiled else objective, optimizer)
    autocast = torch.autocast(accelerator.device.type, torch.bfloat16, phase.bfloat16 and (gpu or _cpu_multiplies_bfloat16()))
    model.train()
    progress, began, last, losses = phase.progress(step, seconds), None, time.monotonic(), []
    with tqdm(total=1.0, desc=folder.name, initial=progress, bar_format=BAR, disable=not accelerator.is_main_process) as bar:
        while progress < 1:
            torch.manual_seed(seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = phase.rate(step, progress)
            rows = [part.chunk(accelerator.num_processes)[accelerator.process_index].to(accelerator.device) for part in draw()]
            with autocast:
                loss = model(*rows)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            averaged.update_parameters(objective)
            losses.append(loss.detach())
            step += 1
            began = time.monotonic() - seconds if began is None else began
            (seconds,) = broadcast_object_list([time.monotonic() - began])
            progress = phase.progress(step, seconds)
            bar.update(min(progress, 1) - bar.n)
            if step % log_every and progress < 1:
                continue
            mean = accelerator.reduce(torch.stack(losses).mean(), "mean").item()
            losses.clear()
            if not accelerator.is_main_process:
                continue
            bar.set_postfix(step=step, loss=f"{mean:.4f}")
            history.append({"step": step, "loss": round(mean, 5)})
            (folder / "loss.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in history))
            if progress >= 1 or time.monotonic() - last > save_every:
                _save_state(state, digest, (step, seconds, history), objective, averaged, optimizer)
                saved(step, averaged.module, progress >= 1)
                model.train()
                last = time.monotonic()
    accelerator.wait_for_everyone()
    return averaged.module.eval()


def _cpu_multiplies_bfloat16():
    """Not every CPU does, and those that do not take longer than in float32."""
    known = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version
    return any(known.get(instructions) for instructions in ("amx_bf16", "avx512_bf16", "bf16"))


def _save_state(path, digest, at, objective, averaged, optimizer):
    by_weight = optimizer.state_dict()["state"]
    moments = {f"{index}.{name}": value for index, moments in by_weight.items() for name, value in moments.items()}
    parts = {"model": objective.state_dict(), "averaged": averaged.state_dict(), "optimizer": moments}
    tensors = {f"{part}.{name}": value.to("cpu", copy=True, memory_format=torch.contiguous_format)
               for part, values in parts.items() for name, value in values.items()}  # fmt: skip
    write_whole(path, save(tensors, {"recipe": digest, "at": json.dumps(at)}))


def _load_state(path, digest, objective, averaged, optimizer):
    """Bring everything back to where it was saved; returns the steps done, the seconds spent and the losses logged."""
    with as_one_error(path):
        parts, at = _read_state(path, digest)
        objective.load_state_dict(parts["model"])
        averaged.load_state_dict(parts["averaged"])
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for name, value in parts["optimizer"].items():
            index, key = name.split(".")
            weight = weights[int(index)]
            # In the layout of the weight: the fused optimizer goes through both as they lie in memory.
            optimizer.state[weight][key] = torch.empty_like(weight).copy_(value) if value.ndim else value.to(weight.device)
        return at


def _read_state(path, digest):
    """The tensors in a state, by part and name, and where the training was."""
    parts = defaultdict(dict)
    with safe_open(path, "pt") as file:
        if file.metadata()["recipe"] != digest:
            raise ValueError("its recipe has other numbers")
        for name in file.keys():  # noqa: SIM118 - a safetensors file is not a dict
            part, key = name.split(".", 1)
            parts[part][key] = file.get_tensor(name)
        return parts, json.loads(file.metadata()["at"])


def load_averaged(objective: nn.Module, folder: Path, digest: str) -> nn.Module:
    """`objective` with the averaged weights of a run of `fit` in `folder`.

    Raises FileNotFoundError if there was none, and ValueError if its state is damaged or not of the recipe of this `digest`.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"expected the state of an earlier stage at {path}; run that stage first")
    averaged = AveragedModel(objective)
    with as_one_error(path):
        averaged.load_state_dict(_read_state(path, digest)[0]["averaged"])
    return averaged.module.eval()
