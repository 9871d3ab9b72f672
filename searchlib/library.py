"""Library: opens the parts and hands work from one to the next."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from searchlib import ingest
from searchlib.asking import Asking
from searchlib.catalog import Catalog
from searchlib.current import Current
from searchlib.images import (
    DEFAULT_MAX_PIXELS,
    OWN_POLICY,
    FetchPolicy,
)
from searchlib.indexing import Indexing
from searchlib.upkeep import Upkeep

if TYPE_CHECKING:
    from searchlib.encoder import ImageEncoder, ModelCard
    from searchlib.exchange import ExportReport, ImportReport, VectorProgress
    from searchlib.ingest import ModelChange, Progress, Skipped
    from searchlib.status import Status

ENVIRONMENT = "SEARCHLIB_LIBRARY"


class Library(Upkeep, Indexing, Asking):
    """A library of images, from `open_library`; may be used from many threads."""

    def __init__(
        self,
        folder: Path,
        *,
        create: bool = True,
        encoder: ImageEncoder | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_query_pixels: int | None = None,
        fetch_policy: FetchPolicy = OWN_POLICY,
        background: bool = True,
        database: str | None = None,
    ) -> None:
        catalog = Catalog(folder, create=create, url=database)
        current = Current(catalog, encoder, background=background)
        super().__init__(folder, catalog, current, max_pixels)
        self._max_query_pixels = max_pixels if max_query_pixels is None else max_query_pixels
        self._fetch_policy = fetch_policy
        self._answering = None
        self._answering_lock = threading.Lock()
        self._changing = threading.Lock()

    def close(self) -> None:
        """Close the library; calling it twice does no harm."""
        self._current.close()
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
    def max_query_pixels(self) -> int:
        """Images of questions with more are refused."""
        return self._max_query_pixels

    @property
    def encoder(self) -> ImageEncoder:
        """The encoder that was given, else that of the model in use.

        Raises:
            ModelMismatchError: no card of the model in use is known here.
        """
        return self._current.encoder()

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
            return ingest.change_model(
                self._catalog,
                coming.encoder,
                coming.model,
                before_switch=coming.index.refresh,
                workers=workers,
                max_pixels=self._max_pixels,
                on_progress=on_progress,
            )

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
        from searchlib.status import status_of

        return status_of(self._catalog, self.folder, self._current.first_card())

    def skipped(self) -> list[Skipped]:
        """The files that could not be used and were not touched since, by path."""
        return [ingest.Skipped(failure.path, failure.reason) for failure in self.failures()]


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
    max_query_pixels: int | None = None,
    fetch_policy: FetchPolicy = OWN_POLICY,
    background: bool = True,
    database: str | None = None,
) -> Library:
    """Open a library, or make an empty one.

    Args:
        path: its folder; see `default_folder` for what counts if there is none.
        create: make it where it is missing.
        encoder: the model; if there is none, that of the library's vectors, and in an empty library
            the one that comes with the package.
        max_pixels: refuse images with more.
        max_query_pixels: refuse images with more in questions; for a server, which is asked by
            others. As for all images if None.
        fetch_policy: what may be fetched where a query is a URL; a server that takes URLs from
            others forbids private addresses.
        background: build a new index in a thread of its own when the library has outgrown the one
            that it has; without it, `build_index` does that.
        database: the URL of a PostgreSQL database that holds the catalog, in place of a file in
            the folder: `postgresql://user:password@host/name`.

    Raises:
        LibraryError: the library cannot be opened; see the errors for the reasons.
    """
    folder = default_folder() if path is None else Path(path)
    return Library(
        folder,
        create=create,
        encoder=encoder,
        max_pixels=max_pixels,
        max_query_pixels=max_query_pixels,
        fetch_policy=fetch_policy,
        background=background,
        database=database,
    )
