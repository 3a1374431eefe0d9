"""For those who teach and those who learn: exercises that check themselves, handouts, recorded runs, sizes, and a doctor."""

from .exercises import check

__all__ = ["check"]
