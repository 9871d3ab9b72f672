"""Questions about many vectors at once: the neighbours of each, and all near pairs of an index.

`self_join` gives its pairs in blocks and holds a few of them at a time, however many pairs there
are. Each block says how far it reaches, and another call goes on from there.

Up to some number of vectors it compares all of them, see `searchlib.index.join`. Above, it asks the
index for the neighbours of each vector and widens the question until what comes is below the
threshold, so it finds what the index finds: a pair of `a < b` is reported where a search for `a`
returns `b`, and its recall is that of the index, as tuning measured it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from searchlib.errors import InputError, VectorError
from searchlib.index.bounds import Block, Rows, Table
from searchlib.index.checks import check_ids, check_k, check_vectors
from searchlib.index.faiss_index import FaissIndex
from searchlib.index.join import PAIRS, Join
from searchlib.index.protocol import Ids, Neighbours, Subset, VectorIndex, Vectors

EXACT_UP_TO = 100_000
"""Up to how many vectors a self-join compares all of them, unless it is told otherwise."""

BATCH = 1024
"""How many questions an index is asked at once."""

FETCH = 32
"""How many neighbours a question for all above a threshold begins with."""

WIDEN = 8
"""How many times as many it goes on with."""

TRIES = 5
"""How often an index that changes meanwhile is asked for all that it has."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Some of the pairs that a self-join finds.

    Attributes:
        left: int64[m], an id of each pair, ascending.
        right: int64[m], the other.
        scores: float32[m], their cosine.
        position: all pairs whose `left` is up to this id have been given, with this block the last
            of them; to be handed to the next call as `start`.
    """

    left: Ids
    right: Ids
    scores: Vectors
    position: int

    def __len__(self) -> int:
        return len(self.left)


def neighbours(
    index: VectorIndex,
    queries: npt.ArrayLike,
    k: int,
    *,
    among: Subset | None = None,
    exact: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Neighbours:
    """The `k` nearest vectors of each of many.

    Beside the answer it takes memory for some thousand questions only. A `FaissIndex` answers all
    of them from its state at the call.

    Args:
        index: where to look.
        queries: ids int[q] of vectors of the index, each of which is left out of its own answer, or
            unit vectors float[q, dimension].
        k: how many.
        among: return only these; all where it is None.
        exact: compare with every vector, also where the index knows a faster way.
        on_progress: called with how many questions are answered and how many there are.

    Returns:
        As from a search, int64 and float32 [q, k']. Where one question has fewer answers than
        another, because it is itself one of those that may be returned, id -1 with score -inf
        stands at its end.

    Raises:
        VectorError: ids that `check_ids` refuses or that are not in the index, vectors that
            `check_vectors` refuses, or k below 1.
    """
    wanted = check_k(k)
    still = _frozen(index)
    given = np.asarray(queries)
    by_id = given.ndim == 1 and (given.dtype.kind in "iu" or not given.size)
    ids = check_ids(given) if by_id else np.empty(0, np.int64)
    vectors = np.empty(0) if by_id else check_vectors(given, index.dimension)
    count = len(ids) if by_id else len(vectors)
    width = min(wanted, len(still) if among is None else len(among))
    found = Neighbours(
        np.full((count, width), -1, np.int64), np.full((count, width), -np.inf, np.float32)
    )
    for at in range(0, count, BATCH):
        part = slice(at, at + BATCH)
        if by_id:
            some = _others(still, ids[part], still.vectors(ids[part]), wanted, among, exact)
        else:
            some = still.search(vectors[part], wanted, among=among, exact=exact)
        size = min(width, some.ids.shape[1])
        found.ids[part, :size] = some.ids[:, :size]
        found.scores[part, :size] = some.scores[:, :size]
        if on_progress is not None:
            on_progress(min(at + BATCH, count), count)
    used = int((found.ids >= 0).sum(axis=1).max()) if count else width
    return Neighbours(found.ids[:, :used], found.scores[:, :used])


def self_join(
    index: VectorIndex,
    *,
    threshold: float | None = None,
    k: int | None = None,
    exact: bool | None = None,
    exact_up_to: int = EXACT_UP_TO,
    start: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pairs]:
    """All pairs of vectors that are near each other, or the nearest others of each vector.

    With `threshold` each pair of ids `left < right` with a score of at least that is given once, in
    ascending order of both. With `k` there are `k` pairs for each `left`, or as many as there are
    others, its nearest first and equal scores by ascending `right`; the same two vectors may come
    twice, once from either side.

    A `FaissIndex` is joined as it is at the call, whatever happens to it afterwards. Of another
    index the vectors are read when the call is made, all of them where they are compared; where it
    is searched instead, ids that come later are not reported.

    Where all are compared, a score is the inner product of both vectors as they are stored, added
    up in float32 in an order that no other vector changes; what `search` of the index gives differs
    by less than 1e-6. It is this score, then, that reaches the threshold (rounded to float32) or
    does not. Where the index is searched, scores are those of its answers.

    Beside the index it takes up to 256 MB for the vectors in float32, as much for what rules pairs
    out, 30 bytes for each vector, and up to 400 MB for what is being compared, which is that much
    only where nearly every pair is one to be given.

    Args:
        index: whose vectors.
        threshold: the least score, from -1 to 1.
        k: how many others of each vector.
        exact: compare all vectors (True), search the index for each (False), or decide by the
            number of vectors (None).
        exact_up_to: up to how many vectors all are compared where `exact` is None.
        start: the position of a block; only what comes after it is given. The index may be another
            state or copy of that of the earlier call.
        stop: asked many times a second; the blocks end where it says True.
        on_progress: called before each block with the part of the work that is done and the whole.

    Raises:
        InputError: not one of threshold and k, a threshold that is not a number from -1 to 1, or a
            start that is not a whole number.
        VectorError: k below 1, or vectors of the index vanish while it is read.
        CheckpointError: vectors that lie in a file are damaged.
    """
    if (threshold is None) == (k is None):
        raise InputError("give either a threshold or k")
    limit = None if threshold is None else _checked_threshold(threshold)
    wanted = 0 if k is None else check_k(k)
    if start is not None and (isinstance(start, bool) or not isinstance(start, numbers.Integral)):
        raise InputError(f"start is {start!r}; give the position of a block, or none")
    after = -1 if start is None else int(start)
    still = _frozen(index)
    if len(still) <= exact_up_to if exact is None else exact:
        table = Table(_blocks(still), index.dimension)
        return _compared(table, limit, wanted, after, stop, on_progress)
    return _searched(still, limit, wanted, after, stop, on_progress)


def _compared(
    table: Table,
    threshold: float | None,
    k: int,
    after: int,
    stop: Callable[[], bool],
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[Pairs]:
    """The pairs by a comparison of all vectors."""
    count = len(table)
    first = int(np.searchsorted(table.ids, after, side="right"))
    for found in Join(table, threshold=threshold, k=k).run(first, stop):
        if on_progress is not None:
            done, total = found.stop, count
            if threshold is not None:  # only those behind it are compared with a vector
                done, total = found.stop * (2 * count - found.stop - 1) // 2, _pairs_of(count)
            on_progress(done, total)
        yield Pairs(
            table.ids[found.left],
            table.ids[found.right],
            found.scores,
            int(table.ids[found.stop - 1]),
        )


def _searched(
    index: VectorIndex,
    threshold: float | None,
    k: int,
    after: int,
    stop: Callable[[], bool],
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[Pairs]:
    """The pairs by searches of the index."""
    ids = index.ids()
    known = Subset(ids)
    at = int(np.searchsorted(ids, after, side="right"))
    while at < len(ids) and not stop():
        rows = min(BATCH, max(1, PAIRS // max(k, FETCH)))
        asked, vectors = _those_there(index, ids[at : at + rows])
        at = min(at + rows, len(ids))
        if threshold is None:
            found = _others(index, asked, vectors, k, None, False)
            left, place = np.nonzero(found.ids >= 0)
            right, scores = found.ids[left, place], found.scores[left, place]
        else:
            left, right, scores = _above(index, asked, vectors, threshold)
        kept = known.holds(right)
        if on_progress is not None:
            on_progress(at, len(ids))
        yield Pairs(asked[left[kept]], right[kept], scores[kept], int(ids[at - 1]))


def _above(
    index: VectorIndex, asked: Ids, vectors: Vectors, threshold: float
) -> tuple[Rows, Ids, Vectors]:
    """The later ids with a score of at least `threshold` that searches find, for each question."""
    limit = np.float32(threshold)
    none = np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0, np.float32)
    pieces: list[tuple[Rows, Ids, Vectors]] = [none]
    open_rows, fetch = np.arange(len(asked)), FETCH
    while len(open_rows):
        again: list[Rows] = []
        step = max(1, PAIRS // fetch)
        for start in range(0, len(open_rows), step):
            rows = open_rows[start : start + step]
            found = index.search(vectors[rows], fetch)
            more = np.zeros(len(rows), np.bool_)
            if found.ids.shape[1] == fetch:
                more = found.scores[:, -1] >= limit
            good = (found.scores >= limit) & (found.ids > asked[rows, None]) & ~more[:, None]
            row, place = np.nonzero(good)
            pieces.append((rows[row], found.ids[row, place], found.scores[row, place]))
            again.append(rows[more])
        open_rows, fetch = np.concatenate(again), fetch * WIDEN
    left, right, scores = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.lexsort((right, left))
    return left[order], right[order], scores[order]


def _others(
    index: VectorIndex, ids: Ids, vectors: Vectors, k: int, among: Subset | None, exact: bool
) -> Neighbours:
    """The `k` nearest of these vectors but themselves; id -1 and score -inf where there is none."""
    found = index.search(vectors, k + 1, among=among, exact=exact)
    own = found.ids == ids[:, None]
    order = np.argsort(own, axis=1, kind="stable")
    found.ids[own], found.scores[own] = -1, -np.inf
    return Neighbours(
        np.take_along_axis(found.ids, order, axis=1)[:, :k],
        np.take_along_axis(found.scores, order, axis=1)[:, :k],
    )


def _frozen(index: VectorIndex) -> VectorIndex:
    """The index of this moment where it can give that, else the index itself."""
    return index.frozen() if isinstance(index, FaissIndex) else index


def _blocks(index: VectorIndex) -> list[Block]:
    """All vectors of one moment."""
    if not isinstance(index, FaissIndex):
        ids, vectors = _all_of(index)
        return [Block(ids, vectors.__getitem__)]
    state = index.state()
    blocks = [Block(each.ids, each.codes.__getitem__) for each in state.fresh.segments]
    if state.base is not None:
        living = state.live.mask(state.base.rows)
        blocks.append(Block(np.where(living, state.base.ids, -1), state.base.vectors))
    return blocks


def _all_of(index: VectorIndex) -> tuple[Ids, Vectors]:
    for _ in range(TRIES):
        ids = index.ids()
        try:
            return ids, index.vectors(ids)
        except VectorError as error:  # one was removed in between
            refused = error
    raise refused


def _those_there(index: VectorIndex, ids: Ids) -> tuple[Ids, Vectors]:
    """Those of the ids that are still in the index, and their vectors."""
    for _ in range(TRIES):
        try:
            return ids, index.vectors(ids)
        except VectorError as error:
            refused = error
            ids = ids[[int(id) in index for id in ids]]
    raise refused


def _checked_threshold(threshold: float) -> float:
    try:
        number = float(threshold)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(threshold, bool | str) or not -1 <= number <= 1:
        raise InputError(f"threshold is {threshold!r}; give a number from -1 to 1")
    return number


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2
