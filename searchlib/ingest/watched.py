"""One watched folder: watchdog's observer of it, and what watchdog tells no handler.

That is: a queue that ran over, a folder that could not be watched, a folder that was moved or
unmounted, a thread that died.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import watchdog.events as seen
from watchdog.observers.api import BaseObserver, ObservedWatch

log = logging.getLogger(__name__)

_RELEVANT: list[type[seen.FileSystemEvent]] = [
    seen.FileCreatedEvent,
    seen.FileMovedEvent,
    seen.FileDeletedEvent,
    seen.DirCreatedEvent,
    seen.DirMovedEvent,
    seen.DirDeletedEvent,
    # Only Linux says when a file was closed; elsewhere each change of its content has to do.
    seen.FileClosedEvent if sys.platform == "linux" else seen.FileModifiedEvent,
]


class _Faults:
    """What went wrong below watchdog, where this can be known."""

    reader: threading.Thread | None = None
    refused: OSError | None = None
    overflowed = False


if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyConstants,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchCallback,
        WatchDescriptor,
    )

    class _Reader(InotifyFD):
        """watchdog's reader of an inotify instance; keeps what watchdog swallows or only logs."""

        def __init__(self, root: str, faults: _Faults, wake: Callable[[], None]) -> None:
            super().__init__()
            self._faults = faults
            self._root = os.fsencode(_slashed(root))
            self._wake = wake

        def add_callback(
            self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
        ) -> WatchDescriptor:
            try:
                descriptor = super().add_callback(path, mask, callback, id_)
                if descriptor == -1:  # watchdog takes a refused permission for success
                    self.remove_callbacks([(descriptor, id_)])
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as error:
                # A folder that is gone again or may not be listed is not lost by watching.
                if path == self._root or error.errno in (errno.ENOSPC, errno.ENOMEM):
                    self._faults.refused = error
                    self._wake()
                raise
            return descriptor

        def handle_event(self, event: InotifyEvent) -> None:
            super().handle_event(event)
            # Said only now that watchdog has built its watches anew: a scan that starts on this
            # word must not run ahead of them.
            if event.is_queue_overflow:
                self._faults.overflowed = True
                self._wake()
            elif event.mask & InotifyConstants.IN_UNMOUNT:
                self._wake()

    class _InotifyObserver(BaseObserver):
        """watchdog's observer of the same name, over a `_Reader`."""

        def __init__(self, root: str, faults: _Faults, wake: Callable[[], None]) -> None:
            self._reader = faults.reader = _Reader(root, faults, wake)
            super().__init__(InotifyEmitter, inotify_fd=self._reader)
            self._reader.start()

        def on_thread_stop(self) -> None:
            super().on_thread_stop()
            self._reader.stop()
            self._reader.join()

else:
    from watchdog.observers import Observer


class _Handler(seen.FileSystemEventHandler):
    def __init__(self, take: Callable[[Iterable[str]], None]) -> None:
        self._take = take

    def dispatch(self, event: seen.FileSystemEvent) -> None:
        paths = (os.fsdecode(path) for path in (event.src_path, event.dest_path) if path)
        self._take([path.rstrip("/") or "/" for path in paths])


class Watched:
    """A folder and all below, watched from the moment that it is made.

    Each has an observer, and so on Linux an inotify instance, of its own: they are lost singly.

    Args:
        take: is called by a thread of watchdog's with the paths of each event.
        wake: is called by such a thread where `overflowed` or `lost` may have an answer.

    Raises:
        OSError: it cannot be watched as a whole.
    """

    def __init__(
        self,
        root: str,
        *,
        take: Callable[[Iterable[str]], None],
        wake: Callable[[], None],
        recursive: bool,
        follow_links: bool,
    ) -> None:
        self.root = root
        self._handler = _Handler(take)
        self._recursive = recursive
        self._follow = follow_links and recursive
        self._links: dict[str, tuple[tuple[int, int], ObservedWatch]] = {}
        self._identity = _identity(root)
        self._faults = _Faults()
        if sys.platform == "linux":
            self._observer: BaseObserver = _InotifyObserver(root, self._faults, wake)
        else:
            self._observer = Observer()
        try:
            self._observer.start()
            self._watch = self._schedule(root)
            if self._follow:
                self._follow_below(root)
            if self._faults.refused:
                raise self._faults.refused
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End its threads; nothing happens where they have ended."""
        self._observer.stop()
        if self._observer.is_alive():
            self._observer.join()

    def overflowed(self) -> bool:
        """Whether the kernel's queue ran over since the last call."""
        overflowed, self._faults.overflowed = self._faults.overflowed, False
        return overflowed

    def lost(self) -> str | None:
        """Why the folder is not watched as a whole any more, in words; None where it is."""
        try:
            if _identity(self.root) != self._identity:
                return "another folder is in its place"
        except OSError as error:
            return f"the folder is gone: {error.strerror}"
        refused, reader = self._faults.refused, self._faults.reader
        if refused and refused.errno == errno.ENOSPC:
            return "no more folders can be watched; raise fs.inotify.max_user_watches"
        if refused:
            return f"a folder cannot be watched: {refused.strerror}"
        if (reader is None or reader.is_alive()) and self._alive(self._watch):
            return None
        return "watching stopped"

    def follow(self, paths: Iterable[str]) -> None:
        """Keep up with links to folders, where they are followed, as these paths were touched."""
        if not self._follow:
            return
        for link, (target, watch) in list(self._links.items()):
            if not self._alive(watch) or _target(link) != target:
                del self._links[link]
                self._observer.unschedule(watch)
        for path in sorted(paths):  # as a walk would come to them
            if path.startswith(_slashed(self.root)):
                self._follow_link(path)

    def _schedule(self, folder: str) -> ObservedWatch:
        return self._observer.schedule(
            self._handler, _slashed(folder), recursive=self._recursive, event_filter=_RELEVANT
        )

    def _alive(self, watch: ObservedWatch) -> bool:
        emitters = self._observer.emitters.copy()
        return self._observer.is_alive() and any(
            e.watch == watch and e.is_alive() for e in emitters
        )

    def _follow_below(self, folder: str) -> None:
        for here, names, _ in os.walk(folder):
            for name in sorted(names):
                self._follow_link(_slashed(here) + name)

    def _follow_link(self, link: str) -> None:
        """Each target through one link at most, and no link to a folder around itself."""
        target = _target(link)
        known = {self._identity, *(target for target, _ in self._links.values())}
        if target is None or target in known:
            return
        place = Path(link)
        if place.parent.resolve().is_relative_to(place.resolve()):
            return
        try:
            self._links[link] = target, self._schedule(link)
        except OSError as error:
            log.warning("%s: this link cannot be followed: %s", link, error.strerror)
            return
        self._follow_below(link)


def _identity(folder: str) -> tuple[int, int]:
    status = Path(_slashed(folder)).stat()
    return status.st_dev, status.st_ino


def _target(link: str) -> tuple[int, int] | None:
    """The folder that a link leads to; None for whatever is no such link."""
    path = Path(link)
    try:
        return _identity(link) if path.is_symlink() and path.is_dir() else None
    except OSError:
        return None


def _slashed(folder: str) -> str:
    """With the slash, a link is watched as the folder that it leads to."""
    return folder if folder.endswith("/") else folder + "/"
