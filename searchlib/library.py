"""Library: opens the parts and hands work from one to the next."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from types import TracebackType

from searchlib.catalog import Catalog, ModelRecord
from searchlib.encoder import ImageEncoder
from searchlib.images import DEFAULT_MAX_PIXELS, Source
from searchlib.ingest import Progress, Report, Skipped, ingest
from searchlib.search import LiveIndex, Match, nearest, query_vector

ENVIRONMENT = "SEARCHLIB_LIBRARY"


@dataclass(frozen=True, slots=True)
class Status:
    """What is in a library.

    Attributes:
        folder: where the library lies.
        model, identity, dimension: the encoder of its vectors.
        images: distinct pictures with at least one file in place.
        files: places where these lie.
        missing: files that were there once.
        skipped: files that could not be used.
        folders: that were added as a whole.
        recipe: of the index.
        vectors: in the index.
        catalog_bytes, index_bytes: on disk.
        last_change: when a file was last read or found missing; None in an empty library.
    """

    folder: Path
    model: str
    identity: str
    dimension: int
    images: int
    files: int
    missing: int
    skipped: int
    folders: int
    recipe: str
    vectors: int
    catalog_bytes: int
    index_bytes: int
    last_change: datetime | None


class Library:
    """A library of images, from `open_library`; may be used from many threads."""

    def __init__(
        self,
        folder: Path,
        *,
        create: bool = True,
        encoder: ImageEncoder | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self.folder = folder
        self.encoder = encoder or ImageEncoder()
        self._max_pixels = max_pixels
        self._catalog = Catalog(folder, create=create)

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

    @cached_property
    def _model(self) -> ModelRecord:
        return self._catalog.use_model(
            identity=self.encoder.identity,
            name=self.encoder.card.name,
            dimension=self.encoder.dimension,
        )

    @cached_property
    def _index(self) -> LiveIndex:
        return LiveIndex(self._catalog, self._model, self.folder)

    def add(
        self,
        *paths: str | os.PathLike[str],
        workers: int | None = None,
        retry: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Add folders and files, or bring them up to date.

        Files that the library knows and that were not touched are not read again. Files that
        cannot be used are in the report, with the reason, and do not stop the others.

        Args:
            paths: folders, which are walked, and files.
            workers: how many files are worked on at once; as many as there are processors if None.
            retry: try untouched files again that could not be used before.
            on_progress: called from this thread while it runs.

        Raises:
            LibraryError: the library cannot be written; what was committed before stays.
            EncoderError: the model cannot be used.
            InputError: an ignore file cannot be used.
        """
        report = ingest(
            self._catalog,
            self.encoder,
            self._model,
            paths,
            workers=workers,
            max_pixels=self._max_pixels,
            retry=retry,
            on_progress=on_progress,
        )
        self._index.refresh()
        return report

    def search(self, image: Source, *, k: int = 10) -> list[Match]:
        """The images nearest to an image, best first.

        Args:
            image: a path, a file URI, encoded bytes, a Pillow image, or an array uint8
                [height, width, 3].
            k: how many at most.

        Raises:
            ImageError: the image cannot be used.
            InputError: `k` is below 1.
            LibraryError, EncoderError: the library or the model cannot be used.
        """
        if self._catalog.model() is None:
            return []
        vector = query_vector(
            image, self._catalog, self.encoder, self._model, max_pixels=self._max_pixels
        )
        return nearest(vector, self._catalog, self._index, k)

    def status(self) -> Status:
        """What is in the library."""
        model = self._catalog.model()
        counts = self._catalog.counts(model)
        card = self.encoder.card
        files = [path for path in self.folder.iterdir() if path.is_file()]
        index_bytes = sum(path.stat().st_size for path in files if path.suffix == ".ckpt")
        catalog_bytes = sum(
            path.stat().st_size for path in files if path.name in ("catalog.db", "catalog.db-wal")
        )
        return Status(
            folder=self.folder,
            model=model.name if model else card.name,
            identity=model.identity if model else card.identity,
            dimension=model.dimension if model else card.dimension,
            images=counts.images,
            files=counts.files_present,
            missing=counts.files_missing,
            skipped=counts.files_skipped,
            folders=counts.folders,
            recipe="exact",
            vectors=counts.vectors,
            catalog_bytes=catalog_bytes,
            index_bytes=index_bytes,
            last_change=None if counts.last_change is None else self._moment(counts.last_change),
        )

    def _moment(self, seconds: float) -> datetime:
        try:
            return datetime.fromtimestamp(seconds, timezone.utc)
        except (OverflowError, OSError, ValueError) as error:
            raise self._catalog.database.damaged("a time that never was") from error

    def skipped(self) -> list[Skipped]:
        """The files that could not be used and were not touched since, by path."""
        return [Skipped(path, reason) for path, reason in self._catalog.skipped()]


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
) -> Library:
    """Open a library, or make an empty one.

    Args:
        path: its folder; see `default_folder` for what counts if there is none.
        create: make it where it is missing.
        encoder: the model; the one that comes with the package if there is none.
        max_pixels: refuse images with more.

    Raises:
        LibraryError: the library cannot be opened; see the errors for the reasons.
    """
    folder = default_folder() if path is None else Path(path)
    return Library(folder, create=create, encoder=encoder, max_pixels=max_pixels)
