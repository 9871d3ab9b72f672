"""What is mounted where, and whether changes there are told.

Linux says it in /proc/self/mountinfo (proc_pid_mountinfo(5)). Elsewhere only the mount points are
found, and what kind of file system lies there stays unknown.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/self/mountinfo")
_VOLUMES = Path("/Volumes")  # where macOS mounts what is plugged in

# Another machine, or the host of a virtual one, can change these without this kernel's knowledge.
_SHARED = re.compile(
    r"(nfs|smb|cifs|afp|webdav|davfs|ncp|9p|v9fs|afs|kafs|coda|ceph|gluster|lustre|beegfs|gpfs|orangefs"
    r"|pvfs|panfs|wekafs|ocfs2|gfs2|virtiofs|vboxsf|vmhgfs|prl_fs|drvfs|fakeowner|osxfs|grpcfuse"
    r"|fuse\.)"
)
# What runs in user space is a network or a host share, or may be one, but for these.
_LOCAL_FUSE = {"fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat", "fuse.exfat-fuse", "fuse.fuse-overlayfs"}


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        point: the folder where it is mounted.
        kind: its type as mount(8) names it, such as ext4 or nfs4; "" where it is unknown.
        source: its device or server; "" where it is unknown.
        device: its number, as in st_dev; a btrfs volume has others inside.
    """

    point: str
    kind: str
    source: str
    device: int


def mount_of(path: str) -> Mount:
    """The mount that a path lies on, which need not exist; links are followed."""
    place = os.path.realpath(path)
    if sys.platform == "linux":
        try:
            found = _innermost(_TABLE.read_bytes(), place)
        except OSError:
            found = None
        if found is not None:
            return found
    folder = Path(place)
    while not folder.is_mount() and folder != folder.parent:
        folder = folder.parent
    return Mount(str(folder), "", "", device_of_nearest(str(folder)) or 0)


def gives_events(kind: str) -> bool:
    """Whether the kernel sees all changes on a file system of this kind, whoever makes them.

    False for network file systems and shares of a host, and for all of FUSE but a few local ones:
    events for what this machine does are not enough. True for a kind that is not known.
    """
    return kind in _LOCAL_FUSE or not _SHARED.match(kind)


class MountTable:
    """Notices that something was mounted or unmounted, also where that was undone since."""

    def __init__(self) -> None:
        self._last: object = None
        self._file: io.FileIO | None = None
        self._poller: select.poll | None = None
        if sys.platform == "linux":
            try:
                self._file = io.FileIO(_TABLE)
                self._poller = select.poll()
                # The kernel flags each change since the last reading so (proc_pid_mountinfo(5)).
                self._poller.register(self._file, select.POLLPRI)
            except OSError:
                self.close()
        self._last = self._now()

    def changed(self) -> bool:
        """Whether the table was changed since the last call, or since this was made."""
        flagged = self._poller is not None and bool(self._poller.poll(0))
        last, self._last = self._last, self._now()
        return flagged or last != self._last

    def close(self) -> None:
        """Let go of the table; after that no change is noticed."""
        if self._file is not None:
            self._file.close()
        self._file = self._poller = None

    def _now(self) -> object:
        try:
            if self._file is not None:
                self._file.seek(0)
                return self._file.readall()
            if sys.platform == "linux":
                return None
            return {folder.name: folder.lstat().st_dev for folder in _VOLUMES.iterdir()}
        except OSError:
            return None


def device_of_nearest(path: str) -> int | None:
    """The st_dev of a path, or of the nearest folder above it that exists.

    None where that cannot be told: no permission, a stale handle, a broken disk.
    """
    folder = Path(os.path.abspath(path))
    try:
        while not (status := _status(folder)):
            folder = folder.parent
    except OSError:
        return None
    return status.st_dev


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _innermost(table: bytes, place: str) -> Mount | None:
    """Walk from mount to mount as the kernel does: one below a folder that another mount covers is
    in the table, and cannot be reached."""
    below: defaultdict[bytes, list[tuple[bytes, Mount]]] = defaultdict(list)
    numbers = set()
    parents = []
    for line in table.splitlines():
        head, _, tail = line.partition(b" - ")
        number, parent, device, _, point, *_ = head.split(b" ")
        kind, source, *_ = tail.split(b" ")
        major, _, minor = device.partition(b":")
        mount = Mount(
            _unescaped(point),
            _unescaped(kind),
            _unescaped(source),
            os.makedev(int(major), int(minor)),
        )
        below[parent].append((number, mount))
        numbers.add(number)
        parents.append(parent)
    found = None
    # The parent of the first is outside of what this process can see, or the first itself.
    candidates = [
        item for parent in dict.fromkeys(parents) if parent not in numbers for item in below[parent]
    ]
    while covering := [item for item in candidates if _covers(item[1].point, place)]:
        number, found = min(reversed(covering), key=lambda item: len(item[1].point))
        candidates = below[number]
    return found


def _covers(point: str, place: str) -> bool:
    return place == point or place.startswith(point.rstrip("/") + "/")


def _unescaped(field: bytes) -> str:
    """Space, tab, newline and backslash stand as octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field))
