"""The index of a library, kept in step with its catalog.

The catalog is the truth and the index a cache of it: opened from its checkpoint, brought up to
date from the change log, and built anew from the stored vectors wherever the checkpoint cannot be
used. None of this runs the encoder, and none of it fails because of the checkpoint.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Changes, ModelRecord
from searchlib.errors import CheckpointError, VectorError
from searchlib.index import (
    FlatIndex,
    Neighbours,
    Recipe,
    check_vectors,
    checkpoint_seq,
    load_recipe,
    read_checkpoint,
    remove_stale_temporaries,
    stream_checkpoint,
    write_checkpoint,
)

logger = logging.getLogger(__name__)

# Replaying a change costs about as much as reading its vector from the database; this many take
# a few hundredths of a second, and a new checkpoint of a large library takes longer.
REPLAY_AT_MOST = 2000


class LiveIndex:
    """The index of one library and model; may be used from many threads.

    Args:
        catalog: the truth.
        model: whose vectors are indexed.
        folder: where the checkpoint lies.
    """

    def __init__(self, catalog: Catalog, model: ModelRecord, folder: Path) -> None:
        self.recipe: Recipe = load_recipe("exact")
        self.path = folder / f"index-{model.identity[:16]}.ckpt"
        self._catalog = catalog
        self._model = model
        self._lock = threading.Lock()
        self._index: FlatIndex | None = None
        self._seq = 0
        self._replayed = 0
        self._tried_to_save = False

    def __len__(self) -> int:
        return len(self._current())

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbours:
        """The nearest images as of now: see VectorIndex.search."""
        return self._current().search(queries, k)

    def refresh(self) -> None:
        """Apply what was committed since; write a checkpoint if that was much or there is none."""
        self._current()

    def save(self) -> None:
        """Bring the checkpoint up to date if much has changed since, or there is none.

        Where nothing was searched for yet, the vectors go from the catalog to the file a block at a
        time, so that a process that only adds never holds them all.
        """
        with self._lock:
            loaded = self._index is not None
        if loaded:
            self.refresh()
        elif self._catalog.database.writable and self._is_worth_saving():
            self._stream()

    def _is_worth_saving(self) -> bool:
        saved = checkpoint_seq(
            self.path,
            identity=self._model.identity,
            recipe=self.recipe,
            dimension=self._model.dimension,
        )
        if saved is None:
            return self._catalog.last_seq(self._model) > 0
        return self._catalog.changes_since(self._model, saved) > REPLAY_AT_MOST

    def _stream(self) -> None:
        def checked(blocks: Iterable[NDArray[np.float16]]) -> Iterator[NDArray[np.float16]]:
            for block in blocks:
                check_vectors(block, self._model.dimension)
                yield block

        try:
            remove_stale_temporaries(self.path.parent)
            with self._catalog.vector_blocks(self._model) as (seq, ids, blocks):
                stream_checkpoint(
                    self.path,
                    ids,
                    checked(blocks),
                    identity=self._model.identity,
                    recipe=self.recipe,
                    dimension=self._model.dimension,
                    seq=seq,
                )
        except VectorError as error:
            raise self._catalog.database.damaged("a stored vector is not valid") from error
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.path, error.strerror)

    def _current(self) -> FlatIndex:
        with self._lock:
            index = self._index
            if index is None:
                index = self._open()
            elif self._catalog.last_seq(self._model) != self._seq:
                self._replay(index)
            self._index = index
            seq = self._seq
            due = self._replayed > REPLAY_AT_MOST or (seq > 0 and not self._tried_to_save)
            if due:
                self._replayed, self._tried_to_save = 0, True
        if due and self._catalog.database.writable:
            # Outside the lock, so that searches go on: what is changed meanwhile may or may not be
            # in the file, and is replayed in either case.
            self._write(index, seq)
        return index

    def _open(self) -> FlatIndex:
        try:
            index, self._seq = read_checkpoint(
                self.path,
                identity=self._model.identity,
                recipe=self.recipe,
                dimension=self._model.dimension,
            )
        except CheckpointError as error:
            level = logging.WARNING if self.path.exists() else logging.DEBUG
            logger.log(level, "%s; building the index from the catalog", error)
            return self._rebuild()
        self._tried_to_save = True
        saved = self._seq
        if saved < self._catalog.last_seq(self._model):
            self._replay(index)
        if not self._belongs(index, saved):
            logger.warning("%s is not of this catalog; building the index anew", self.path)
            return self._rebuild()
        return index

    def _belongs(self, index: FlatIndex, seq: int) -> bool:
        """Whether the last change in a checkpoint is the one that the catalog has of that number.

        It is not where the catalog was put back from a backup: its numbers start again at an
        older one, and the checkpoint holds what never happened.
        """
        if seq == 0:
            return len(index) == 0 or self._seq > 0
        change = self._catalog.change_at(self._model, seq)
        if change is None:
            return False
        if len(change.removed):
            return int(change.removed[0]) not in index
        (id,) = change.ids.tolist()
        return id in index and bool((index.vectors([id]) == change.vectors).all())

    def _rebuild(self) -> FlatIndex:
        seq, ids, vectors = self._catalog.all_vectors(self._model)
        index = FlatIndex(self._model.dimension)
        self._apply(index, Changes(seq, ids, vectors, np.empty(0, np.int64)))
        self._seq, self._replayed, self._tried_to_save = seq, 0, False
        return index

    def _replay(self, index: FlatIndex) -> None:
        changes = self._catalog.changes(self._model, after=self._seq)
        self._apply(index, changes)
        self._seq = changes.seq
        self._replayed += len(changes.ids) + len(changes.removed)

    def _apply(self, index: FlatIndex, changes: Changes) -> None:
        try:
            if len(changes.removed):
                index.remove(changes.removed)
            if len(changes.ids):
                index.upsert(changes.ids, changes.vectors)
        except VectorError as error:
            raise self._catalog.database.damaged("a stored vector is not valid") from error

    def _write(self, index: FlatIndex, seq: int) -> None:
        try:
            remove_stale_temporaries(self.path.parent)
            write_checkpoint(
                self.path,
                index,
                identity=self._model.identity,
                recipe=self.recipe,
                seq=seq,
            )
        except OSError as error:
            # Only a cache: the next opening takes a little longer.
            logger.warning("%s cannot be written: %s", self.path, error.strerror)
