"""How all near pairs among many vectors are found, exactly: matrix products in blocks, by FAISS.

A product of few numbers rules out most pairs, see `searchlib.index.bounds`; what passes is compared
in full.

The score of a pair is the inner product in float32 of the two vectors as they are stored. It is the
same to the last bit whichever of the two comes first and whatever block it falls into, and within
1e-6 of what a search of the index gives. A pair is decided by this score alone; what comes before
leaves room for its own rounding.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.index.bounds import TILE, Bounds, Rows, Table, usual
from searchlib.index.protocol import Vectors
from searchlib.index.scan import load_faiss, one_thread, search_threads

BLOCK = 2048
"""Rows that are compared with all others in one piece of work. FAISS takes more than twice as long
for a pair of short vectors where they are fewer."""

PAIRS = 1 << 20
"""About how many pairs a piece of work may hold before it goes on with half of its rows."""

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The pairs of the rows from `start` up to `stop`; left and right are rows of the table."""

    start: int
    stop: int
    left: Rows
    right: Rows
    scores: Vectors


class Join:
    """Finds, for the rows of a table, the pairs with a score of at least `threshold` and the left
    row before the right one; or the `k` others that score highest, where `threshold` is None."""

    def __init__(self, table: Table, *, threshold: float | None, k: int = 0) -> None:
        self._table = table
        self._threshold = threshold
        self._k = min(k, len(table) - 1)
        self._bounds: Bounds
        self._halt = threading.Event()

    def run(self, start: int, stop: Callable[[], bool]) -> Iterator[Found]:
        """The pairs of all rows from `start` on, in order; ends early when `stop` says so.

        May be called once.
        """
        count, rows = len(self._table), BLOCK
        if count < 2 or start >= count:
            return
        if self._threshold is None:
            rows = max(1, min(BLOCK, PAIRS // max(1, self._k)))
        work = self._nearest if self._threshold is None else self._above
        starts = iter(range(start, count, rows))
        pieces: deque[tuple[int, Future[Found | None]]] = deque()
        pool = ThreadPoolExecutor(search_threads(), "searchlib-join", initializer=one_thread)
        try:
            # In there OpenMP has one thread; several would wait for each other beside other work.
            self._bounds = pool.submit(self._bounded).result()
            while True:
                while len(pieces) <= search_threads() and (at := next(starts, None)) is not None:
                    end = min(at + rows, count)
                    pieces.append((end, pool.submit(work, at, end)))
                if not pieces:
                    return
                end, future = pieces.popleft()
                while not _done(future):
                    if stop():
                        return
                found = future.result()
                if found is None or stop():
                    return
                if found.stop < end:
                    pieces.appendleft((end, pool.submit(work, found.stop, end)))
                yield found
        finally:
            self._halt.set()
            pool.shutdown(cancel_futures=True)

    def _bounded(self) -> Bounds:
        limit = self._threshold
        return Bounds.of(self._table, usual(self._table, self._k) if limit is None else limit)

    def _above(self, start: int, stop: int) -> Found | None:
        """The pairs of these rows with later ones; only of the first rows where they are many."""
        assert self._threshold is not None
        limit = np.float32(self._threshold)
        vectors, numbers = self._questions(start, stop)
        numbers[:, self._bounds.one] = -limit
        kept = _Kept()
        for at in range(start, len(self._table), TILE):
            if self._halt.is_set():
                return None
            left, right, scores = self._passing(vectors, numbers, at, at + TILE)
            good = scores >= limit
            if at < stop:
                good &= right > left + start
            kept.add(left[good], right[good], scores[good])
            while kept.count > PAIRS and stop - start > 1:
                stop = start + (stop - start) // 2
                vectors, numbers = vectors[: stop - start], numbers[: stop - start]
                kept.keep(kept.joined()[0] < stop - start)
        left, right, scores = kept.joined()
        order = np.lexsort((right, left))
        return Found(start, stop, left[order] + start, right[order], scores[order])

    def _nearest(self, start: int, stop: int) -> Found | None:
        """The `k` others with the highest scores of each of these rows."""
        count, k = len(self._table), self._k
        vectors, numbers = self._questions(start, stop)
        # The best of the rows around these say what all others have to reach. Only that is kept of
        # them, because of several equal scores FAISS returns any.
        size = min(count, max(TILE, stop - start, k + 1))
        first = min(start, count - size)
        around = _Kept()
        around.add(*self._best_of(vectors, start, first, first + size))
        worst = around.shorten(k, stop - start)
        kept = _Kept()
        for begin, end in ((first, first + size), (0, first), (first + size, count)):
            for at in range(begin, end, TILE):
                if self._halt.is_set():
                    return None
                numbers[:, self._bounds.one] = -worst
                left, right, scores = self._passing(vectors, numbers, at, min(at + TILE, end))
                good = (scores >= worst[left]) & (left + start != right)
                kept.add(left[good], right[good], scores[good])
                # Before the end of the first range some may have fewer than k.
                if begin != first and kept.count > 2 * k * (stop - start):
                    worst = kept.shorten(k, stop - start)
            worst = kept.shorten(k, stop - start)
        left, right, scores = kept.joined()
        return Found(start, stop, left + start, right, scores)

    def _questions(self, start: int, stop: int) -> tuple[Vectors, Vectors]:
        """Copies of these rows: the vectors, without the 1, and the numbers that bound."""
        vectors = self._table.read(start, stop).copy()
        all_numbers = self._bounds.numbers
        numbers = vectors.copy() if all_numbers is None else all_numbers[start:stop].copy()
        vectors[:, self._table.dimension] = 0
        return vectors, numbers

    def _passing(
        self, vectors: Vectors, numbers: Vectors, start: int, stop: int
    ) -> tuple[Rows, Rows, Vectors]:
        """The pairs of the questions with these rows that the bounds let through, with scores.

        Left counts from the first question, right is a row of the table.
        """
        stop = min(stop, len(self._table))
        others = self._table.read(start, stop)
        all_numbers = self._bounds.numbers
        bounding = others if all_numbers is None else all_numbers[start:stop]
        faiss = load_faiss()
        result = faiss.RangeSearchResult(len(numbers))
        faiss.range_search_inner_product(
            faiss.swig_ptr(numbers),
            faiss.swig_ptr(bounding),
            numbers.shape[1],
            len(numbers),
            len(bounding),
            -self._bounds.slack,
            result,
        )
        limits = faiss.rev_swig_ptr(result.lims, len(numbers) + 1)
        counts = np.diff(limits.astype(np.intp))
        found = int(counts.sum())
        left = np.repeat(np.arange(len(numbers)), counts)
        right = np.zeros(0, np.int64)
        if found:
            right = faiss.rev_swig_ptr(result.labels, found).copy()
        return left, right + start, _scores(vectors, left, others, right)

    def _best_of(
        self, vectors: Vectors, own: int, start: int, stop: int
    ) -> tuple[Rows, Rows, Vectors]:
        """About the best `k` of these rows for each question but itself, with scores.

        The rows of the questions are from `own` on. For each there are at least `k`.
        """
        faiss, k = load_faiss(), self._k + 1
        others = self._table.read(start, stop)
        products = np.empty((len(vectors), k), np.float32)
        places = np.empty((len(vectors), k), np.int64)
        faiss.knn_inner_product(
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(others),
            vectors.shape[1],
            len(vectors),
            len(others),
            k,
            faiss.swig_ptr(products),
            faiss.swig_ptr(places),
        )
        left = np.repeat(np.arange(len(vectors)), k)
        right = places.ravel()
        other = right + start != left + own
        left, right = left[other], right[other]
        return left, right + start, _scores(vectors, left, others, right)


class _Kept:
    """Pairs found so far, in pieces."""

    def __init__(self) -> None:
        self.count = 0
        self._pieces: list[tuple[Rows, Rows, Vectors]] = []

    def add(self, left: Rows, right: Rows, scores: Vectors) -> None:
        if len(left):
            self.count += len(left)
            self._pieces.append((left, right, scores))

    def joined(self) -> tuple[Rows, Rows, Vectors]:
        """All of them as one piece."""
        if len(self._pieces) != 1:
            left, right, scores = zip(*self._pieces, strict=True) if self._pieces else ((), (), ())
            self._pieces = [
                (
                    np.concatenate([np.empty(0, np.intp), *left]),
                    np.concatenate([np.empty(0, np.intp), *right]),
                    np.concatenate([np.empty(0, np.float32), *scores]),
                )
            ]
        return self._pieces[0]

    def keep(self, which: npt.NDArray[Any]) -> None:
        """Only these, in this order: a mask, or places among all."""
        left, right, scores = (column[which] for column in self.joined())
        self.count = len(left)
        self._pieces = [(left, right, scores)]

    def shorten(self, k: int, questions: int) -> Vectors:
        """Keep the best `k` of each question, best first, equal ones by row.

        Returns the lowest score that is left of each, float32[questions]; each has at least `k`.
        """
        left, right, scores = self.joined()
        order = np.lexsort((right, -scores, left))
        starts = np.searchsorted(left[order], np.arange(questions))
        rank = np.arange(len(order)) - starts[left[order]]
        self.keep(order[rank < k])
        return self.joined()[2][k - 1 :: k]


def _done(future: Future[Any]) -> bool:
    try:
        future.result(POLL_SECONDS)
    except TimeoutError:
        return future.done()
    return True


def _scores(vectors: Vectors, left: Rows, others: Vectors, right: Rows) -> Vectors:
    """The inner product of each pair of rows, summed in an order that the width alone decides."""
    faiss = load_faiss()
    scores = np.empty(len(left), np.float32)
    if len(left):
        faiss.pairwise_indexed_inner_product(
            vectors.shape[1],
            len(left),
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(left),
            faiss.swig_ptr(others),
            faiss.swig_ptr(right),
            faiss.swig_ptr(scores),
        )
    return scores
