"""A small picture of a match, and the list that shows it beside what is known."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click
from PIL import Image

from searchlib.cli.results import beside, contributions, known_of, percentile_in_words
from searchlib.cli.terminal_pictures import Way, cell_size, draw
from searchlib.errors import ImageError, LibraryError
from searchlib.images import load, printable

if TYPE_CHECKING:
    from searchlib.library import Library
    from searchlib.search.match import Match, Results

SIDE = 256
"""The longer side in pixels."""

_COLUMNS, _ROWS = 24, 7
_SAVE, _RESTORE = b"\x1b7", b"\x1b8"


def small_picture(library: Library, match: Match) -> Image.Image:
    """A match in up to 256 pixels a side, mode RGB: its thumbnail, else its file made smaller.

    Raises:
        ImageError: the file cannot be read.
        LibraryError: the file is not what the library knows any more.
    """
    if match.thumbnail is not None:
        try:
            with Image.open(match.thumbnail) as kept:
                return kept.convert("RGB")
        except (OSError, ValueError, SyntaxError):  # it is a cache, and its loss is no matter
            pass
    small = load(library.original(match.image.id), min_side=(SIDE, SIDE)).pixels
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small


def write_with_pictures(
    results: Results,
    way: Way,
    *,
    picture: Callable[[Match], Image.Image],
    explain: bool = False,
) -> None:
    """Write the matches on stdout, each with its picture to the left.

    Args:
        results: of the search.
        way: that the terminal knows.
        picture: gives the picture of a match, or raises why there is none.
        explain: with what each term adds to the score.
    """
    cell = cell_size(sys.stdout.fileno())
    width = max(shutil.get_terminal_size().columns - _COLUMNS - 2, 20)
    for match in results:
        lines = _lines(match, explain=explain)
        try:
            drawn = draw(picture(match), way, columns=_COLUMNS, rows=_ROWS, cell=cell)
        except (ImageError, LibraryError) as error:
            drawn = b""
            lines.append(f"no picture: {printable(str(error))}")
        click.echo(_block(drawn, [piece for line in lines for piece in _folded(line, width)]))


def _lines(match: Match, *, explain: bool) -> list[str]:
    score = f"{match.rank}.  {match.score:.3f}"
    if match.percentile is not None:
        score += f"  {percentile_in_words(match.percentile)}"
    return [
        score,
        printable(match.path),
        *(f"{name}: {printable(value)}" for name, value in known_of(match.image).items()),
        *beside(match),
        *(contributions(match) if explain else ()),
    ]


def _block(drawn: bytes, lines: Sequence[str]) -> bytes:
    """A picture with text to its right; all of its lines are free before it is drawn.

    What moves the cursor counts from where it is: at the last line of the screen, too, as the new
    lines have scrolled it up before.
    """
    height = max(_ROWS, len(lines)) + 1  # a line between two pictures
    shown = [b"\n" * height, b"\x1b[%dA" % height, _SAVE, drawn, _RESTORE]
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        text = line.encode(encoding, "backslashreplace")
        shown.append(b"\r\x1b[%dC%s\n" % (_COLUMNS + 2, text))
    shown.append(b"\n" * (height - len(lines)))
    return b"".join(shown)


def _folded(line: str, width: int) -> list[str]:
    """A line in pieces that are no wider than so many characters on a screen."""
    from rich.cells import chop_cells

    return chop_cells(line, width)
