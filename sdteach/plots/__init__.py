"""Records in, matplotlib figures out. Nothing here computes, shows or saves; `get_label()` of a figure is its alt text."""

from .pictures import picture_grid
from .run import contact_sheet
from .training import loss_curve

__all__ = ["contact_sheet", "loss_curve", "picture_grid"]
