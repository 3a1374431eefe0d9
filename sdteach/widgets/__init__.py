"""Explorers: figures that answer to sliders and to what is typed. They draw with `plots` and compute nothing themselves:
what has to be computed anew comes from a callable that they are given.

Where widgets cannot run, each shows the picture that it starts with.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
