"""Patterns of folders and of file names, for Python and for PostgreSQL.

A path is bytes on the disk, and a character here what `os.fsdecode` makes of them: a character of
UTF-8, or a single byte that is none. PostgreSQL has no text for such bytes, so that it gets a
regular expression over the bytes themselves (as Latin-1), which spells the characters out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from searchlib.errors import InputError

LONGEST = 1000
_WIDEST = 1000
_ANY_FOLDERS = "**"
# A byte of UTF-8 in each set; see table 3-7 of the Unicode Standard.
_TAIL = r"[\u0080-\u00bf]"
_SEQUENCE = "|".join(
    (
        rf"[\u00c2-\u00df]{_TAIL}",
        rf"\u00e0[\u00a0-\u00bf]{_TAIL}",
        rf"[\u00e1-\u00ec\u00ee\u00ef]{_TAIL}{_TAIL}",
        rf"\u00ed[\u0080-\u009f]{_TAIL}",
        rf"\u00f0[\u0090-\u00bf]{_TAIL}{_TAIL}",
        rf"[\u00f1-\u00f3]{_TAIL}{_TAIL}{_TAIL}",
        rf"\u00f4[\u0080-\u008f]{_TAIL}{_TAIL}",
    )
)
_LONE = rf"(?!{_SEQUENCE})[\u0080-\u00ff]"
_CHARACTER = rf"(?:[^/\u0080-\u00ff]|{_SEQUENCE}|{_LONE})"


@dataclass(frozen=True, slots=True)
class _One:
    """One character that is, or is not, in ranges of code points."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


