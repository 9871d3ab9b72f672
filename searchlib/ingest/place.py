"""A file and what was read from it, as the catalog keeps them."""

from __future__ import annotations

import os

from searchlib.catalog import Facts, Stat
from searchlib.images import ImageFacts, OpenedFile

_HALF = 1 << 63


def stat_of(status: os.stat_result) -> Stat:
    """What the catalog keeps of a file's status."""
    return Stat(status.st_size, status.st_mtime_ns, signed(status.st_ino))


def stat_of_opened(opened: OpenedFile) -> Stat:
    """The same of a file that was read."""
    return Stat(opened.size, opened.mtime_ns, signed(opened.inode))


def signed(inode: int) -> int:
    """An inode number for a database whose integers have a sign: some file systems use 64 bits."""
    return inode - 2 * _HALF if inode >= _HALF else inode


def gone(path: str) -> bool:
    """Whether there is certainly nothing at a path: no permission or a broken disk do not say."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def facts_of(facts: ImageFacts, size: int) -> Facts:
    """What the catalog keeps of an image of `size` bytes."""
    return Facts(
        bytes=size,
        format=facts.format,
        width=facts.width,
        height=facts.height,
        taken_at=None if facts.taken_at is None else facts.taken_at.isoformat(),
        camera_make=facts.camera_make,
        camera_model=facts.camera_model,
        latitude=facts.latitude,
        longitude=facts.longitude,
    )


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
