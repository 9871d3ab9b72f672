"""Files that are not where the catalog has them: missing, or on a drive that is not mounted.

A delete is believed only where the file's own file system is there and the file is gone at a second
look. Which file system that was tells its device number. Where the nearest folder above a file lies
on another device than the file did, the drive is not mounted, and the file is offline; unless files
beside it were found untouched under that other number, for a drive can get a new one each time. So
is a file offline that a link leads to no more.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable

from searchlib.catalog import Catalog, FolderRecord, KnownFile
from searchlib.ingest.place import gone, nearest_device

logger = logging.getLogger(__name__)


class Absent:
    """Collects files that are not where the catalog has them, and judges them at the end.

    Args:
        catalog: of the library.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._places: dict[str, KnownFile] = {}
        self._alive: set[str] = set()
        self._left_out: set[str] = set()
        self._renumbered: set[tuple[int | None, int | None]] = set()

    def __len__(self) -> int:
        return len(self._places) + len(self._left_out)

    def add(self, known: KnownFile) -> None:
        """A known file that nothing was found of."""
        self._places[known.path] = known

    def add_left_out(self, known: KnownFile) -> None:
        """A known file that lies where no rule wants it any more."""
        self._left_out.add(known.path)

    def keep(self, path: str) -> None:
        """Another folder has found a file that one leaves out."""
        self._left_out.discard(path)

    def is_alive(self, folder: str) -> None:
        """Something was found in an added folder."""
        self._alive.add(folder)

    def renumbered(self, old: int | None, new: int | None) -> None:
        """An untouched file was found on a device of another number."""
        self._renumbered.add((old, new))

    def resolve(self, folders: Iterable[FolderRecord]) -> tuple[int, dict[str, int]]:
        """Look a second time, and mark what is missing and what is offline.

        Args:
            folders: that were compared; one whose marker is not there is not mounted.

        Returns:
            How many files are newly missing; how many are offline, by folder.

        Raises:
            LibraryError: the catalog cannot be written.
        """
        unmounted = [folder.path for folder in folders if not is_marked(folder)]
        devices: dict[str, int | None] = {}
        missing = list(self._left_out)
        offline: list[KnownFile] = []
        for path, known in self._places.items():
            if not gone(path):
                continue
            above = path[: path.rindex(os.sep)]
            if above not in devices:
                devices[above] = nearest_device(path)
            # What a link led to may lie on a drive that is away; the link itself is there.
            away = os.path.islink(path) or not self._is_there(known, devices[above])
            if away or is_below(path, unmounted):
                offline.append(known)
            else:
                missing.append(path)
        count = self._catalog.places.mark_missing(missing)
        if offline:
            lost = [k.path for k in offline if k.state != "offline" or k.failure is not None]
            self._catalog.places.mark_offline(lost)
        roots = sorted((folder.path for folder in folders), key=len, reverse=True)
        where = Counter(
            next((root for root in roots if is_below(known.path, [root])), known.path)
            for known in offline
        )
        self._places, self._left_out = {}, set()
        return count, dict(where)

    def _is_there(self, known: KnownFile, now: int | None) -> bool:
        """Whether the device that a file lay on is the one that its folder lies on now."""
        before = known.stat.device
        if before is None:
            # Kept before devices were, or it could not even be asked. An empty folder may be the
            # place of a drive that is away.
            return known.state == "skipped" or is_below(known.path, self._alive)
        return now is not None and (before == now or (before, now) in self._renumbered)


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of some folders or lies below one."""
    return any(path == folder or path.startswith(os.path.join(folder, "")) for folder in folders)


def is_marked(folder: FolderRecord) -> bool:
    """Whether a folder's marker is in its place; a folder without one needs none."""
    return folder.marker is None or not gone(os.path.join(folder.path, folder.marker))


def offline_words(count: int) -> str:
    """What is said of a folder whose drive is not mounted."""
    files = "1 file" if count == 1 else f"{count} files"
    return f"its drive is not mounted: {files} stay in the library as offline"
