"""The two kinds of explorer that all others are made of."""

import asyncio
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import product

from IPython.display import display
from ipywidgets import HTML, Dropdown, HBox, Layout, Play, RadioButtons, SelectionSlider, Text, VBox, jslink
from tqdm.auto import tqdm

from ..player.page import render
from ..plots.style import Page

PAUSE = 250  # milliseconds, of what is typed before it is looked at, and of a frame while it plays
BUTTONS = 12  # as many words as stand side by side
NAMED, WIDE = {"description_width": "7em"}, Layout(width="28em")


class Shown(VBox):
    """A box of controls over a picture and what is said of it; the picture stands alone where widgets cannot run."""

    unseen = ()  # links between controls, which are widgets too

    def __init__(self, controls):
        self.picture, self.said = HTML(), HTML()
        super().__init__([*controls, self.picture, self.said])

    def html(self):
        return self.picture.value + self.said.value

    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"text/html": self.html()}

    @contextmanager
    def telling(self):
        """What is warned of inside, and the error that ends it, are said: a wrong value, or too little memory, which is a RuntimeError."""
        mistake = None
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", UserWarning)
            try:
                yield
            except (ValueError, RuntimeError) as error:
                mistake = error
        self.said.value += render("said.html", mistake=mistake, notes=[str(note.message) for note in notes])

    def close(self) -> None:
        """Take it away with all that is in it. Until then ipywidgets keeps it, and so the model that it asks."""
        inside = [*self.children, *self.unseen]
        while inside:
            child = inside.pop()
            inside += getattr(child, "children", ())
            child.close()
        super().close()


class LiveExplorer(Shown):
    """A figure for every choice, drawn when it is first asked for and kept: for figures that take their time, or are many.

    `choices` maps names to values: words are chosen by buttons (of many, from a list), numbers by a slider. `draw(**choice)`
    makes the figure. `start` names the first choice where it is not the first of the values. `choose(name=value)` moves the
    sliders from code.
    """

    follows_the_hand = False  # whether a slider answers while it is dragged, or when it is let go

    def __init__(self, draw: Callable[..., Page], choices: Mapping[str, Sequence], start: Mapping[str, object] | None = None):
        if not choices or not all(len(values) for values in choices.values()):
            raise ValueError(f"expected choices for at least one slider, at least one for each, got {dict(choices)}")
        self.draw = draw
        self.frames: dict[tuple, str] = {}
        self.sliders = {name: control(name, values, self.follows_the_hand) for name, values in choices.items()}
        super().__init__([*self.sliders.values()])
        self.choose(**start or {})
        for slider in self.sliders.values():
            slider.observe(self._show, "value")
        self._show()

    def choose(self, **values) -> None:
        """Move sliders by their names. Raises ValueError for a name or a value that is not there."""
        for name, value in values.items():
            if name not in self.sliders or value not in self.sliders[name].options:
                there = {name: list(slider.options) for name, slider in self.sliders.items()}
                raise ValueError(f"expected one of {there}, got {name}={value!r}")
            self.sliders[name].value = value

    def _frame(self, *chosen):
        if chosen not in self.frames:
            self.frames[chosen] = self.draw(**dict(zip(self.sliders, chosen, strict=True))).html()
        return self.frames[chosen]

    def _show(self, _=None):
        self.picture.value = self._frame(*(slider.value for slider in self.sliders.values()))


class Explorer(LiveExplorer):
    """A `LiveExplorer` with all its figures drawn beforehand, so that a slider only swaps pictures while it is dragged.

    The first slider can be played if `playing`.
    """

    follows_the_hand = True

    def __init__(self, draw: Callable[..., Page], choices: Mapping[str, Sequence], playing: bool = False):
        super().__init__(draw, choices)
        combinations = [*product(*choices.values())]
        for chosen in tqdm(combinations, "drawing", unit="picture", leave=False, disable=len(combinations) < 9):
            self._frame(*chosen)
        if playing:
            first, *others = self.children
            play = Play(max=len(first.options) - 1, interval=PAUSE, show_repeat=False)
            self.unseen = [jslink((play, "value"), (first, "index"))]
            self.children = [HBox([play, first]), *others]


def control(name, values, follows_the_hand=True):
    """What chooses one of some values: numbers a slider, a few words buttons, many a list."""
    told = {"options": values, "description": name, "style": NAMED}
    if not all(isinstance(value, str) for value in values):
        return SelectionSlider(**told, layout=WIDE, continuous_update=follows_the_hand)
    if len(values) > BUTTONS:
        return Dropdown(**told)
    return RadioButtons(**told, orientation="horizontal", layout=Layout(width="auto"))


class TextExplorer(Shown):
    """What `draw(*texts)` makes of the texts that are typed: a figure, or a widget such as an `Explorer`.

    While somebody types nothing is drawn, and of what was typed in the meantime only the last counts. A ValueError or a
    warning of `draw` is shown beneath. `type(name=text)` types from code.
    """

    def __init__(self, draw: Callable[..., Page | Explorer], texts: Mapping[str, str]):
        self.draw, self._waiting = draw, None
        self.fields = {name: Text(text, description=name, style=NAMED, layout=Layout(width="40em")) for name, text in texts.items()}
        super().__init__([*self.fields.values()])
        for field in self.fields.values():
            field.observe(self._typed, "value")
        self._show()

    def type(self, **texts: str) -> None:
        """Put texts in the fields by their names. Raises ValueError for a name that is not there."""
        for name, text in texts.items():
            if name not in self.fields:
                raise ValueError(f"expected one of {', '.join(self.fields)}, got {name}")
            self.fields[name].value = text

    def _typed(self, _):
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel: nobody types
            self._show()
            return
        if self._waiting:
            self._waiting.cancel()
        self._waiting = loop.call_later(PAUSE / 1000, self._show)

    def _show(self):
        drawn, self.said.value = None, ""
        with self.telling():
            drawn = self.draw(*(field.value for field in self.fields.values()))
        self.picture.value = drawn.html() if drawn else ""
        self.children = [*self.fields.values(), drawn if isinstance(drawn, Shown) else self.picture, self.said]


def live(figures: Iterable[Page]) -> None:
    """Show figures one after the other in one place, as they come; the last one stays."""
    shown = None
    for figure in figures:
        if shown is None:
            shown = display(figure, display_id=True)
        else:
            shown.update(figure)
