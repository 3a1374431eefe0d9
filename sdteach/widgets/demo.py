"""The projector app: type a prompt, watch it become a picture, compare two runs, hand the page to the class."""

import asyncio
import base64
from collections.abc import Callable, Iterator

from ipywidgets import HTML, Button, FloatText, HBox, IntSlider, IntText, RadioButtons, Text, ToggleButton

from ..player import to_html
from ..player.page import render
from ..plots import heated, latent_colours
from ..trace import Trace
from .explorer import Shown
from .stages import named_words

PAINT, STOP, STOPPING = "Paint", "Stop", "Stopping …"
KEEP, KEPT = "Keep to compare", "Kept on the left"


class Demo(Shown):
    """One run as it grows, or two side by side: at each step the latents, the predicted picture, and where a word is read.

    `unfold(prompt, steps=, guidance_scale=, seed=)` gives traces that grow step by step, as `pipeline.unfold` does. Each step is
    taken in a thread, so that the page goes on listening. `paint()` and `stop()` do from code what the button does; `trace` is the
    run that is shown, complete or stopped, `kept` the one beside it. A ValueError or a warning of `unfold` is told in the page.
    """

    def __init__(
        self, unfold: Callable[..., Iterator[Trace]], prompt: str = "", steps: int = 20, guidance_scale: float = 7.5, seed: int = 0
    ):
        self.unfold, self.trace, self.kept, self._task, self._stopping = unfold, None, None, None, False
        self.prompt = Text(prompt, description="prompt", placeholder="Type what the picture shows, then press Enter or Paint.")
        self.steps, self.seed = IntText(steps, description="steps"), IntText(seed, description="seed")
        self.guidance = FloatText(guidance_scale, description="guidance", step=0.5)
        self.button, self.keep, self.page = Button().add_class("paint"), ToggleButton(description=KEEP), HTML().add_class("save")
        self.word = RadioButtons(options=[], description="word").add_class("words")
        self.step = IntSlider(1, min=1, max=1, description="step")
        super().__init__([])
        self.children = [HTML(f"<style>{render('demo.css')}</style>").add_class("unseen"),
                         HBox([self.prompt.add_class("prompt"), self.button]).add_class("asked"),
                         HBox([self.steps, self.guidance, self.seed, self.keep, self.page]).add_class("set"),
                         self.said.add_class("said"), self.picture.add_class("runs"), self.word, self.step]  # fmt: skip
        self.add_class("sdteach-demo")
        self.picture.value = render("waiting.html")
        self.prompt.on_submit(lambda _: None if self._task else self._press())
        self.button.on_click(lambda _: self._press())
        for chosen in (self.step, self.word):
            chosen.observe(self._show, "value")
        self.keep.observe(self._keep, "value")
        self._ready()

    def _ready(self):
        self._task, self.button.description, self.button.button_style = None, PAINT, "primary"
        self.keep.disabled = self.step.disabled = self.trace is None

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
        settings, traces = {"steps": self.steps.value, "guidance_scale": self.guidance.value, "seed": self.seed.value}, iter(())
        try:
            with self.telling():
                traces = self.unfold(self.prompt.value, **settings)
            with self.telling():
                while not self._stopping and (trace := await asyncio.to_thread(next, traces, None)):
                    self._take(trace)
        finally:
            self._ready()
        if self.trace:
            self._show()
            page = (await asyncio.to_thread(to_html, *self._runs())).encode()
            data = f"data:text/html;base64,{base64.b64encode(page).decode()}"
            self.page.value = f'<a download="run.html" href="{data}">Save the page ({len(page) / 1e6:.1f} MB)</a>'

    def _take(self, trace):
        """A run that has grown: its words to choose from, its last step to be seen."""
        self.trace, names, chosen = trace, (*named_words(trace),), self.word.value
        if self.word.options != names:
            self.word.options = names
            self.word.value = chosen if chosen in names else names[-1] if names else None
        self.step.max = self.step.value = len(trace.steps)
        self._show()

    def _keep(self, _):
        self.kept = self.trace if self.keep.value else None
        self.keep.description = KEPT if self.keep.value else KEEP
        self._show()

    def _runs(self):
        return [self.trace] if self.kept in (None, self.trace) else [self.kept, self.trace]

    def _show(self, _=None):
        runs = self._runs()
        self.picture.value = render("steps.html", runs=[self._run(run, len(runs) > 1) for run in runs], quality=None)

    def _run(self, trace, beside):
        """A run at the step that is chosen; one of other length at the same share of its way."""
        last, names = len(trace.steps) - 1, named_words(trace)
        index = round((self.step.value - 1) / max(self.step.max - 1, 1) * last)
        step, made = trace.steps[index], trace.complete and index == last
        picture = trace.pixels if made else step.preview
        shown = [] if beside else [(latent_colours(step.latents), "what the UNet sees: latents", "cells")]
        shown.append((picture, "the picture" if made else "the picture it predicts", "plain"))
        if self.word.value in names:
            heat = trace.heat_map(names[self.word.value], [index])
            shown.append((heated(picture, heat), f"where “{self.word.value}” is read", "plain"))
        of = "" if self._task and trace is self.trace else f" of {last + 1}{'' if trace.complete else ', stopped early'}"
        return {"trace": trace, "shown": shown, "titled": beside,
                "facts": f"step {index + 1}{of} · guidance {trace.guidance_scale:g} · seed {trace.seed}"}  # fmt: skip
