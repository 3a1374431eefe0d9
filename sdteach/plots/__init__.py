"""Records in, matplotlib figures out. Nothing here computes, shows or saves; `get_label()` of a figure is its alt text."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
