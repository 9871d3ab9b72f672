"""What an index is: the protocol that every index keeps, and the answer to a search.

Every index of this room gives the same answers to the same calls, up to its recall:

- scores are inner products of unit vectors, that is cosines, highest first; each is that of the
  stored vector, however its neighbour was found;
- equal scores stand in ascending order of their ids. This decides as well which of several equally
  good vectors are among the `k`: those with the smallest ids;
- a search, and every other question, sees one state of the index: all of a change or none of it;
- what a call may not hold is refused with `VectorError` before anything is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_TABLE = 1 << 27


@dataclass(frozen=True, eq=False)
class Subset:
    """The ids that a search may return, from `Subset.of`.

    Attributes:
        ids: int64[n], ascending, all different. Some may not be in the index.
    """

    ids: Ids

    @classmethod
    def of(cls, ids: npt.ArrayLike) -> Subset:
        """A subset of these ids, in any order, given once or more often.

        Raises:
            VectorError: not one row of integers, or an id below 0 or above 2**63 - 1.
        """
        # Here, because the checks need the types of this module.
        from searchlib.index.checks import check_ids

        try:
            given = np.asarray(ids)
        except ValueError:
            return cls(check_ids(ids))
        several = given.ndim == 1 and given.dtype.kind in "iu"
        return cls(check_ids(np.unique(given) if several else given))

    def __len__(self) -> int:
        return len(self.ids)

    def holds(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these ids, int64[m] from 0 and in any order, are in the subset; bool[m]."""
        table = self._table
        if table is not None:
            held: npt.NDArray[np.bool_] = table[np.minimum(ids, len(table) - 1)]
            return held
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        found: npt.NDArray[np.bool_] = self.ids[place] == ids
        return found

    def holds_range(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """The same for the ids from `first` on, bool[count]; not to be changed."""
        table = self._table
        if table is None:
            return self.holds(np.arange(first, first + count))
        some = table[first : first + count]
        return np.pad(some, (0, count - len(some))) if len(some) < count else some

    @cached_property
    def _table(self) -> npt.NDArray[np.bool_] | None:
        """For each id whether it is held, and False for the one behind the last; None where that
        would take too much memory. Many times as fast as a search among the ids.
        """
        top = int(self.ids[-1]) + 1 if len(self.ids) else 0
        if top > _TABLE:
            return None
        table = np.zeros(top + 1, np.bool_)
        table[self.ids] = True
        return table


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest vectors of each query.

    Attributes:
        ids: int64[q, k'], where k' = min(k, number of vectors that the search may return).
        scores: float32[q, k'], cosines in descending order; equal ones by ascending id.
    """

    ids: Ids
    scores: Vectors


class VectorIndex(Protocol):
    """Unit vectors under ids of the caller's choice. Safe to use from several threads."""

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        ...

    def __len__(self) -> int:
        """How many vectors there are."""
        ...

    def __contains__(self, id: object) -> bool:
        """Whether there is a vector under this id."""
        ...

    def ids(self) -> Ids:
        """All ids, int64[n], ascending; a copy."""
        ...

    def vectors(self, ids: npt.ArrayLike) -> Vectors:
        """The vectors of these ids as they are stored, float32[n, dimension].

        Raises:
            VectorError: ids that `check_ids` refuses, or one that is not in the index.
        """
        ...

    def upsert(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Adds the vectors, float[n, dimension], or replaces those whose ids are there already.

        Raises:
            VectorError: what `check_ids` or `check_vectors` refuses, or not one id per vector.
        """
        ...

    def remove(self, ids: npt.ArrayLike) -> int:
        """Removes the vectors of these ids and returns how many of them there were.

        Raises:
            VectorError: ids that `check_ids` refuses.
        """
        ...

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        among: Subset | None = None,
        exact: bool = False,
    ) -> Neighbours:
        """The `k` nearest vectors of each query, float[q, dimension]; all where there are fewer.

        Args:
            queries: unit vectors.
            k: how many.
            among: return only these; all where it is None.
            exact: compare with every vector, also where the index knows a faster way.

        Raises:
            VectorError: queries that `check_vectors` refuses, or k below 1.
        """
        ...
