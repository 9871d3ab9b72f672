"""Where an answer ended, as a text that the next question goes on from.

A cursor holds the place of the last match, and up to which image the library had been filled when
the first answer was given: what was added since is left out of all that follows, so that matches
neither come twice nor are passed over.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import CursorError

_VERSION = 1
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Cursor:
    """The end of an answer.

    Attributes:
        asked: a fingerprint of the question, from `fingerprint`.
        newest: the highest image id of the library at the first answer.
        score, id: of the last match.
        rank: of the last match.
    """

    asked: str
    newest: int
    score: float
    id: int
    rank: int

    def encode(self) -> str:
        """The cursor as a text of letters, digits, `-` and `_`."""
        fields = [_VERSION, self.asked, self.newest, self.score, self.id, self.rank]
        text = json.dumps(fields, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str, *, asked: str) -> Cursor:
    """The cursor of a text.

    Args:
        text: from `Cursor.encode`.
        asked: the fingerprint of the question that goes on.

    Raises:
        CursorError: it is none, or one of another question.
    """
    cursor = _read(text)
    if cursor is None:
        raise CursorError("the cursor is damaged; ask again without one")
    if cursor.asked != asked:
        raise CursorError("the cursor is of another question; ask again without one")
    return cursor


def fingerprint(vector: NDArray[np.float32], *parts: object) -> str:
    """What tells one question from another, in every process: its vector, and what else counts.

    Args:
        vector: float32 [dimension].
        parts: dataclasses, tuples, sets and what has a `repr` of its value.
    """
    state = blake2b(vector.tobytes(), digest_size=9)
    for part in parts:
        state.update(_written(part).encode("utf-8", "surrogatepass") + b"\0")
    return base64.urlsafe_b64encode(state.digest()).decode()


def _written(value: object) -> str:
    """A value as a text, with sets in order: a `repr` has theirs as the process happens to."""
    if isinstance(value, frozenset):
        return repr(sorted(value))
    if isinstance(value, tuple):
        return f"({','.join(map(_written, value))})"
    if is_dataclass(value):
        parts = [_written(getattr(value, each.name)) for each in fields(value)]
        return f"{type(value).__name__}({','.join(parts)})"
    return repr(value)


def _read(text: str) -> Cursor | None:
    if not isinstance(text, str) or len(text) > _LONGEST or not text.isascii():
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        fields = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(fields, list) or len(fields) != 6 or fields[0] != _VERSION:
        return None
    _, asked, newest, score, id, rank = fields
    whole = all(type(value) is int and 0 <= value < 1 << 63 for value in (newest, id, rank))
    if not whole or not isinstance(asked, str) or type(score) not in (int, float):
        return None
    return Cursor(asked, newest, float(score), id, rank) if -2 < score < 2 else None
