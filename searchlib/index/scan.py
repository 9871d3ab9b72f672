"""How segments are searched: FAISS compares a query with every row, on all cores.

FAISS uses one thread for one query, and where it uses several (OpenMP) they spin while they wait
for each other, which beside a busy encoder takes many times longer than the search. So the rows are
shared out here, to a few threads in which OpenMP is told to use only one; in each of them one call
of FAISS, without the GIL, passes over all its segments. Every row is scored by itself, so how the
rows are shared out cannot change a result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.index.protocol import Ids, Neighbours, Vectors
from searchlib.index.segments import Segment

Mask = npt.NDArray[np.bool_]

MARGIN = 32
"""How many more than `k` are fetched at first, so that a few equal scores need no second look."""

WIDEN = 8
"""How many times as many are fetched where that was not enough."""

GROUPED = 1024
"""Up to how many results FAISS merges those of the segments itself; it sets aside room for as many
from each segment, so beyond this each segment is asked on its own, for what it has at most."""

CELLS = 1 << 22
"""How many results of all segments together are held at once: about 50 MB."""

GATHERED = 1024
"""Up to how many rows that a search may return are copied out and searched alone."""

GATHERED_SHARE = 0.005
"""The same as a share of all rows. Copying a row costs as much as skipping two hundred."""

DROPPED_SHARE = 0.5
"""From which share on all rows are searched and those that may not be returned are dropped: a
selector in FAISS costs more than it saves there, because the processor cannot guess its answers."""

MAX_WORKERS = 8
"""A search leaves the other cores of a large machine to the rest."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive rows of a snapshot and the FAISS index that looks at them."""

    index: Any
    start: int
    rows: int


