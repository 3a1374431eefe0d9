"""The two kinds of explorer that all others are made of."""

import asyncio
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import product

from IPython.display import display
from ipywidgets import HTML, Dropdown, HBox, Layout, Play, SelectionSlider, Text, ToggleButtons, VBox, jslink
from tqdm.auto import tqdm

from ..plots.style import Plate

PAUSE = 250  # milliseconds, of what is typed before it is looked at, and of a frame while it plays
BUTTONS = 12  # as many words as stand side by side


class _Shown(VBox):
    """A box of controls over a picture, which stands alone where widgets cannot run."""

    unseen = ()  # links between controls, which are widgets too

    def __init__(self, controls: Sequence):
        self.picture = HTML()
        super().__init__([*controls, self.picture])

    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"text/html": self.picture.value}

    def close(self) -> None:
        """Take it away with all that is in it. Until then ipywidgets keeps it, and so the model that it asks."""
        inside = [*self.children, *self.unseen]
        while inside:
            child = inside.pop()
            inside += getattr(child, "children", ())
            child.close()
        super().close()


class LiveExplorer(_Shown):
    """A figure for every choice, drawn when it is first asked for and kept: for figures that take their time, or are many.

    `choices` maps names to values: words are chosen by buttons (of many, from a list), numbers by a slider. `draw(**choice)`
    makes the figure. `start` names the first choice where it is not the first of the values. `choose(name=value)` moves the
    sliders from code.
    """

    follows_the_hand = False  # whether a slider answers while it is dragged, or when it is let go

    def __init__(self, draw: Callable[..., Plate], choices: Mapping[str, Sequence], start: Mapping[str, object] | None = None):
        if not choices or not all(len(values) for values in choices.values()):
            raise ValueError(f"expected choices for at least one slider, at least one for each, got {dict(choices)}")
        self.draw = draw
        self.frames: dict[tuple, str] = {}
        self.sliders = {name: _control(name, values, self.follows_the_hand) for name, values in choices.items()}
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

    def _frame(self, chosen):
        if chosen not in self.frames:
            self.frames[chosen] = self.draw(**dict(zip(self.sliders, chosen, strict=True))).html()
        return self.frames[chosen]

    def _show(self, _=None):
        self.picture.value = self._frame(tuple(slider.value for slider in self.sliders.values()))


class Explorer(LiveExplorer):
    """A `LiveExplorer` with all its figures drawn beforehand, so that a slider only swaps pictures while it is dragged.

    The first slider can be played if `playing`.
    """

    follows_the_hand = True

    def __init__(self, draw: Callable[..., Plate], choices: Mapping[str, Sequence], playing: bool = False):
        super().__init__(draw, choices)
        combinations = [*product(*choices.values())]
        for chosen in tqdm(combinations, "drawing", unit="picture", leave=False, disable=len(combinations) < 9):
            self._frame(chosen)
        if playing:
            first, *others = self.children
            play = Play(min=0, max=len(first.options) - 1, interval=PAUSE, show_repeat=False)
            self.unseen = [jslink((play, "value"), (first, "index"))]
            self.children = [HBox([play, first]), *others]


def _control(name, values, follows_the_hand):
    look = {"description": name, "style": {"description_width": "7em"}}
    if not all(isinstance(value, str) for value in values):
        return SelectionSlider(options=values, continuous_update=follows_the_hand, layout=Layout(width="28em"), **look)
    if len(values) > BUTTONS:
        return Dropdown(options=values, **look)
    return ToggleButtons(options=values, description=name, style=look["style"] | {"button_width": "auto"})


class TextExplorer(_Shown):
    """What `draw(*texts)` makes of the texts that are typed: a figure, or a widget such as an `Explorer`.

    While somebody types nothing is drawn, and of what was typed in the meantime only the last counts. A ValueError or a
    warning of `draw` is shown beneath. `type(name=text)` types from code.
    """

    def __init__(self, draw: Callable[..., Plate | Explorer], texts: Mapping[str, str]):
        self.draw, self._waiting = draw, None
        look = {"layout": Layout(width="40em"), "style": {"description_width": "7em"}}
        self.fields = {name: Text(value=text, description=name, **look) for name, text in texts.items()}
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
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", UserWarning)
            try:
                drawn = self.draw(*(field.value for field in self.fields.values()))
            except ValueError as error:
                self.picture.value = f"<p>{escape(str(error))}</p>"
                self.children = [*self.fields.values(), self.picture]
                return
        said = "".join(f"<p>{escape(str(note.message))}</p>" for note in notes)
        self.picture.value = (drawn.html() if isinstance(drawn, Plate) else drawn.picture.value) + said
        self.children = [*self.fields.values(), *([self.picture] if isinstance(drawn, Plate) else [drawn, HTML(said)])]


def live(figures: Iterable[Plate]) -> None:
    """Show figures one after the other in one place, as they come; the last one stays."""
    shown = None
    for figure in figures:
        if shown is None:
            shown = display(figure, display_id=True)
        else:
            shown.update(figure)
