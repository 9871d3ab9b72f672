"""`FaissIndex`: the index beside the catalog, exact while it is small and fast when it is large.

It is in two parts. *Fresh* vectors lie in segments and are all compared with a query. A *base*
holds the many that FAISS has prepared; what is replaced or removed in it is dead, and its new
vector is a fresh one. `merge` makes a new base of both, while the old parts go on to serve.

A small index has no base, and none is ever needed: the parts differ in speed, not in what they are
asked or answer.
"""

from __future__ import annotations

import operator
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from searchlib.errors import VectorError
from searchlib.index.accelerator import Stop, Tuning, never
from searchlib.index.base import Base, BaseFacts, Live
from searchlib.index.checks import check_dimension, check_ids, check_k, check_pairs, check_vectors
from searchlib.index.protocol import Ids, Neighbours, Subset, Vectors
from searchlib.index.recipes import Recipe
from searchlib.index.scan import Mask, Snapshot
from searchlib.index.segments import SEGMENT_ROWS, Codes, Segment, cut, removed, upserted
from searchlib.index.state import State, caught_up

if TYPE_CHECKING:
    from searchlib.index.merge import Progress


class FaissIndex:
    """Unit vectors rounded to float16, searched by FAISS.

    A vector takes 2 bytes per dimension and 8 for its id; with a base these lie in a file, and
    memory holds what its recipe needs. A score is the inner product of the float32 query and the
    rounded vector; it differs from that of the vector as it was given by about 1e-5, and by 5e-4 at
    most.

    Changes are made one after the other and leave alone what a search has begun to read, so
    searches never wait. Adding n vectors writes n rows; replacing or removing fresh ones copies the
    segments that hold them, so give many at once.
    """

    def __init__(self, dimension: int, *, segment_rows: int = SEGMENT_ROWS) -> None:
        """
        Args:
            dimension: how many numbers a vector has.
            segment_rows: how many rows are copied at least where one is replaced or removed.

        Raises:
            VectorError: the dimension is below 1.
        """
        self._dimension = check_dimension(dimension)
        self._segment_rows = segment_rows
        self._changing = threading.Lock()
        self._merging = threading.Lock()
        self._journal: list[Ids] | None = None
        self._now = State(Snapshot((), self._dimension))

    @classmethod
    def over(
        cls, ids: Ids, codes: Codes, *, base: Base | None = None, live: Live | None = None
    ) -> FaissIndex:
        """An index that looks at these vectors without a copy, and has this base.

        Args:
            ids: int64[n] of the fresh vectors.
            codes: float16[n, dimension]; they may lie in a mapped file. They are not checked, and
                nobody may write to them any more.
            base: the prepared vectors.
            live: which of them count; all if None.
        """
        index = cls(codes.shape[1])
        fresh = Snapshot(cut(ids, codes, index._segment_rows), index._dimension)
        index._now = State(fresh, base, live or Live())
        return index

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def fresh(self) -> int:
        """How many vectors are compared one by one, beside the base."""
        return self._now.fresh.count

    @property
    def dead(self) -> int:
        """How many rows of the base do not count any more."""
        return self._now.live.dead

    @property
    def base(self) -> BaseFacts | None:
        """What is known of the base; None where there is none."""
        base = self._now.base
        return base.facts() if base else None

    def state(self) -> State:
        """The index of this moment. It stays as it is when the index changes."""
        return self._now

    def check(self) -> None:
        """Verifies all vectors, of which a search verifies only those that it returns.

        Raises:
            CheckpointError: some are damaged.
        """
        base = self._now.base
        if base is not None and base.check is not None:
            base.check(None)

    def frozen(self) -> FaissIndex:
        """An index that has what this one has at this moment, and does not follow its changes."""
        index = FaissIndex(self._dimension, segment_rows=self._segment_rows)
        index._now = self._now
        return index

    def __len__(self) -> int:
        return self._now.count

    def __contains__(self, id: object) -> bool:
        try:
            # Whatever is no integer raises, which mypy wants to be told beforehand.
            wanted = np.array([operator.index(id)], np.int64)  # type: ignore[arg-type]
        except (TypeError, OverflowError):
            return False
        return bool(self.held(wanted)[0])

    def held(self, ids: Ids) -> Mask:
        """Which of these ids, int64[n], have a vector; bool[n]."""
        state = self._now
        held = np.zeros(len(ids), np.bool_)
        for segment in state.fresh.segments:
            held |= segment.find(ids) >= 0
        if state.base is not None:
            held |= state.base.find(ids, state.live) >= 0
        return held

    def ids(self) -> Ids:
        state = self._now
        if state.base is None:
            return np.sort(state.fresh.ids())
        prepared = state.base.ids[state.live.mask(state.base.rows)]
        return np.sort(np.concatenate([prepared, state.fresh.ids()]))

    def vectors(self, ids: npt.ArrayLike) -> Vectors:
        wanted = check_ids(ids)
        state = self._now
        vectors = np.empty((len(wanted), self._dimension), np.float32)
        missing = np.ones(len(wanted), np.bool_)
        for segment in state.fresh.segments:
            rows = segment.find(wanted)
            here = rows >= 0
            vectors[here] = segment.codes[rows[here]]
            missing &= ~here
        if state.base is not None and missing.any():
            rows = state.base.find(wanted, state.live)
            here = (rows >= 0) & missing
            vectors[here] = state.base.vectors(rows[here])
            missing &= ~here
        if missing.any():
            raise VectorError(f"id {wanted[missing][0]} is not in the index")
        return vectors

    def upsert(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        given, codes = check_pairs(ids, vectors, self._dimension)
        if not len(given):
            return
        with self._changing:
            now = self._now
            segments = upserted(now.fresh.segments, given, codes, self._segment_rows)
            self._change(given, segments)

    def remove(self, ids: npt.ArrayLike) -> int:
        unwanted = check_ids(ids)
        with self._changing:
            before = self._now
            segments = removed(before.fresh.segments, unwanted, self._segment_rows)
            self._change(unwanted, segments)
            return before.count - self._now.count

    def _change(self, ids: Ids, segments: tuple[Segment, ...]) -> None:
        """Goes over to these fresh segments; rows of the base with these ids are dead then."""
        now = self._now
        live = now.live
        if now.base is not None:
            live = live.without(now.base_rows(ids), now.base.rows)
        if self._journal is not None:
            self._journal.append(ids)
        self._now = State(Snapshot(segments, self._dimension), now.base, live)

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        among: Subset | None = None,
        exact: bool = False,
    ) -> Neighbours:
        checked = check_vectors(queries, self._dimension)
        wanted = check_k(k)
        state = self._now
        found = None
        if state.base is not None:
            found = state.base.search(checked, wanted, live=state.live, among=among, exact=exact)
            if not state.fresh.count:
                return found
        keep = None if among is None else among.holds(state.fresh.ids())
        fresh = state.fresh.search(checked, wanted, keep=keep)
        return fresh if found is None else _together(found, fresh, wanted)

    def tune(self, tuning: Tuning) -> None:
        """Searches the base in this way from now on."""
        with self._changing:
            if self._now.base is not None:
                self._now.base.tuning = tuning

    def merge(
        self,
        recipe: Recipe,
        *,
        checkpoint: Path | None = None,
        target: float = 0.99,
        stop: Stop = never,
        on_progress: Progress | None = None,
    ) -> bool:
        """Makes a base of all vectors; searches and changes go on meanwhile.

        Where there is a base of this recipe already, the fresh vectors are added to what it has
        learnt; it learns anew when the index has grown much since, or has lost much. An exact
        recipe takes all vectors back out of the base.

        Args:
            recipe: how the base is built.
            checkpoint: where the index is saved; the files of the base are written beside it, and
                count once it is saved there. In memory alone if None.
            target: the recall@10 that it is tuned to.
            stop: asked now and then; when it says True the index stays as it is.
            on_progress: called with the name of a step, what is done of it and what there is.

        Returns:
            Whether it was done: False where `stop` said so, or another thread is at it.

        Raises:
            CheckpointError: the base that there is is damaged.
            OSError: the files cannot be written.
        """
        # Brings tuning with it, which a query should not pay.
        from searchlib.index.merge import merged, untold

        if not self._merging.acquire(blocking=False):
            return False
        try:
            with self._changing:
                before, self._journal = self._now, []
            made = merged(
                before,
                recipe,
                checkpoint=checkpoint,
                target=target,
                stop=stop,
                on_progress=on_progress or untold,
            )
            if made is None:
                return False
            with self._changing:
                touched = np.unique(np.concatenate([np.empty(0, np.int64), *self._journal]))
                self._now = caught_up(made, self._now, touched, self._segment_rows)
            return True
        finally:
            with self._changing:
                self._journal = None
            self._merging.release()


def _together(one: Neighbours, other: Neighbours, k: int) -> Neighbours:
    """The best `k` of two answers to the same queries."""
    ids = np.concatenate([one.ids, other.ids], axis=1)
    scores = np.concatenate([one.scores, other.scores], axis=1)
    best = np.lexsort((ids, -scores), axis=-1)[:, :k]
    return Neighbours(
        np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)
    )
