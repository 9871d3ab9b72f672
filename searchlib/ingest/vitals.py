"""What the watching process says of itself: events to whoever started it, a heartbeat to others."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from searchlib.catalog import Catalog, Heartbeat
from searchlib.errors import LibraryError, SearchlibError
from searchlib.ingest.absent import offline_words
from searchlib.ingest.report import FileResult, Report, Skipped

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
_MOST_SKIPPED = 1000
_MOST_SAID = 20_000
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

    Attributes:
        report: what was done so far; of the skipped files the last thousand.
    """

    def __init__(self, catalog: Catalog, on_event: Callable[[WatchEvent], None]) -> None:
        self.report = Report()
        self._tell = on_event
        self._scanned_at: float | None = None
        self._scanned: set[str] = set()
        self._said: dict[str, str] = {}
        self._catalog = catalog
        self._started_at = time.time()
        self._done = self._failed = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._last_beat = -_IDLE_BEAT_SECONDS
        self._stage = ""

    def begin(self) -> None:
        """Write the first heartbeat, lest that of an earlier process be taken for this one's."""
        self.beat("starting", to_be_read=0, settling=0, last_event_at=None, now=True)

    def file(self, result: FileResult) -> None:
        """A file was dealt with."""
        failed = result.outcome == "skipped"
        self._done += 1
        self._failed += failed
        if failed:
            self._said[result.path] = result.reason or ""
        self.report.count(result)
        del self.report.skipped[:-_MOST_SKIPPED]
        self._tell(WatchEvent("file", result.path, result.outcome, result.reason))

    def scanned(self, folder: str, report: Report, found: int) -> None:
        """A folder was compared with the catalog."""
        self._scanned_at = time.time()
        if folder not in self._scanned:
            self._scanned.add(folder)
            self.report.unchanged += report.unchanged
        for skipped in report.skipped:
            self._skipped(skipped)
        self._tell(WatchEvent("scanned", folder, count=found))

    def _skipped(self, skipped: Skipped) -> None:
        """Once for each reason, though every scan meets it again."""
        if self._said.get(skipped.path) == skipped.reason:
            return
        if len(self._said) >= _MOST_SAID:
            self._said.clear()
        self._said[skipped.path] = skipped.reason
        self.report.skip(skipped.path, skipped.reason)
        del self.report.skipped[:-_MOST_SKIPPED]
        self._tell(WatchEvent("file", skipped.path, "skipped", skipped.reason))

    def absent(self, missing: int, offline: Mapping[str, int]) -> None:
        """Files were found missing, and others offline, by folder."""
        self.report.missing += missing
        if missing:
            self._tell(WatchEvent("missing", count=missing))
        for path, count in offline.items():
            self.report.offline += count
            self._tell(WatchEvent("offline", path, reason=offline_words(count), count=count))

    def trouble(self, error: SearchlibError) -> None:
        """Something has to be put right by a person; all else goes on."""
        logger.warning("%s", error)
        self._tell(WatchEvent("trouble", reason=str(error)))

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
                scanned_at=self._scanned_at,
            )
            self._catalog.pulse.beat(heartbeat)
        except LibraryError as error:
            # What matters is written with retries elsewhere; the next beat says it all.
            logger.debug("the heartbeat could not be written: %s", error)
