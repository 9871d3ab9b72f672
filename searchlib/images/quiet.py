"""Keeping Pillow's warnings and log lines away from the program that uses searchlib.

Pillow tells of broken EXIF and odd palettes through `warnings.warn`, and of some broken TIFFs
through an error-level log record, which lands on stderr where logging is not configured. Inside
`quiet()` both are dropped, for this thread only.

`warnings.catch_warnings` cannot do it: it swaps the filters of the whole process, so two threads
that overlap can leave one another's filters behind for good. Here one filter is installed whose
category answers "is this warning mine?" by asking whether the current thread is inside `quiet()`.
Every other thread, and this one outside of `quiet()`, keeps the warnings it has always had.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _State(threading.local):
    depth = 0


_state = _State()


class _OnlyInside(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        # The warnings module asks this of each filter's category. `simplefilter` asks the
        # reverse, whether the category is a Warning, which is answered by Warning itself.
        return _state.depth > 0


class _WhileDecoding(Warning, metaclass=_OnlyInside):
    """The category of the filter: every warning, while this thread is inside `quiet()`."""


def _outside(_: logging.LogRecord) -> bool:
    return _state.depth == 0


logging.getLogger("PIL.TiffImagePlugin").addFilter(_outside)


def _install() -> None:
    # Filters are tried from the front, and others may have put theirs before ours since.
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[2] is not _WhileDecoding:
        warnings.simplefilter("ignore", _WhileDecoding)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings and Pillow's TIFF log records of this thread while the block runs."""
    _state.depth += 1
    _install()
    try:
        yield
    finally:
        _state.depth -= 1
