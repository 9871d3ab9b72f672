"""Dates in conditions: each is a span of time, from its first moment up to the next one's.

"2024" is a year long and "2024-06-15T10:30" a minute. Camera's dates stay text of the camera's own
clock; the others become seconds since 1970, by the local time zone with its daylight saving.
Where an hour comes twice, the first is meant; a time that the clock leaps over is the one as if it
had not been put forward. Both follow Python's `fold=0` (PEP 495).
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from searchlib.search.where.tokens import Piece, shown

FIRST_YEAR, LAST_YEAR = 1000, 9998
HOW = (
    'write 2024, 2024-06, 2024-06-15, 2024-06-15T10:30, today, yesterday, "this month", '
    '"last year" or "last 30 days"'
)

_DATE = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(?:[T\s]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?)?)?)?",
    re.IGNORECASE | re.ASCII,
)
_SECONDS = re.compile(r"@([+-]?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:e[+-]?[0-9]{1,3})?)", re.I | re.A)
_UNITS = ("hour", "day", "week", "month", "year")
_LAST = re.compile(r"last[\s_-]+([0-9]{1,9})[\s_-]+([a-z]+?)s?", re.IGNORECASE | re.ASCII)
_CALENDAR = re.compile(r"(this|last)[\s_-]+([a-z]+?)s?", re.IGNORECASE | re.ASCII)
_LOOSE = re.compile(r"([0-9]{4})[-/.]([0-9]{1,2})(?:[-/.]([0-9]{1,2}))?", re.ASCII)
_REVERSED = re.compile(r"([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4})", re.ASCII)

SPACED = re.compile(
    r"(?:this|last)\s+(?:[0-9]+\s+)?(?:hour|day|week|month|year)s?\b"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}\s[0-9]{2}:[0-9]{2}",
    re.IGNORECASE | re.ASCII,
)
"""The dates that may hold spaces without being in quotes."""


@dataclass(frozen=True, slots=True)
class Span:
    """Some time: from a moment, included, up to another, not included.

    Attributes:
        since, before: without a time zone, in local time, or exact where a zone was given; floats
            are seconds since 1970.
    """

    since: datetime | float
    before: datetime | float


def read_span(piece: Piece, now: datetime, *, clock: bool) -> Span:
    """The time that a word means.

    Args:
        piece: the word.
        now: what "today" is counted from.
        clock: of the camera's clock, which knows no time zone.

    Raises:
        WhereError: it is no date, or one that does not exist.
    """
    word = piece.text.strip()
    if (found := _DATE.fullmatch(word)) is not None:
        return _written(piece, found, clock=clock)
    if (found := _SECONDS.fullmatch(word)) is not None:
        return _counted(piece, found[1], clock=clock)
    local = now.replace(tzinfo=None)
    lower = word.lower()
    if lower in ("today", "yesterday"):
        day = _days(_midnight(local), -(lower == "yesterday"))
        return Span(day, _days(day, 1))
    if (found := _LAST.fullmatch(word)) is not None:
        return _last(piece, found, now, clock=clock)
    if (found := _CALENDAR.fullmatch(word)) is not None:
        return _calendar(piece, found[1].lower(), found[2].lower(), local)
    raise piece.wrong(_no_date(word))


def iso_bound(moment: datetime) -> str:
    """A moment of the camera's clock as ISO 8601, no longer than it has to be."""
    text = moment.isoformat()
    for tail in (":00", "T00:00", "-01", "-01"):
        if not text.endswith(tail):
            break
        text = text.removesuffix(tail)
    return text


def from_bound(text: str) -> datetime | None:
    """The moment that a bound of `Taken` means; None where it is none."""
    found = _DATE.fullmatch(text)
    if found is None or found[8] is not None:
        return None
    try:
        return _moment(found)
    except ValueError:
        return None


def seconds(moment: datetime | float, now: datetime) -> float:
    """A moment as seconds since 1970, in the time zone of `now` where it names none itself."""
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None and now.tzinfo is not None:
        moment = moment.replace(tzinfo=now.tzinfo)
    return moment.timestamp()


def _written(piece: Piece, found: re.Match[str], *, clock: bool) -> Span:
    year, month, day = int(found[1]), found[2], found[3]
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise piece.wrong(f"the year must lie between {FIRST_YEAR} and {LAST_YEAR}")
    if month is not None and not 1 <= int(month) <= 12:
        raise piece.wrong(f"there is no month {month}; months are 01 to 12")
    if day is not None:
        most = monthrange(year, int(month))[1]
        if not 1 <= int(day) <= most:
            raise piece.wrong(f"there is no such day; {year}-{month} has the days 01 to {most}")
    if found[4] is not None and (int(found[4]) > 23 or int(found[5]) > 59):
        raise piece.wrong("there is no such time; times are 00:00 to 23:59")
    if found[6] is not None and int(found[6]) > 59:
        raise piece.wrong("there is no such second; seconds are 00 to 59")
    if found[8] is not None and clock:
        reason = "taken is the camera's own clock, which knows no time zone; leave the zone out"
        raise piece.wrong(reason)
    try:
        since = _moment(found)
    except ValueError:
        raise piece.wrong("there is no such time zone; write Z or +02:00") from None
    return Span(since, _after(found, since))


