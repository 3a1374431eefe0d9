"""The live page: a small checkpoint in a folder of plain files, which runs in any browser and needs nobody."""

from .folder import write

__all__ = ["write"]
