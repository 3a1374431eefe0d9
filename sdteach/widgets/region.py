"""Choose a region of a picture and have it painted anew."""

from collections.abc import Callable, Mapping

import numpy as np
from ipywidgets import Button, FloatSlider, IntRangeSlider, Stack, VBox
from PIL import Image

from ..plots import regions
from .explorer import NAMED, WIDE, Shown, control

STEP = 8  # pixels, what a latent covers
PAINT, PAINTING = "Paint", "Painting …"


class RegionExplorer(Shown):
    """A region of a picture, a box or where a word was read, and what `repaint` makes of it: before and after side by side.

    `before` is (height, width, 3), uint8, as is what `repaint(mask)` gives for (height, width) booleans; a ValueError of it is
    shown. `maps` are heat maps by word, 0..1, of any size. `region` is left, top, right, bottom in pixels, by default the middle.
    `choose(...)` and `paint()` do from code what the controls do.
    """

    def __init__(
        self, before: np.ndarray, repaint: Callable[[np.ndarray], np.ndarray], maps: Mapping[str, np.ndarray] | None = None,
        region: tuple[int, int, int, int] | None = None,
    ):  # fmt: skip
        self.before, self.repaint, self.painted = before, repaint, None
        height, width = before.shape[:2]
        self.maps = {word: np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))
                     for word, heat in (maps or {}).items()}  # fmt: skip
        self.by, self.word = control("region by", ["box", "word"]), control("word", [*self.maps] or [""])
        self.across, self.down = (IntRangeSlider(value=(edge // 4, edge - edge // 4), max=edge, step=STEP, description=name, style=NAMED,
                                                 layout=WIDE) for name, edge in (("across", width), ("down", height)))  # fmt: skip
        self.threshold = FloatSlider(0.3, max=0.95, step=0.05, description="threshold", style=NAMED, layout=WIDE)
        self.button = Button(description=PAINT, button_style="primary")
        self.button.on_click(lambda _: self.paint())
        self.ways = Stack([VBox([self.across, self.down]), VBox([self.word, self.threshold])])
        super().__init__([*[self.by] * bool(self.maps), self.ways, self.button])
        self.choose(region)
        for moved in (self.by, self.across, self.down, self.word, self.threshold):
            moved.observe(self._show, "value")
        self._show()

    @property
    def mask(self) -> np.ndarray:
        """The region that is chosen, (height, width), booleans."""
        if self.by.value == "word":
            return self.maps[self.word.value] > self.threshold.value
        mask = np.zeros(self.before.shape[:2], bool)
        mask[slice(*self.down.value), slice(*self.across.value)] = True
        return mask

    def choose(self, region: tuple[int, int, int, int] | None = None, word: str | None = None, threshold: float | None = None) -> None:
        """Choose a box, left, top, right, bottom in pixels; or where a word was read more than `threshold`, 0..0.95.

        Raises ValueError for a box that is none or leaves the picture, and for a word or a threshold that is not there.
        """
        height, width = self.before.shape[:2]
        if region is not None:
            left, top, right, bottom = region
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                raise ValueError(f"expected left, top, right, bottom in a picture of {width} x {height} pixels, got {region}")
            self.by.value, self.across.value, self.down.value = "box", (left, right), (top, bottom)
        if word is not None or threshold is not None:
            word, threshold = word or self.word.value, self.threshold.value if threshold is None else threshold
            if word not in self.maps or not 0 <= threshold <= self.threshold.max:
                raise ValueError(f"expected one of {[*self.maps]} and a threshold of 0..{self.threshold.max}, got {word!r}, {threshold}; "
                                 "words come with a trace that holds attention")  # fmt: skip
            self.by.value, self.word.value, self.threshold.value = "word", word, threshold

    def paint(self) -> None:
        """Paint the region anew and show it beside the picture before."""
        self.button.disabled, self.button.description, self.said.value = True, PAINTING, ""
        try:
            with self.telling():
                mask = self.mask
                pixels = np.asarray(self.repaint(mask))
                if (pixels.dtype, pixels.shape) != (self.before.dtype, self.before.shape):
                    raise ValueError(f"expected paint to give {self.before.dtype} {self.before.shape}, got {pixels.dtype} {pixels.shape}")
                self.painted = pixels, mask
        finally:
            self.button.disabled, self.button.description = False, PAINT
        self._show()

    def _show(self, moved=None):
        if moved:
            self.said.value = ""
        self.ways.selected_index = self.by.index
        mask = self.mask
        shown = [(self.before, None, "before"), (self.before, mask, f"the region: {mask.mean():.0%} of the picture")]
        if self.painted:
            pixels, where = self.painted
            changed = np.count_nonzero((pixels != self.before).any(2) & ~where)
            told = "after" if np.array_equal(mask, where) else "after, of the region before this one"
            shown.append((pixels, None, f"{told}: {changed:,} of {np.count_nonzero(~where):,} pixels outside have changed"))
        self.picture.value = regions(*zip(*shown, strict=True)).html()
