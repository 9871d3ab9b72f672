"""How segments are searched: FAISS compares a query with every row, on all cores.

FAISS uses one thread for one query, and where it uses several (OpenMP) they spin while they wait
for each other, which beside a busy encoder takes many times longer than the search. So the rows are
shared out here, to a few threads in which OpenMP is told to use only one; in each of them one call
of FAISS, without the GIL, passes over all its segments. Every row is scored by itself, so how the
rows are shared out cannot change a result.
"""

from __future__ import annotations

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

MARGIN = 32
"""How many more than `k` are fetched at first, so that a few equal scores need no second look."""

WIDEN = 8
"""How many times as many are fetched where that was not enough."""

GROUPED = 1024
"""Up to how many results FAISS merges those of the segments itself; it sets aside room for as many
from each segment, so beyond this each segment is asked on its own, for what it has at most."""

CELLS = 1 << 22
"""How many results of all segments together are held at once: about 50 MB."""

MAX_WORKERS = 8
"""A search leaves the other cores of a large machine to the rest."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive rows of a snapshot and the FAISS index that looks at them."""

    index: Any
    start: int
    rows: int


class Snapshot:
    """One state of a `FlatIndex`: segments that do not change, none of them empty."""

    def __init__(self, segments: Sequence[Segment], dimension: int) -> None:
        self.segments = tuple(segments)
        self.count = sum(len(segment) for segment in self.segments)
        self._dimension = dimension
        # Made at the first search and never changed; two threads may both make the same.
        self._ids: Ids | None = None
        self._single: list[_Part] | None = None
        self._grouped: list[_Part] | None = None

    def ids(self) -> Ids:
        """The ids in the order of the rows, int64[count]."""
        if self._ids is None:
            ids = [segment.ids for segment in self.segments]
            self._ids = np.concatenate(ids) if ids else np.empty(0, np.int64)
        return self._ids

    def search(self, queries: Vectors, k: int) -> Neighbours:
        """The `k` best of each query, or all; queries float32[q, dimension], contiguous.

        FAISS does not say which of several equal scores it returns. So some more than `k` are
        fetched, and more again for those queries whose k-th score might be shared by a vector that
        was not fetched.
        """
        k = min(k, self.count)
        found = Neighbours(
            np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        )
        open_rows = np.arange(len(queries) if k else 0)
        fetch = k + MARGIN
        while open_rows.size:
            again = []
            step = max(1, CELLS // (fetch * len(self.segments)))
            for start in range(0, len(open_rows), step):
                rows = open_rows[start : start + step]
                ids, scores, unseen = self._fetched(queries[rows], fetch)
                best = np.lexsort((ids, -scores), axis=-1)[:, :k]
                found.ids[rows] = np.take_along_axis(ids, best, axis=1)
                found.scores[rows] = np.take_along_axis(scores, best, axis=1)
                again.append(rows[unseen >= found.scores[rows, -1]])
            open_rows = np.concatenate(again)
            fetch *= WIDEN
        return found

    def _fetched(self, queries: Vectors, fetch: int) -> tuple[Ids, Vectors, Vectors]:
        """At least the `fetch` best of each query, and the highest score that may be missing.

        Returns ids int64[q, m], scores float32[q, m] in any order, and float32[q] which is -inf
        where nothing is missing.
        """
        parts = self._parts(fetch)
        answers = list(
            _pool().map(lambda part: part.index.search(queries, min(fetch, part.rows)), parts)
        )
        places = np.concatenate(
            [rows + part.start for part, (_, rows) in zip(parts, answers, strict=True)], axis=1
        )
        unseen = np.full(len(queries), -np.inf, np.float32)
        for part, (scores, _) in zip(parts, answers, strict=True):
            if fetch < part.rows:
                unseen = np.maximum(unseen, scores[:, -1])
        return self.ids()[places], np.concatenate([scores for scores, _ in answers], axis=1), unseen

    def _parts(self, fetch: int) -> list[_Part]:
        if self._single is None:
            self._single = list(_consecutive([(_view(each), len(each)) for each in self.segments]))
        if fetch > GROUPED:
            return self._single
        if self._grouped is None:
            runs = _shared_out(self._single, _workers())
            self._grouped = list(_consecutive([_group(run, self._dimension) for run in runs]))
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
        faiss = _faiss()
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
    group = _faiss().IndexShards(dimension, threaded, successive_rows)
    for part in parts:
        group.add_shard(part.index)
    return group, sum(part.rows for part in parts)


def _faiss() -> Any:
    """The module, imported at the first search because that takes 0.15 s.

    Its type stubs lack most of what is used here, hence Any.
    """
    import faiss

    return faiss


def _workers() -> int:
    """How many threads search at once."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    return min(os.cpu_count() or 1, MAX_WORKERS)


def _one_thread() -> None:
    """OpenMP keeps this setting for each thread of its own, so others are not affected."""
    _faiss().omp_set_num_threads(1)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_workers(), "searchlib-index", initializer=_one_thread)


# Threads do not survive a fork; the child makes its own.
os.register_at_fork(after_in_child=_pool.cache_clear)
