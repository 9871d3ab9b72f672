"""Long lists in pieces: a statement takes a limited number of values, and of terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")
_PER_STATEMENT = 500


def chunks(items: Iterable[_T], size: int = _PER_STATEMENT) -> Iterator[list[_T]]:
    """The items in lists that one statement can take."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
