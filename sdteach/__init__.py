"""sdteach opens Stable Diffusion up: every stage from prompt to picture is one plain function.

>>> import sdteach
>>> model = sdteach.load_model()
>>> trace = sdteach.generate(model, "a red car below a yellow star")
>>> trace.image, trace.heat_map("car")

The names below load on first use, so that `import sdteach` costs next to nothing.
"""

from importlib import import_module

_HOME = {
    "load_model": "model", "StableDiffusion": "model",
    "tokenize": "tokenizer", "Tokens": "records",
    "encode_text": "text_encoder", "image_features": "text_encoder", "cosine_similarity": "vectors",
    "image_to_latents": "vae", "latents_to_image": "vae",
    "noise_schedule": "schedule", "add_noise": "schedule",
    "unet_step": "unet",
    "generate": "pipeline", "denoise": "pipeline",
    "Trace": "trace",
}  # fmt: skip

__all__ = list(_HOME)
__version__ = "0.1.0"


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'sdteach' has no attribute {name!r}; it has {', '.join(_HOME)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return [*globals(), *_HOME]
