"""Stage 1: the prompt as tokens."""

from matplotlib.figure import Figure

from ..records import Tokens
from .style import BODY, SMALL, Page, cut, fit, theme, width_of, wrapped

CHIP = 0.85  # inches from row to row
WIDE = 1.08  # inches from chip to chip
ROOM = 0.94  # inches for what a chip says


def token_chips(tokens: Tokens, columns: int = 10) -> Figure:
    """Every token as a chip with its id: start, pieces, end, how many of padding, and the text that was cut off."""
    dropped = wrapped(f"cut off: {cut(tokens.dropped, 300)}", WIDE * columns - 0.2, SMALL) if tokens.dropped else []
    told = ", ".join(f"{name} {number}" for name, number in _chips(tokens))
    alt = f"{tokens.end + 1} tokens: {cut(told, 600)}." + (f" Cut off: {cut(tokens.dropped, 200)}." if dropped else "")
    rows = chip_rows(tokens, columns)
    page = Page(WIDE * columns + 0.2, CHIP * rows + 0.25 + 0.3 * len(dropped), alt)
    draw_chips(page, 0.1, 0.35, tokens, columns)
    for line, text in enumerate(dropped):
        page.text(0.2, CHIP * rows + 0.22 + 0.3 * line, text, SMALL)
    return page.figure


def draw_chips(page: Page, left: float, down: float, tokens: Tokens, columns: int) -> None:
    """The chips themselves, row by row from the left."""
    for index, (name, number) in enumerate(_chips(tokens)):
        row, column = divmod(index, columns)
        middle, line = left + (column + 0.5) * WIDE, down + CHIP * row
        special = index == 0 or index >= tokens.end
        box = {"boxstyle": "round,pad=0.35", "facecolor": theme().pale if special else theme().chip, "edgecolor": theme().line}
        size = max(SMALL - 1, min(BODY, BODY * ROOM / width_of(name, BODY)))
        page.text(middle, line, fit(name, ROOM, size), size, theme().quiet if special else theme().ink, ha="center", bbox=box)
        page.text(middle, line + 0.36, str(number), SMALL, theme().quiet, ha="center")


def chip_rows(tokens: Tokens, columns: int) -> int:
    """How many rows of chips `tokens` fill."""
    return -(-len(_chips(tokens)) // columns)


def readable(piece: str) -> str:
    """A byte-pair piece as a reader expects it: the end-of-word sign goes, a piece inside a word keeps a hyphen."""
    return piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}-"


def place_names(tokens: Tokens) -> list[str]:
    """A name for every place from the start token to the end token."""
    return ["start", *(readable(piece) for piece in tokens.pieces[1 : tokens.end]), "end"]


def _chips(tokens):
    padding = len(tokens.ids) - tokens.end - 1
    ids = tokens.ids.tolist()[: tokens.end + 1]
    return [*zip(place_names(tokens), ids, strict=True), *([(f"+ {padding}", "padding")] if padding else [])]
