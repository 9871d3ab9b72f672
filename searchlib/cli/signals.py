"""SIGINT and SIGTERM while a library is worked on: the first asks to stop, the second ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

from searchlib.cli import shared

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout`, shells and make send one request twice, to the process and to its group.
_SAME_REQUEST_SECONDS = 0.5
_SHOW_CURSOR = b"\x1b[?25h\n"


class Stop:
    """Whether a signal came.

    Attributes:
        event: is set soon after the first one.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._signal: int | None = None
        self._at = 0.0
        self._came: SimpleQueue[int | None] = SimpleQueue()

    @property
    def code(self) -> int | None:
        """The exit code that tells of the signal; None if none came."""
        return None if self._signal is None else 128 + self._signal

    def take(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._at = number, now
            # Setting the event here could wait for ever for a lock that the interrupted code has.
            self._came.put(number)
        elif now - self._at > _SAME_REQUEST_SECONDS:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def wait(self) -> None:
        """Until a signal came, or `end`."""
        if self._came.get() is None:
            return
        self.event.set()
        if sys.stderr is not None and sys.stderr.isatty():
            shared.say("searchlib: stopping after what is under way; once more ends it at once")

    def end(self) -> None:
        """Let `wait` return."""
        self._came.put(None)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Signals set an event in this block, so that what is under way is finished and committed."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python hands signals to the main thread alone
        return
    waiting = threading.Thread(target=stop.wait, name="searchlib-signals", daemon=True)
    waiting.start()
    before = {number: signal.signal(number, stop.take) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.end()
        waiting.join()
