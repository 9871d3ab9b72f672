"""Conditions written as the text that `parse_where` reads."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from searchlib.catalog.conditions import (
    And,
    Below,
    Box,
    Camera,
    Condition,
    Format,
    Glob,
    Has,
    Moment,
    Name,
    Near,
    Not,
    Number,
    Or,
    Range,
    Shape,
    Tagged,
    Taken,
    Value,
)
from searchlib.errors import InputError
from searchlib.search.where.amounts import megapixels
from searchlib.search.where.dates import FIRST_YEAR, LAST_YEAR, from_bound
from searchlib.search.where.limits import MOST_NESTED
from searchlib.search.where.normal import ALWAYS, NEVER, normalised

_FIELD_OF = {"length": "side", "pixels": "mp", "bytes": "size"}
_BARE = re.compile(r"\w[\w/@+-]*(?:\.[\w/@+-]+)*")
_BARE_PATH = re.compile(r"[\w/*?\[][\w/*?\[\]!@+-]*(?:\.[\w/*?\[\]!@+-]+)*")
_BARE_KEY = re.compile(r"[\w-]+(?:\.[\w-]+)*")


def format_where(condition: Condition) -> str:
    """The text that means a condition; the same for conditions that plainly say the same.

    It means the same everywhere: times are written in UTC, folders from their root. What always
    holds is the empty text.

    Raises:
        InputError: parentheses would nest deeper than `parse_where` reads.
    """
    condition = normalised(condition)
    return "" if condition == ALWAYS else _text(condition, 0)


def _text(condition: Condition, depth: int) -> str:
    match condition:
        case And(parts):
            return " and ".join(_grouped(part, Or, depth) for part in parts)
        case Or(()):
            return "none"
        case Or(parts):
            return " or ".join(_text(part, depth) for part in parts)
        case Not(part):
            return f"not {_grouped(part, (And, Or), depth)}"
        case Below(folder):
            return f"folder:{_quoted(folder, wild=False)}"
        case Glob(pattern):
            return f"folder:{_path(pattern)}"
        case Name(pattern):
            return f"name:{_path(pattern)}"
        case Taken():
            return _taken(condition)
        case Moment():
            return _moment(condition)
        case Range():
            return _range(condition)
        case Near(latitude, longitude, metres):
            return f"near:{_number(latitude)},{_number(longitude)},{_number(metres)}m"
        case Box(south, west, north, east):
            return f"box:{','.join(_number(degrees) for degrees in (south, west, north, east))}"
        case Camera(text):
            return f"camera:{_word(text)}"
        case Format(names):
            return f"format:{','.join(sorted(name.lower() for name in names))}"
        case Shape(of):
            return f"shape:{of}"
        case Has(of):
            return f"has:{of}"
        case Tagged(tag):
            return f"tag:{_word(tag)}"
        case Value(key, text):
            return f"{_key(key)}:{'*' if text is None else _word(text)}"
        case Number():
            return _of_key(condition)


def _grouped(
    part: Condition, kinds: type[Condition] | tuple[type[Condition], ...], depth: int
) -> str:
    if not isinstance(part, kinds) or part == NEVER:
        return _text(part, depth)
    if depth == MOST_NESTED:
        raise InputError(f"the conditions are nested more than {MOST_NESTED} deep; nest them less")
    return f"({_text(part, depth + 1)})"


def _taken(taken: Taken) -> str:
    since, before = taken.since, taken.before
    if since is None and before is None:
        return "taken:.."
    if before is None:
        return f"taken>={since}"
    if since is None:
        return f"taken<{before}"
    first, end = from_bound(since), from_bound(before)
    if first is not None and end is not None:
        # A last day, month or year that is meant to its end says it as a person would.
        for length in (4, 7, 10):
            last = _last_before(end, length)
            start = first.isoformat()[:length]
            if last is not None and from_bound(start) == first:
                return f"taken:{start}" if start == last else f"taken:{start}..{last}"
    return f"taken:{since}..<{before}"


def _last_before(end: datetime, length: int) -> str | None:
    """The year, month or day that is over at a moment, by the length of its text."""
    text = end.isoformat()
    begins = from_bound(text[:length]) == end
    return (end - timedelta(days=1)).isoformat()[:length] if begins else None


def _moment(moment: Moment) -> str:
    since, before = moment.since, moment.before
    if since is not None and before is not None:
        return f"{moment.of}:{_instant(since)}..<{_instant(before)}"
    if since is not None:
        return f"{moment.of}>={_instant(since)}"
    return f"{moment.of}:.." if before is None else f"{moment.of}<{_instant(before)}"


def _instant(seconds: float) -> str:
    """A moment in UTC, or in seconds where that would not be exact."""
    try:
        time = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"@{_number(seconds)}"
    if time.timestamp() != seconds or not FIRST_YEAR <= time.year <= LAST_YEAR:
        return f"@{_number(seconds)}"
    return f"{time.replace(tzinfo=None).isoformat()}Z"


def _range(limits: Range) -> str:
    field = _FIELD_OF.get(limits.of, limits.of)
    if limits.of == "pixels":
        least, most = megapixels(limits.least, limits.most)
    else:
        least, most = ("" if end is None else str(end) for end in (limits.least, limits.most))
    if least and most:
        return f"{field}:{least}" if least == most else f"{field}:{least}..{most}"
    if least:
        return f"{field}>={least}"
    return f"{field}<={most}" if most else f"{field}:.."


def _of_key(number: Number) -> str:
    field = _key(number.key)
    if number.least is not None and number.most is not None:
        dots = ".." if number.most_included else "..<"
        return f"{field}:{_number(number.least)}{dots}{_number(number.most)}"
    if number.least is not None:
        return f"{field}{'>=' if number.least_included else '>'}{_number(number.least)}"
    if number.most is not None:
        return f"{field}{'<=' if number.most_included else '<'}{_number(number.most)}"
    return f"{field}:.."


def _number(number: float) -> str:
    if not math.isfinite(number):
        raise InputError(f"{number} cannot be written as a condition; give a finite number")
    return repr(float(number)).removesuffix(".0")


def _key(key: str) -> str:
    return f"key.{key if _BARE_KEY.fullmatch(key) else _quoted(key, wild=True)}"


def _word(text: str) -> str:
    return text if _BARE.fullmatch(text) else _quoted(text, wild=True)


def _path(pattern: str) -> str:
    return pattern if _BARE_PATH.fullmatch(pattern) else _quoted(pattern, wild=True)


def _quoted(text: str, *, wild: bool) -> str:
    """In quotes. Of a path, `wild` says whether it is a pattern."""
    if not wild and _BARE_PATH.fullmatch(text) and not re.search(r"[*?\[]", text):
        return text
    text = re.sub(r'[\\"]' if wild else r'[\\"*?\[]', r"\\\g<0>", text)
    if text.startswith("~"):
        text = f"\\{text}"
    return f'"{text}"'
