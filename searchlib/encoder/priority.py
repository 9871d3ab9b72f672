"""Who goes first: queries before ingests, in the whole process.

    with querying(): ...            a query, from its picture to its answer
    step_back(lower=True)           once, in each thread of an ingest
    give_way()                      in such a thread, before each long step on a file

A query is over in some dozen milliseconds, and an ingest has time: while a query runs, an ingest
finishes the step that it is at and waits before the next one. It never waits for long, so that it
gets on beside queries without an end.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_WAIT = 0.05
"""Seconds that one step of an ingest waits at most: about as long as a query takes."""

_LOWER_BY = 10
_LOWEST = 19


class _Traffic:
    """What runs in this process at the moment."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.queries = 0
        self.ingests = 0


_traffic = _Traffic()
_thread = threading.local()


@contextmanager
def querying() -> Iterator[None]:
    """A query runs for the time of the block; ingests of this process give way to it."""
    with _traffic.changed:
        _traffic.queries += 1
    try:
        yield
    finally:
        with _traffic.changed:
            _traffic.queries -= 1
            if not _traffic.queries:
                _traffic.changed.notify_all()


@contextmanager
def ingesting() -> Iterator[None]:
    """An ingest runs for the time of the block."""
    with _traffic.changed:
        _traffic.ingests += 1
    try:
        yield
    finally:
        with _traffic.changed:
            _traffic.ingests -= 1


def is_crowded() -> bool:
    """Whether the processors are shared: by an ingest, or by several queries."""
    return _traffic.ingests > 0 or _traffic.queries > 1


def step_back(*, lower: bool = False) -> None:
    """Make the calling thread one of an ingest, for as long as it lives.

    Args:
        lower: also let other threads have the processor first; on Linux only, where threads have
            priorities of their own. It cannot be taken back.
    """
    _thread.stepped_back = True
    if lower and sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a sandbox may forbid it, and it is a courtesy
            now = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(now + _LOWER_BY, _LOWEST))


def is_urgent() -> bool:
    """Whether the calling thread is none of an ingest."""
    return not getattr(_thread, "stepped_back", False)


def give_way() -> None:
    """Wait while queries run, but no longer than LONGEST_WAIT."""
    if _traffic.queries:
        with _traffic.changed:
            _traffic.changed.wait_for(lambda: not _traffic.queries, LONGEST_WAIT)
