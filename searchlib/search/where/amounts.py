"""Numbers in conditions: pixels, megapixels, bytes, distances, degrees, and a user's own."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from searchlib.search.where.tokens import Piece, shown

LARGEST = 2**63 - 1
"""What both databases can compare with."""

_NUMBER = re.compile(
    r"([+-]?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:e[+-]?[0-9]{1,3})?)", re.I | re.A
)
_AMOUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([^\W\d_]*)", re.ASCII)

_BYTES = {
    "": 1,
    "b": 1,
    **{
        name: 1000**power
        for power, letter in enumerate("kmgt", 1)
        for name in (letter, f"{letter}b")
    },
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_METRES = {
    "m": Decimal(1),
    "km": Decimal(1000),
    "mi": Decimal("1609.344"),
}
_PIXELS = {"": 1, "px": 1}
_MEGAPIXELS = {"": 1_000_000, "mp": 1_000_000}
_UNITS = {
    "width": (_PIXELS, "a number of pixels, as in 1920"),
    "height": (_PIXELS, "a number of pixels, as in 1080"),
    "side": (_PIXELS, "a number of pixels, as in 4000"),
    "mp": (_MEGAPIXELS, "megapixels, as in 12 or 2.5"),
    "size": (_BYTES, "a number of bytes, as in 500kB, 5MB or 5MiB"),
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """The whole numbers that an amount means where it is rounded, and itself.

    Attributes:
        least, most: included.
        exact: the amount, which need not be whole.
        unit: as it was given, in lower case.
    """

    least: int
    most: int
    exact: Decimal
    unit: str


def read_amount(field: str, piece: Piece, *, unit: str = "") -> Stretch:
    """How many pixels or bytes a word means.

    Args:
        field: whose unit counts: width, height, side, mp or size.
        piece: the word.
        unit: what is meant where the word names none.

    Raises:
        WhereError: it is no number, or has a unit that the field does not have.
    """
    units, example = _UNITS[field]
    found = _AMOUNT.fullmatch(piece.text.strip())
    if found is None:
        if piece.text.strip().startswith("-"):
            raise piece.wrong(f"{field} is never below 0; write {example}")
        raise piece.wrong(f"{field} is {example}")
    given = found[2].lower() or unit
    if given not in units:
        names = ", ".join(name for name in _names(field) if name)
        raise piece.wrong(f"{field} has no unit {shown(found[2])!r}; write {names}")
    number, factor = Decimal(found[1]), units[given]
    exact = number * factor
    if factor == 1 and exact != exact.to_integral_value():
        raise piece.wrong(f"{field} is a whole number here; write {example}")
    least, most = _rounded(number, factor)
    if most >= LARGEST:
        raise piece.wrong(f"too large a number; {field} is {example}")
    return Stretch(least, most, exact, given)


def megapixels(least: int | None, most: int | None) -> tuple[str, str]:
    """The numbers of megapixels that mean these limits where they are rounded; "" for None.

    Both are as short as they can be.
    """
    return _megapixels(least, 0), _megapixels(most, 1)


def _megapixels(limit: int | None, end: int) -> str:
    if limit is None:
        return ""
    for digits in range(6):
        half = 10 ** (6 - digits) // 2
        near = Decimal(limit - half if end else limit + half) / 1_000_000
        number = round(near, digits)
        if not number.is_signed() and _rounded(number, 1_000_000)[end] == limit:
            return f"{number:f}"
    return f"{Decimal(limit) / 1_000_000:.6f}"


def _rounded(number: Decimal, factor: int) -> tuple[int, int]:
    """The first and the last whole number that, divided by the factor, is rounded to this one."""
    exact = number * factor
    if factor == 1:
        return int(exact), int(exact)
    # Half of the last digit that was given is what rounding takes away or adds.
    half = Decimal(factor).scaleb(int(number.as_tuple().exponent)) / 2
    least = max(0, math.ceil(exact - half))
    return least, max(least, math.ceil(exact + half) - 1)


def read_metres(piece: Piece) -> float:
    """A distance in metres.

    Raises:
        WhereError: it is no number, or its unit is none of m, km and mi.
    """
    found = _NUMBER.match(piece.text.strip())
    unit = piece.text.strip()[found.end() :].strip().lower() if found is not None else ""
    if found is None or unit not in _METRES:
        if found is not None and not unit:
            raise piece.wrong(
                f"write the unit of the distance: {found[1]}km, {found[1]}m or {found[1]}mi"
            )
        if found is not None:
            raise piece.wrong(f"no unit {shown(unit)!r} of distance; write m, km or mi")
        raise piece.wrong("write a distance, as in 500m, 10km or 5mi")
    metres = float(Decimal(found[1]) * _METRES[unit])
    if not 0 <= metres < math.inf:
        raise piece.wrong("a distance is 0 or more, as in 10km")
    return metres


def read_degrees(piece: Piece, what: str, limit: int) -> float:
    """A latitude or longitude in degrees, from -limit to limit.

    Raises:
        WhereError: it is no number, or beyond the limit.
    """
    found = _NUMBER.fullmatch(piece.text.strip())
    if found is None:
        raise piece.wrong(f"{what} is a number of degrees, as in 48.85; south and west are below 0")
    degrees = float(found[1])
    if not -limit <= degrees <= limit:
        raise piece.wrong(f"{what} lies between -{limit} and {limit}")
    return degrees


def read_number(piece: Piece, example: str) -> float:
    """A number of the user's.

    Raises:
        WhereError: it is none.
    """
    found = _NUMBER.fullmatch(piece.text.strip())
    if found is None:
        raise piece.wrong(
            f"not a number, which a comparison or a range needs, as in {example}; "
            'a text with ".." goes into quotes'
        )
    number = float(found[1])
    if not math.isfinite(number):
        raise piece.wrong("too large a number")
    return number


def _names(field: str) -> tuple[str, ...]:
    if field == "size":
        return "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"
    return ("MP",) if field == "mp" else ("px",)
