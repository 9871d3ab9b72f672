"""Text in which case does not count."""

from __future__ import annotations

import unicodedata


def folded(text: str) -> str:
    """The same for all spellings of a text that differ in case, or in how accents are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def folded_camera(make: str | None, model: str | None) -> str | None:
    """Make and model with a space between, folded; None where neither is known."""
    known = [part for part in (make, model) if part]
    return folded(" ".join(known)) if known else None
