"""From hints to files: paths that something happened to, until they stand still and are judged."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator

from searchlib.catalog import UNKNOWN_STAT, Catalog, FolderRecord, ModelRecord, SkippedFile
from searchlib.images import is_image_name, kind_of, stack_key
from searchlib.ingest.absent import is_below, is_marked
from searchlib.ingest.compare import Comparison
from searchlib.ingest.ignore import IGNORE_FILE
from searchlib.ingest.place import gone_from
from searchlib.ingest.settle import Settled, Settler, being_written
from searchlib.ingest.walk import Found, is_in_scope

logger = logging.getLogger(__name__)

# So many are looked at at the same time; the others wait in the catalog.
_WINDOW = 4096

_STILL_EXTENSIONS = (".jpg", ".jpeg", ".heic", ".heif")


class Hints:
    """The list of dirty paths, and the settle stage behind it.

    Args:
        catalog: keeps the list.
        settle: how many seconds a file must have stood still.
        patience: after so many seconds a file that does not is reported.
    """

    def __init__(self, catalog: Catalog, *, settle: float, patience: float) -> None:
        self.news = threading.Event()
        self._catalog = catalog
        self._settle = settle
        self._patience = patience
        self._settler = Settler(seconds=settle, patience=patience)
        self._mark = 0

    def __len__(self) -> int:
        """How many paths are being looked at."""
        return len(self._settler)

    def note(self, paths: Collection[str]) -> None:
        """Put paths on the list; any thread may."""
        self._catalog.dirty.note(paths)
        self.news.set()

    def is_fresh(self, found: Found) -> bool:
        """Whether a file that a scan found may still be in the making, and should settle first."""
        age = time.time() - found.stat.mtime_ns / 1e9
        # A time to come is a clock that was set back, and says nothing.
        return age < self._settle or being_written(found.path)

    def take(self, limit: int) -> list[Settled]:
        """Some paths that stand still now."""
        room = _WINDOW - len(self._settler)
        if room > 0:
            for mark, path in self._catalog.dirty.after(self._mark, limit=room):
                self._mark = mark
                self._settler.note(path, mark)
        return self._settler.take(limit)

    def report_late(self, model: ModelRecord) -> list[str]:
        """Remember as failed what does not come to rest, to be tried later; gives the paths."""
        late = self._settler.late()
        if late:
            words = f"was still being written after {self._patience:.0f} s"
            files = [
                SkippedFile(each.path, UNKNOWN_STAT, None, words, "access")
                for each in late
                if is_image_name(each.path)
            ]
            self._catalog.record(model, files, gone=gone_from)
            self.done(late)
        return [each.path for each in late]

    def start_again(self) -> None:
        """Look anew at all that is on the list: what was taken may not have been dealt with."""
        self._mark = 0

    def done(self, settled: Iterable[Settled]) -> None:
        """Take paths off the list."""
        self._catalog.dirty.take_off(each.mark for each in settled)

    def pause(self) -> float | None:
        """For how many seconds nothing can stand still yet; None where nothing waits."""
        due = self._settler.next_due()
        return None if due is None else max(0.0, due - time.monotonic())


def judge(
    settled: Settled, comparison: Comparison, folders: Collection[FolderRecord]
) -> Iterator[Found]:
    """What has to be read because of one path that stands still.

    Args:
        settled: the path.
        comparison: judges it against the catalog.
        folders: that are watched.

    Raises:
        InputError: an ignore file or a pattern cannot be used.
        LibraryError: the catalog cannot be read or written.
    """
    path = settled.path
    if comparison.is_own(path):
        return
    owners = [folder for folder in folders if is_below(path, [folder.path])]
    if not owners or not all(is_marked(folder) for folder in owners):
        return
    owners.sort(key=lambda folder: len(folder.path), reverse=True)
    if os.path.basename(path) == IGNORE_FILE:
        for folder in owners:
            yield from comparison.folder(folder, start=os.path.dirname(path))
    elif settled.look.kind == "folder":
        for folder in owners:
            if is_in_scope(folder, path, is_folder=True):
                yield from comparison.folder(folder, start=path)
    else:
        if settled.look.kind == "gone":
            comparison.lost(path)
        for each in (path, *_stills_of(path)):
            owner = next((o for o in owners if is_in_scope(o, each, is_folder=False)), None)
            if owner is not None and os.path.lexists(each):
                yield from comparison.file(each, owner.path)


def _stills_of(path: str) -> list[str]:
    """The still pictures that may be live photos with this video."""
    if kind_of(path) != "video":
        return []
    key = stack_key(path)
    names = [key + end for extension in _STILL_EXTENSIONS for end in (extension, extension.upper())]
    return [name for name in names if os.path.lexists(name)]
