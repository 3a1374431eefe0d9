"""Checkpoints: by which names, from where, in which shape they come, and where their weights stay."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what diffusers and transformers say and draw of their own while they load; errors still come through."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with ExitStack() as afterwards:
        for log in (diffusers_logging, transformers_logging):
            afterwards.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity_error()
            if log.is_progress_bar_enabled():
                afterwards.callback(log.enable_progress_bar)
                log.disable_progress_bar()
        yield


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
