"""What is in a library, counted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from searchlib.catalog import Catalog, ModelVectors
from searchlib.encoder import ModelCard


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
        models: all that have vectors in it, the one in use first.
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
    models: tuple[ModelVectors, ...]


def status_of(catalog: Catalog, folder: Path, card: ModelCard) -> Status:
    """Count what is in a library.

    Args:
        catalog: of the library.
        folder: of the library.
        card: the model that an empty library would begin with.

    Raises:
        LibraryError: the catalog cannot be read.
    """
    model = catalog.model()
    counts = catalog.counts(model)
    files = [path for path in folder.iterdir() if path.is_file()]
    index_bytes = sum(path.stat().st_size for path in files if path.suffix == ".ckpt")
    catalog_bytes = sum(
        path.stat().st_size for path in files if path.name in ("catalog.db", "catalog.db-wal")
    )
    return Status(
        folder=folder,
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
        last_change=_moment(catalog, counts.last_change),
        models=counts.models,
    )


def _moment(catalog: Catalog, seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError) as error:
        raise catalog.database.damaged("a time that never was") from error
