"""Kept for one version, for copies of lessons: `data_folder` is in `sdteach.files` now."""

import warnings

from .files import data_folder

__all__ = ["data_folder"]

warnings.warn("sdteach.checkpoints has moved: data_folder to sdteach.files, the rest to sdteach.loading", DeprecationWarning, stacklevel=2)
