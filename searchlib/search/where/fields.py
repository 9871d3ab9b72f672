"""The fields of conditions, what they are also called, and which operators they take."""

from __future__ import annotations

import re
from typing import Literal, cast

from searchlib.catalog.conditions import Amount
from searchlib.search.where.dates import SPACED
from searchlib.search.where.tokens import Field, wrong

AMOUNTS: dict[str, Amount] = {
    "width": "width",
    "height": "height",
    "side": "length",
    "mp": "pixels",
    "size": "bytes",
}
"""The fields that are an amount, and which."""

DATES = ("taken", "modified", "added")
"""The fields that are a date."""
FIELDS = (
    *("folder", "name", *DATES, "near", "box", "camera", "format", *AMOUNTS),
    *("orientation", "shape", "tag", "key", "has"),
)
"""All fields."""

_EXAMPLES = {
    "folder": "folder:~/Pictures",
    "name": "name:IMG_*",
    "taken": "taken:2024-06",
    "modified": "modified:today",
    "added": 'added:"last 30 days"',
    "near": "near:48.85,2.35,10km",
    "box": "box:47.2,5.9,55.1,15.1",
    "camera": "camera:canon",
    "format": "format:jpeg",
    "width": "width>=1920",
    "height": "height>=1080",
    "side": "side>=4000",
    "mp": "mp>=12",
    "size": "size>5MB",
    "orientation": "orientation:portrait",
    "shape": "shape:portrait",
    "tag": "tag:beach",
    "key": "key.rating>=4",
    "has": "has:place",
}
_OTHER_NAMES = {
    **dict.fromkeys(("path", "dir", "directory", "in", "album", "root"), "folder"),
    **dict.fromkeys(("file", "filename", "basename"), "name"),
    **dict.fromkeys(("date", "time", "datetime", "year", "month", "day", "when"), "taken"),
    **dict.fromkeys(("mtime", "changed", "edited"), "modified"),
    **dict.fromkeys(("created", "imported", "ingested"), "added"),
    **dict.fromkeys(("gps", "location", "place", "lat", "latitude", "radius", "around"), "near"),
    **dict.fromkeys(("bbox", "bounds", "area"), "box"),
    **dict.fromkeys(("make", "model", "device"), "camera"),
    **dict.fromkeys(("type", "ext", "extension", "mime"), "format"),
    **dict.fromkeys(("longest", "length", "resolution"), "side"),
    **dict.fromkeys(("megapixels", "megapixel", "pixels"), "mp"),
    **dict.fromkeys(("bytes", "filesize", "weight"), "size"),
    **dict.fromkeys(("tags", "label", "labels", "keyword", "keywords"), "tag"),
    **dict.fromkeys(("property", "prop", "meta"), "key"),
    **dict.fromkeys(("is", "with"), "has"),
}
_MEANT = {
    **{"==": "=", "=>": ">=", "=<": "<=", "<>": "!=", "=~": ":", "~": ":", "!~": "!="},
}
Comparison = Literal[":", "<", "<=", ">", ">="]
"""How a value is compared with; ":" is for equal, or in a range."""


def spaced(field: Field) -> re.Pattern[str] | None:
    """What of this field may hold spaces without being in quotes."""
    return SPACED if field.name in DATES else None


def check_field(whole: str, field: Field) -> None:
    """See that there is such a field.

    Raises:
        WhereError: there is none.
    """
    if field.name not in FIELDS:
        raise wrong(whole, field.start, field.end, _no_field(field.name))
    if field.name == "key" and not field.key:
        raise wrong(whole, field.start, field.end, "which key? Write its name: key.rating>=4")
    if field.key is not None and not _is_storable(field.key):
        reason = "the key has a character that is no valid text; leave it out"
        raise wrong(whole, field.start, field.end, reason)
    if field.name != "key" and field.key is not None:
        reason = f"{field.name} has nothing behind a dot; write {example(field.name)}"
        raise wrong(whole, field.start, field.end, reason)


def example(name: str) -> str:
    """How a field is written."""
    return _EXAMPLES[name]


def closest(word: str) -> str | None:
    """The field that was meant by a word, where that can be told."""
    from difflib import get_close_matches

    word = word.lower()
    if word in FIELDS:
        return word
    known = _OTHER_NAMES.get(word)
    close = get_close_matches(word, FIELDS, 1, 0.6) if len(word) < 30 else []
    return known or (close[0] if close else None)


def comparison(
    whole: str, field: Field, operator: str, place: tuple[int, int]
) -> tuple[Comparison, bool]:
    """What an operator means, and whether the opposite of it is meant.

    Raises:
        WhereError: there is no such operator, or the field does not take it.
    """
    if operator in _MEANT:
        raise wrong(whole, *place, f"no such operator; write {_MEANT[operator]}")
    kind = operator.removeprefix(":") or ":"
    if kind in ("=", "!="):
        return ":", kind == "!="
    if kind != ":" and field.name not in (*DATES, *AMOUNTS, "key"):
        reason = f"{field.name} knows no more and less, only : and !=; write {example(field.name)}"
        raise wrong(whole, *place, reason)
    return cast(Comparison, kind), False


def _is_storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_field(name: str) -> str:
    if name in ("http", "https", "file", "data"):
        return "a URL is no condition; ask for images like it instead"
    meant = closest(name)
    if meant is not None:
        return f"no such field; did you mean {meant}? ({example(meant)})"
    return f"no such field; the fields are {', '.join(FIELDS)}"
