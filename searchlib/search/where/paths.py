"""Folders and file names in conditions: where they begin, and which characters are a pattern."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable

from searchlib.catalog.conditions import Below, Glob, Name
from searchlib.catalog.globs import folder_pattern, name_pattern
from searchlib.errors import InputError, WhereError
from searchlib.search.where.tokens import Piece, wrong

_WILD = "*?["


def read_folder(piece: Piece, folder: str | None) -> Below | Glob:
    """The folder that a word means: one by its path, or those that a pattern names.

    Args:
        piece: the word. `~` and `~name` are home folders.
        folder: what `./` and `../` are relative to; None where that is not known.

    Raises:
        WhereError: it cannot be told which folder is meant.
    """
    text, marks = piece.text, piece.marks
    _check_name(piece)
    first, _, _ = text.partition("/")
    begin, base = 0, ""
    if text[0] == "~" and marks[0] != "e":
        base, begin = _home(piece, first), len(first)
    elif first in (".", ".."):
        if folder is None:
            reason = "it is not known what this is relative to; write the path from its beginning /"
            raise piece.wrong(reason)
        base = posixpath.join(folder, first)
        base, begin = os.path.abspath(base), len(first)  # noqa: PTH100 - a Path changes odd ones
    if not _is_pattern(piece) and (base or text[0] == "/"):
        return Below(tidy(base + text[begin:]))
    path = tidy(escaped(base) + _pattern(piece, begin))
    if path in (".", "..") or path.startswith("../"):
        raise piece.wrong("this names no folder; write its name, or ./ for the folder you are in")
    _check_pattern(piece, path, folder_pattern)
    return Glob(path)


def read_name(piece: Piece) -> Name:
    """The pattern of a file's name.

    Raises:
        WhereError: it is a path.
    """
    _check_name(piece)
    if "/" in piece.text:
        raise piece.wrong("a file name has no /; write folder: for where the file lies")
    pattern = _pattern(piece, 0)
    _check_pattern(piece, pattern, name_pattern)
    return Name(pattern)


def tidy(path: str) -> str:
    """A path or pattern without empty parts, `.` and `..`, and without a separator at its end."""
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path


def escaped(text: str) -> str:
    """The pattern that means this text and nothing else."""
    return "".join(f"[{character}]" if character in _WILD else character for character in text)


def class_end(text: str, at: int) -> int:
    """Where the `]` is that ends the `[` at a place of a pattern; -1 where there is none."""
    first = at + 2 if text.startswith("!", at + 1) else at + 1
    end = text.find("]", first + 1)
    return -1 if "/" in text[at:end] else end


def _is_pattern(piece: Piece) -> bool:
    return any(
        character in _WILD and mark != "e"
        for character, mark in zip(piece.text, piece.marks, strict=True)
    )


def _pattern(piece: Piece, begin: int) -> str:
    text, at, parts = piece.text, begin, []
    while at < len(text):
        character, last = text[at], at
        if character in _WILD and piece.marks[at] == "e":
            parts.append(f"[{character}]")
        elif character == "[":
            last = class_end(text, at)
            if last < 0:
                place = piece.places[at]
                reason = "this [ has no ]; write \\[ for the character itself"
                raise wrong(piece.whole, place, place + 1, reason)
            parts.append(text[at : last + 1])
        else:
            parts.append(character)
        at = last + 1
    return "".join(parts)


def _home(piece: Piece, first: str) -> str:
    home = os.path.expanduser(first)  # noqa: PTH111 - a Path raises where there is no such user
    if not home.startswith("/"):
        raise piece.wrong("this home folder is not known; write the path from its beginning /")
    return home


def _check_pattern(piece: Piece, pattern: str, compiled: Callable[[str], object]) -> None:
    try:
        compiled(pattern)
    except InputError as error:
        raise piece.wrong(str(error)) from None


def _check_name(piece: Piece) -> None:
    try:
        os.fsencode(piece.text)
    except UnicodeEncodeError:
        raise _no_text(piece) from None


def check_text(piece: Piece) -> None:
    """See that a word can be stored as text at all.

    Raises:
        WhereError: it cannot be encoded.
    """
    try:
        piece.text.encode()
    except UnicodeEncodeError:
        raise _no_text(piece) from None


def _no_text(piece: Piece) -> WhereError:
    return piece.wrong("has a character that is no valid text; leave it out")