class Snapshot:
    """One state of some rows: segments that do not change, none of them empty."""

    def __init__(self, segments: Sequence[Segment], dimension: int) -> None:
        self.segments = tuple(segments)
        self.count = sum(len(segment) for segment in self.segments)
        self.dimension = dimension
        # Made at the first search and never changed; two threads may both make the same.
        self._ids: Ids | None = None
        self._single: list[_Part] | None = None
        self._grouped: list[_Part] | None = None

    def ids(self) -> Ids:
        """The ids in the order of the rows, int64[count]."""
        if self._ids is None:
            ids = [segment.ids for segment in self.segments]
            self._ids = ids[0] if len(ids) == 1 else np.concatenate([np.empty(0, np.int64), *ids])
        return self._ids

    def search(self, queries: Vectors, k: int, *, keep: Mask | None = None) -> Neighbours:
        """The `k` best of each query, or all; queries float32[q, dimension], contiguous.

        Args:
            queries: unit vectors.
            k: how many.
            keep: bool[count], the rows that may be returned; all where it is None.
        """
        if keep is None:
            return self._best(queries, min(k, self.count), k + MARGIN, None, None)
        allowed = int(np.count_nonzero(keep))
        k = min(k, allowed)
        if allowed == self.count:
            return self._best(queries, k, k + MARGIN, None, None)
        if allowed <= max(GATHERED, GATHERED_SHARE * self.count):
            return self._gathered(keep, allowed).search(queries, k)
        if allowed < DROPPED_SHARE * self.count:
            return self._best(queries, k, k + MARGIN, None, self._selectors(keep))
        fetch = math.ceil((k + MARGIN) * self.count / allowed)
        return self._best(queries, k, fetch, keep, None)

    def _best(
        self,
        queries: Vectors,
        k: int,
        fetch: int,
        keep: Mask | None,
        selectors: list[Any] | None,
    ) -> Neighbours:
        """The `k` best of each query among what `keep` or the selectors let through.

        FAISS does not say which of several equal scores it returns. So some more than `k` are
        fetched, and more again for those queries whose k-th score might be shared by a vector that
        was not fetched.
        """
        found = Neighbours(
            np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        )
        open_rows = np.arange(len(queries) if k else 0)
        while open_rows.size:
            again = []
            step = max(1, CELLS // (fetch * len(self.segments)))
            for start in range(0, len(open_rows), step):
                rows = open_rows[start : start + step]
                places, scores, unseen = self._fetched(queries[rows], fetch, selectors)
                ids = self.ids()[places]
                if keep is not None:
                    scores[~keep[places]] = -np.inf
                best = np.lexsort((ids, -scores), axis=-1)[:, :k]
                found.ids[rows] = np.take_along_axis(ids, best, axis=1)
                found.scores[rows] = np.take_along_axis(scores, best, axis=1)
                again.append(rows[unseen >= found.scores[rows, -1]])
            open_rows = np.concatenate(again)
            fetch *= WIDEN
        return found

    def _fetched(
        self, queries: Vectors, fetch: int, selectors: list[Any] | None
    ) -> tuple[Ids, Vectors, Vectors]:
        """At least the `fetch` best of each query, and the highest score that may be missing.

        Returns rows int64[q, m], scores float32[q, m] in any order, -inf where there is no row, and
        float32[q] which is -inf where nothing is missing.
        """
        parts = self._parts(fetch) if selectors is None else self._alone()
        chosen: Sequence[Any] = selectors or [None] * len(parts)

        def ask(part: _Part, selector: Any) -> tuple[Vectors, Ids]:
            options = selector and load_faiss().SearchParameters(sel=selector)
            scores, rows = part.index.search(queries, min(fetch, part.rows), params=options)
            if selector is not None:
                none = rows < 0
                rows[none], scores[none] = 0, -np.inf
            return scores, rows

        answers = list(search_pool().map(ask, parts, chosen))
        places = np.concatenate(
            [rows + part.start for part, (_, rows) in zip(parts, answers, strict=True)], axis=1
        )
        unseen = np.full(len(queries), -np.inf, np.float32)
        for part, (scores, _) in zip(parts, answers, strict=True):
            if fetch < part.rows:
                unseen = np.maximum(unseen, scores[:, -1])
        return places, np.concatenate([scores for scores, _ in answers], axis=1), unseen

    def _gathered(self, keep: Mask, allowed: int) -> Snapshot:
        """A copy of the rows that may be returned."""
        parts, start = [], 0
        for segment in self.segments:
            rows = np.flatnonzero(keep[start : start + len(segment)])
            start += len(segment)
            if len(rows):
                parts.append((segment.ids[rows], segment.codes[rows]))
        segments = [Segment.joined(parts, allowed)] if parts else []
        return Snapshot(segments, self.dimension)

    def _selectors(self, keep: Mask) -> list[Any]:
        """For each segment the FAISS selector of its rows that may be returned."""
        faiss, selectors, start = load_faiss(), [], 0
        for segment in self.segments:
            bits = np.packbits(keep[start : start + len(segment)], bitorder="little")
            start += len(segment)
            selector = faiss.IDSelectorBitmap(len(segment), faiss.swig_ptr(bits))
            selector.bits = bits  # FAISS does not keep them alive
            selectors.append(selector)
        return selectors

    def _alone(self) -> list[_Part]:
        if self._single is None:
            self._single = list(_consecutive([(_view(each), len(each)) for each in self.segments]))
        return self._single

    def _parts(self, fetch: int) -> list[_Part]:
        if fetch > GROUPED:
            return self._alone()
        if self._grouped is None:
            runs = _shared_out(self._alone(), search_threads())
            self._grouped = list(_consecutive([_group(run, self.dimension) for run in runs]))
        return self._grouped


def _consecutive(indexes: list[tuple[Any, int]]) -> Iterator[_Part]:
    start = 0
    for index, rows in indexes:
        yield _Part(index, start, rows)
        start += rows


def _shared_out(parts: list[_Part], workers: int) -> list[list[_Part]]:
    """Consecutive runs of the parts, at most one for each worker, of about as many rows each."""
    total = parts[-1].start + parts[-1].rows
    runs: list[list[_Part]] = [[] for _ in range(workers)]
    for part in parts:
        middle = part.start + part.rows / 2
        runs[int(middle * workers / total)].append(part)
    return [run for run in runs if run]


def _view(segment: Segment) -> Any:
    """The FAISS index that looks at the codes of a segment, without a copy."""
    if segment.scanner is None:
        faiss = load_faiss()
        codes: npt.NDArray[np.uint8] = segment.codes.view(np.uint8)
        index = faiss.IndexScalarQuantizer(
            segment.codes.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        # The last argument is who owns the memory, for FAISS nobody: the array is kept beside it.
        index.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(codes), codes.nbytes, index.codes.owner
        )
        index.ntotal = len(segment)
        index.referenced_objects = [codes]
        segment.scanner = index
    return segment.scanner


def _group(parts: list[_Part], dimension: int) -> tuple[Any, int]:
    """One FAISS index over the rows of several, which it searches one after the other."""
    threaded, successive_rows = False, True
    group = load_faiss().IndexShards(dimension, threaded, successive_rows)
    for part in parts:
        group.add_shard(part.index)
    return group, sum(part.rows for part in parts)


def load_faiss() -> Any:
    """The module, imported at the first search because that takes 0.15 s.

    Its type stubs lack most of what is used here, hence Any.
    """
    import faiss

    return faiss


def search_threads() -> int:
    """How many threads search at once."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    return min(os.cpu_count() or 1, MAX_WORKERS)


def one_thread() -> None:
    """OpenMP keeps this setting for each thread of its own, so others are not affected."""
    load_faiss().omp_set_num_threads(1)


@cache
def search_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(search_threads(), "searchlib-index", initializer=one_thread)


# Threads do not survive a fork; the child makes its own.
os.register_at_fork(after_in_child=search_pool.cache_clear)
