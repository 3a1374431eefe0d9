"""Stage 1: the prompt as tokens."""

from matplotlib.figure import Figure

from ..records import Tokens
from .style import BODY, SMALL, WIDTH, Page, cut, styled, theme, width_of, wrapped

COLUMNS = 8
HIGH = 0.72  # inches from row to row


@styled()
def token_chips(tokens: Tokens) -> Figure:
    """Every token as a chip with its id: start, pieces, end, how many of padding, and the text that was cut off."""
    dropped = wrapped(f"cut off: {cut(tokens.dropped, 300)}", WIDTH - 0.4, SMALL) if tokens.dropped else []
    told = ", ".join(f"{name} {number}" for name, number in _chips(tokens))
    alt = f"{tokens.end + 1} tokens: {cut(told, 600)}." + (f" Cut off: {cut(tokens.dropped, 200)}." if dropped else "")
    high = chip_rows(tokens) + 0.05
    page = Page(WIDTH, high + 0.2 * len(dropped), alt)
    draw_chips(page, 0.22, tokens)
    for line, text in enumerate(dropped):
        page.write(0.2, high + 0.2 * line, text, SMALL)
    return page


def draw_chips(page, down, tokens):
    """The chips themselves, row by row, so many inches down the page."""
    wide = WIDTH / COLUMNS
    for index, (name, number) in enumerate(_chips(tokens)):
        middle, line = (index % COLUMNS + 0.5) * wide, down + HIGH * (index // COLUMNS)
        fill, ink = (theme().pale, theme().quiet) if index == 0 or index >= tokens.end else (theme().chip, theme().ink)
        size = max(SMALL - 1, min(BODY, BODY * (wide - 0.18) / width_of(name, BODY)))
        page.write(middle, line, name, size, ink, wide - 0.18, "center",
                   bbox={"boxstyle": "round,pad=0.35", "facecolor": fill, "edgecolor": theme().line})  # fmt: skip
        page.write(middle, line + 0.31, str(number), SMALL, theme().quiet, ha="center")


def chip_rows(tokens):
    """How many inches of rows `tokens` fill."""
    return HIGH * -(-len(_chips(tokens)) // COLUMNS)


def place_names(tokens: Tokens) -> list[str]:
    """A name for every place from the start token to the end token: a piece inside a word keeps a hyphen."""
    pieces = tokens.pieces[1 : tokens.end]
    return ["start", *(piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}-" for piece in pieces), "end"]


def _chips(tokens):
    names = place_names(tokens)
    padding = len(tokens.ids) - len(names)
    return [*zip(names, tokens.ids.tolist(), strict=False), *[(f"+ {padding}", "padding")] * bool(padding)]
