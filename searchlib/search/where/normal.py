"""One form for conditions that say the same: what `parse_where` gives and `format_where` writes.

No `And` within an `And` or `Or` within an `Or`, neither with a single part, no double `Not`;
`And(())` for what always holds and `Or(())` for what never does, both only at the top; limits of
dates as short as they can be.
"""

from __future__ import annotations

import math
from dataclasses import replace

from searchlib.catalog.conditions import (
    And,
    Below,
    Camera,
    Condition,
    Format,
    Glob,
    Has,
    Moment,
    Name,
    Not,
    Number,
    Or,
    Range,
    Tagged,
    Taken,
)
from searchlib.errors import InputError
from searchlib.search.where.dates import from_bound, iso_bound
from searchlib.search.where.paths import class_end, tidy

ALWAYS: Condition = And(())
NEVER: Condition = Or(())

_DEEPEST = 200


def normalised(condition: Condition) -> Condition:
    """The one form of all conditions that say the same as this one, as far as that is plain.

    Raises:
        InputError: they are nested too deep.
    """
    return _normal(condition, 0)


def _normal(condition: Condition, depth: int) -> Condition:
    if depth > _DEEPEST:
        raise InputError(f"the conditions are nested more than {_DEEPEST} deep; nest them less")
    match condition:
        case And() | Or():
            return _joined(condition, depth)
        case Not(part):
            inner = _normal(part, depth + 1)
            if isinstance(inner, Not):
                return inner.part
            if inner == ALWAYS:
                return NEVER
            return ALWAYS if inner == NEVER else Not(inner)
    return _normal_term(condition)


def _joined(condition: And | Or, depth: int) -> Condition:
    kind = type(condition)
    idle, decisive = (ALWAYS, NEVER) if kind is And else (NEVER, ALWAYS)
    parts: list[Condition] = []
    for part in condition.parts:
        inner = _normal(part, depth + 1)
        if inner == decisive:
            return decisive
        if isinstance(inner, kind):
            parts.extend(inner.parts)
        elif inner != idle:
            parts.append(inner)
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _normal_term(condition: Condition) -> Condition:
    match condition:
        case Below(folder):
            return Below(tidy(folder))
        case Glob(pattern):
            path = tidy(_closed(pattern))
            plain = path.startswith("/") and not any(character in path for character in "*?[")
            return Below(path) if plain else Glob(path)
        case Name(pattern):
            return Name(_closed(pattern)) if pattern else NEVER
        case Taken(since, before):
            return _spanned(Taken(_short(since), _short(before)))
        case Moment() | Range():
            return _spanned(condition)
        case Number():
            return _number(condition)
        case Format(names):
            return Format(frozenset(name.upper() for name in names)) if names else NEVER
        case Camera(""):
            return Has("camera")
        case Tagged(""):
            return NEVER
    return condition


def _spanned(condition: Taken | Moment | Range) -> Condition:
    match condition:
        case Range(_, int(least), int(most)) if least > most:
            return NEVER
        case Range(_, None, int(most)) if most < 0:
            return NEVER
        case Range(of, int(least), most) if least < 0:
            return NEVER if most is not None and most < 0 else Range(of, 0, most)
        case Moment(_, float(since), float(before)) if since >= before:
            return NEVER
        case Taken(str(since), str(before)) if since >= before:
            return NEVER
    return condition


def _number(number: Number) -> Condition:
    """With no limit that says nothing, and apart where no single range can be written."""
    least = None if number.least == -math.inf else number.least
    most = None if number.most == math.inf else number.most
    least_included = number.least_included or least is None
    most_included = number.most_included or most is None
    if least is not None and most is not None:
        if least > most or (least == most and not (least_included and most_included)):
            return NEVER
        if not least_included:
            return And(
                (
                    Number(number.key, least, None, False),
                    Number(number.key, None, most, True, most_included),
                )
            )
    return replace(
        number,
        least=least,
        most=most,
        least_included=least_included,
        most_included=most_included,
    )


def _short(bound: str | None) -> str | None:
    moment = None if bound is None else from_bound(bound)
    return bound if moment is None else iso_bound(moment)


def _closed(pattern: str) -> str:
    """A pattern in which a `[` that nothing ends is written as the character that it means."""
    at, parts = 0, []
    while at < len(pattern):
        last = at
        if pattern[at] == "[":
            end = class_end(pattern, at)
            if end < 0:
                parts.append("[[]")
            else:
                last = end
                parts.append(pattern[at : last + 1])
        else:
            parts.append(pattern[at])
        at = last + 1
    return "".join(parts)
