"""The lock of the one watcher that a library may have.

It is a flock(2) on `watch.lock` in the library's folder, which goes with its process however that
ends. The file stays; what is written in it, JSON of a `Holder`, is only true while it is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from searchlib.errors import LibraryBusyError, LibraryReadOnlyError

log = logging.getLogger(__name__)

_NAME = "watch.lock"
_TRIES = 10
_PAUSE = 0.03


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that watches a library.

    Attributes:
        pid: 0 where it could not be read.
        host: the name of its machine.
        since: when it took the lock, as of time.time().
        command: its command line.
    """

    pid: int
    host: str
    since: float
    command: str


class WatchLock:
    """The lock of a library's watcher, free until `acquire`; also a context manager.

    Args:
        folder: the library's folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; nothing happens where this object has it.

        A file system that knows no locks is no hindrance.

        Raises:
            LibraryBusyError: another watcher has it; says which one.
            LibraryReadOnlyError: the lock's file cannot be made or opened.
        """
        if self._descriptor is not None:
            return
        # Who asks for the holder has the lock for an instant, so the first refusal is not believed.
        for _ in range(_TRIES):
            if (descriptor := self._locked()) is not None:
                self._descriptor = descriptor
                _held.add(self)
                self._sign(descriptor)
                return
            time.sleep(_PAUSE)
        holder = self.holder()
        who = "another process"
        if holder is not None and holder.pid:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
            who = f"process {holder.pid} on {holder.host} since {since}"
        raise LibraryBusyError(f"{self._folder}: is watched already by {who}; stop that one first")

    def release(self) -> None:
        """Give the lock back; nothing happens where this object does not have it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        _held.discard(self)
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            # Closing would not do where a forked process still has the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def holder(self) -> Holder | None:
        """Who has the lock now; None where nobody has, or where that cannot be told."""
        for _ in range(_TRIES):
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                status = os.fstat(descriptor)
                text = os.pread(descriptor, 1 << 16, 0)
            except OSError:
                return None
            finally:
                os.close(descriptor)
            try:
                return Holder(**json.loads(text))
            except (ValueError, TypeError):
                time.sleep(_PAUSE)  # it is locked first and signed then
        return Holder(0, "", status.st_mtime, "")

    def __enter__(self) -> WatchLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _locked(self) -> int | None:
        """The descriptor of the locked file, or None where another has it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise LibraryReadOnlyError(
                f"{self._path}: cannot be opened for writing: {error.strerror}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            log.debug("%s: cannot be locked here: %s", self._path, error.strerror)
        return descriptor

    def _sign(self, descriptor: int) -> None:
        holder = Holder(os.getpid(), socket.gethostname(), time.time(), shlex.join(sys.argv))
        text = json.dumps(asdict(holder)).encode()
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
        except OSError as error:  # a full disk; the lock holds without a name
            log.debug("%s: cannot be written: %s", self._path, error.strerror)

    def _forked(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_watched(folder: Path) -> bool:
    """Whether a process watches the library in a folder now."""
    return WatchLock(folder).holder() is not None


_held: weakref.WeakSet[WatchLock] = weakref.WeakSet()


def _let_go() -> None:
    """A forked process that lives on must not keep the lock of one that was killed."""
    for lock in list(_held):
        lock._forked()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
