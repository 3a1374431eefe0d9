"""Records in, matplotlib figures out. Nothing here computes, shows or saves; `get_label()` of a figure is its alt text."""

from .pictures import picture_grid
from .run import contact_sheet

__all__ = ["contact_sheet", "picture_grid"]
