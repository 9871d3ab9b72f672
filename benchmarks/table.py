"""The table: rows of what was measured, ours, the peers', and what was aimed at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        what: was measured, with its unit.
        ours: as text.
        peers: by name, as text.
        target: what was aimed at; nothing where there is no target.
        met: whether it was reached; None where there is no target or it could not be told.
    """

    what: str
    ours: str
    peers: dict[str, str] = field(default_factory=dict)
    target: str = ""
    met: bool | None = None


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, a column for each peer that occurs."""
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    lines = [["measured", "searchlib", *peers, "target", "met"]]
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "**no**"
        others = [row.peers.get(name, "") for name in peers]
        lines.append([row.what, row.ours, *others, row.target, met])
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first line is its head, and all but the first column are right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        _line(word.ljust(width) if place == 0 else word.rjust(width)
              for place, (word, width) in enumerate(zip(line, widths, strict=True)))
        for line in (lines[0], rules, *lines[1:])
    )  # fmt: skip


def _line(words: Iterable[str]) -> str:
    return "| " + " | ".join(words) + " |"
