"""What the watching process says of itself: events to whoever started it, a heartbeat to others."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from searchlib.catalog import Catalog, Heartbeat
from searchlib.errors import LibraryError

logger = logging.getLogger(__name__)

EventKind = Literal[
    "started",
    "scanning",
    "scanned",
    "progress",
    "file",
    "missing",
    "offline",
    "idle",
    "trouble",
    "stopped",
]

_RATE_SECONDS = 60.0
_BUSY_BEAT_SECONDS, _IDLE_BEAT_SECONDS = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """Something that happened while folders were watched.

    Attributes:
        kind: "started"; "scanning" a folder and what was "scanned"; "progress" of what a scan found
            to be read; what became of a "file", committed; files "missing" and "offline"; "idle"
            when all is dealt with; "trouble" that is waited for to pass; "stopped".
        path: of the file or folder.
        outcome: of a file, as FileResult has it.
        reason: why, in words.
        count: how many folders, files, or files done.
        total: how many there are to do.
        at: seconds since 1970.
    """

    kind: EventKind
    path: str | None = None
    outcome: str | None = None
    reason: str | None = None
    count: int | None = None
    total: int | None = None
    at: float = field(default_factory=time.time)


class Vitals:
    """Counts what is done, tells of it, and keeps the heartbeat going.

    Args:
        catalog: takes the heartbeat.
        on_event: is told what happens.
    """

    def __init__(self, catalog: Catalog, on_event: Callable[[WatchEvent], None]) -> None:
        self.tell = on_event
        self.scanned_at: float | None = None
        self._catalog = catalog
        self._started_at = time.time()
        self._done = self._failed = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._last_beat = -_IDLE_BEAT_SECONDS
        self._stage = ""

    def begin(self) -> None:
        """Write the first heartbeat, lest that of an earlier process be taken for this one's."""
        self.beat("starting", to_be_read=0, settling=0, last_event_at=None, now=True)

    def count(self, *, failed: bool) -> None:
        """Count one file that was dealt with."""
        self._done += 1
        self._failed += failed

    def beat(
        self,
        stage: str,
        *,
        to_be_read: int,
        settling: int,
        last_event_at: float | None,
        now: bool = False,
    ) -> None:
        """Write the heartbeat if it is due.

        Args:
            stage: what is being done, in words.
            to_be_read: files in the spool.
            settling: paths that are looked at until they stand still.
            last_event_at: when the system last told of a change.
            now: write it in any case.
        """
        moment = time.monotonic()
        every = _IDLE_BEAT_SECONDS if stage == self._stage == "watching" else _BUSY_BEAT_SECONDS
        if not now and moment - self._last_beat < every:
            return
        self._last_beat, self._stage = moment, stage
        self._recent.append((moment, self._done))
        while moment - self._recent[0][0] > _RATE_SECONDS:
            self._recent.popleft()
        since, before = self._recent[0]
        try:
            waiting, oldest = self._catalog.dirty.size()
            heartbeat = Heartbeat(
                pid=os.getpid(),
                host=socket.gethostname(),
                started_at=self._started_at,
                beat_at=time.time(),
                stage=stage,
                queued=waiting + to_be_read,
                settling=settling,
                done=self._done,
                failed=self._failed,
                per_second=(self._done - before) / max(moment - since, 1.0),
                lag=0.0 if oldest is None else max(0.0, time.time() - oldest),
                last_event_at=last_event_at,
                scanned_at=self.scanned_at,
            )
            self._catalog.pulse.beat(heartbeat)
        except LibraryError as error:
            # What matters is written with retries elsewhere; the next beat says it all.
            logger.debug("the heartbeat could not be written: %s", error)
