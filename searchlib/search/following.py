"""Following the catalog: applying its changes, writing alone, and writing all of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Changes, ModelRecord
from searchlib.errors import VectorError
from searchlib.index import (
    VectorIndex,
    check_vectors,
    remove_stale_temporaries,
    remove_unused,
    stream_checkpoint,
)

logger = logging.getLogger(__name__)

_LOCK = "index.lock"


def apply_changes(index: VectorIndex, changes: Changes, catalog: Catalog) -> None:
    """Put into an index what happened to the vector set.

    Raises:
        LibraryDamagedError: a stored vector is not valid.
    """
    try:
        if len(changes.removed):
            index.remove(changes.removed)
        if len(changes.ids):
            index.upsert(changes.ids, changes.vectors)
    except VectorError as error:
        raise catalog.database.damaged("a stored vector is not valid") from error


@contextmanager
def alone(folder: Path, *, seconds: float = 0.0, unlocked: bool = False) -> Iterator[bool]:
    """Keep the other processes of a library from writing to its index.

    Args:
        folder: of the library.
        seconds: how long to wait for one that writes; for ever if below 0.
        unlocked: what to yield where the lock cannot be made or opened.

    Yields:
        Whether this process may write.
    """
    # Imports asyncio, which a query should not pay.
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / _LOCK), timeout=seconds)
    may_write = True
    try:
        lock.acquire()
    except Timeout:
        may_write = False
    except NotImplementedError:
        # A file system that knows no locks is no hindrance.
        pass
    except OSError as error:
        if not unlocked:
            logger.warning("%s cannot be locked: %s", lock.lock_file, error)
        may_write = unlocked
    try:
        yield may_write
    finally:
        lock.release()


def stream_from(catalog: Catalog, model: ModelRecord, path: Path) -> None:
    """Write a checkpoint of all vectors, a block at a time; only a warning where it cannot be.

    Raises:
        LibraryDamagedError: a stored vector is not valid; the checkpoint before stays.
    """

    def checked(blocks: Iterable[NDArray[np.float16]]) -> Iterator[NDArray[np.float16]]:
        for block in blocks:
            check_vectors(block, model.dimension)
            yield block

    try:
        with catalog.vector_blocks(model) as (seq, ids, blocks):
            # Inside, because the catalog takes an OSError for one of its own.
            try:
                remove_stale_temporaries(path.parent)
                stream_checkpoint(
                    path,
                    ids,
                    checked(blocks),
                    identity=model.identity,
                    dimension=model.dimension,
                    seq=seq,
                )
                remove_unused(path, keep="")
            except OSError as error:
                logger.warning("%s cannot be written: %s", path, error.strerror)
    except VectorError as error:
        raise catalog.database.damaged("a stored vector is not valid") from error
