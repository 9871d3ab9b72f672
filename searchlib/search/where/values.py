"""The condition that a field makes of its values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from searchlib.catalog.conditions import (
    Box,
    Camera,
    Condition,
    Format,
    Has,
    Known,
    Moment,
    Near,
    Number,
    Range,
    Shape,
    Tagged,
    Taken,
    Value,
)
from searchlib.errors import WhereError
from searchlib.search.where.amounts import (
    Stretch,
    read_amount,
    read_degrees,
    read_metres,
    read_number,
)
from searchlib.search.where.dates import Span, iso_bound, read_span, seconds
from searchlib.search.where.fields import AMOUNTS, DATES, Comparison, example
from searchlib.search.where.paths import check_text, read_folder, read_name
from searchlib.search.where.tokens import Field, Piece, shown

FORMATS = {
    "jpeg": "JPEG",
    **{"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "mpo": "JPEG"},
    **{"png": "PNG", "apng": "PNG", "gif": "GIF", "webp": "WEBP"},
    **{"heif": "HEIF", "heic": "HEIF", "hif": "HEIF", "avif": "AVIF"},
    **{"tiff": "TIFF", "tif": "TIFF", "bmp": "BMP", "dib": "DIB"},
    **{"jpeg2000": "JPEG2000", "jp2": "JPEG2000", "j2k": "JPEG2000"},
    **{"ppm": "PPM", "pgm": "PPM", "pbm": "PPM", "pnm": "PPM", "pfm": "PPM"},
    **{"tga": "TGA", "ico": "ICO", "psd": "PSD", "qoi": "QOI", "pcx": "PCX"},
    **{"sgi": "SGI", "dds": "DDS", "raw": "RAW"},
}
"""The names that a format goes by, and Pillow's name of it."""

