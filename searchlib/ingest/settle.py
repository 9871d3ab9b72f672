"""Which of the paths that were touched have come to rest.

A path is at rest when two looks, some time apart, saw the same, and nobody holds the file open for
writing. Times of files are only compared with each other, never with a clock, so a clock that is
set back changes nothing.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Literal

_OTHER = {
    stat.S_IFIFO: "is a pipe, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
    stat.S_IFCHR: "is a device, not a file",
    stat.S_IFBLK: "is a device, not a file",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at a path.

    Attributes:
        size: in bytes; this and the three below are 0 for what is neither a file nor a folder.
        inode: st_ino, and device: st_dev, without a sign.
        reason: why it is unreadable, in words that go on after its path.
    """

    kind: Literal["gone", "folder", "file", "unreadable"]
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    device: int = 0
    reason: str | None = None

    def same(self, other: Look) -> bool:
        """Whether nothing moved between the two; a folder's contents may."""
        if self.kind != "file" or other.kind != "file":
            return self.kind == other.kind
        return self == other


@dataclass(frozen=True, slots=True)
class Settled:
    """A path that is at rest, or one that does not come to rest.

    Attributes:
        mark: the newest that was noted for it.
        look: the last one.
        seconds: since it was noted first.
    """

    path: str
    mark: int
    look: Look
    seconds: float


def look(path: str) -> Look:
    """What is at a path now; a link counts as what it leads to, and a broken one as gone."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Look("gone")
    except OSError as error:
        return Look("unreadable", reason=f"cannot be read: {error.strerror}")
    kind = stat.S_IFMT(status.st_mode)
    if kind in _OTHER:
        return Look("unreadable", reason=_OTHER[kind])
    return Look(
        "folder" if kind == stat.S_IFDIR else "file",
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        status.st_dev,
    )


def being_written(path: str) -> bool:
    """Whether a process of this machine has the file open for writing; False where none can tell.

    Linux refuses a read lease (F_SETLEASE, fcntl(2)) on such a file. Only its owner, or a process
    with CAP_LEASE, may ask, and not on every file system.
    """
    if sys.platform != "linux":
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        return True  # under a lease of another process, which this call has begun to break
    except OSError:
        return False
    try:
        # Who opens the file for writing in the instant of the lease waits until it is over, and
        # this process gets a signal. That would be SIGIO, which ends it; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@dataclass(slots=True, eq=False)
class _Waiting:
    path: str
    mark: int
    look: Look
    noted: float


class Settler:
    """Paths that wait until they are at rest; for one thread.

    Args:
        seconds: how far apart the two looks are at least.
        patience: after so many seconds a path that does not come to rest is late.
        clock: seconds that never go back.
        look: sees what is at a path.
        being_written: whether a file is open for writing; asked once the looks agree.
    """

    def __init__(
        self,
        *,
        seconds: float = 1.0,
        patience: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[str], Look] = look,
        being_written: Callable[[str], bool] = being_written,
    ) -> None:
        self._seconds = seconds
        self._patience = patience
        self._clock = clock
        self._look = look
        self._being_written = being_written
        self._waiting: dict[str, _Waiting] = {}
        self._late: list[Settled] = []
        self._numbers = count()
        # One item for each that waits; those that were forgotten stay until they are due.
        self._heap: list[tuple[float, int, _Waiting]] = []

    def __len__(self) -> int:
        """How many wait; neither those that were given out nor those that are late."""
        return len(self._waiting)

    def note(self, path: str, mark: int) -> None:
        """Look at a path, and wait for it to rest.

        For one that waits already the greater mark counts, and the waiting goes on.
        """
        waiting = self._waiting.get(path)
        if waiting is not None:
            waiting.mark = max(waiting.mark, mark)
            return
        noted = self._clock()
        waiting = _Waiting(path, mark, self._look(path), noted)
        self._waiting[path] = waiting
        self._push(waiting, self._clock() + self._seconds)

    def forget(self, path: str) -> None:
        """Wait for a path no longer; nothing happens where it does not wait."""
        self._waiting.pop(path, None)

    def take(self, limit: int) -> list[Settled]:
        """At most `limit` paths that are at rest now; each is given out once, and forgotten."""
        settled: list[Settled] = []
        again: list[tuple[_Waiting, float]] = []
        start = self._clock()
        while len(settled) < limit and (waiting := self._top()) and self._heap[0][0] <= start:
            heapq.heappop(self._heap)
            now = self._clock()
            seen = self._look(waiting.path)
            if seen.same(waiting.look) and not (
                seen.kind == "file" and self._being_written(waiting.path)
            ):
                settled.append(self._given_out(waiting, seen, now))
                continue
            waiting.look = seen
            if now - waiting.noted >= self._patience:
                self._late.append(self._given_out(waiting, seen, now))
            else:
                again.append((waiting, self._clock() + self._seconds))
        for waiting, due in again:
            self._push(waiting, due)
        return settled

    def late(self) -> list[Settled]:
        """Those that `take` found late since the last call; they are forgotten."""
        late, self._late = self._late, []
        return late

    def next_due(self) -> float | None:
        """When, on the clock, `take` has something to look at; None where nothing waits."""
        return self._heap[0][0] if self._top() else None

    def _top(self) -> _Waiting | None:
        while self._heap and self._waiting.get(self._heap[0][2].path) is not self._heap[0][2]:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def _push(self, waiting: _Waiting, due: float) -> None:
        heapq.heappush(self._heap, (due, next(self._numbers), waiting))

    def _given_out(self, waiting: _Waiting, seen: Look, now: float) -> Settled:
        del self._waiting[waiting.path]
        return Settled(waiting.path, waiting.mark, seen, now - waiting.noted)
