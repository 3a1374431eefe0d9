"""Checkpoints: by which names, from where, in which shape they come, and where their weights stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what diffusers and transformers say and draw of their own while they load; errors still come through."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    try:
        for log in logs:
            log.set_verbosity_error()
            log.disable_progress_bar()
        yield
    finally:
        for log, (verbosity, bar) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python's collector of circular garbage rests: the libraries make a million objects when they are imported, which all stay,
    and going through them time and again takes a fifth of a cold start."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
