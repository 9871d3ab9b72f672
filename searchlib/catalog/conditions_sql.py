"""Conditions as parts of SQL statements on `image`, which mean the same in both databases.

Each part is true or false and never NULL, so that `Not` means that it is not true.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Select,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.types import LargeBinary

from searchlib.catalog import conditions as c
from searchlib.catalog import earth, globs
from searchlib.catalog.folding import folded
from searchlib.catalog.functions import FOLDER_MATCHES, METRES, NAME_MATCHES, encoded
from searchlib.catalog.schema import File, Image, Property, Tag, table
from searchlib.catalog.spans import least_nanoseconds, shortest
from searchlib.errors import InputError

MOST_TERMS = 500
# SQLite's parser remembers a hundred words that are open, of which each level takes up to three.
DEEPEST = 30
# PostgreSQL takes seconds for an expression much longer.
_LONGEST_EXPRESSION = 30_000
_IMAGE, _FILE, _TAG, _PROPERTY = map(table, (Image, File, Tag, Property))
_LARGEST = 2**63 - 1
_Part = ColumnElement[bool]


def require_answerable(condition: c.Condition) -> None:
    """Refuse what is too large for a database.

    Raises:
        InputError: there are too many terms, or they are nested too deeply.
    """
    terms = 0
    waiting: list[tuple[c.Condition, int]] = [(condition, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > DEEPEST:
            raise InputError(f"conditions nested more than {DEEPEST} deep; write them flatter")
        match part:
            case c.And(parts) | c.Or(parts):
                waiting += [(each, depth + 1) for each in parts]
            case c.Not(inner):
                waiting.append((inner, depth + 1))
            case _:
                terms += 1
        if terms > MOST_TERMS:
            raise InputError(f"more than {MOST_TERMS} conditions in one question; ask for fewer")


def needs_file(condition: c.Condition) -> bool:
    """Whether only images with a file in place can meet a condition."""
    match condition:
        case c.And(parts):
            return any(map(needs_file, parts))
        case c.Below() | c.Glob() | c.Name() | c.Moment("modified"):
            return True
        case _:
            return False


def criterion(
    condition: c.Condition, *, sqlite: bool, few: bool, wide: frozenset[str] = frozenset()
) -> _Part:
    """A condition as a part of a statement on `image`.

    Args:
        condition: that `require_answerable` has passed.
        sqlite: whether it is for SQLite; for PostgreSQL otherwise.
        few: whether it is to be tested for few images, one at a time; otherwise the images that
            have what is looked for are found first.
        wide: folders that so many files lie below that an index is of no use.
    """

    def of(part: c.Condition) -> _Part:
        return criterion(part, sqlite=sqlite, few=few, wide=wide)

    match condition:
        case c.And(parts):
            return and_(true(), *map(of, parts))
        case c.Or(parts):
            return or_(false(), *map(of, parts))
        case c.Not(part):
            return not_(of(part))
        case c.Below() | c.Glob() | c.Name():
            return _with_file(_of_path(condition, sqlite=sqlite, wide=wide), few=few)
        case c.Moment("modified", since, before):
            return _with_file(_modified(since, before), few=few)
        case c.Tagged(tag):
            return _labelled(_TAG, _is(_TAG.c.folded, folded(tag)), few=few)
        case c.Has("tag"):
            return _labelled(_TAG, true(), few=few)
        case c.Value(key, text):
            value = true() if text is None else _is(_PROPERTY.c.folded, folded(text))
            return _labelled(_PROPERTY, and_(_is(_PROPERTY.c.key, folded(key)), value), few=few)
        case c.Number():
            return _labelled(_PROPERTY, _number(condition), few=few)
        case _:
            return _of_image(condition, sqlite=sqlite)


def rows_of_index(condition: c.Condition, *, sqlite: bool) -> Select[Any] | None:
    """Rows that an index finds, at least one for each image that meets a condition.

    None for a condition that no index helps with.
    """
    match condition:
        case c.Below(folder):
            return select(_FILE.c.image_id).where(below(folder))
        case c.Tagged(tag):
            return select(_TAG.c.image_id).where(_is(_TAG.c.folded, folded(tag)))
        case c.Taken() | c.Moment("added"):
            return select(_IMAGE.c.id).where(_of_image(condition, sqlite=sqlite))
        case _:
            return None


def _of_image(condition: c.Condition, *, sqlite: bool) -> _Part:
    match condition:
        case c.Taken(since, before):
            limits = []
            if since is not None:
                limits.append(_text(_IMAGE.c.taken_at.__ge__, shortest(since)))
            if before is not None:
                limits.append(_text(_IMAGE.c.taken_at.__lt__, shortest(before)))
            return and_(_IMAGE.c.taken_at.is_not(None), *limits)
        case c.Moment(_, since, before):
            return _between(_IMAGE.c.added_at, since, before, most_included=False)
        case c.Range(of, least, most):
            return _amount(of, least, most)
        case c.Near():
            return _near(condition, sqlite=sqlite)
        case c.Box(south, west, north, east):
            return _box(earth.Bounds(south, west, north, east))
        case c.Camera(text):
            camera = _IMAGE.c.camera
            find = func.instr if sqlite else func.strpos
            return and_(camera.is_not(None), _text(lambda t: find(camera, t) > 0, folded(text)))
        case c.Format(names):
            known = sorted(filter(_is_storable, names))
            return and_(_IMAGE.c.format.is_not(None), _IMAGE.c.format.in_(known))
        case c.Shape("landscape"):
            return _IMAGE.c.width > _IMAGE.c.height
        case c.Shape("portrait"):
            return _IMAGE.c.width < _IMAGE.c.height
        case c.Shape():
            return _IMAGE.c.width == _IMAGE.c.height
        case c.Has("date"):
            return _IMAGE.c.taken_at.is_not(None)
        case c.Has("place"):
            return and_(_IMAGE.c.latitude.is_not(None), _IMAGE.c.longitude.is_not(None))
        case c.Has("camera"):
            return _IMAGE.c.camera.is_not(None)
        case _:
            raise TypeError(f"{condition!r} is no condition")


def _with_file(which: _Part, *, few: bool) -> _Part:
    present = and_(_FILE.c.state == "present", which)
    if few:
        return exists().where(_FILE.c.image_id == _IMAGE.c.id, present)
    return _IMAGE.c.id.in_(select(_FILE.c.image_id).where(present))


def _labelled(labels: Any, which: _Part, *, few: bool) -> _Part:
    if few:
        return exists().where(labels.c.image_id == _IMAGE.c.id, which)
    return _IMAGE.c.id.in_(select(labels.c.image_id).where(which))


def _of_path(condition: c.Below | c.Glob | c.Name, *, sqlite: bool, wide: frozenset[str]) -> _Part:
    path = _FILE.c.path
    if isinstance(condition, c.Below):
        # One row after the other is faster than most of the rows by way of the index.
        by_row = literal_column("+file.path", path.type)
        return below(condition.folder, by_row if condition.folder in wide else path)
    of_name = isinstance(condition, c.Name)
    pattern = (globs.name_pattern if of_name else globs.folder_pattern)(condition.pattern)
    if pattern.postgresql is None:
        return false()
    if not sqlite:
        if len(pattern.postgresql) > _LONGEST_EXPRESSION:
            raise InputError(f"the pattern {condition.pattern[:20]!r}... is too long; shorten it")
        latin = func.convert_from(path, "LATIN1")
        return latin.op("~", is_comparison=True)(pattern.postgresql)
    bytes_ = literal(pattern.literal, LargeBinary)
    if pattern.is_suffix:
        return _lower(func.substr(path, -len(pattern.literal))) == bytes_
    function = getattr(func, NAME_MATCHES if of_name else FOLDER_MATCHES)
    matches: _Part = function(literal(encoded(condition.pattern), LargeBinary), path) == 1
    if not pattern.literal:
        return matches
    # A function of Python takes longer than to look whether it could be.
    found = func.instr(_lower(path) if of_name else path, bytes_) > 0
    return case((found, matches), else_=false())


def below(folder: str, path: ColumnElement[str] = _FILE.c.path) -> _Part:
    """Whether a path is below a folder."""
    start = folder.rstrip(os.sep)
    if not _is_path(start):
        return false()
    # All paths below a folder lie between "folder/" and the next byte after the separator.
    return and_(path >= start + os.sep, path < start + chr(ord(os.sep) + 1))


def _lower(bytes_: ColumnElement[Any]) -> ColumnElement[bytes]:
    """Bytes with ASCII in lower case, in SQLite."""
    return cast(func.lower(bytes_), LargeBinary)


def _modified(since: float | None, before: float | None) -> _Part:
    limits: list[_Part] = []
    if since is not None:
        limits.append(_whole(_FILE.c.mtime_ns, at_least=least_nanoseconds(since)))
    if before is not None and math.isnan(before):
        return false()
    if before is not None:
        limits.append(not_(_whole(_FILE.c.mtime_ns, at_least=least_nanoseconds(before))))
    return and_(true(), *limits)


def _amount(of: c.Amount, least: int | None, most: int | None) -> _Part:
    width, height = cast(_IMAGE.c.width, BigInteger), cast(_IMAGE.c.height, BigInteger)
    amounts: dict[c.Amount, tuple[ColumnElement[int], ...]] = {
        "width": (_IMAGE.c.width,),
        "height": (_IMAGE.c.height,),
        "pixels": (width * height,),
        "bytes": (_IMAGE.c.bytes,),
        "length": (_IMAGE.c.width, _IMAGE.c.height),
    }
    limits: list[_Part] = []
    if least is not None:
        limits.append(or_(*(_whole(amount, at_least=least) for amount in amounts[of])))
    if most is not None:
        limits += [not_(_whole(amount, at_least=most + 1)) for amount in amounts[of]]
    return and_(true(), *limits)


def _whole(amount: ColumnElement[int], *, at_least: float) -> _Part:
    """Whether a number of 64 bits is at least another, which may be any or none at all."""
    if not at_least <= _LARGEST:
        return false()
    if at_least <= -_LARGEST:
        return true()
    return amount >= literal(int(at_least), BigInteger())


def _number(condition: c.Number) -> _Part:
    number = _PROPERTY.c.number
    return and_(
        _is(_PROPERTY.c.key, folded(condition.key)),
        _between(
            number,
            condition.least,
            condition.most,
            least_included=condition.least_included,
            most_included=condition.most_included,
        ),
    )


def _between(
    value: ColumnElement[float],
    least: float | None,
    most: float | None,
    *,
    least_included: bool = True,
    most_included: bool = True,
) -> _Part:
    limits: list[_Part] = []
    for limit, included, at, beyond in (
        (least, least_included, value.__ge__, value.__gt__),
        (most, most_included, value.__le__, value.__lt__),
    ):
        if limit is None:
            continue
        # PostgreSQL takes NaN for more than all numbers, SQLite for NULL.
        if math.isnan(limit):
            return false()
        limits.append((at if included else beyond)(literal(float(limit), Double())))
    return and_(value.is_not(None), *limits)


def _near(condition: c.Near, *, sqlite: bool) -> _Part:
    bounds = earth.around(condition.latitude, condition.longitude, condition.metres)
    if bounds is None:
        return false()
    here = (condition.latitude, condition.longitude)
    latitude, longitude = _IMAGE.c.latitude, _IMAGE.c.longitude
    if sqlite:
        distance = getattr(func, METRES)(latitude, longitude, *(literal(x, Double()) for x in here))
    else:
        distance = _metres(latitude, longitude, *here)
    close = distance <= literal(condition.metres, Double())
    return and_(_box(bounds), close)


def _metres(
    latitude: ColumnElement[float], longitude: ColumnElement[float], north: float, east: float
) -> ColumnElement[float]:
    """As `earth.metres`, in the functions of PostgreSQL."""
    across = func.power(func.sin(func.radians(latitude - literal(north, Double())) / 2), 2)
    along = func.power(func.sin(func.radians(longitude - literal(east, Double())) / 2), 2)
    cosines = func.cos(func.radians(latitude)) * literal(math.cos(math.radians(north)), Double())
    return 2 * earth.RADIUS * func.asin(func.sqrt(func.least(1.0, across + cosines * along)))


def _box(bounds: earth.Bounds) -> _Part:
    if any(map(math.isnan, (bounds.south, bounds.west, bounds.north, bounds.east))):
        return false()
    latitude, longitude = _IMAGE.c.latitude, _IMAGE.c.longitude
    west = longitude >= literal(float(bounds.west), Double())
    east = longitude <= literal(float(bounds.east), Double())
    return and_(
        latitude.is_not(None),
        longitude.is_not(None),
        latitude >= literal(float(bounds.south), Double()),
        latitude <= literal(float(bounds.north), Double()),
        and_(west, east) if bounds.west <= bounds.east else or_(west, east),
    )


def _is(column: ColumnElement[str], text: str) -> _Part:
    return _text(column.__eq__, text)


def _text(compare: Callable[[str], Any], text: str) -> _Part:
    """A comparison with a text, false where it is one that no database could hold."""
    result: _Part = compare(text) if _is_storable(text) else false()
    return result


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _is_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
