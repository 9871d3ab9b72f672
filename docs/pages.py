"""Pieces of Markdown."""

from __future__ import annotations

import re

MADE = "*Made from the code by `python docs/generate.py`: to change a word, change it there.*"


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```"


def link(name: str, shown: str | None = None) -> str:
    """To the heading of a name."""
    return f"[`{shown or name}`](#{anchor(name)})"


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def cell(text: str) -> str:
    """Text for a table."""
    return text.replace("|", "\\|")
