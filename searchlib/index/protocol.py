"""What an index is: the protocol that every index keeps, and the answer to a search.

Every index of this room gives the same answers to the same calls, up to its recall:

- scores are inner products of unit vectors, that is cosines, highest first;
- equal scores stand in ascending order of their ids. This decides as well which of several equally
  good vectors are among the `k`: those with the smallest ids;
- a search, and every other question, sees one state of the index: all of a change or none of it;
- what a call may not hold is refused with `VectorError` before anything is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest vectors of each query.

    Attributes:
        ids: int64[q, k'], where k' = min(k, number of vectors in the index).
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

    def search(self, queries: npt.ArrayLike, k: int) -> Neighbours:
        """The `k` nearest vectors of each query, float[q, dimension]; all where there are fewer.

        Raises:
            VectorError: queries that `check_vectors` refuses, or k below 1.
        """
        ...
