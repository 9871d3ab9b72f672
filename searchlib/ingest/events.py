"""The kernel's events, as hints: paths to look at, and a word where some may be missing.

watchdog's threads put paths into a set; one thread of ours hands the set on. Whoever takes a path
looks at it, and lists it where it is a folder: what was put into a new folder before that folder
was watched has no event of its own.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable

from searchlib.ingest.watched import Watched

log = logging.getLogger(__name__)

KEPT = 200_000
_CHECK_EVERY = 2.0
_SHORTEST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0


class Listener:
    """Watches folders, and hands on the paths that were touched.

    Both callbacks are called by one thread of the listener's, never two at a time; they may call
    `watch` and `unwatch`. Where one raises, it is called again with the same, and what has come
    since, after pauses that grow to 10 seconds.

    Args:
        on_paths: takes absolute paths that were created, written, moved or deleted: files and
            folders of any name, in no order, with surrogates for what is not UTF-8.
        on_loss: takes a root and words: this root is no longer watched; look through it, and
            watch it again. Or None and words: all are still watched, but paths are missing.
        every: seconds between two calls of `on_paths`.

    Attributes:
        last_event: when something was touched last, on time.time(); None before.
    """

    def __init__(
        self,
        *,
        on_paths: Callable[[Collection[str]], None],
        on_loss: Callable[[str | None, str], None],
        every: float = 0.1,
    ) -> None:
        self.last_event: float | None = None
        self._on_paths = on_paths
        self._on_loss = on_loss
        self._every = every
        self._roots: dict[str, Watched] = {}
        self._roots_lock = threading.Lock()
        self._paths: set[str] = set()
        self._losses: dict[tuple[str | None, str], None] = {}
        self._woken = False
        self._stopping = False
        self._news = threading.Condition()
        self._quiet = _Quiet()
        self._quiet.install()
        self._thread = threading.Thread(target=self._run, name="searchlib-hints", daemon=True)
        self._thread.start()

    def watch(self, root: str, *, recursive: bool = True, follow_links: bool = False) -> None:
        """Watch a folder, or watch it anew.

        Args:
            root: an absolute path.
            recursive: and all folders below it.
            follow_links: and the folders that links below it lead to, each through one link.

        Raises:
            OSError: it cannot be watched as a whole, and is not watched at all: ENOENT, ENOTDIR,
                EACCES, ENOSPC (the limit of inotify watches), EMFILE (that of instances).
        """
        self.unwatch(root)
        try:
            watched = Watched(
                root,
                take=self._take,
                wake=self._wake,
                recursive=recursive,
                follow_links=follow_links,
            )
        except OSError as error:
            raise OSError(error.errno, error.strerror, root) from error
        with self._roots_lock:
            self._roots[root] = watched

    def unwatch(self, root: str) -> None:
        """Watch a folder no longer; nothing happens where it is not watched."""
        with self._roots_lock:
            watched = self._roots.pop(root, None)
        if watched is not None:
            watched.close()

    def stop(self) -> None:
        """Watch nothing more, hand on what has come, and end all threads."""
        for root in list(self._roots):
            self.unwatch(root)
        with self._news:
            self._stopping = True
            self._news.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._quiet.remove()

    def _take(self, paths: Iterable[str]) -> None:
        with self._news:
            self.last_event = time.time()
            self._paths.update(paths)
            self._bound()
            self._news.notify()

    def _wake(self) -> None:
        with self._news:
            self._woken = True
            self._news.notify()

    def _bound(self) -> None:
        if len(self._paths) > KEPT:
            self._paths.clear()
            self._losses[None, f"more than {KEPT:,} changed paths were waiting"] = None

    def _run(self) -> None:
        failures = 0
        stopping = False
        while not stopping:
            with self._news:
                self._news.wait_for(self._anything, _CHECK_EVERY)
                self._woken = False
                stopping = self._stopping
            self._check()
            error = self._hand_on()
            if error is None:
                failures, pause = 0, self._every
            else:
                failures += 1
                pause = min(_SHORTEST_PAUSE * 2 ** min(failures - 1, 9), _LONGEST_PAUSE)
                if failures == 1 or stopping:
                    end = "they are let go" if stopping else "they are kept for another try"
                    log.warning("changed paths could not be noted, %s: %s", end, error)
            with self._news:
                self._news.wait_for(lambda: self._stopping, pause)

    def _anything(self) -> bool:
        return bool(self._paths or self._losses or self._woken or self._stopping)

    def _check(self) -> None:
        with self._roots_lock:
            roots = list(self._roots.items())
        for root, watched in roots:
            losses: dict[tuple[str | None, str], None] = {}
            if watched.overflowed():
                losses[None, "the kernel's event queue overflowed"] = None
            if words := watched.lost():
                losses[root, words] = None
                self._drop(root, watched)
            with self._news:
                self._losses |= losses

    def _drop(self, root: str, watched: Watched) -> None:
        with self._roots_lock:
            if self._roots.get(root) is watched:
                del self._roots[root]
        watched.close()

    def _hand_on(self) -> Exception | None:
        """Call both; what they did not take stays for the next time."""
        with self._news:
            paths, self._paths = self._paths, set()
            losses, self._losses = self._losses, {}
        with self._roots_lock:
            roots = list(self._roots.values())
        try:
            for watched in roots:
                watched.follow(paths)
            for root, words in list(losses):
                self._on_loss(root, words)
                del losses[root, words]
            if paths:
                self._on_paths(frozenset(paths))
        except Exception as error:
            with self._news:
                self._paths |= paths
                self._losses = losses | self._losses
                self._bound()
            return error
        return None


class _Quiet(logging.Filter):
    """Keeps watchdog from saying what the listener says, and what is no fault."""

    _LOGGERS = ("watchdog.observers.inotify", "watchdog.observers.inotify_c")
    _SAID = (
        "Inotify queue overflowed",
        "Unable to rebuild",
        "InotifyEmitter.queue_events() called",
    )

    def install(self) -> None:
        for name in self._LOGGERS:
            logging.getLogger(name).addFilter(self)
        # A folder made while its parent is listed is added twice, and watchdog warns of that.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)

    def remove(self) -> None:
        for name in self._LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self._SAID)
