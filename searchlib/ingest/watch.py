"""Watching: events are hints, a scan is what makes it true.

    events -> dirty list (SQLite) -> settle -> compare ─┐
                                                        ├-> spool -> intake -> commit
    scan at start, on loss, on a timer      -> compare ─┘

One thread does all of it but for listening. It listens before it scans, so that nothing falls
between the two. A hint is taken off the list when what it led to is committed; whoever starts again
scans everything first and finds what was left.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Protocol

from searchlib.catalog import Catalog, FolderRecord, ModelRecord
from searchlib.encoder import ImageEncoder
from searchlib.errors import (
    InputError,
    LibraryDamagedError,
    LibraryError,
    LibraryNotFoundError,
    LibraryReadOnlyError,
    LibraryTooNewError,
    ModelMismatchError,
)
from searchlib.images import printable, remove_stale_temporaries
from searchlib.ingest import GRACE_DAYS
from searchlib.ingest.compare import Comparison
from searchlib.ingest.hints import Hints, judge
from searchlib.ingest.holder import WatchLock
from searchlib.ingest.intake import Handling, Intake
from searchlib.ingest.pending import Pending
from searchlib.ingest.pipeline import own_folders, purge, recover
from searchlib.ingest.report import Report
from searchlib.ingest.roots import Roots
from searchlib.ingest.settle import Settled
from searchlib.ingest.spool import Spool
from searchlib.ingest.vitals import Vitals, WatchEvent
from searchlib.ingest.walk import Found
from searchlib.ingest.working import Working

logger = logging.getLogger(__name__)

_AT_ONCE = 256
# For fewer files it takes longer to open an engine for each processor than to do without.
_MANY = 16
_LOOK_AROUND_SECONDS = 0.25
_RETRY_FAILURES_SECONDS = 20.0
_PURGE_SECONDS = 6 * 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_LASTING = (
    LibraryDamagedError,
    LibraryNotFoundError,
    LibraryReadOnlyError,
    LibraryTooNewError,
)


class InUse(Protocol):
    """The model in use."""

    @property
    def encoder(self) -> ImageEncoder: ...

    @property
    def model(self) -> ModelRecord: ...


@dataclass(frozen=True, slots=True)
class WatchRules:
    """How folders are watched; all in seconds but for the last.

    Attributes:
        settle: that a file must have stood still.
        patience: after which a file that does not is reported.
        rescan: between two scans of everything.
        poll: between two scans of a folder whose file system tells of no changes.
        grace_days: after which what is missing is given up.
    """

    settle: float = 1.0
    patience: float = 600.0
    rescan: float = 900.0
    poll: float = 30.0
    grace_days: float = GRACE_DAYS


class Watcher:
    """Keeps a library in step with its watched folders; one for each library at a time.

    Args:
        catalog: of the library.
        current: gives the model in use as of now.
        save_index: brings the index's checkpoint up to date.
        handling: how files are taken in.
        rules: how folders are watched.
        stop: ends it, after what is under way.
        on_event: is told what happens, by the thread that runs.
    """

    def __init__(
        self,
        catalog: Catalog,
        current: Callable[[], InUse],
        save_index: Callable[[], None],
        handling: Handling,
        rules: WatchRules,
        *,
        stop: threading.Event,
        on_event: Callable[[WatchEvent], None],
    ) -> None:
        self._catalog = catalog
        self._current = current
        self._save_index = save_index
        self._handling = handling
        self._rules = rules
        self._stop = stop
        self._vitals = Vitals(catalog, on_event)
        self._tell = on_event
        self._hints = Hints(catalog, settle=rules.settle, patience=rules.patience)
        self._absent = Pending()
        self._next_retry = self._next_purge = 0.0
        self._idle = False
        self._since_idle = 0
        self._once = False

    def run(self, *, once: bool) -> Report:
        """Watch until it is stopped, or until all is dealt with once.

        Returns:
            What was done; of the skipped files the last thousand.

        Raises:
            LibraryBusyError: another process watches this library.
            LibraryReadOnlyError: it cannot be written.
            EncoderError: the model cannot be used.
            InputError: no folder is watched.
        """
        started = time.monotonic()
        self._once = once
        folder = self._catalog.database.folder
        folders = self._catalog.folders.all(watched=True)
        if not folders:
            raise InputError(f"{folder}: no folder is watched; name one to watch")
        self._catalog.database.require_writable()
        with ExitStack() as stack:
            stack.enter_context(WatchLock(folder))
            self._vitals.begin()
            self._spool = stack.enter_context(Spool())
            self._working = stack.enter_context(closing(Working(folder)))
            roots = self._roots = stack.enter_context(
                closing(Roots(self._catalog, self._hints, self._rules.rescan, self._rules.poll))
            )
            self._safely(self._recover)
            roots.begin(folders, listen=not once)
            self._tell(WatchEvent("started", count=len(folders)))
            pause = _FIRST_PAUSE
            while not self._stop.is_set():
                if self._safely(self._step):
                    pause = _FIRST_PAUSE
                    if self._once and self._idle:
                        break
                else:
                    self._stop.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
            self._beat("stopped", now=True)
            self._safely(self._save_index)
        report = self._vitals.report
        report.cancelled = once and not self._idle
        report.seconds = time.monotonic() - started
        self._tell(WatchEvent("stopped"))
        return report

    def _safely(self, act: Callable[[], None]) -> bool:
        """Do something; where the library cannot be written now, look at everything again later."""
        try:
            act()
        except _LASTING:
            raise
        except LibraryError as error:
            # Where the model was changed meanwhile, the next step asks for the new one.
            changed = isinstance(error, ModelMismatchError)
            logger.log(logging.INFO if changed else logging.WARNING, "%s; trying again", error)
            self._tell(WatchEvent("trouble", reason=str(error)))
            self._absent.clear()
            self._spool.clear()
            self._hints.start_again()
            self._roots.ask_all("something could not be written")
            return False
        return True

    def _recover(self) -> None:
        recover(self._catalog)
        if self._handling.thumbnails is not None:
            remove_stale_temporaries(self._handling.thumbnails)

    def _step(self) -> None:
        """Deal with what is due, the new before the many, and wait where nothing is."""
        self._roots.look_around()
        if self._judge_absent() or self._take_hints() or self._take_block():
            self._idle = False
            return
        asked = self._roots.next_scan()
        if asked is not None:
            self._idle = False
            self._scan(*asked)
            return
        if self._try_failures_again() or self._give_up_missing():
            return
        waiting = self._catalog.dirty.size()[0] + len(self._absent)
        if not waiting and not self._idle:
            self._save_index()
            self._idle = True
            self._since_idle = 0
            self._beat("watching", now=True)
            self._tell(WatchEvent("idle"))
        self._beat("settling" if waiting else "watching")
        if waiting or not self._once:
            self._wait()

    def _wait(self) -> None:
        due = self._hints.pause()
        pause = _LOOK_AROUND_SECONDS if due is None else min(due, _LOOK_AROUND_SECONDS)
        # A hint ends the wait; so does a stop, within the quarter of a second.
        self._hints.news.wait(pause)
        self._hints.news.clear()

    def _take_hints(self) -> bool:
        """Judge what stands still and take in what it led to; says whether there was anything."""
        settled = self._hints.take(_AT_ONCE)
        now = self._current()
        for path in self._hints.report_late(now.model):
            self._tell(WatchEvent("trouble", path, reason="does not come to rest"))
        if not settled:
            return False
        comparison = self._comparison(now)
        folders = self._roots.folders
        spooled = len(self._spool)
        files: list[Found] = []
        for each in settled:
            files.extend(self._judge(each, comparison, folders))
        many = len(files) >= _MANY
        with now.encoder.for_throughput(self._handling.workers) if many else nullcontext():
            taken = self._take_in(now, files)
        comparison.flush()
        self._absent.add(comparison, folders, after_spool=len(self._spool) > spooled)
        if taken == len(files):  # else it was stopped, and the next start looks again
            self._hints.done(settled)
        return True

    def _judge(
        self, settled: Settled, comparison: Comparison, folders: list[FolderRecord]
    ) -> list[Found]:
        """What has to be read because of one path; what a folder leads to goes into the spool."""
        try:
            found = judge(settled, comparison, folders)
            if settled.look.kind != "folder":
                return list(found)
            self._spool.extend(self._at_rest(found))
        except InputError as error:
            self._vitals.trouble(error)
        return []

    def _judge_absent(self) -> bool:
        """Mark what is gone, and not what was moved; says whether there was anything to judge."""
        resting, empty = not len(self._hints), not len(self._spool)
        judged = 0
        for comparison, folders in self._absent.take(spool_is_empty=empty, nothing_settles=resting):
            self._vitals.absent(*comparison.absent.resolve(folders))
            judged += 1
        return judged > 0

    def _take_block(self) -> bool:
        """Take in some of what scans have found; says whether there was anything."""
        block = next(self._spool.blocks(), None)
        if block is None:
            return False
        now = self._current()
        with now.encoder.for_throughput(self._handling.workers):
            self._take_in(now, self._not_done(now, block))
            # While hints wait a moment is not lost; while they do not, stay at full speed.
            while not self._stop.is_set() and not self._hints.news.is_set():
                block = next(self._spool.blocks(), None)
                if block is None:
                    break
                self._take_in(now, self._not_done(now, block))
                self._roots.look_around()
                if self._hints.pause() == 0.0:
                    break
        return True

    def _not_done(self, now: InUse, block: list[Found]) -> list[Found]:
        """Without the files that a hint of their own was faster with."""
        known = self._catalog.places.at((file.path for file in block), now.model)
        done = {path for path, file in known.items() if file.is_done}
        return [
            file
            for file in block
            if file.path not in done or not file.stat.is_untouched(known[file.path].stat)
        ]

    def _take_in(self, now: InUse, files: Iterable[Found]) -> int:
        """Read, embed and commit files; says how many it came to."""
        taken = 0
        intake = Intake(self._catalog, now.encoder, now.model, self._handling, self._working)
        for result in intake.run(files, stopped=self._stop.is_set):
            self._vitals.file(result)
            self._since_idle += 1
            taken += 1
            self._beat("embedding")
        left = len(self._spool)
        if left:
            done = self._since_idle
            self._tell(WatchEvent("progress", count=done, total=done + left))
        return taken

    def _scan(self, folder: FolderRecord, reason: str) -> None:
        """Compare a folder with the catalog; what has to be read goes into the spool."""
        logger.info("scanning %s: %s", printable(folder.path), reason)
        self._tell(WatchEvent("scanning", folder.path, reason=reason))
        self._beat("scanning", now=True)
        now = self._current()
        report = Report()
        comparison = self._comparison(now, report)
        try:
            self._spool.extend(self._at_rest(comparison.whole(folder)))
        except InputError as error:
            self._vitals.trouble(error)
        comparison.flush()
        self._absent.add(comparison, [folder], after_spool=True)
        self._vitals.scanned(folder.path, report, comparison.found)

    def _comparison(self, now: InUse, report: Report | None = None) -> Comparison:
        return Comparison(
            self._catalog,
            now.model,
            report or Report(),
            on_found=lambda _: self._beat("scanning"),
            leave_out=own_folders(self._catalog),
            stopped=self._stop.is_set,
        )

    def _at_rest(self, found: Iterable[Found]) -> Iterable[Found]:
        """Those of the files that are not in the making; the others have to settle first."""
        fresh: list[str] = []
        for file in found:
            if self._stop.is_set():
                return
            if not self._hints.is_fresh(file):
                yield file
                continue
            fresh.append(file.path)
            if len(fresh) == _AT_ONCE:
                self._hints.note(fresh)
                fresh.clear()
        if fresh:
            self._hints.note(fresh)

    def _try_failures_again(self) -> bool:
        if time.monotonic() < self._next_retry:
            return False
        self._next_retry = time.monotonic() + _RETRY_FAILURES_SECONDS
        due = self._catalog.places.failures(due_before=time.time(), limit=_AT_ONCE)
        if due:
            now = self._current()
            comparison = self._comparison(now)
            self._take_in(now, [found for each in due for found in comparison.file(each.path)])
            self._absent.add(comparison, self._roots.folders, after_spool=False)
        return bool(due)

    def _give_up_missing(self) -> bool:
        if time.monotonic() < self._next_purge:
            return False
        self._next_purge = time.monotonic() + _PURGE_SECONDS
        self._vitals.report.purged += purge(
            self._catalog,
            self._handling.thumbnails,
            older_than_days=self._rules.grace_days,
            thorough=True,
        )
        return True

    def _beat(self, stage: str, *, now: bool = False) -> None:
        self._vitals.beat(
            stage,
            to_be_read=len(self._spool),
            settling=len(self._hints),
            last_event_at=self._roots.last_event,
            now=now,
        )
