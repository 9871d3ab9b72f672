"""Segments: the rows of a `FaissIndex`, in blocks that never change.

A segment holds some thousand ids and their vectors, encoded as float16. A change of the index makes
new segments for the rows that it touches and shares all others with the state before, so a search
or a checkpoint that has begun keeps what it saw and nobody waits for anybody. Because a segment
does not change, it may as well lie in a mapped file.

Only the spare rows behind the last row of a segment are ever written, by `extended`.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.index.protocol import Ids

Codes = npt.NDArray[np.float16]

SEGMENT_ROWS = 16_384
"""Rows of a full segment: at 320 dimensions 10 MB, which stay in the cache of the processor while
several queries pass over them, and which are copied in about 2 ms."""


class Segment:
    """Rows of an index: `ids` int64[n] in any order and their `codes` float16[n, dimension]."""

    __slots__ = ("_buffers", "_order", "codes", "ids", "scanner")

    def __init__(self, ids: Ids, codes: Codes, buffers: tuple[Ids, Codes] | None = None) -> None:
        self.ids = ids
        self.codes = codes
        self.scanner: Any = None
        """What `searchlib.index.scan` made of this segment, kept for the next search."""
        self._buffers = buffers
        self._order: tuple[Ids, npt.NDArray[np.intp]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def spare(self) -> int:
        """How many rows `extended` can take without a copy."""
        return 0 if self._buffers is None else len(self._buffers[0]) - len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence[tuple[Ids, npt.NDArray[Any]]], capacity: int) -> Segment:
        """A segment that owns a copy of these ids and vectors, with room for `capacity` rows.

        Vectors of another dtype are rounded to the nearest float16, ties to even.
        """
        buffers = np.empty(capacity, np.int64), room(capacity, parts[0][1].shape[1])
        start = 0
        for ids, vectors in parts:
            stop = start + len(ids)
            buffers[0][start:stop] = ids
            buffers[1][start:stop] = vectors
            start = stop
        return cls(buffers[0][:start], buffers[1][:start], buffers)

    def extended(self, ids: Ids, vectors: npt.NDArray[Any]) -> Segment:
        """This segment and behind it these rows, at most `spare`, written into the same buffers.

        It may be called once on a segment, and only on one of the newest state: two successors of
        one segment would write to the same rows.
        """
        if self._buffers is None or len(ids) > self.spare:
            raise ValueError(f"{len(ids)} rows do not fit into {self.spare}")
        start, stop = len(self.ids), len(self.ids) + len(ids)
        self._buffers[0][start:stop] = ids
        self._buffers[1][start:stop] = vectors
        return Segment(self._buffers[0][:stop], self._buffers[1][:stop], self._buffers)

    def replaced(self, rows: npt.NDArray[np.intp], vectors: npt.NDArray[Any]) -> Segment:
        """A copy in which these rows have other vectors."""
        codes = room(*self.codes.shape)
        codes[:] = self.codes
        codes[rows] = vectors
        return Segment(self.ids, codes)

    def without(self, rows: npt.NDArray[np.intp]) -> Segment:
        """A copy that lacks these rows."""
        keep = np.ones(len(self), np.bool_)
        keep[rows] = False
        kept = np.flatnonzero(keep)
        codes = room(len(kept), self.codes.shape[1])
        # mode="clip" spares a second copy; no row is out of range.
        np.take(self.codes, kept, axis=0, out=codes, mode="clip")
        return Segment(self.ids[kept], codes)

    def find(self, ids: Ids) -> npt.NDArray[np.intp]:
        """The row of each id, or -1 where it is not here."""
        # Built at the first question and never changed; two threads may both build the same.
        if self._order is None:
            order = np.argsort(self.ids, kind="stable")
            self._order = self.ids[order], order
        ascending, order = self._order
        if not len(ids) or not len(self) or ids.max() < ascending[0] or ids.min() > ascending[-1]:
            return np.full(len(ids), -1, np.intp)
        place = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
        return np.where(ascending[place] == ids, order[place], -1)


def room(rows: int, dimension: int) -> Codes:
    """An array of its own pages, with whatever is in them; spare rows take none until written.

    malloc keeps freed blocks of this size, and after some changes the process would hold twice what
    the index needs; pages go back to the system with the array.
    """
    pages = mmap.mmap(-1, max(1, rows * dimension * 2), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Three times as fast to fill. A kernel without huge pages refuses, and that is fine.
        with contextlib.suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    room: Codes = np.ndarray((rows, dimension), np.float16, buffer=pages)
    return room


def cut(ids: Ids, codes: Codes, rows: int) -> list[Segment]:
    """Segments of at most `rows` rows that look at these arrays without a copy."""
    return [
        Segment(ids[start : start + rows], codes[start : start + rows])
        for start in range(0, len(ids), rows)
    ]


def appended(
    segments: Sequence[Segment], ids: Ids, vectors: npt.NDArray[Any], rows: int
) -> list[Segment]:
    """The segments and behind them these new ids, filling the last segment first."""
    after = list(segments)
    start = 0
    if after and after[-1].spare and len(ids):
        start = min(after[-1].spare, len(ids))
        after[-1] = after[-1].extended(ids[:start], vectors[:start])
    after += [
        Segment.joined([(ids[at : at + rows], vectors[at : at + rows])], rows)
        for at in range(start, len(ids), rows)
    ]
    return after


def packed(segments: Iterable[Segment], rows: int) -> tuple[Segment, ...]:
    """The same rows in few segments: drops empty ones, joins neighbours that fit into one.

    Afterwards two neighbours hold more than `rows` rows together, so that removals cannot leave
    many small segments behind. What needs no joining is kept and not copied.
    """
    groups: list[list[Segment]] = []
    room = 0
    for segment in segments:
        if not len(segment):
            continue
        if len(segment) <= room:
            groups[-1].append(segment)
            room -= len(segment)
        else:
            groups.append([segment])
            room = rows - len(segment)
    return tuple(
        group[0]
        if len(group) == 1
        else Segment.joined([(segment.ids, segment.codes) for segment in group], rows)
        for group in groups
    )


def upserted(
    segments: Sequence[Segment], ids: Ids, vectors: npt.NDArray[Any], rows: int
) -> tuple[Segment, ...]:
    """The segments with these vectors put, in place of those whose ids are there already."""
    new = np.ones(len(ids), np.bool_)
    after = list(segments)
    for place, segment in enumerate(segments):
        at = segment.find(ids)
        here = at >= 0
        if here.any():
            after[place] = segment.replaced(at[here], vectors[here])
            new &= ~here
    return packed(appended(after, ids[new], vectors[new], rows), rows)


def removed(segments: Sequence[Segment], ids: Ids, rows: int) -> tuple[Segment, ...]:
    """The segments without the rows of these ids; others may be named too."""
    after = list(segments)
    for place, segment in enumerate(segments):
        at = segment.find(ids)
        if (at >= 0).any():
            after[place] = segment.without(at[at >= 0])
    return packed(after, rows)
