"""Stage 1: the prompt as tokens."""

from matplotlib.figure import Figure

from ..records import Tokens
from .style import BODY, SMALL, WIDTH, Page, cut, fit, styled, theme, width_of, wrapped

COLUMNS = 8
HIGH = 0.72  # inches from row to row


@styled()
def token_chips(tokens: Tokens, columns: int = COLUMNS) -> Figure:
    """Every token as a chip with its id: start, pieces, end, how many of padding, and the text that was cut off."""
    dropped = wrapped(f"cut off: {cut(tokens.dropped, 300)}", WIDTH - 0.4, SMALL) if tokens.dropped else []
    told = ", ".join(f"{name} {number}" for name, number in _chips(tokens))
    alt = f"{tokens.end + 1} tokens: {cut(told, 600)}." + (f" Cut off: {cut(tokens.dropped, 200)}." if dropped else "")
    high = chip_rows(tokens, columns)
    page = Page(WIDTH, high + 0.05 + 0.2 * len(dropped), alt)
    draw_chips(page, 0.22, tokens, columns)
    for line, text in enumerate(dropped):
        page.text(0.2, high + 0.05 + 0.2 * line, text, SMALL)
    return page.figure


def draw_chips(page: Page, down: float, tokens: Tokens, columns: int = COLUMNS) -> None:
    """The chips themselves, row by row, so many inches down the page."""
    wide = WIDTH / columns
    for index, (name, number) in enumerate(_chips(tokens)):
        row, column = divmod(index, columns)
        middle, line = (column + 0.5) * wide, down + HIGH * row
        special = index == 0 or index >= tokens.end
        box = {"boxstyle": "round,pad=0.35", "facecolor": theme().pale if special else theme().chip, "edgecolor": theme().line}
        size = max(SMALL - 1, min(BODY, BODY * (wide - 0.18) / width_of(name, BODY)))
        page.text(middle, line, fit(name, wide - 0.18, size), size, theme().quiet if special else theme().ink, ha="center", bbox=box)
        page.text(middle, line + 0.31, str(number), SMALL, theme().quiet, ha="center")


def chip_rows(tokens: Tokens, columns: int = COLUMNS) -> float:
    """How many inches of rows `tokens` fill."""
    return HIGH * -(-len(_chips(tokens)) // columns)


def place_names(tokens: Tokens) -> list[str]:
    """A name for every place from the start token to the end token: a piece inside a word keeps a hyphen."""
    pieces = tokens.pieces[1 : tokens.end]
    return ["start", *(piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}-" for piece in pieces), "end"]


def _chips(tokens):
    padding = len(tokens.ids) - tokens.end - 1
    ids = tokens.ids.tolist()[: tokens.end + 1]
    return [*zip(place_names(tokens), ids, strict=True), *([(f"+ {padding}", "padding")] if padding else [])]
