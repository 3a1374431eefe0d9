"""Trace -> HTML: one file with its style, its script, and a policy that lets in these two and the page's own pictures, nothing else."""

import base64
import hashlib
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_hex

from ..plots import latent_colours
from ..plots.chips import place_names
from ..plots.film import spread
from ..plots.style import DIVERGING, THEMES, bright
from ..trace import Trace
from .motion import PICTURES, main_part, motion, parts, uri, when_read

MOST = 6_000_000  # bytes of a page
EXACT = 2**21  # pixels of all steps' pictures up to which they are kept exactly as they are
QUALITIES = (80, 55, 30)  # of larger ones: the best that fits


def to_html(trace: Trace, other: Trace | None = None) -> str:
    """The page of a run, or of two side by side: one file that needs nothing else, for any browser.

    It shows what the trace holds: words and tokens, cosines, noise, every step with its latents and noise predictions, where each
    word was read. Predicted pictures are those that were collected; `collecting.with_previews` adds the rest. A run of 50 steps
    stays below 6 MB: small pictures are in it exactly, large ones as well as that allows. Raises ValueError for anything but traces.
    """
    traces = [trace] if other is None else [trace, other]
    for run in traces:
        if not isinstance(run, Trace):
            raise ValueError(f"expected a Trace, got {type(run).__name__}; generate() makes one, Trace.load(file) reads one")
    exact = sum(len(run.steps) * run.height * run.width for run in traces) <= EXACT
    runs = [_still(run, beside) for run, beside in zip(traces, traces[::-1], strict=True)]
    for quality in (None, *QUALITIES) if exact else QUALITIES:
        heat = base64.b64encode(coloured(np.arange(256), "inferno").tobytes()).decode()
        data = {"heat": heat, "runs": [motion(run, quality) for run in traces]}
        page = render("player.html", runs=runs, quality=quality, data=data)
        if len(page) <= MOST:
            break
    return page


def render(template, **values):
    """A page, or a part of one, out of the folder `templates`. Whatever text it is given stays text; only Markup is taken as HTML."""
    return TEMPLATES.get_template(template).render(values).encode("utf-8", "replace").decode()


def coloured(values, scale):
    """Numbers of 0..1 as the colours of a scale of matplotlib."""
    return mpl.colormaps[scale](values, bytes=True)[..., :3]


def _still(trace, other):
    """What stands still on the page of a run, which reads and prints without the script."""
    main = main_part(trace)
    tiles = parts(trace.steps[-1]) if trace.steps else {}
    if "latents" in tiles:
        tiles["latents"] = latent_colours(trace.final_latents)
    if main == "latents":  # they are the largest picture already
        del tiles["latents"]
    return {
        "trace": trace, "settings": _settings(trace), "others": _settings(other), "main": main, "tiles": tiles,
        "film": spread([step for step in trace.steps if main and getattr(step, main) is not None]), "when": when_read(trace),
        "again": [step.timestep for before, step in pairwise(trace.steps) if before.timestep == step.timestep],
    }  # fmt: skip


def _settings(trace):
    """Everything that was set, by name."""
    return {
        "Prompt": trace.prompt, "Negative prompt": trace.negative_prompt, "Model": trace.model, "Sampler": trace.scheduler,
        "Steps": f"{len(trace.steps)} step{'s' * (len(trace.steps) != 1)}{'' if trace.complete else ', stopped early'}",
        "Guidance": f"{trace.guidance_scale:g}" if trace.guidance_scale > 1 else "off", "Seed": str(trace.seed),
        "Size": f"{trace.width} × {trace.height} pixels", "Strength": "" if trace.strength is None else f"{trace.strength:g}",
    }  # fmt: skip


def _most_alike(cosines):
    """The two words whose vectors have the largest cosine."""
    return np.unravel_index(np.triu(cosines + 2, 1).argmax(), cosines.shape)


def _shades():
    """21 colours for cosines from -1 to 1, and whether each is bright, as for plots.heat_table."""
    colours = mpl.colormaps[DIVERGING](np.linspace(0, 1, 21))[:, :3]
    return [*zip(map(to_hex, colours), bright(colours), strict=True)]


def _digest(text):
    """A text as a content security policy knows it."""
    return Markup(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.filters |= {"digest": _digest}
TEMPLATES.globals |= {
    "themes": THEMES, "shades": _shades(), "pictures": PICTURES, "uri": uri, "latent_colours": latent_colours, "coloured": coloured,
    "diverging": DIVERGING, "most_alike": _most_alike, "place_names": place_names,
}  # fmt: skip
