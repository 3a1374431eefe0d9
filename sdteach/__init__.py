"""sdteach opens Stable Diffusion up: every stage from prompt to picture is one plain function.

>>> import sdteach
>>> model = sdteach.load_model()
>>> trace = sdteach.generate(model, "a red car below a yellow star")
>>> trace.image, trace.heat_map("car")

The public names stand in __init__.pyi and load on first use, so that `import sdteach` costs next to nothing.
"""

from lazy_loader import attach_stub

_load, __dir__, __all__ = attach_stub(__name__, __file__)
__version__ = "0.1.0"


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'sdteach' has no attribute {name!r}; it has {', '.join(__all__)}")
    return _load(name)
