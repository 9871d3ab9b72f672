"""What is in a library, counted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from searchlib.catalog import Catalog, Heartbeat, ModelVectors
from searchlib.encoder import ModelCard
from searchlib.ingest import is_watched
from searchlib.search import index_status


@dataclass(frozen=True, slots=True)
class Status:
    """What is in a library.

    Attributes:
        folder: where the library lies.
        model, identity, dimension: the encoder of its vectors.
        images: distinct pictures with at least one file in place.
        files: places where these lie.
        missing: files that were there once.
        offline: files on a drive that is not mounted.
        skipped: files that could not be used.
        failed: files whose last try failed; the skipped ones, and pictures that were changed since.
        queued: paths that something happened to and nobody looked at yet.
        folders: that were added as a whole.
        recipe: of the index that serves now.
        recipe_chosen: for the index; None where it is chosen by the size of the library.
        recall: the share of the ten nearest that the index was measured to find; 1 where all are
            compared, None where nobody measured it.
        recall_target: what it is to be tuned to.
        vectors: of the model in use; the index has or gets all of them.
        indexed: vectors in the files of the index; what came later is added when it is opened.
        fresh: of these, that are compared one by one.
        dead: vectors in the files of the index that do not count any more.
        build_due: whether the index should be built, by `build_index` or in the background.
        catalog_bytes, index_bytes: on disk.
        last_change: when a file was last read or found missing; None in an empty library.
        models: all that have vectors in it, the one in use first.
        watcher: what the process that watches its folders says of itself; None while nobody does.
    """

    folder: Path
    model: str
    identity: str
    dimension: int
    images: int
    files: int
    missing: int
    offline: int
    skipped: int
    failed: int
    queued: int
    folders: int
    recipe: str
    recipe_chosen: str | None
    recall: float | None
    recall_target: float
    vectors: int
    indexed: int
    fresh: int
    dead: int
    build_due: bool
    catalog_bytes: int
    index_bytes: int
    last_change: datetime | None
    models: tuple[ModelVectors, ...]
    watcher: Heartbeat | None


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
    index = index_status(catalog, model, folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    index_bytes = sum(path.stat().st_size for path in files if _is_of_index(path.name))
    return Status(
        folder=folder,
        model=model.name if model else card.name,
        identity=model.identity if model else card.identity,
        dimension=model.dimension if model else card.dimension,
        images=counts.images,
        files=counts.files_present,
        missing=counts.files_missing,
        offline=counts.files_offline,
        skipped=counts.files_skipped,
        failed=counts.files_failed,
        queued=counts.dirty,
        folders=counts.folders,
        recipe=index.recipe,
        recipe_chosen=index.choice.recipe,
        recall=index.recall,
        recall_target=index.choice.recall,
        vectors=counts.vectors,
        indexed=index.vectors,
        fresh=index.fresh,
        dead=index.dead,
        build_due=index.is_due,
        catalog_bytes=catalog.database.size(),
        index_bytes=index_bytes,
        last_change=_moment(catalog, counts.last_change),
        models=counts.models,
        watcher=catalog.pulse.last() if is_watched(folder) else None,
    )


def _is_of_index(name: str) -> bool:
    return name.startswith("index-") and name.endswith((".ckpt", ".base", ".faiss"))


def _moment(catalog: Catalog, seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise catalog.database.damaged("a time that never was") from error
