"""Trace -> HTML: one file with its style, its script, and a policy that lets in these two and the page's own pictures, nothing else."""

import base64
import hashlib
import json
from pathlib import Path
from string import Template

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from ..plots.style import THEMES, cut
from ..trace import Trace
from .markup import SHADES, article, safe
from .motion import motion

FOLDER = Path(__file__).parent
MOST = 6_000_000  # bytes of a page
EXACT = 2**21  # pixels of all steps' pictures up to which they are kept exactly as they are
QUALITIES = (80, 55, 30)  # of larger ones: the best that fits


def to_html(trace: Trace, other: Trace | None = None) -> str:
    """The page of a run, or of two side by side: one file that needs nothing else, for any browser.

    It shows what the trace holds: words and tokens, cosines, noise, every step with its latents and noise predictions, where each
    word was read. Predicted pictures are those that were collected; `pipeline.with_previews` adds the rest. A run of 50 steps
    stays below 6 MB: small pictures are in it exactly, large ones as well as that allows. Raises ValueError for anything but traces.
    """
    runs = [trace] if other is None else [trace, other]
    for run in runs:
        if not isinstance(run, Trace):
            raise ValueError(f"expected a Trace, got {type(run).__name__}; generate() makes one, Trace.load(file) reads one")
    exact = sum(len(run.steps) * run.height * run.width for run in runs) <= EXACT
    for quality in (None, *QUALITIES) if exact else QUALITIES:
        page = _page(runs, quality)
        if len(page) <= MOST:
            break
    return page


def _page(runs, quality):
    style, script = _colours() + _read("page.css"), _read("page.js")
    known = f"style-src {digest(style)}; script-src {digest(script)}"
    others = [None] if len(runs) == 1 else runs[::-1]
    body = [article(run, other, f"run-{index}", quality) for index, (run, other) in enumerate(zip(runs, others, strict=True))]
    if len(runs) > 1:
        body.insert(0, '<header class="both"><h1>Two runs, step by step</h1></header>')
    return Template(_read("page.html")).substitute(
        title=safe(" | ".join(cut(run.prompt, 60) or "no words" for run in runs)), layout="one" if len(runs) == 1 else "two",
        known=known, style=style, script=script, body="\n".join(body),
        data=_json({"heat": _colormap("inferno"), "runs": [motion(run, quality) for run in runs]}),
    )  # fmt: skip


def _read(name):
    return (FOLDER / name).read_text("utf-8")


def digest(text: str) -> str:
    """A text as a content security policy knows it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value):
    """JSON of which no part can end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _colormap(name):
    """256 colours from little to much, as base64 of three bytes each."""
    return base64.b64encode((mpl.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes()).decode()


def _colours():
    """The house's themes as custom properties, with a shade for each step of a cosine."""
    blocks = []
    for name, theme in THEMES.items():
        shades = mpl.colormaps[theme.sequential](np.linspace(0, 1, SHADES + 1))[:, :3]
        bright = np.power(shades, 2.2) @ (0.2126, 0.7152, 0.0722) > 0.18  # relative luminance, as for plots.heat_table
        named = {part: getattr(theme, part) for part in ("ink", "paper", "quiet", "line", "pale", "chip")}
        named |= {"accent": theme.cycle[0], "warm": theme.cycle[1]}
        named |= {f"shade{index}": to_hex(shade) for index, shade in enumerate(shades)}
        named |= {f"on{index}": "#000" if light else "#fff" for index, light in enumerate(bright)}
        block = f":root {{ {' '.join(f'--{part}: {colour};' for part, colour in named.items())} }}\n"
        blocks.append(block if name == "light" else f"@media screen and (prefers-color-scheme: dark) {{ {block} }}\n")
    cells = [f".shade{index} {{ background: var(--shade{index}); color: var(--on{index}); }}\n" for index in range(SHADES + 1)]
    return "".join(blocks + cells)
