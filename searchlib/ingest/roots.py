"""The watched folders: how each is listened to, and which of them have to be scanned, and why."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from searchlib.catalog import Catalog, FolderRecord
from searchlib.images import printable
from searchlib.ingest.events import Listener
from searchlib.ingest.hints import Hints
from searchlib.ingest.mounts import MountTable, gives_events, mount_of

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 2.0
# After this many hints at once a scan is cheaper than the doubt whether there were more.
_BURST = 2000
_BURST_REST_SECONDS = 3.0


class Roots:
    """Listens to the watched folders, and asks for a scan whenever hints may be missing.

    Args:
        catalog: names the folders.
        hints: take the paths that something happened to.
        rescan: seconds between two scans of everything.
        poll: seconds between two scans of a folder that tells of no changes.
    """

    def __init__(self, catalog: Catalog, hints: Hints, rescan: float, poll: float) -> None:
        self.folders: list[FolderRecord] = []
        self._catalog = catalog
        self._hints = hints
        self._rescan = rescan
        self._poll = poll
        self._mounts = MountTable()
        self._listener: Listener | None = None
        self._deaf: set[str] = set()
        self._asked: dict[str, str] = {}
        self._scanned: dict[str, float] = {}
        self._burst = 0
        self._burst_at = 0.0
        self._next_look = 0.0
        self._lock = threading.Lock()
        self._listening = threading.RLock()

    @property
    def last_event(self) -> float | None:
        """When the system last told of a change, in seconds since 1970."""
        return None if self._listener is None else self._listener.last_event

    def begin(self, folders: Collection[FolderRecord], *, listen: bool) -> None:
        """Listen to the folders, and ask for a scan of each."""
        self.folders = list(folders)
        if listen:
            self._listener = Listener(on_paths=self._note, on_loss=self._lost)
            for folder in self.folders:
                self._listen(folder)
        self.ask_all("the start")

    def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.stop()
        self._mounts.close()

    def ask_all(self, reason: str) -> None:
        """Ask for a scan of every folder."""
        with self._lock:
            for folder in self.folders:
                self._asked.setdefault(folder.path, reason)

    def next_scan(self) -> tuple[FolderRecord, str] | None:
        """A folder that has to be scanned now and why, or None."""
        with self._lock:
            for folder in self.folders:
                reason = self._asked.pop(folder.path, None) or self._is_due(folder)
                if reason is not None:
                    self._scanned[folder.path] = time.monotonic()
                    break
            else:
                return None
        if folder.path in self._deaf:
            self._listen(folder)  # it may be back
        return folder, reason

    def _is_due(self, folder: FolderRecord) -> str | None:
        age = time.monotonic() - self._scanned.get(folder.path, 0.0)
        if self._listener is not None and folder.path in self._deaf and age >= self._poll:
            return "it tells of no changes"
        return "the time since the last scan" if age >= self._rescan else None

    def look_around(self) -> None:
        """Notice folders that were registered, drives that were mounted, and the end of a burst."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_SECONDS
        if self._mounts.changed():
            for folder in self.folders:
                self._listen(folder)
            self.ask_all("a drive was mounted or unmounted")
        with self._lock:
            over = self._burst >= _BURST and now - self._burst_at >= _BURST_REST_SECONDS
            if over:
                self._burst = 0
        if over:
            self.ask_all("a burst of changes")
        self._follow_register()

    def _follow_register(self) -> None:
        """Another process may have registered a folder, or given one other rules."""
        if self._listener is None:
            return
        now = self._catalog.folders.all(watched=True)
        if now == self.folders:
            return
        before = {folder.path: folder for folder in self.folders}
        self.folders = now
        for path in before.keys() - {folder.path for folder in now}:
            self._listener.unwatch(path)
        for folder in now:
            if before.get(folder.path) != folder:
                self._listen(folder)
                with self._lock:
                    self._asked[folder.path] = "it was registered"

    def _listen(self, folder: FolderRecord) -> None:
        """Have changes in a folder told, where its file system tells of them."""
        if self._listener is None:
            return
        with self._listening:
            self._listen_to(folder, self._listener)

    def _listen_to(self, folder: FolderRecord, listener: Listener) -> None:
        before = folder.path in self._deaf
        self._deaf.discard(folder.path)
        kind = mount_of(folder.path).kind
        if folder.events == "no" or (folder.events == "auto" and not gives_events(kind)):
            listener.unwatch(folder.path)
            self._deaf.add(folder.path)
            return
        try:
            listener.watch(
                folder.path, recursive=folder.recursive, follow_links=folder.follow_links
            )
        except OSError as error:
            self._deaf.add(folder.path)
            logger.log(
                logging.DEBUG if before else logging.WARNING,
                "%s: cannot be listened to (%s), so it is scanned every %.0f s",
                printable(folder.path),
                error.strerror,
                self._poll,
            )

    def _note(self, paths: Collection[str]) -> None:
        """Called by the listener's thread."""
        now = time.monotonic()
        with self._lock:
            if self._burst < _BURST and now - self._burst_at >= _BURST_REST_SECONDS:
                self._burst = 0
            self._burst += len(paths)
            self._burst_at = now
        self._hints.note(paths)

    def _lost(self, root: str | None, reason: str) -> None:
        """The same: hints are missing, and of a root there will be no more."""
        logger.info("%s: %s", "all folders" if root is None else printable(root), reason)
        if root is None:
            self.ask_all(reason)
        else:
            with self._lock:
                self._asked.setdefault(root, reason)
            for folder in self.folders:
                if folder.path == root:
                    self._listen(folder)
        self._hints.news.set()
