"""Moved to `sdteach.classroom.sizes`; this name goes with the next version."""

import warnings

from .classroom.sizes import Sizes, sizes

__all__ = ["Sizes", "sizes"]
warnings.warn("sdteach.sizes is now sdteach.classroom.sizes", DeprecationWarning, stacklevel=2)
