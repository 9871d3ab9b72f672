"""A file and what was read from it, as the catalog keeps them."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata

from searchlib.catalog import Facts, Stat
from searchlib.images import ImageFacts, OpenedFile
from searchlib.ingest.mounts import device_of_nearest

_HALF = 1 << 63


def stat_of(status: os.stat_result) -> Stat:
    """What the catalog keeps of a file's status."""
    return Stat(status.st_size, status.st_mtime_ns, signed(status.st_ino), signed(status.st_dev))


def stat_at(path: str) -> Stat:
    """The same of what is at a path. A link has the device that it lies on itself.

    Raises:
        OSError: nothing can be said of it.
        IsADirectoryError: it is a folder.
        ValueError: no file can have this path.
    """
    here = status = os.lstat(path)
    if stat.S_ISLNK(here.st_mode):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return Stat(status.st_size, status.st_mtime_ns, signed(status.st_ino), signed(here.st_dev))


def stat_of_opened(opened: OpenedFile) -> Stat:
    """The same of a file that was read."""
    return Stat(opened.size, opened.mtime_ns, signed(opened.inode), signed(opened.device))


def signed(number: int) -> int:
    """An inode or device number for a database whose integers have a sign: some have 64 bits."""
    return number - 2 * _HALF if number >= _HALF else number


def gone(path: str) -> bool:
    """Whether there is certainly nothing at a path, or a link that leads nowhere.

    No permission or a broken disk do not say.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def gone_from(path: str, device: int | None) -> bool:
    """Whether there is certainly nothing at a path, and the device that it lay on is there."""
    return gone(path) and (device is None or nearest_device(path) == device)


def nearest_device(path: str) -> int | None:
    """The device of the nearest folder above a path that exists; None where nothing can be said."""
    device = device_of_nearest(os.path.dirname(path))
    return None if device is None else signed(device)


def absolute(path: str | os.PathLike[str]) -> str:
    """A path as the catalog keeps it; links stay as they are, for resolving them renames files."""
    return os.path.abspath(path)


def is_spelled_so(path: str) -> bool:
    """Whether a path that exists has its last name in exactly these bytes.

    A file system that takes capitals and small letters, or composed and decomposed ones, for the
    same finds a file under names that it does not have.
    """
    folder, _, name = path.rpartition(os.sep)
    others = {name.swapcase(), *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))}
    try:
        here = os.stat(path)
        if not any(_is_the_same(os.path.join(folder, each), here) for each in others - {name}):
            return True
        return name in os.listdir(folder or os.sep)
    except (OSError, ValueError):
        return True


def _is_the_same(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except (OSError, ValueError):
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
