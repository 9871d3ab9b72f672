"""Merging an index in a thread of its own, when that is due."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 5.0
_RETRY_SECONDS = 600.0


class BackgroundMerging:
    """Merges one index, one merge at a time; may be used from many threads.

    Args:
        name: of the index, for the log.
        merge: does it, and says whether it was done.
    """

    def __init__(self, name: str, merge: Callable[[], bool]) -> None:
        self._name = name
        self._merge = merge
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        self._closed = threading.Event()

    def is_closed(self) -> bool:
        """Whether a merge that is under way should stop."""
        return self._closed.is_set()

    def close(self) -> None:
        """Start no more merges, and wait for the end of the one under way."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def look(self, is_due: Callable[[], bool]) -> None:
        """Start a merge if one is due; whoever asks too often is not listened to."""
        now = time.monotonic()
        if now < self._not_before or (self._thread and self._thread.is_alive()):
            return
        # Not at every question: what is due is read from a file.
        self._not_before = now + _LOOK_SECONDS
        if self._closed.is_set() or not is_due():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._work, name="searchlib-merge", daemon=True
                )
                self._thread.start()

    def _work(self) -> None:
        try:
            if not self._merge():
                self._not_before = time.monotonic() + _PAUSE_SECONDS
        except Exception as error:
            # Only a cache, and searches go on with what there is; but someone should know.
            logger.warning("%s cannot be merged: %s", self._name, error)
            self._not_before = time.monotonic() + _RETRY_SECONDS
