"""The index of a library, kept in step with its catalog.

The catalog is the truth and the index a cache of it: opened from its checkpoint, brought up to
date from the change log, and built anew from the stored vectors wherever the checkpoint cannot be
used. None of this runs the encoder, and none of it fails because of the checkpoint.

Several processes may have the index of one library open. Each follows the change log by itself.
Who writes its files holds `index.lock`, and takes over a base that another process has made
meanwhile in place of writing over it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, Changes, ModelRecord
from searchlib.errors import CheckpointError, InputError
from searchlib.index import (
    FaissIndex,
    Neighbours,
    Recipe,
    Subset,
    read_checkpoint,
    read_saved,
    remove_stale_temporaries,
    remove_unused,
    write_checkpoint,
)
from searchlib.search.choice import IndexChoice, Parts, is_build_due, read_choice, recipe_for
from searchlib.search.following import alone, apply_changes, stream_from
from searchlib.search.merging import BackgroundMerging

logger = logging.getLogger(__name__)

REPLAY_AT_MOST = 10_000
"""A new checkpoint is written after so many changes. Replaying as many takes a few tenths of a
second."""

_LOOKS = 10
_CHOICE_SECONDS = 5.0

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and how much there is."""


class LiveIndex:
    """The index of one library and model; may be used from many threads.

    Args:
        catalog: the truth.
        model: whose vectors are indexed.
        folder: where the checkpoint lies.
        background: merge in a thread of its own when that is due; the caller closes the index.
    """

    def __init__(
        self, catalog: Catalog, model: ModelRecord, folder: Path, *, background: bool = False
    ) -> None:
        self.path = folder / f"index-{model.identity[:16]}.ckpt"
        self._catalog = catalog
        self._model = model
        self._background = background
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._index: FaissIndex | None = None
        self._seq = 0
        self._replayed = 0
        self._tried_to_save = False
        self._choice: tuple[float, IndexChoice] | None = None
        self._merging = BackgroundMerging(str(self.path), self.merge)

    def __len__(self) -> int:
        return len(self.current())

    @property
    def is_exact(self) -> bool:
        """Whether a search compares with every vector unless it is told to."""
        index = self._index
        return index is None or index.base is None

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        among: Subset | None = None,
        exact: bool = False,
    ) -> Neighbours:
        """The nearest images as of now: see VectorIndex.search."""
        index = self.current()
        try:
            return index.search(queries, k, among=among, exact=exact)
        except CheckpointError as error:
            self.discard(index, error)
            return self.current().search(queries, k, among=among, exact=exact)

    def verified(self) -> FaissIndex:
        """The index as of now, with all vectors verified; built anew where they are damaged."""
        index = self.current()
        try:
            index.check()
        except CheckpointError as error:
            self.discard(index, error)
            index = self.current()
        return index

    def close(self) -> None:
        """Stop what goes on in the background."""
        self._merging.close()

    def refresh(self) -> None:
        """Apply what was committed since; write a checkpoint if that was much or there is none."""
        self.current()

    def save(self) -> None:
        """Bring the checkpoint up to date if much has changed since, or there is none.

        Where nothing was searched for yet and there is no base, the vectors go from the catalog to
        the file a block at a time, so that a process that only adds never holds them all.
        """
        with self._lock:
            loaded = self._index is not None
        if loaded or self._wants_base():
            self.refresh()
            return
        if not self._catalog.database.writable:
            return
        saved = read_saved(
            self.path, identity=self._model.identity, dimension=self._model.dimension
        )
        if saved is None:
            if self._catalog.last_seq(self._model) > 0:
                self._stream()
        elif self._catalog.changes_since(self._model, saved.seq) > REPLAY_AT_MOST:
            if saved.generation:
                self.refresh()
            else:
                self._stream()

    def _wants_base(self) -> bool:
        """Whether this process merges, and the library is of a size where that may be due."""
        if not self._background:
            return False
        vectors = self._catalog.counts(self._model).vectors
        dimension = self._model.dimension
        recipe = recipe_for(self.choice, vectors=vectors, dimension=dimension, now=None)
        return not recipe.is_exact and vectors >= recipe.least

    @property
    def choice(self) -> IndexChoice:
        """What was chosen for this library, as of some seconds ago."""
        now = time.monotonic()
        if self._choice is None or now - self._choice[0] > _CHOICE_SECONDS:
            try:
                choice = read_choice(self._catalog)
            except InputError as error:
                logger.warning("%s; the index is chosen by size", error)
                choice = IndexChoice()
            self._choice = now, choice
        return self._choice[1]

    def forget_choice(self) -> None:
        """Look at the next question what was chosen."""
        self._choice = None

    def recipe(self, index: FaissIndex) -> Recipe:
        """The recipe that an index of this library should have."""
        return recipe_for(
            self.choice,
            vectors=len(index),
            dimension=index.dimension,
            now=index.base.recipe if index.base else None,
        )

    def is_merge_due(self, index: FaissIndex) -> bool:
        """Whether it would be worth it to merge now."""
        base = index.base
        parts = Parts(
            len(index),
            index.fresh,
            recipe=base.recipe if base else None,
            rows=base.rows if base else None,
            dead=index.dead,
        )
        return is_build_due(self.recipe(index), parts)

    def merge(
        self,
        *,
        always: bool = False,
        stop: Callable[[], bool] | None = None,
        on_progress: Progress | None = None,
    ) -> bool:
        """Merge the index now, in this thread, and write its checkpoint.

        Args:
            always: also where it is not due.
            stop: asked now and then; True leaves the index as it is.
            on_progress: called as it goes on.

        Returns:
            Whether it was merged: False where it was not due, was stopped, or another process is
            at it or had done it.

        Raises:
            OSError: the files cannot be written.
        """
        with self._held() as held:
            if not held:
                return False
            index = self._adopted(self.current())
            if not (always or self.is_merge_due(index)):
                return False
            try:
                done = index.merge(
                    self.recipe(index),
                    checkpoint=self.path,
                    target=self.choice.recall,
                    stop=stop or self._merging.is_closed,
                    on_progress=on_progress,
                )
            except CheckpointError as error:
                self.discard(index, error)
                return False
            if done:
                try:
                    self._write(index, strict=True)
                except OSError:
                    self._go_back(index)
                    raise
            return done

    def _go_back(self, index: FaissIndex) -> None:
        """Use what the checkpoint has, and not what could not be saved and takes room."""
        with self._lock:
            if self._index is index:
                self._index = None
        saved = read_saved(
            self.path, identity=self._model.identity, dimension=self._model.dimension
        )
        with contextlib.suppress(OSError):
            remove_unused(self.path, keep=saved.generation if saved else "")

    def rewrite(self, index: FaissIndex) -> None:
        """Write the checkpoint of an index that was changed in another way than by the log."""
        with self._held() as held:
            # Where another process has merged since, its base counts, and this one goes over to it.
            if held and self._adopted(index) is index:
                self._write(index)

    def discard(self, index: FaissIndex, error: CheckpointError) -> None:
        """Build the index anew in place of one that turned out to be damaged."""
        logger.warning("%s; building the index from the catalog", error)
        with self._lock:
            if self._index is index:
                self._remove_checkpoint()
                self._index = self._rebuild()

    def rebuild(self) -> None:
        """Build the index anew from the catalog, and its checkpoint."""
        with self._lock:
            self._remove_checkpoint()
            self._index = self._rebuild()
        self.refresh()

    def current(self) -> FaissIndex:
        """The index as of now; what was committed before the call is in it."""
        with self._lock:
            index = self._index
            if index is None:
                index = self._open()
            elif self._catalog.last_seq(self._model) != self._seq:
                self._replay(index)
            self._index = index
            due = self._replayed > REPLAY_AT_MOST or (self._seq > 0 and not self._tried_to_save)
            if due:
                self._replayed, self._tried_to_save = 0, True
        if self._catalog.database.writable:
            if due:
                # Outside the lock, so that searches go on.
                index = self._save(index)
            if self._background:
                self._merging.look(lambda: self.is_merge_due(index))
        return index

    def _save(self, index: FaissIndex) -> FaissIndex:
        with self._held() as held:
            # Who holds it may be stopped before it writes a checkpoint, so this is tried again.
            if held:
                index = self._adopted(index)
                self._write(index)
            else:
                with self._lock:
                    self._replayed = REPLAY_AT_MOST + 1
        return index

    def _adopted(self, index: FaissIndex) -> FaissIndex:
        """This index, or in its place the one with the base that another process has made."""
        saved = read_saved(
            self.path, identity=self._model.identity, dimension=self._model.dimension
        )
        if saved is None or saved.generation == (index.base.generation if index.base else ""):
            return index
        with self._lock:
            if self._index is index:
                self._index = self._open()
                logger.debug("%s: went over to what another process merged", self.path)
            assert self._index is not None
            return self._index

    @contextlib.contextmanager
    def _held(self) -> Iterator[bool]:
        """Hold the lock of the index's files; says whether it could be had at once."""
        # Threads of one process need a lock that can be had at once or not at all, too.
        if not self._writing.acquire(blocking=False):
            yield False
            return
        try:
            with alone(self.path.parent) as held:
                yield held
        finally:
            self._writing.release()

    def _stream(self) -> None:
        identity, dimension = self._model.identity, self._model.dimension
        with self._held() as held:
            saved = read_saved(self.path, identity=identity, dimension=dimension)
            # Another process may have merged since this was found to be due.
            if held and (saved is None or not saved.generation):
                stream_from(self._catalog, self._model, self.path)

    def _open(self) -> FaissIndex:
        try:
            index, self._seq = self._read()
            self._tried_to_save = True
            saved = self._seq
            if saved < self._catalog.last_seq(self._model):
                self._replay(index)
            belongs = self._belongs(index, saved)
            for _ in range(_LOOKS):
                if belongs or self._catalog.last_seq(self._model) <= self._seq:
                    break
                # What is changed in this moment looks like another catalog at first.
                self._replay(index)
                belongs = self._belongs(index, saved)
        except CheckpointError as error:
            level = logging.WARNING if self.path.exists() else logging.DEBUG
            logger.log(level, "%s; building the index from the catalog", error)
            self._remove_checkpoint()
            return self._rebuild()
        if not belongs:
            logger.warning("%s is not of this catalog; building the index anew", self.path)
            self._remove_checkpoint()
            return self._rebuild()
        return index

    def _read(self) -> tuple[FaissIndex, int]:
        identity, dimension = self._model.identity, self._model.dimension
        for _ in range(_LOOKS):
            before = read_saved(self.path, identity=identity, dimension=dimension)
            try:
                return read_checkpoint(self.path, identity=identity, dimension=dimension)
            except CheckpointError:
                # Another process may have merged in between, and its old base is gone.
                if before == read_saved(self.path, identity=identity, dimension=dimension):
                    raise
        return read_checkpoint(self.path, identity=identity, dimension=dimension)

    def _remove_checkpoint(self) -> None:
        """So that nobody takes it for one that another process made."""
        if self._catalog.database.writable:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _belongs(self, index: FaissIndex, seq: int) -> bool:
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

    def _rebuild(self) -> FaissIndex:
        seq, ids, vectors = self._catalog.all_vectors(self._model)
        index = FaissIndex(self._model.dimension)
        apply_changes(index, Changes(seq, ids, vectors, np.empty(0, np.int64)), self._catalog)
        self._seq, self._replayed, self._tried_to_save = seq, 0, False
        return index

    def _replay(self, index: FaissIndex) -> None:
        changes = self._catalog.changes(self._model, after=self._seq)
        apply_changes(index, changes, self._catalog)
        self._seq = changes.seq
        self._replayed += len(changes.ids) + len(changes.removed)

    def _write(self, index: FaissIndex, *, strict: bool = False) -> None:
        """Write a checkpoint; the lock of the files is held.

        Raises:
            OSError: it cannot be written, and that is to be said, not only warned of.
        """
        with self._lock:
            if self._index is not index:
                return
            # What is changed from here on may or may not be in the file, and is replayed in
            # either case.
            seq = self._seq
        try:
            remove_stale_temporaries(self.path.parent)
            write_checkpoint(self.path, index, identity=self._model.identity, seq=seq)
            remove_unused(self.path, keep=index.base.generation if index.base else "")
        except OSError as error:
            if strict:
                raise
            # Only a cache: the next opening takes a little longer.
            logger.warning("%s cannot be written: %s", self.path, error.strerror)
