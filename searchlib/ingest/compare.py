"""The disk as it is against the catalog as it was.

Both are read in the order of the paths' bytes, side by side, so that neither has to be held in
memory: what is only on the disk is new, what is only in the catalog is absent, and the rest is
compared.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from searchlib.catalog import (
    UNKNOWN_STAT,
    Catalog,
    FolderRecord,
    KnownFile,
    ModelRecord,
    SkippedFile,
    Stat,
)
from searchlib.images import live_video
from searchlib.ingest.absent import Absent, is_below, is_marked
from searchlib.ingest.place import gone, gone_from, is_spelled_so, stat_at
from searchlib.ingest.report import Report
from searchlib.ingest.walk import DEAD_LINK, Found, Unlisted, is_in_scope, walk

logger = logging.getLogger(__name__)

_PAGE = 2000
_TELL_EVERY = 500
_WRITE_EVERY = 1000


class Comparison:
    """Compares folders and files with the catalog, and notes what needs no reading.

    Args:
        catalog: of the library.
        model: that every image should have a vector of.
        report: counts what is untouched, and what cannot be used.
        retry: read untouched files again that could not be used before.
        on_found: told how many files were found, now and then.
        leave_out: absolute paths of folders that are none of the user's.
        overlapping: whether files can be met twice, in folders inside one another.
        stopped: asked for each file whether to stop.
    """

    def __init__(
        self,
        catalog: Catalog,
        model: ModelRecord,
        report: Report,
        *,
        retry: bool = False,
        on_found: Callable[[int], None] = lambda _: None,
        leave_out: Collection[str] = (),
        overlapping: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.absent = Absent(catalog)
        self.found = 0
        self._catalog = catalog
        self._model = model
        self._report = report
        self._retry = retry
        self._on_found = on_found
        self._leave_out = leave_out
        self._stopped = stopped
        self._met: set[str] | None = set() if overlapping else None
        self._folder_id: int | None = None
        self._returned: list[int] = []
        self._videos: list[tuple[int, str | None]] = []
        self._stats: list[tuple[int, Stat]] = []
        self._unusable: list[SkippedFile] = []

    def folder(self, folder: FolderRecord, *, start: str | None = None) -> Iterator[Found]:
        """The files of a folder that have to be read.

        Args:
            folder: with its rules.
            start: compare only what lies at or below this folder in it.

        Raises:
            InputError: an ignore file or a pattern cannot be used.
            LibraryError: the catalog cannot be read or written.
        """
        unlisted: list[str] = []
        self._folder_id = folder.id
        known = self._known(folder.path if start is None else start)
        ahead = next(known, None)
        for item in walk(folder, start=start, leave_out=self._leave_out):
            if self._stopped():
                return
            key = os.fsencode(item.path)
            while ahead is not None and os.fsencode(ahead.path) < key:
                self._only_known(ahead, folder, unlisted)
                ahead = next(known, None)
            match = None
            if ahead is not None and ahead.path == item.path:
                match, ahead = ahead, next(known, None)
            self.absent.keep(item.path)
            if self._was_met(item.path):
                continue
            if isinstance(item, Unlisted):
                if not item.is_file:
                    unlisted.append(os.path.join(item.path, ""))
                if match is not None and gone(item.path):
                    self.absent.add(match)  # a link that leads nowhere any more
                else:
                    self._cannot_look(item, match, folder)
                continue
            self._count()
            self.absent.is_alive(folder.path)
            if self._has_to_be_read(item, match):
                yield self._as_it_failed(item, match)
        while ahead is not None:
            self._only_known(ahead, folder, unlisted)
            ahead = next(known, None)
        self.flush()

    def is_own(self, path: str) -> bool:
        """Whether a path belongs to the library itself."""
        return is_below(path, self._leave_out)

    def whole(self, folder: FolderRecord) -> Iterator[Found]:
        """The files of a folder that have to be read; none where its drive is not mounted.

        Raises:
            InputError, LibraryError: as `folder`.
        """
        if is_marked(folder) and not gone(folder.path):
            yield from self.folder(folder)
        else:
            self.lost(folder.path)
            if not is_marked(folder):
                reason = f"its marker {folder.marker} is not there, so nothing was looked for"
                self._report.skip(folder.path, reason)

    def file(self, path: str, folder: str | None = None) -> Iterator[Found]:
        """One file, if it has to be read; `folder` is the added one that it belongs to."""
        if self._was_met(path):
            return
        owner = None if folder is None else self._catalog.folders.get(folder)
        self._folder_id = None if owner is None else owner.id
        try:
            video = live_video(path, _NamesBeside(path))
            found = Found(path, stat_at(path), folder, video)
        except (OSError, ValueError) as error:
            self._no_file(path, error)
            return
        known = self._catalog.places.known(path, self._model, limit=1).get(path)
        if not is_spelled_so(path):
            if known is not None:
                self.absent.add_left_out(known)
            return
        self._count()
        if self._has_to_be_read(found, known):
            yield self._as_it_failed(found, known)
        self.flush()

    def lost(self, path: str) -> None:
        """Note what is gone with a file or folder.

        Raises:
            LibraryError: the catalog cannot be read.
        """
        for known in self._known(path):
            if not known.is_given_up and gone(known.path):
                self.absent.add(known)

    def _no_file(self, path: str, error: OSError | ValueError) -> None:
        if gone(path):
            before = len(self.absent)
            self.lost(path)
            if len(self.absent) > before:
                return
            if not os.path.islink(path):
                self._report.skip(path, "there is no such file or folder")
            else:
                self._cannot_look(Unlisted(path, DEAD_LINK), None, None)
                self.flush()
            return
        if isinstance(error, OSError):
            known = self._catalog.places.known(path, self._model, limit=1).get(path)
            self._cannot_look(Unlisted(path, f"cannot be read: {error.strerror}"), known, None)
            self.flush()
        else:  # a NUL in the name, which no file can have
            self._report.skip(path, f"cannot be read: {error}")

    def _known(self, root: str) -> Iterator[KnownFile]:
        after: str | None = None
        while True:
            page = self._catalog.places.known(root, self._model, after=after, limit=_PAGE)
            yield from page.values()
            if len(page) < _PAGE:
                return
            after = next(reversed(page))

    def _was_met(self, path: str) -> bool:
        if self._met is None:
            return False
        met = path in self._met
        self._met.add(path)
        return met

    def _count(self) -> None:
        self.found += 1
        if self.found % _TELL_EVERY == 0:
            self._on_found(self.found)

    def _has_to_be_read(self, found: Found, known: KnownFile | None) -> bool:
        if known is None or not found.stat.is_untouched(known.stat):
            return True
        if known.failure is not None:
            due = known.next_try is not None
            if self._retry or due or known.failure == "access":
                return True
            self._report.skip(found.path, known.reason or "")
            return False
        if not known.embedded:
            # It was away, or could not be read, while the library changed its model.
            return True
        self._report.unchanged += 1
        if known.state != "present":
            self._returned.append(known.id)
        if known.video != found.video:
            self._videos.append((known.id, found.video))
        if found.stat != known.stat:
            self._stats.append((known.id, found.stat))
            self.absent.renumbered(known.stat.device, found.stat.device)
        if len(self._returned) + len(self._videos) + len(self._stats) >= _WRITE_EVERY:
            self.flush()
        return False

    def _as_it_failed(self, found: Found, known: KnownFile | None) -> Found:
        crashed = known is not None and known.failure == "crash"
        return replace(found, alone=True) if crashed else found

    def _cannot_look(
        self, item: Unlisted, known: KnownFile | None, folder: FolderRecord | None
    ) -> None:
        self._report.skip(item.path, item.reason)
        if item.is_file:
            stat = UNKNOWN_STAT if known is None else known.stat
            path = None if folder is None else folder.path
            self._unusable.append(SkippedFile(item.path, stat, path, item.reason, "access"))

    def _only_known(self, known: KnownFile, folder: FolderRecord, unlisted: list[str]) -> None:
        if known.is_given_up or known.path.startswith(tuple(unlisted)):
            return
        if gone(known.path) and not os.path.islink(known.path):
            self.absent.add(known)
        elif (
            known.folder_id == folder.id
            and (self._met is None or known.path not in self._met)
            and not self._is_new(known.path, folder)
        ):
            # It exists, but the folder does not count it any more: it was excluded, is a folder
            # now, or has its name in another spelling, which the file system takes for the same.
            self.absent.add_left_out(known)

    def _is_new(self, path: str, folder: FolderRecord) -> bool:
        """Whether a file came after its folder was listed, and another process has taken it in."""
        return (
            os.path.isfile(path)
            and is_in_scope(folder, path, is_folder=False)
            and is_spelled_so(path)
        )

    def flush(self) -> None:
        """Write what was noted so far."""
        places = self._catalog.places
        returned, self._returned = self._returned, []
        videos, self._videos = self._videos, []
        stats, self._stats = self._stats, []
        unusable, self._unusable = self._unusable, []
        if returned:
            places.mark_present(self._model, returned)
            # Of the folder that found it: another one may leave it out.
            places.note_folder(returned, self._folder_id)
        if videos:
            places.note_videos(videos)
        if stats:
            places.note_stats(stats)
        if unusable:
            self._catalog.record(self._model, unusable, gone=gone_from)


class _NamesBeside:
    """The names in the folder of a file, asked one at a time."""

    def __init__(self, path: str) -> None:
        self._folder = os.path.dirname(path)

    def __contains__(self, name: object) -> bool:
        return os.path.lexists(os.path.join(self._folder, str(name)))
