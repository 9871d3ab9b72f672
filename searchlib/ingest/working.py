"""Which files are in the decoder, written down where a killed process leaves it behind.

A broken picture can end the whole process inside a decoder. The next run must know which files
were being read at that moment, so that it can try them alone. Each run keeps one file:

    working-<pid>-<random>.slots    slots of 8192 bytes, one for each file that is being read:
                                    length (u32), CRC-32 of the path (u32), the path as bytes;
                                    little-endian; length 0 is a free slot

The writer holds a `flock` on its file, which ends with the process however that ends: a file that
can be locked is of a dead run. Nothing is synced to disk, because what is written survives the
end of the process in the system's cache; after a power cut nothing is known, and nothing is blamed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

# Longer than the longest path that can be opened, and whole pages.
_SLOT_BYTES = 8192
_HEADER = struct.Struct("<II")
_FREE = bytes(_HEADER.size)
_LONGEST = _SLOT_BYTES - _HEADER.size

_PATTERN = "working-*.slots"
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Left:
    """What a run left behind that ended without closing its file.

    Attributes:
        file: that it had written.
        paths: of the files that it was reading; empty where it was reading none.
    """

    file: Path
    paths: tuple[str, ...]


class Working:
    """Notes which files a run is reading; used by many threads, one object for each run.

    Where the notes cannot be written, a warning is logged once and the run goes on without.

    Args:
        folder: where the file of the notes is made.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._slots = 0
        self._warned = False
        self._file = folder
        self._descriptor: int | None = None
        try:
            self._file, self._descriptor = _create(folder)
        except OSError as error:
            self._warn(error)

    @contextmanager
    def on(self, path: str) -> Iterator[None]:
        """Note a path while the block runs.

        Args:
            path: of a file; it need not be valid text.
        """
        name = os.fsencode(path)
        if len(name) > _LONGEST:  # nor can it be opened
            yield
            return
        with self._lock:
            slot = self._free.pop() if self._free else self._slots
            self._slots = max(self._slots, slot + 1)
            self._write(slot, _HEADER.pack(len(name), zlib.crc32(name)) + name)
        try:
            yield
        finally:
            with self._lock:
                self._write(slot, _FREE)
                self._free.append(slot)

    def close(self) -> None:
        """Remove the file: the run has come to its end. It can be called twice."""
        with self._lock:
            if self._descriptor is None:
                return
            try:
                self._file.unlink(missing_ok=True)
            except OSError as error:
                self._warn(error)
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, slot: int, content: bytes) -> None:
        # Under the lock: after `close` the number may be that of a file of someone else.
        if self._descriptor is None:
            return
        try:
            os.pwrite(self._descriptor, content, slot * _SLOT_BYTES)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            logger.warning(
                "%s: cannot note which files are being read (%s); should one of them end the "
                "process, it will not be known which",
                self._file,
                error.strerror or error,
            )
            self._warned = True


def left_behind(folder: Path) -> list[Left]:
    """What dead runs left behind in a folder, in the order of the files' names.

    Files of live runs are left alone. Content that is torn or damaged gives no paths.
    """
    found = []
    for file in sorted(folder.glob(_PATTERN)):
        try:
            descriptor = _open_of_dead(file)
        except OSError as error:
            logger.warning("%s: cannot be read: %s", file, error.strerror or error)
            continue
        if descriptor is not None:
            with open(descriptor, "rb") as content:
                found.append(Left(file, tuple(_paths(content.read()))))
    return found


def forget(left: Left) -> None:
    """Remove what a dead run left behind; no error where it cannot be."""
    try:
        descriptor = _open_of_dead(left.file)
        if descriptor is not None:
            try:
                left.file.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
    except OSError as error:
        logger.warning("%s: cannot be removed: %s", left.file, error.strerror or error)


def _create(folder: Path) -> tuple[Path, int]:
    """A new file with a lock on it."""
    for _ in range(_ATTEMPTS):
        file = folder / f"working-{os.getpid()}-{secrets.token_hex(4)}.slots"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            if _try_lock(descriptor) and os.fstat(descriptor).st_nlink:
                return file, descriptor
            # Another run took it for one of a dead run before it was locked.
        except BaseException:
            file.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        file.unlink(missing_ok=True)
        os.close(descriptor)
    raise OSError("other processes keep locking its files")


def _open_of_dead(file: Path) -> int | None:
    """A descriptor of the locked file of a dead run; None for one of a live run, or none at all."""
    try:
        descriptor = os.open(
            file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return None
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and _try_lock(descriptor):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _paths(content: bytes) -> Iterator[str]:
    for start in range(0, len(content) - _HEADER.size, _SLOT_BYTES):
        length, checksum = _HEADER.unpack_from(content, start)
        name = content[start + _HEADER.size : start + _SLOT_BYTES][:length]
        if 0 < length == len(name) and zlib.crc32(name) == checksum:
            yield os.fsdecode(name)
