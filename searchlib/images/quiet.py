"""Keeping the decoders' warnings and log lines away from the program that uses searchlib.

Pillow tells of broken EXIF and odd palettes through `warnings.warn`, and of some broken TIFFs
through an error-level log record, which lands on stderr where logging is not configured. Inside
`quiet()` both are dropped, for this thread only.

`warnings.catch_warnings` cannot do it: it swaps the filters of the whole process, so two threads
that overlap can leave one another's filters behind for good. Here one filter is installed whose
category answers "is this warning mine?" by asking whether the current thread is inside `quiet()`.
Every other thread, and this one outside of `quiet()`, keeps the warnings it has always had.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


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


_c_lock = threading.Lock()
_c_users = 0
_c_before: int | None = None


@contextmanager
def mute_c() -> Iterator[None]:
    """Drop what C libraries print to stderr while the block runs.

    LibRaw, and the libjpeg inside of it, write a line about each damaged file; rawpy offers no way
    to stop them. It holds for the C code of all threads, so the block should be short. Python's
    own stderr and the descriptor 2 stay as they are: nothing that is written in Python is lost,
    nor is a traceback of `faulthandler`. Where C's variable is out of reach nothing is dropped.
    """
    global _c_users, _c_before
    streams = _c_streams()
    if streams is None:
        yield
        return
    variable, nowhere = streams
    with _c_lock:
        if _c_users == 0:
            _c_before, variable.value = variable.value, nowhere
        _c_users += 1
    try:
        yield
    finally:
        with _c_lock:
            _c_users -= 1
            if _c_users == 0:
                variable.value = _c_before


@cache
def _c_streams() -> tuple[ctypes.c_void_p, int] | None:
    """C's variable `stderr`, and a stream that leads nowhere."""
    try:
        if sys.platform == "darwin":
            name = "__stderrp"
        elif (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            name = "stderr"
        else:  # musl's cannot be written
            return None
        library = ctypes.CDLL(None)
        variable = ctypes.c_void_p.in_dll(library, name)
        library.fopen.restype = ctypes.c_void_p
        nowhere = library.fopen(os.fsencode(os.devnull), b"we")
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return (variable, nowhere) if nowhere else None
