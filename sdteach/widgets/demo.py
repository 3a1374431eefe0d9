"""The projector app: type a prompt, watch it become a picture, compare two runs, hand the page to the class."""

import asyncio
import base64
import warnings
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

from ipywidgets import HTML, Button, FloatText, HBox, IntSlider, IntText, Text, ToggleButton

from .. import plots
from ..player import to_html
from ..player.motion import uri
from ..plots.style import THEMES
from ..trace import Trace
from .explorer import _control, _Shown
from .stages import _words

PAINT, STOP, STOPPING = "Paint", "Stop", "Stopping …"
KEEP, KEPT = "Keep to compare", "Kept on the left"
WELCOME = "Type what the picture shows, then press Enter or Paint."


class Demo(_Shown):
    """One run as it grows, or two side by side: at each step the latents, the predicted picture, and where a word is read.

    `unfold(prompt, steps=, guidance_scale=, seed=)` gives traces that grow step by step, as `pipeline.unfold` does. Each step is
    taken in a thread, so that the page goes on listening. `paint()` and `stop()` do from code what the button does; `trace` is the
    run that is shown, complete or stopped, `kept` the one beside it. A ValueError or a warning of `unfold` is told in the page.
    """

    def __init__(
        self, unfold: Callable[..., Iterator[Trace]], prompt: str = "", steps: int = 20, guidance_scale: float = 7.5, seed: int = 0
    ):
        self.unfold, self.trace, self.kept, self._task, self._stopping = unfold, None, None, None, False
        self.prompt = Text(value=prompt, description="prompt", placeholder=WELCOME).add_class("prompt")
        self.steps, self.seed = IntText(value=steps, description="steps"), IntText(value=seed, description="seed")
        self.guidance = FloatText(value=guidance_scale, description="guidance", step=0.5)
        self.button = Button(description=PAINT, button_style="primary").add_class("paint")
        self.keep = ToggleButton(description=KEEP, disabled=True)
        self.page, self.said = HTML().add_class("save"), HTML().add_class("said")
        self.words, self.word = HBox().add_class("words"), _control("word", [""], True)
        self.step = IntSlider(min=1, max=1, value=1, description="step", disabled=True)
        super().__init__([])
        self.children = [HTML(f"<style>{_style()}</style>").add_class("style"), HBox([self.prompt, self.button]).add_class("asked"),
                         HBox([self.steps, self.guidance, self.seed, self.keep, self.page]).add_class("set"), self.said,
                         self.picture.add_class("runs"), self.words, self.step]  # fmt: skip
        self.add_class("sdteach-demo")
        self.picture.value = f"<p>{WELCOME}</p>"
        self.prompt.on_submit(lambda _: None if self._task else self._press())
        self.button.on_click(lambda _: self._press())
        self.step.observe(self._show, "value")
        self.keep.observe(self._keep, "value")

    def _press(self):
        if self._task:
            self.stop()
        else:
            self._task = asyncio.get_running_loop().create_task(self.paint())

    def stop(self) -> None:
        """Let the step that is being computed be the last; what was made so far stays, as a run that is not complete."""
        self._stopping, self.button.description = True, STOPPING

    async def paint(self) -> None:
        """Run the prompt with the settings that stand there, showing each step."""
        self._stopping, self.button.description, self.button.button_style = False, STOP, "danger"
        self.said.value, self.page.value, self.keep.disabled, self.step.disabled = "", "", True, True
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always", UserWarning)
                settings = {"steps": self.steps.value, "guidance_scale": self.guidance.value, "seed": self.seed.value}
                traces = self.unfold(self.prompt.value, **settings)
            self.said.value = "".join(f"<p>{escape(str(note.message))}</p>" for note in notes)
            while not self._stopping and (trace := await asyncio.to_thread(next, traces, None)):
                self._take(trace)
        except (ValueError, RuntimeError) as error:  # of these is also memory that was too small
            self.said.value = f'<p role="alert">{escape(str(error))}</p>'
        finally:
            self._task, self.button.description, self.button.button_style = None, PAINT, "primary"
            self.keep.disabled = self.step.disabled = self.trace is None
        if self.trace:
            self._show()
            await self._offer()

    def _take(self, trace):
        """A run that has grown: its words to choose from, its last step to be seen."""
        before, self.trace = self.trace, trace
        if before is None or before.tokens.words != trace.tokens.words:
            self._offer_words()
        self.step.max = len(trace.steps)
        self.step.value = self.step.max
        self._show()

    def _offer_words(self):
        names, chosen = [*_words(self.trace)], self.word.value
        self.word = _control("word", names or [""], True)
        self.word.value = chosen if chosen in names else self.word.options[-1]
        self.word.observe(self._show, "value")
        self.words.children = [self.word] if names else []

    def _keep(self, _):
        self.kept = self.trace if self.keep.value else None
        self.keep.description = KEPT if self.keep.value else KEEP
        self._show()

    def _runs(self):
        return [self.trace] if self.kept in (None, self.trace) else [self.kept, self.trace]

    async def _offer(self):
        """A link that saves the page of what is shown, for the students."""
        page = (await asyncio.to_thread(to_html, *self._runs())).encode()
        self.page.value = (f'<a download="run.html" href="data:text/html;base64,{base64.b64encode(page).decode()}">Save the page '
                           f"({len(page) / 1e6:.1f} MB)</a>")  # fmt: skip

    def _show(self, _=None):
        runs = self._runs()
        shown = "".join(self._run(run, len(runs) > 1) for run in runs)
        self.picture.value = f'<div class="{"two" if len(runs) > 1 else "one"}">{shown}</div>'

    def _run(self, trace, beside):
        """A run at the step that is chosen; one of other length at the same share of its way."""
        last, names = len(trace.steps) - 1, _words(trace)
        index = round((self.step.value - 1) / max(self.step.max - 1, 1) * last)
        step, made = trace.steps[index], trace.complete and index == last
        picture = trace.pixels if made else step.preview
        shown = [] if beside else [(plots.latent_colours(step.latents), "what the UNet sees: latents", "cells")]
        shown.append((picture, "the picture" if made else "the picture it predicts", "plain"))
        if self.word.value in names:
            heat = trace.heat_map(names[self.word.value], [index])
            shown.append((plots.heated(picture, heat), f"where “{self.word.value}” is read", "plain"))
        pictures = "".join(f'<figure><img class="{kind}" alt="{escape(name)}" src="{uri(pixels, None)}"><figcaption>{escape(name)}'
                           "</figcaption></figure>" for pixels, name, kind in shown)  # fmt: skip
        growing = self._task and trace is self.trace
        of = "" if growing else f" of {last + 1}{'' if trace.complete else ', stopped early'}"
        title = f"<h2><bdi>{escape(trace.prompt)}</bdi></h2>" if beside else ""
        return (f"<section>{title}<p>step {index + 1}{of} · guidance {trace.guidance_scale:g} · seed {trace.seed}</p>"
                f'<div class="row">{pictures}</div></section>')  # fmt: skip


def _style():
    light = THEMES["light"]
    colours = " ".join(f"--{part}: {getattr(light, part)};" for part in ("ink", "paper", "quiet", "line"))
    return f".sdteach-demo {{ {colours} --accent: {light.cycle[0]}; }}\n{Path(__file__).with_name('demo.css').read_text('utf-8')}"
