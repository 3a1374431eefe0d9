"""What moves on the page: every stop of the scrubber, as the pictures and maps that the script shows there."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from ..plots import latent_colours

EDGE, GRID = 512, 32  # the longest edges of a step's picture and of a map
POSITIONS = 1_500_000  # of all maps of all words and steps
PICTURES = {"preview": "the picture it predicts", "predicted_x0": "the latents it predicts, as colours", "latents": "what the UNet sees"}


def motion(trace, quality):
    """What the script shows: the pictures of each step and of the result, and the maps of all words as bytes."""
    main, each_step = main_part(trace), _attended(trace)
    steps = [
        {"t": step.timestep, "maps": _maps(trace, [step.index]) if each_step else None}
        | {part: uri(pixels, quality) for part, pixels in parts(step, main).items()}
        for step in trace.steps
    ]
    return {
        "words": trace.tokens.words, "caption": PICTURES.get(main, "the picture"), "blocks": main != "preview", "grid": _grid(trace),
        "when": when_read(trace), "maps": _maps(trace) if trace.layers else None,
        "latents": uri(latent_colours(trace.final_latents), quality),
        "steps": steps if each_step or any(len(step) > 2 for step in steps) else [],  # else nothing moves
    }  # fmt: skip


def when_read(trace):
    """Which steps `Trace.heat_map` is of by default."""
    return "in the last quarter of the run" if _attended(trace) else "over the whole run"


def main_part(trace):
    """What is shown largest at each step: the best of what the steps hold."""
    return next((name for name in PICTURES if any(getattr(step, name) is not None for step in trace.steps)), None)


def parts(step, main=None):
    """What a step holds, as pictures: latents and noise predictions as colours, `push` what guidance adds, `picture` its `main` part."""
    held = {"latents": step.latents, "noise": step.noise, "uncond": step.noise_uncond}
    if step.noise is not None and step.noise_uncond is not None:
        held["push"] = step.noise - step.noise_uncond
    if main:
        held["picture"] = getattr(step, main)
    return {
        name: values if name == "picture" and main == "preview" else latent_colours(values)
        for name, values in held.items() if values is not None
    }  # fmt: skip


def uri(pixels, quality, edge=EDGE):
    """A picture, or a mask in black and white, as a data URI: exactly (quality None), or lossily with edges of at most `edge`."""
    image, data = Image.fromarray(pixels).convert("RGB"), BytesIO()
    if quality is not None:
        image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    image.save(data, "WEBP", lossless=quality is None, quality=quality or 80)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"


def _attended(trace):
    """Whether each step holds where words were read."""
    return any(step.attention or step.attention_heads for step in trace.steps)


def _grid(trace):
    """Width and height of the maps that the page draws: those of the latents, or less where there are many words and steps."""
    height, width = trace.final_latents.shape[2:]
    fitting = POSITIONS / (height * width * max(len(trace.tokens.words) * len(trace.steps), 1))
    scale = min(1, GRID / max(height, width), fitting**0.5)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _maps(trace, steps=None):
    """Where each word was read, `Trace.heat_map` of one after the other, as base64 of a byte for each position."""
    heats = [Image.fromarray(trace.heat_map(word, steps)).resize(_grid(trace), Image.Resampling.BOX)
             for word in range(len(trace.tokens.words))]  # fmt: skip
    return base64.b64encode(b"".join(np.round(np.asarray(heat) * 255).astype(np.uint8).tobytes() for heat in heats)).decode()
