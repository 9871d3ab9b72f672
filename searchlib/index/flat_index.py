"""`FlatIndex`: exact search over float16 vectors, the one for up to a million images."""

from __future__ import annotations

import operator
import threading

import numpy as np
import numpy.typing as npt

from searchlib.errors import VectorError
from searchlib.index.checks import check_dimension, check_ids, check_k, check_pairs, check_vectors
from searchlib.index.protocol import Ids, Neighbours, Vectors
from searchlib.index.scan import Snapshot
from searchlib.index.segments import SEGMENT_ROWS, Codes, Segment, appended, cut, packed


class FlatIndex:
    """Keeps vectors rounded to float16 and compares a query with every one of them.

    A vector takes 2 bytes per dimension and 8 for its id. A score is the inner product of the
    float32 query and the rounded vector; it differs from that of the vector as it was given by
    about 1e-5, and by 5e-4 at most.

    Changes are made one after the other and leave alone what a search has begun to read, so
    searches never wait. Adding n vectors writes n rows; replacing or removing copies the segments
    that hold them, so give many at once.
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
        self._now = Snapshot((), self._dimension)

    @classmethod
    def over(cls, ids: Ids, codes: Codes) -> FlatIndex:
        """An index that looks at ids int64[n] and vectors float16[n, dimension] without a copy.

        They may lie in a mapped file. They are not checked, and nobody may write to them any more.
        """
        index = cls(codes.shape[1])
        index._now = Snapshot(cut(ids, codes, index._segment_rows), index._dimension)
        return index

    @property
    def dimension(self) -> int:
        return self._dimension

    def segments(self) -> tuple[Segment, ...]:
        """The rows of this moment. They stay as they are when the index changes."""
        return self._now.segments

    def __len__(self) -> int:
        return self._now.count

    def __contains__(self, id: object) -> bool:
        try:
            # Whatever is no integer raises, which mypy wants to be told beforehand.
            wanted = np.array([operator.index(id)], np.int64)  # type: ignore[arg-type]
        except (TypeError, OverflowError):
            return False
        return any(segment.find(wanted)[0] >= 0 for segment in self._now.segments)

    def ids(self) -> Ids:
        return np.sort(self._now.ids())

    def vectors(self, ids: npt.ArrayLike) -> Vectors:
        wanted = check_ids(ids)
        vectors = np.empty((len(wanted), self._dimension), np.float32)
        missing = np.ones(len(wanted), np.bool_)
        for segment in self._now.segments:
            rows = segment.find(wanted)
            here = rows >= 0
            vectors[here] = segment.codes[rows[here]]
            missing &= ~here
        if missing.any():
            raise VectorError(f"id {wanted[missing][0]} is not in the index")
        return vectors

    def upsert(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        given, codes = check_pairs(ids, vectors, self._dimension)
        if not len(given):
            return
        with self._changing:
            new = np.ones(len(given), np.bool_)
            segments = list(self._now.segments)
            for place, segment in enumerate(segments):
                rows = segment.find(given)
                here = rows >= 0
                if here.any():
                    segments[place] = segment.replaced(rows[here], codes[here])
                    new &= ~here
            segments = appended(segments, given[new], codes[new], self._segment_rows)
            self._now = Snapshot(packed(segments, self._segment_rows), self._dimension)

    def remove(self, ids: npt.ArrayLike) -> int:
        unwanted = check_ids(ids)
        with self._changing:
            before = self._now
            segments = list(before.segments)
            for place, segment in enumerate(segments):
                rows = segment.find(unwanted)
                here = rows >= 0
                if here.any():
                    segments[place] = segment.without(rows[here])
            self._now = Snapshot(packed(segments, self._segment_rows), self._dimension)
            return before.count - self._now.count

    def search(self, queries: npt.ArrayLike, k: int) -> Neighbours:
        return self._now.search(check_vectors(queries, self._dimension), check_k(k))
