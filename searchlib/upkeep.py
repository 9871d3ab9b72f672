"""What a library does with folders and files: adding, watching, and what comes of failures."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from searchlib import ingest
from searchlib.catalog import Catalog, EventSource, Failure, FolderRecord
from searchlib.errors import InputError
from searchlib.images import printable, thumbnail_path
from searchlib.ingest import GRACE_DAYS

if TYPE_CHECKING:
    from searchlib.current import Current
    from searchlib.ingest import Adding, Handling, Progress, Report, WatchEvent

THUMBNAILS = "thumbnails"


class Upkeep:
    """The side of a library that keeps it in step with the disk; see Library.

    Args:
        folder: of the library.
        catalog: of the library.
        current: the model in use.
        max_pixels: refuse images with more.
    """

    def __init__(self, folder: Path, catalog: Catalog, current: Current, max_pixels: int) -> None:
        self.folder = folder
        self._catalog = catalog
        self._current = current
        self._max_pixels = max_pixels

    def add(
        self,
        *paths: str | os.PathLike[str],
        workers: int | None = None,
        retry: bool = False,
        thumbnails: bool | None = None,
        background: bool = False,
        cancel: threading.Event | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Add folders and files, or bring them up to date.

        Files that the library knows and that were not touched are not read again. Files that
        cannot be used are in the report, with the reason, and do not stop the others.

        Args:
            paths: folders, which are walked, and files.
            workers: how many files are worked on at once; as many as there are processors if None.
            retry: try untouched files again that could not be used before.
            thumbnails: keep a small picture of each new image; as before in this library if None.
            background: let other threads of this process have the processors first; for a server.
            cancel: set it from another thread to stop after the files under way; all that was done
                is committed, and the report says that it was cancelled.
            on_progress: called from this thread while it runs.

        Raises:
            LibraryError: the library cannot be written; what was committed before stays.
            ModelMismatchError: the library's model is another one, or was changed meanwhile.
            EncoderError: the model cannot be used.
            InputError: an ignore file cannot be used.
        """
        with self.adding(
            *paths,
            workers=workers,
            retry=retry,
            thumbnails=thumbnails,
            background=background,
            cancel=cancel,
            on_progress=on_progress,
        ) as adding:
            for _ in adding:
                pass
        return adding.report

    def adding(
        self,
        *paths: str | os.PathLike[str],
        workers: int | None = None,
        retry: bool = False,
        thumbnails: bool | None = None,
        background: bool = False,
        cancel: threading.Event | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Adding:
        """Like `add`, file by file: iterate over it to have what became of each one.

            with library.adding("Photos") as adding:
                for result in adding:
                    print(result.outcome, result.path)
            print(adding.report.added)

        No file is looked for before the first is asked for. Leaving the block early stops, as
        `cancel` does. Files that need not be read are counted in the report alone.
        """
        now = self._current.begin()
        results = ingest.ingest(
            self._catalog,
            now.encoder,
            now.model,
            paths,
            self._handling(workers, thumbnails, background=background),
            retry=retry,
            stopped=(lambda: False) if cancel is None else cancel.is_set,
            on_progress=on_progress or (lambda _: None),
        )
        return ingest.Adding(results, at_end=now.index.save)

    def retry_failures(
        self,
        *paths: str | os.PathLike[str],
        workers: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Try the files again that failed, all of them or those at and below some paths.

        Args:
            paths: files, and folders with all below.
            workers, on_progress: as for `add`.

        Raises:
            LibraryError, ModelMismatchError, EncoderError: as `add`.
        """
        failed = [failure.path for failure in self.failures(*paths)]
        if not failed:
            return ingest.Report()
        self._catalog.places.try_again(failed)
        return self.add(*failed, workers=workers, on_progress=on_progress)

    def failures(self, *paths: str | os.PathLike[str]) -> list[Failure]:
        """The files whose last try failed and why, by path: all, or those at and below paths."""
        roots = [ingest.absolute(path) for path in paths]
        found = self._catalog.places.failures()
        return [each for each in found if not roots or ingest.is_below(each.path, roots)]

    def purge(self, *, older_than_days: float = 0.0) -> int:
        """Give up files that are missing, and images with their last one; says how many files.

        Images whose last file was edited go as well.

        Args:
            older_than_days: only what is missing for longer; the grace time ends for the others.

        Raises:
            LibraryError: the library cannot be written.
        """
        return ingest.purge(
            self._catalog,
            self.folder / THUMBNAILS,
            older_than_days=older_than_days,
            thorough=True,
        )

    def folders(self) -> list[FolderRecord]:
        """The folders that were added or registered, by path, with their rules."""
        return self._catalog.folders.all()

    def register(
        self,
        folder: str | os.PathLike[str],
        *,
        recursive: bool = True,
        follow_links: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        marker: str | None = None,
        events: EventSource = "auto",
    ) -> FolderRecord:
        """Have a folder watched from now on, by these rules in place of older ones.

        Args:
            folder: it need not be there now.
            recursive: with all folders below.
            follow_links: also where links to folders lead.
            include: patterns as in a `.gitignore`; where there are any, only what they name counts.
            exclude: patterns of what is left out.
            marker: the name of a file that lies in it whenever its drive is mounted; without it
                nothing there is believed to be new or gone.
            events: "auto" asks the file system whether it tells of changes; "no" scans instead,
                "yes" does not.

        Raises:
            InputError: it is a file, or a pattern means nothing.
            LibraryError: the library cannot be written.
        """
        path = ingest.absolute(folder)
        if os.path.isfile(path):  # noqa: PTH113 - a Path raises where it may not look
            raise InputError(f"{printable(path)}: is a file; name the folder that it lies in")
        record = FolderRecord(
            path, recursive, follow_links, tuple(include), tuple(exclude), marker, events, True
        )
        ingest.check_rules(record)
        return self._catalog.folders.put(record)

    def unregister(self, folder: str | os.PathLike[str]) -> bool:
        """Watch a folder no more and forget its rules; False if it was not known.

        Its files stay in the library.
        """
        return self._catalog.folders.forget(ingest.absolute(folder))

    def watch(
        self,
        *folders: str | os.PathLike[str],
        once: bool = False,
        settle: float = 1.0,
        rescan: float = 900.0,
        grace_days: float = GRACE_DAYS,
        workers: int | None = None,
        thumbnails: bool | None = None,
        background: bool = False,
        stop: threading.Event | None = None,
        on_event: Callable[[WatchEvent], None] | None = None,
    ) -> Report:
        """Keep the library in step with its registered folders, until `stop` is set.

        Args:
            folders: are registered first, with the usual rules where they were not before.
            once: compare all folders once, deal with what is found, and return.
            settle: seconds that a file must have stood still before it is read.
            rescan: seconds between two scans of everything, which find what no event told.
            grace_days: give up what is missing for longer.
            workers, thumbnails, background: as for `add`.
            stop: set it from another thread or a signal handler; what is under way is finished.
            on_event: is told what happens, by this thread.

        Returns:
            What was done; of the skipped files the last thousand.

        Raises:
            LibraryBusyError: another process watches this library; says which.
            InputError: no folder is registered.
            LibraryReadOnlyError, EncoderError: the library or the model cannot be used.
        """
        # Brings threads and watchdog with it, which a query should not pay.
        from searchlib.ingest.watch import Watcher, WatchRules

        for folder in folders:
            known = self._catalog.folders.get(ingest.absolute(folder))
            if known is None or not known.watched:
                self.register(folder)
        watcher = Watcher(
            self._catalog,
            self._current.begin,
            lambda: self._current.begin().index.save(),
            self._handling(workers, thumbnails, background=background),
            WatchRules(settle=settle, rescan=rescan, grace_days=grace_days),
            stop=stop or threading.Event(),
            on_event=on_event or (lambda _: None),
        )
        return watcher.run(once=once)

    def thumbnail(self, digest: str) -> Path | None:
        """The small picture of an image, WebP of up to 256 pixels a side; None if there is none.

        Args:
            digest: 64 hex digits, as ImageRecord.digest.

        Raises:
            InputError: it is no digest.
        """
        try:
            path = thumbnail_path(self.folder / THUMBNAILS, bytes.fromhex(digest))
        except ValueError as error:
            raise InputError(f"{digest!r} is no digest; give the 64 hex digits of one") from error
        return path if path.is_file() else None

    def _handling(
        self, workers: int | None, thumbnails: bool | None, *, background: bool
    ) -> Handling:
        folder = self.folder / THUMBNAILS
        if thumbnails is None:
            thumbnails = folder.is_dir()
        if thumbnails and self._catalog.database.writable:
            folder.mkdir(exist_ok=True)
        return ingest.Handling(
            workers or ingest.processors(),
            self._max_pixels,
            folder if thumbnails else None,
            background=background,
        )
