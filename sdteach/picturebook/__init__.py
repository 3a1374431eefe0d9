"""The embedded checkpoint's world: scenes drawn by code, the training that learned from them, the judge and the evaluation."""

import warnings
from importlib import import_module

MOVED = {"attention_truth": "evaluation.reading", "task_truth": "evaluation.other_tasks"}  # until the next version


def __getattr__(name: str) -> object:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is now {__name__}.{MOVED[name]}", DeprecationWarning, stacklevel=2)
    return import_module(f".{MOVED[name]}", __name__)
