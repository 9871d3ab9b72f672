"""The opened engines of one model, lent to one thread at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from searchlib.encoder.engine import Engine

MAX_ENGINES = 8


class EnginePool:
    """Engines of one model, each with its own copy of the weights as the runtime packs them.

    None is opened before the first is asked for.

    Args:
        open_one: opens an engine and checks it; called under a lock, never twice at once.
    """

    def __init__(self, open_one: Callable[[], Engine]) -> None:
        self._open_one = open_one
        self._engines: queue.LifoQueue[Engine] = queue.LifoQueue()
        self._opened = 0
        self._limit = 1
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[Engine]:
        """An engine for the time of the block; waits while all are lent."""
        engine = self._acquire()
        try:
            yield engine
        finally:
            self._engines.put(engine)

    def resize(self, count: int) -> None:
        """Hold at most so many engines, and let go of those that are more."""
        with self._lock:
            self._limit = max(1, min(count, MAX_ENGINES))
            while self._opened > self._limit:
                self._engines.get()
                self._opened -= 1

    def _acquire(self) -> Engine:
        try:
            return self._engines.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            if self._opened < self._limit:
                engine = self._open_one()
                self._opened += 1
                return engine
        return self._engines.get()