_SHAPES = ("landscape", "portrait", "square")
_KNOWN = ("date", "place", "camera", "tag")
_ALSO_KNOWN = {
    **dict.fromkeys(("taken", "time", "year"), "date"),
    **dict.fromkeys(("gps", "location", "near", "coordinates"), "place"),
    **dict.fromkeys(("tags", "label", "keyword"), "tag"),
}
_RAW_NAMES = re.compile(r"cr[23w]|n[er][fw]|arw|sr[2fw]|dng|raf|orf|rw2|pef", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Context:
    """What a text means something by that does not say it.

    Attributes:
        now: what "today" is counted from.
        folder: what `./` and `../` are relative to.
    """

    now: datetime
    folder: str | None


def together(field: Field, pieces: Sequence[Piece], whole: Piece) -> Condition | None:
    """The condition of a field whose commas part one value; None for the other fields.

    Raises:
        WhereError: the values are not what the field takes.
    """
    if field.name == "near":
        if len(pieces) != 3:
            reason = "a place is latitude,longitude,distance, as in near:48.85,2.35,10km"
            raise whole.wrong(reason)
        latitude, longitude = _degrees(pieces[0], pieces[1])
        return Near(latitude, longitude, read_metres(pieces[2]))
    if field.name == "box":
        if len(pieces) != 4:
            reason = "a box is south,west,north,east in degrees, as in box:47.2,5.9,55.1,15.1"
            raise whole.wrong(reason)
        south, west = _degrees(pieces[0], pieces[1])
        north, east = _degrees(pieces[2], pieces[3])
        if south > north:
            reason = "the box ends south of where it begins; write south,west,north,east"
            raise whole.wrong(reason)
        return Box(south, west, north, east)
    if field.name == "format":
        return Format(frozenset(_format(piece) for piece in pieces))
    return None


def single(field: Field, kind: Comparison, piece: Piece, context: Context) -> Condition:
    """The condition of a field and one value.

    Raises:
        WhereError: the value is not what the field takes.
    """
    if field.name == "folder":
        return read_folder(piece, context.folder)
    if field.name == "name":
        return read_name(piece)
    check_text(piece)
    if field.name in DATES:
        return _date(field.name, kind, piece, context)
    if field.name in AMOUNTS:
        return _amount(field.name, kind, piece)
    if field.name == "key":
        return _key(field, kind, piece)
    if field.name == "tag":
        if any(
            mark == "b" and char in "*?" for char, mark in zip(piece.text, piece.marks, strict=True)
        ):
            reason = "tags have no patterns; write the whole tag, or has:tag for any"
            raise piece.wrong(reason)
        return Tagged(piece.text)
    if field.name == "camera":
        return Camera(piece.text)
    if field.name == "has":
        return Has(cast(Known, _one_of(piece, _KNOWN, _ALSO_KNOWN)))
    return Shape(cast(Literal["landscape", "portrait", "square"], _one_of(piece, _SHAPES, {})))


def _date(name: str, kind: Comparison, piece: Piece, context: Context) -> Condition:
    clock = name == "taken"
    since: datetime | float | None = None
    before: datetime | float | None = None
    ends = piece.split_range() if kind == ":" else None
    if ends is None:
        span = _span(piece, context, clock)
        since = {":": span.since, ">=": span.since, ">": span.before}.get(kind)
        before = {":": span.before, "<=": span.before, "<": span.since}.get(kind)
    else:
        first, dots, last = ends
        if first is not None:
            since = _span(first, context, clock).since
        if last is not None:
            end = _span(last, context, clock)
            before = end.before if dots == ".." else end.since
    if clock:
        texts = [
            None if time is None else iso_bound(cast(datetime, time)) for time in (since, before)
        ]
        if ends is not None:
            _check_order(piece, ends, texts[0], texts[1])
        return Taken(texts[0], texts[1])
    times = [None if time is None else _seconds(piece, time, context) for time in (since, before)]
    if ends is not None:
        _check_order(piece, ends, times[0], times[1])
    return Moment(cast(Literal["modified", "added"], name), times[0], times[1])


def _span(piece: Piece, context: Context, clock: bool) -> Span:
    return read_span(piece, context.now, clock=clock)


def _seconds(piece: Piece, time: datetime | float, context: Context) -> float:
    try:
        return seconds(time, context.now)
    except (OverflowError, ValueError, OSError):
        raise piece.wrong("so far from today there are no dates here") from None


def _amount(name: str, kind: Comparison, piece: Piece) -> Condition:
    of = AMOUNTS[name]
    ends = piece.split_range() if kind == ":" else None
    if ends is None:
        stretch = read_amount(name, piece)
        if kind == ":":
            return Range(of, stretch.least, stretch.most)
        low, high = _ends(name, stretch)
        if kind in (">", ">="):
            return Range(of, high + 1 if kind == ">" else low, None)
        most = low - 1 if kind == "<" else high
        if most < 0:
            raise piece.wrong(f"{name} is never below 0; write {example(name)}")
        return Range(of, None, most)
    first, dots, last = ends
    most_stretch = None if last is None else read_amount(name, last)
    unit = most_stretch.unit if most_stretch is not None else ""
    least_stretch = None if first is None else read_amount(name, first, unit=unit)
    least = None if least_stretch is None else _ends(name, least_stretch)[0]
    limit: int | None = None
    if most_stretch is not None:
        low, high = _ends(name, most_stretch)
        limit = high if dots == ".." else low - 1
    if least is not None and limit is not None and least > limit:
        raise _swapped(piece, ends)
    return Range(of, least, limit)


def _ends(name: str, stretch: Stretch) -> tuple[int, int]:
    """Megapixels are always rounded, as nobody knows them better; bytes as limits are exact."""
    if name == "mp":
        return stretch.least, stretch.most
    return math.ceil(stretch.exact), math.floor(stretch.exact)


def _key(field: Field, kind: Comparison, piece: Piece) -> Condition:
    key = cast(str, field.key)
    sample = f"key.{shown(key)}>=4 or key.{shown(key)}:3..5"
    if kind == ":":
        ends = piece.split_range()
        if ends is None:
            return Value(key, None if (piece.text, piece.marks) == ("*", "b") else piece.text)
        first, dots, last = ends
        low = None if first is None else read_number(first, sample)
        high = None if last is None else read_number(last, sample)
        included = dots == ".." or high is None
        if low is not None and high is not None and (low > high or (low == high and not included)):
            raise _swapped(piece, ends)
        return Number(key, low, high, True, included)
    number = read_number(piece, sample)
    if kind in (">", ">="):
        return Number(key, number, None, kind == ">=", True)
    return Number(key, None, number, True, kind == "<=")


def _check_order(
    piece: Piece,
    ends: tuple[Piece | None, str, Piece | None],
    first: str | float | None,
    last: str | float | None,
) -> None:
    if first is not None and last is not None and cast(float, first) >= cast(float, last):
        raise _swapped(piece, ends)


def _swapped(piece: Piece, ends: tuple[Piece | None, str, Piece | None]) -> WhereError:
    first, dots, last = ends
    if first is None or last is None or first.text == last.text:
        included = shown(piece.text.replace("..<", ".."))
        return piece.wrong(f"nothing lies in this range; write {included}")
    least, most = (shown(piece.whole[end.start : end.end]) for end in (last, first))
    unit = re.fullmatch(r"[0-9.]+([a-z]+)", least, re.IGNORECASE)
    if most.isdecimal() and unit is not None:
        most += unit[1]  # the first end was in the unit of the last
    return piece.wrong(f"the range ends before it begins; write {least}{dots}{most}")


def _degrees(north: Piece, east: Piece) -> tuple[float, float]:
    return read_degrees(north, "a latitude", 90), read_degrees(east, "a longitude", 180)


def _format(piece: Piece) -> str:
    name = piece.text.lower().removeprefix("*").removeprefix(".")
    if name in FORMATS:
        return FORMATS[name]
    if _RAW_NAMES.fullmatch(name):
        raise piece.wrong(f"camera raw files are one format; write format:raw or name:*.{name}")
    raise piece.wrong(_choice("no such format", name, tuple(FORMATS), "jpeg, png, heif, raw"))


def _one_of(piece: Piece, names: tuple[str, ...], others: dict[str, str]) -> str:
    name = piece.text.lower()
    if name in names:
        return name
    if name in others:
        raise piece.wrong(f"write {others[name]}")
    raise piece.wrong(_choice("not one of them", name, names, ", ".join(names)))


def _choice(what: str, name: str, names: tuple[str, ...], shown_names: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, names, 1, 0.6) if len(name) < 30 else []
    return f"{what}; did you mean {close[0]}?" if close else f"{what}; write {shown_names}"
