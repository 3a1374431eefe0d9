"""Moved to `sdteach.classroom.recording`; this name goes with the next version."""

import warnings

from .classroom.recording import recorded, recordings

__all__ = ["recorded", "recordings"]
warnings.warn("sdteach.recording is now sdteach.classroom.recording", DeprecationWarning, stacklevel=2)
