"""Moved to `sdteach.classroom.exercises`; this name goes with the next version."""

import warnings

from .classroom.exercises import Verdict, check, exercises

__all__ = ["Verdict", "check", "exercises"]
warnings.warn("sdteach.exercises is now sdteach.classroom.exercises", DeprecationWarning, stacklevel=2)
