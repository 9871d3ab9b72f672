"""Terms as words of a command line: `2:dog + beach.jpg - night.jpg`.

A term is a file, a URL, `id:7` or words to search for; `+` and `-` stand between terms, as words of
their own; a number and a colon before a term say how much it counts. rclip reads the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from searchlib.errors import InputError
from searchlib.images.names import IMAGE_EXTENSIONS, RAW_EXTENSIONS, printable
from searchlib.search.question import Term

_WEIGHTED = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}):(.*)", re.ASCII | re.DOTALL)
_STORED = re.compile(r"id:(.*)", re.IGNORECASE | re.DOTALL)
# Of schemes that cannot be fetched the picture's reader says so.
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|file:/|data:[^\s,]*,", re.IGNORECASE)
_LONGEST_SHOWN = 80
_LARGEST_ID = 2**63 - 1


def parse_terms(words: Sequence[str]) -> tuple[Term, ...]:
    """The terms that the words of a command line mean; none where there are no words.

    A word that is the path of a file means this file, whatever else it could be.

    Raises:
        InputError: a term is missing, or a `+` or `-` between two; a file does not exist.
    """
    terms: list[Term] = []
    sign: str | None = None
    before = ""
    for word in words:
        if word in ("+", "-"):
            if not terms:
                raise InputError(
                    f"{word!r} stands before the first term; begin with what the matches should be "
                    f"like, as in: beach.jpg {word} night.jpg"
                )
            if sign is not None:
                raise InputError(f"{sign!r} and {word!r} follow each other; write a term between")
            sign = word
            continue
        if terms and sign is None:
            raise InputError(
                f"no + or - between {_shown(before)!r} and {_shown(word)!r}; write one as a word "
                f'of its own, or put words that belong together into quotes: "dog on a beach"'
            )
        terms.append(_term(word, -1.0 if sign == "-" else 1.0))
        sign, before = None, word
    if sign is not None:
        raise InputError(f"nothing follows the last {sign!r}; write a term behind it")
    return tuple(terms)


def _term(word: str, sign: float) -> Term:
    if _is_file(word):
        return Term(image=Path(word), weight=sign)
    weighted = _WEIGHTED.fullmatch(word)
    if weighted is None:
        return _unweighted(word, sign)
    weight = float(weighted[1])
    if weight == 0:
        raise InputError(
            f"{_shown(word)!r} counts 0 times; leave it out, or give it another weight"
        )
    return _unweighted(weighted[2], sign * weight)


def _unweighted(word: str, weight: float) -> Term:
    if not word.strip():
        raise InputError("a term is empty; write a file, a URL, id:7, or words to search for")
    path = os.path.expanduser(word)  # noqa: PTH111 - a Path raises where there is no such user
    if _is_file(path):
        return Term(image=Path(path), weight=weight)
    if _URL.match(word):
        return Term(image=word, weight=weight)
    stored = _STORED.fullmatch(word)
    if stored is not None:
        if not re.fullmatch(r"[0-9]{1,19}", stored[1], re.ASCII) or int(stored[1]) > _LARGEST_ID:
            raise InputError(f"{_shown(word)!r}: an id is a number, as in id:7")
        return Term(stored=int(stored[1]), weight=weight)
    if _looks_like_path(word):
        what = "is a folder" if _exists(path) else "no such file"
        raise InputError(
            f"{_shown(word)}: {what}; name a picture, or pass words to search for as text"
        )
    return Term(text=word, weight=weight)


def _is_file(word: str) -> bool:
    # Devices and pipes are files to read from, too.
    return _exists(word) and not Path(word).is_dir()


def _exists(word: str) -> bool:
    with suppress(ValueError, OSError):  # a NUL, what cannot be encoded, or a name too long
        return Path(word).exists()
    return False


def _looks_like_path(word: str) -> bool:
    if os.sep in word:
        return True
    extension = os.path.splitext(word)[1].lower()  # noqa: PTH122 - a Path changes odd ones
    return extension in IMAGE_EXTENSIONS or extension in RAW_EXTENSIONS


def _shown(word: str) -> str:
    """A word in a message: on one line, and not longer than that."""
    line = printable(word)
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}..."
