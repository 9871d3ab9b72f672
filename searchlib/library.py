"""Library: opens the parts and hands work from one to the next."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from searchlib.catalog import Catalog, EventSource, Failure, FolderRecord
from searchlib.current import Current
from searchlib.encoder import ImageEncoder, ModelCard
from searchlib.errors import InputError
from searchlib.images import (
    DEFAULT_MAX_PIXELS,
    OWN_POLICY,
    FetchPolicy,
    Source,
    printable,
    thumbnail_path,
)
from searchlib.ingest import (
    GRACE_DAYS,
    Adding,
    Handling,
    ModelChange,
    Progress,
    Report,
    Skipped,
    WatchEvent,
    change_model,
    check_rules,
    ingest,
    is_below,
    processors,
    purge,
)
from searchlib.search import Match, nearest, query_vector
from searchlib.status import Status, status_of

if TYPE_CHECKING:
    from searchlib.exchange import ExportReport, ImportReport, VectorProgress

ENVIRONMENT = "SEARCHLIB_LIBRARY"
THUMBNAILS = "thumbnails"


class Library:
    """A library of images, from `open_library`; may be used from many threads."""

    def __init__(
        self,
        folder: Path,
        *,
        create: bool = True,
        encoder: ImageEncoder | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        fetch_policy: FetchPolicy = OWN_POLICY,
    ) -> None:
        self.folder = folder
        self._max_pixels = max_pixels
        self._fetch_policy = fetch_policy
        self._catalog = Catalog(folder, create=create)
        self._current = Current(self._catalog, encoder)
        self._changing = threading.Lock()

    def close(self) -> None:
        """Close the library; calling it twice does no harm."""
        self._catalog.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def encoder(self) -> ImageEncoder:
        """The encoder that was given, else that of the model in use.

        Raises:
            ModelMismatchError: no card of the model in use is known here.
        """
        return self._current.encoder()

    def add(
        self,
        *paths: str | os.PathLike[str],
        workers: int | None = None,
        retry: bool = False,
        thumbnails: bool | None = None,
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
        cancel: threading.Event | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Adding:
        """Like `add`, file by file: iterate over it to have what became of each one.

            with library.adding("Photos") as adding:
                for result in adding:
                    print(result.outcome, result.path)
            print(adding.report.added)

        Nothing happens before the first file is asked for. Leaving the block early stops, as
        `cancel` does. Files that need not be read are counted in the report alone.
        """
        now = self._current.begin()
        results = ingest(
            self._catalog,
            now.encoder,
            now.model,
            paths,
            self._handling(workers, thumbnails),
            retry=retry,
            stopped=(lambda: False) if cancel is None else cancel.is_set,
            on_progress=on_progress or (lambda _: None),
        )
        return Adding(results, at_end=now.index.save)

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
            return Report()
        self._catalog.places.try_again(failed)
        return self.add(*failed, workers=workers, on_progress=on_progress)

    def failures(self, *paths: str | os.PathLike[str]) -> list[Failure]:
        """The files whose last try failed and why, by path: all, or those at and below paths."""
        roots = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - links keep their names
        found = self._catalog.places.failures()
        return [each for each in found if not roots or is_below(each.path, roots)]

    def purge(self, *, older_than_days: float = 0.0) -> int:
        """Give up files that are missing, and images with their last one; says how many files.

        Args:
            older_than_days: only what is missing for longer; the grace time ends for the others.

        Raises:
            LibraryError: the library cannot be written.
        """
        return purge(self._catalog, self.folder / THUMBNAILS, older_than_days=older_than_days)

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
        path = os.path.abspath(folder)  # noqa: PTH100 - links keep their names
        if os.path.isfile(path):  # noqa: PTH113 - a Path raises where it may not look
            raise InputError(f"{printable(path)}: is a file; name the folder that it lies in")
        record = FolderRecord(
            path, recursive, follow_links, tuple(include), tuple(exclude), marker, events, True
        )
        check_rules(record)
        return self._catalog.folders.put(record)

    def unregister(self, folder: str | os.PathLike[str]) -> bool:
        """Watch a folder no more and forget its rules; False if it was not known.

        Its files stay in the library.
        """
        return self._catalog.folders.forget(os.path.abspath(folder))  # noqa: PTH100 - as above

    def watch(
        self,
        *folders: str | os.PathLike[str],
        once: bool = False,
        settle: float = 1.0,
        rescan: float = 900.0,
        grace_days: float = GRACE_DAYS,
        workers: int | None = None,
        thumbnails: bool | None = None,
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
            workers, thumbnails: as for `add`.
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
            known = self._catalog.folders.get(os.path.abspath(folder))  # noqa: PTH100 - as above
            if known is None or not known.watched:
                self.register(folder)
        watcher = Watcher(
            self._catalog,
            self._current.begin,
            lambda: self._current.begin().index.save(),
            self._handling(workers, thumbnails),
            WatchRules(settle=settle, rescan=rescan, grace_days=grace_days),
            stop=stop or threading.Event(),
            on_event=on_event or (lambda _: None),
        )
        return watcher.run(once=once)

    def thumbnail(self, digest: str) -> Path | None:
        """The small picture of an image, WebP of up to 256 pixels a side; None if there is none.

        Args:
            digest: 64 hex digits, as ImageRecord.digest.
        """
        path = thumbnail_path(self.folder / THUMBNAILS, bytes.fromhex(digest))
        return path if path.is_file() else None

    def _handling(self, workers: int | None, thumbnails: bool | None) -> Handling:
        folder = self.folder / THUMBNAILS
        if thumbnails is None:
            thumbnails = folder.is_dir()
        if thumbnails and self._catalog.database.writable:
            folder.mkdir(exist_ok=True)
        return Handling(workers or processors(), self._max_pixels, folder if thumbnails else None)

    def use_model(
        self,
        card: ModelCard,
        *,
        workers: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> ModelChange:
        """Embed all images with another model, and then use that one.

        Until all are embedded the library goes on with the model that it has: it can be searched
        and added to by other threads and processes. Interrupt it as you like: the next run embeds
        only what is missing. The vectors of the old model are kept, so that the way back is short.
        Images that cannot be embedded are in the report, with the reason; the next `add` of their
        files tries again.

        Args:
            card: of the new model.
            workers: how many images are worked on at once; as many as there are processors if None.
            on_progress: called from this thread while it runs.

        Raises:
            EncoderError: the model cannot be used.
            LibraryBusyError: the model of this library is being changed already.
            LibraryError: no image can be embedded, or the library cannot be written. The old model
                stays in use.
        """
        with self._changing, self._current.change_to(card) as coming:
            return change_model(
                self._catalog,
                coming.encoder,
                coming.model,
                before_switch=coming.index.refresh,
                workers=workers,
                max_pixels=self._max_pixels,
                on_progress=on_progress,
            )

    def search(self, image: Source, *, k: int = 10) -> list[Match]:
        """The images nearest to an image, best first.

        Args:
            image: a path, a file URI, an http(s) URL, a data URI, base64, encoded bytes, a Pillow
                image, or an array uint8 [height, width, 3].
            k: how many at most.

        Raises:
            ImageError: the image cannot be used.
            InputError: `k` is below 1.
            LibraryError, EncoderError: the library or the model cannot be used.
        """
        now = self._current.get()
        if now is None:
            return []
        vector = query_vector(
            image,
            self._catalog,
            now.encoder,
            now.model,
            max_pixels=self._max_pixels,
            policy=self._fetch_policy,
        )
        return nearest(vector, self._catalog, now.index, k)

    def import_vectors(
        self,
        path: str | os.PathLike[str],
        *,
        model: str | None = None,
        root: str | os.PathLike[str] | None = None,
        verify: int = 16,
        warn_below: float = 0.99,
        on_progress: Callable[[VectorProgress], None] | None = None,
    ) -> ImportReport:
        """Take over vectors that the library's model made elsewhere, without embedding again.

        All rows are checked before the first is stored. An image that has a vector keeps it, and
        the cosine of both is in the report, so that the vectors of a phone are compared with those
        of this machine. Importing again changes nothing, and finishes what was interrupted.

        Args:
            path: a .npy with its .jsonl, a .parquet or a .jsonl file; `searchlib.exchange.formats`
                describes them.
            model: name or identity of the model that made the vectors, where the file does not say.
            root: the folder that relative paths in the file are below; the file's own if None.
            verify: embed so many of the new pictures, and refuse the file if its vectors are not
                like these; 0 refuses nothing and does not need the model's file.
            warn_below: rows whose cosine is lower are listed in the report.
            on_progress: called from this thread while it runs.

        Raises:
            VectorFileError: the file cannot be used; says which row, and nothing was stored.
            ModelMismatchError: the vectors are of another model than the library's.
            EncoderError: the model cannot be used to verify, or there is none of this name.
            LibraryError: the library cannot be written; what was committed before stays.
        """
        # A query should not pay for what it never uses.
        from searchlib.exchange import Target, import_vectors

        def identity_of(name: str) -> str:
            from searchlib.encoder import registry

            return registry.find(name).identity

        now = self._current.get()
        encoder = self._current.first_encoder() if now is None else now.encoder
        report = import_vectors(
            self._catalog,
            None if now is None else now.model,
            encoder,
            Target(encoder.card.name, encoder.identity, encoder.dimension),
            Path(path),
            begin=lambda: self._current.begin_with(encoder),
            identity_of=identity_of,
            max_pixels=self._max_pixels,
            model=model,
            root=None if root is None else Path(root),
            verify=verify,
            warn_below=warn_below,
            on_progress=on_progress,
        )
        if report.stored:
            self._current.begin().index.refresh()
        return report

    def export_vectors(
        self,
        path: str | os.PathLike[str],
        *,
        include_missing: bool = False,
        on_progress: Callable[[VectorProgress], None] | None = None,
    ) -> ExportReport:
        """Write the vectors of the model in use to a file, for another program or library.

        Args:
            path: its end tells the format: .npy (which gets a .jsonl beside it), .parquet or
                .jsonl; `searchlib.exchange.formats` describes them. What is there is replaced.
            include_missing: also vectors of images that have no file in place.
            on_progress: called from this thread while it runs.

        Raises:
            VectorFileError: the file cannot be written; what was there stays.
            LibraryError: the library cannot be read.
        """
        from searchlib.exchange import Target, export_vectors

        model = self._catalog.model()
        if model is None:
            card = self._current.first_card()
            target = Target(card.name, card.identity, card.dimension)
        else:
            target = Target(model.name, model.identity, model.dimension)
        return export_vectors(
            self._catalog,
            model,
            target,
            Path(path),
            include_missing=include_missing,
            on_progress=on_progress,
        )

    def status(self) -> Status:
        """What is in the library."""
        return status_of(self._catalog, self.folder, self._current.first_card())

    def skipped(self) -> list[Skipped]:
        """The files that could not be used and were not touched since, by path."""
        return [Skipped(failure.path, failure.reason) for failure in self.failures()]


def default_folder() -> Path:
    """The library's folder where none is named: $SEARCHLIB_LIBRARY, else the user's data folder."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("searchlib", appauthor=False))


def open_library(
    path: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    encoder: ImageEncoder | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    fetch_policy: FetchPolicy = OWN_POLICY,
) -> Library:
    """Open a library, or make an empty one.

    Args:
        path: its folder; see `default_folder` for what counts if there is none.
        create: make it where it is missing.
        encoder: the model; if there is none, that of the library's vectors, and in an empty library
            the one that comes with the package.
        max_pixels: refuse images with more.
        fetch_policy: what may be fetched where a query is a URL; a server that takes URLs from
            others forbids private addresses.

    Raises:
        LibraryError: the library cannot be opened; see the errors for the reasons.
    """
    folder = default_folder() if path is None else Path(path)
    return Library(
        folder,
        create=create,
        encoder=encoder,
        max_pixels=max_pixels,
        fetch_policy=fetch_policy,
    )