_Run = tuple[_One, ...]
# What stands between the stars of one name.
_Segment = tuple[_Run, ...]


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern, ready to be used.

    Attributes:
        matches: whether a path is one that the pattern means.
        postgresql: a regular expression, to be searched for in the bytes as Latin-1; None where no
            path can be meant.
        literal: bytes that are in every such path, or none; of a name in lower case.
        is_suffix: every name that ends in these bytes, but for the case of ASCII, is meant.
    """

    matches: Callable[[str], bool]
    postgresql: str | None
    literal: bytes
    is_suffix: bool = False


@lru_cache(maxsize=256)
def folder_pattern(pattern: str) -> PathPattern:
    """Of a file in a folder that a pattern names, or below one; see `conditions.Glob`.

    Raises:
        InputError: the pattern is too long, or has too wide a range.
    """
    parts = re.findall(f"[^{re.escape(os.sep)}]+", _checked(pattern))
    if not pattern.startswith(os.sep):
        parts.insert(0, _ANY_FOLDERS)
    names = {part: _segment(part, any_case=False) for part in parts if part != _ANY_FOLDERS}
    python, postgresql = "/", "^/"
    anywhere = False
    for is_any, some in groupby(parts, lambda part: part == _ANY_FOLDERS):
        if is_any:
            anywhere = True
            continue
        chunk = [names[part] for part in some]
        here = "".join(f"{_python(name)}/" for name in chunk)
        # The first place where the chunk fits is as good as any, for what follows may begin
        # anywhere behind it: nothing is tried twice.
        python += f"(?>(?:[^/]*/)*?{here})" if anywhere else here
        there = "".join(f"{_postgresql(name)}/" for name in chunk)
        postgresql += f"(?:[^/]*/)*{there}" if anywhere else there
    find = re.compile(python, re.DOTALL).match
    possible = all(map(_is_possible, names.values()))
    return PathPattern(
        matches=lambda path: find(path.replace(os.sep, "/")) is not None,
        postgresql=postgresql if possible else None,
        literal=max(map(_literal, names.values()), key=len, default=b""),
    )


@lru_cache(maxsize=256)
def name_pattern(pattern: str) -> PathPattern:
    """Of a file whose name a pattern matches; see `conditions.Name`.

    Raises:
        InputError: the pattern is too long, or has too wide a range.
    """
    name = _segment(_checked(pattern), any_case=True)
    find = re.compile(_python(name), re.DOTALL).fullmatch
    possible = _is_possible(name) and os.sep not in pattern
    literal = _literal(name) if possible else b""
    return PathPattern(
        matches=lambda path: possible and find(path.rpartition(os.sep)[2]) is not None,
        postgresql=f"/{_postgresql(name)}$" if possible else None,
        literal=literal,
        # "*.jpg": nothing before the last star, and behind it one spelling but for case.
        is_suffix=possible
        and not any(name[:-1])
        and len(name) > 1
        and literal.isascii()
        and len(literal) == len(name[-1]) > 0,
    )


def _checked(pattern: str) -> str:
    if len(pattern) > LONGEST:
        raise InputError(f"a pattern of {len(pattern)} characters; at most {LONGEST} can be used")
    return pattern


def _segment(pattern: str, *, any_case: bool) -> _Segment:
    runs: list[list[_One]] = [[]]
    for token in re.findall(r"\*+|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL):
        if token[0] == "*":
            runs.append([])
        elif token == "?":
            runs[-1].append(_One((), negated=True))
        elif len(token) > 1:
            negated = token[1] == "!"
            inside = token[2:-1] if negated else token[1:-1]
            if inside:
                # Ranges are spelled out, for PostgreSQL in bytes.
                runs[-1].append(_One(_in_class(inside, any_case), negated))
            else:
                # "[!]" stands for itself.
                runs[-1] += [_One(_spellings(each, any_case)) for each in token]
        else:
            runs[-1].append(_One(_spellings(token, any_case)))
    return tuple(map(tuple, runs))


def _in_class(inside: str, any_case: bool) -> tuple[tuple[int, int], ...]:
    ranges: set[tuple[int, int]] = set()
    for first, last, single in re.findall(r"(.)-(.)|(.)", inside, re.DOTALL):
        if single:
            ranges |= set(_spellings(single, any_case))
        elif ord(last) - ord(first) >= _WIDEST:
            raise InputError(
                f"{first}-{last} in a pattern: a range may have {_WIDEST} characters at most"
            )
        else:
            for code in range(ord(first), ord(last) + 1):
                ranges |= set(_spellings(chr(code), any_case))
    return tuple(sorted(ranges))


def _spellings(character: str, any_case: bool) -> tuple[tuple[int, int], ...]:
    forms = {character, character.lower(), character.upper()} if any_case else {character}
    return tuple(sorted((ord(form), ord(form)) for form in forms if len(form) == 1))


def _is_possible(name: _Segment) -> bool:
    """Whether there are paths with all of the characters."""
    return all(one.negated or any(True for _ in _codes(one)) for run in name for one in run)


def _codes(one: _One) -> Iterator[int]:
    """The code points that a name can have: no zero, no separator, no half of a surrogate pair."""
    for first, last in one.ranges:
        for code in range(first, last + 1):
            if code not in (0, ord("/")) and (
                not 0xD800 <= code <= 0xDFFF or 0xDC80 <= code <= 0xDCFF
            ):
                yield code


def _literal(name: _Segment) -> bytes:
    """The longest row of bytes that is in all names, where case does not count in lower case."""
    best = current = b""
    for run in name:
        current = b""
        for one in run:
            codes = {ord(chr(code).lower()) if code < 128 else code for code in _codes(one)}
            as_they_are = len(set(_codes(one))) == 1
            if one.negated or len(codes) != 1 or (max(codes) > 127 and not as_they_are):
                current = b""
            else:
                (code,) = set(_codes(one)) if as_they_are else codes
                current += _bytes(code)
            best = max(best, current, key=len)
    return best


def _bytes(code: int) -> bytes:
    return chr(code).encode("utf-8", "surrogateescape")


def _python(name: _Segment) -> str:
    first, *others = ("".join(map(_python_one, run)) for run in name)
    if not others:
        return first
    # As above: each run at the first place where it fits, but for the last, which ends the name.
    middle = "".join(f"(?>[^/]*?{run})" for run in others[:-1] if run)
    return f"{first}{middle}[^/]*{others[-1]}"


def _python_one(one: _One) -> str:
    if one.negated:
        inside = "".join(map(_python_code, _codes(one)))
        return f"[^/{inside}]"
    inside = "".join(map(_python_code, _codes(one)))
    return f"[{inside}]" if inside else r"(?!)"


def _python_code(code: int) -> str:
    return f"\\U{code:08x}"


def _postgresql(name: _Segment) -> str:
    first, *others = name
    result = "".join(map(_postgresql_one, first))
    for run in others:
        result += _postgresql_star(run) + "".join(map(_postgresql_one, run))
    return result


def _postgresql_star(following: Sequence[_One]) -> str:
    """Any bytes where no character that follows can begin inside another, else characters."""
    if not following:
        return "[^/]*"
    head = following[0]
    lone = any(0xDC80 <= code <= 0xDCFF for code in _codes(head))
    return f"(?:{_CHARACTER})*" if head.negated or lone else "[^/]*"


def _postgresql_one(one: _One) -> str:
    codes = sorted(set(_codes(one)))
    low = "".join(f"\\u{code:04x}" for code in codes if code < 128)
    high = [_postgresql_code(code) for code in codes if code >= 128]
    if one.negated:
        ahead = f"(?!{'|'.join(high)})" if high else ""
        return rf"(?:[^/{low}\u0080-\u00ff]|{ahead}(?:{_SEQUENCE}|{_LONE}))"
    options = ([f"[{low}]"] if low else []) + high
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _postgresql_code(code: int) -> str:
    sequence = "".join(f"\\u00{byte:02x}" for byte in _bytes(code))
    return f"(?!{_SEQUENCE}){sequence}" if 0xDC80 <= code <= 0xDCFF else sequence
