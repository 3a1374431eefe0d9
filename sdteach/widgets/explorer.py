"""The two kinds of explorer that all others are made of."""

import asyncio
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import product

from ipywidgets import HTML, HBox, Layout, Play, SelectionSlider, Text, VBox, jslink
from tqdm.auto import tqdm

from ..plots.style import SCREEN_DPI, Plate, as_img

PAUSE = 250  # milliseconds, of what is typed before it is looked at, and of a frame while it plays
Frame = tuple[bytes, str]


class _Shown(VBox):
    """A box of controls over a picture, which stands alone where widgets cannot run."""

    def __init__(self, controls: Sequence):
        self.picture = HTML()
        super().__init__([*controls, self.picture])

    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"text/html": self.picture.value}


class Explorer(_Shown):
    """A figure for every choice of the sliders, all drawn beforehand, so that a slider only swaps pictures.

    `draw(**choice)` is called once for each combination of `choices`, which maps the sliders' names to their values. The
    first slider can be played if `playing`. `choose(name=value)` moves the sliders from code.
    """

    def __init__(self, draw: Callable[..., Plate], choices: Mapping[str, Sequence], playing: bool = False):
        if not choices or not all(len(values) for values in choices.values()):
            raise ValueError(f"expected choices for at least one slider, at least one for each, got {dict(choices)}")
        combinations = [*product(*choices.values())]
        self.frames: dict[tuple, Frame] = {}
        for chosen in tqdm(combinations, "drawing", unit="picture", leave=False, disable=len(combinations) < 9):
            figure = draw(**dict(zip(choices, chosen, strict=True)))
            self.frames[chosen] = figure.png(SCREEN_DPI), figure.get_label()
        look = {"layout": Layout(width="28em"), "style": {"description_width": "7em"}}
        self.sliders = {name: SelectionSlider(options=values, description=name, **look) for name, values in choices.items()}
        controls = [*self.sliders.values()]
        if playing:
            first = controls[0]
            play = Play(min=0, max=len(first.options) - 1, interval=PAUSE, show_repeat=False)
            jslink((play, "value"), (first, "index"))
            controls[0] = HBox([play, first])
        super().__init__(controls)
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

    def _show(self, _=None):
        self.picture.value = as_img(*self.frames[tuple(slider.value for slider in self.sliders.values())])


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
        self.picture.value = (as_img(drawn.png(SCREEN_DPI), drawn.get_label()) if isinstance(drawn, Plate) else drawn.picture.value) + said
        self.children = [*self.fields.values(), self.picture] if isinstance(drawn, Plate) else [*self.fields.values(), drawn, HTML(said)]