def _moment(found: re.Match[str]) -> datetime:
    parts = [
        int(found[group] or least) for group, least in zip(range(1, 7), "111000", strict=False)
    ]
    year, month, day, hour, minute, second = parts
    part = int((found[7] or "").ljust(6, "0"))
    return datetime(year, month, day, hour, minute, second, part, tzinfo=_zone(found[8]))


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text in "Zz":
        return UTC
    hours, minutes = int(text[1:3]), int(text[-2:])
    if minutes > 59:
        raise ValueError(text)
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def _after(found: re.Match[str], since: datetime) -> datetime:
    """The moment at which the written period is over."""
    if found[2] is None:
        return since.replace(year=since.year + 1)
    if found[3] is None:
        return _months(since, 1)
    if found[4] is None:
        return since + timedelta(days=1)
    if found[6] is None:
        return since + timedelta(minutes=1)
    if found[7] is None:
        return since + timedelta(seconds=1)
    return since + timedelta(microseconds=10 ** (6 - len(found[7])))


def _counted(piece: Piece, text: str, *, clock: bool) -> Span:
    if clock:
        raise piece.wrong("taken is the camera's own clock; seconds since 1970 name no time of it")
    since = float(text)
    if abs(since) > 1e15:
        raise piece.wrong("so many seconds are no date; they are counted from 1970")
    return Span(since, since + 1.0)


def _last(piece: Piece, found: re.Match[str], now: datetime, *, clock: bool) -> Span:
    count, unit = int(found[1]), found[2].lower()
    if unit not in _UNITS:
        raise piece.wrong(f"no unit {shown(unit)!r}; write hours, days, weeks, months or years")
    if count == 0:
        raise piece.wrong(f"write 1 or more; {unit}s are counted back from today")
    local = now.replace(tzinfo=None)
    today = _midnight(local)
    before = _days(today, 1)
    if unit == "hour" and clock:
        raise piece.wrong("taken is the camera's own clock, of any time zone; count in days")
    if unit == "hour":
        return Span(seconds(now, now) - count * 3600.0, before)
    try:
        if unit in ("day", "week"):
            since = _days(today, -count * (7 if unit == "week" else 1))
        else:
            since = _months(today, -count * (12 if unit == "year" else 1))
    except (OverflowError, ValueError):
        since = datetime.min
    if since.year < FIRST_YEAR:
        raise piece.wrong(f"that is before the year {FIRST_YEAR}; write a smaller number")
    return Span(since, before)


def _calendar(piece: Piece, which: str, unit: str, local: datetime) -> Span:
    today = _midnight(local)
    back = -(which == "last")
    if unit == "week":
        since = _days(today, -today.weekday() + 7 * back)
        return Span(since, _days(since, 7))
    if unit == "month":
        since = _months(today.replace(day=1), back)
        return Span(since, _months(since, 1))
    if unit == "year":
        since = today.replace(month=1, day=1, year=today.year + back)
        return Span(since, since.replace(year=since.year + 1))
    if unit == "day":
        raise piece.wrong("write today or yesterday")
    if unit == "hour":
        raise piece.wrong('write how many: "last 1 hours"')
    reason = f'no unit {shown(unit)!r}; write "{which} week", "{which} month" or "{which} year"'
    raise piece.wrong(reason)


def _no_date(word: str) -> str:
    if (loose := _LOOSE.fullmatch(word)) is not None:
        parts = [loose[1], loose[2].zfill(2), *([loose[3].zfill(2)] if loose[3] else [])]
        return f"write the date as {'-'.join(parts)}"
    if (turned := _REVERSED.fullmatch(word)) is not None:
        day, month = turned[1].zfill(2), turned[2].zfill(2)
        return f"write the year first, then the month, then the day: {turned[3]}-{month}-{day}"
    if word.lower() in ("last", "this"):
        return f"{word.lower()} what? {HOW}"
    return f"not a date; {HOW}"


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def _days(moment: datetime, count: int) -> datetime:
    return moment + timedelta(days=count)


def _months(moment: datetime, count: int) -> datetime:
    """So many months on; the last day of that month where the day itself does not exist."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + count, 12)
    if not 1 <= year <= 9999:
        raise OverflowError(year)
    day = min(moment.day, monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)
