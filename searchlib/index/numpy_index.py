"""`NumpyIndex`: brute force in numpy, slow and obviously right; the other indexes must agree."""

from __future__ import annotations

import operator
import threading

import numpy as np
import numpy.typing as npt

from searchlib.errors import VectorError
from searchlib.index.checks import check_dimension, check_ids, check_k, check_pairs, check_vectors
from searchlib.index.protocol import Ids, Neighbours, Subset, Vectors


class NumpyIndex:
    """Keeps float32 vectors in ascending order of their ids and compares a query with each.

    Both arrays are replaced and never changed, so a search needs no lock.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = check_dimension(dimension)
        self._changing = threading.Lock()
        self._table: tuple[Ids, Vectors] = (
            np.empty(0, np.int64),
            np.empty((0, self._dimension), np.float32),
        )

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        return len(self._table[0])

    def __contains__(self, id: object) -> bool:
        try:
            # Whatever is no integer raises, which mypy wants to be told beforehand.
            return operator.index(id) in self._table[0]  # type: ignore[arg-type]
        except TypeError:
            return False

    def ids(self) -> Ids:
        ids, _ = self._table
        return ids.copy()

    def vectors(self, ids: npt.ArrayLike) -> Vectors:
        wanted = check_ids(ids)
        have, vectors = self._table
        unknown = np.setdiff1d(wanted, have)
        if unknown.size:
            raise VectorError(f"id {unknown[0]} is not in the index")
        return vectors[np.searchsorted(have, wanted)]

    def upsert(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        new_ids, new_vectors = check_pairs(ids, vectors, self._dimension)
        with self._changing:
            have, kept = self._table
            keep = ~np.isin(have, new_ids)
            all_ids = np.concatenate([have[keep], new_ids])
            all_vectors = np.concatenate([kept[keep], new_vectors])
            order = np.argsort(all_ids)
            self._table = all_ids[order], all_vectors[order]

    def remove(self, ids: npt.ArrayLike) -> int:
        unwanted = check_ids(ids)
        with self._changing:
            have, vectors = self._table
            keep = ~np.isin(have, unwanted)
            self._table = have[keep], vectors[keep]
            return int(np.count_nonzero(~keep))

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        among: Subset | None = None,
        exact: bool = False,  # noqa: ARG002 - it always is
    ) -> Neighbours:
        checked = check_vectors(queries, self._dimension)
        wanted = check_k(k)
        ids, vectors = self._table
        if among is not None:
            keep = np.isin(ids, among.ids)
            ids, vectors = ids[keep], vectors[keep]
        found = Neighbours(
            np.empty((len(checked), min(wanted, len(ids))), np.int64),
            np.empty((len(checked), min(wanted, len(ids))), np.float32),
        )
        wide = vectors.astype(np.float64)
        for row, query in enumerate(checked):
            # Not a matrix product: BLAS adds up the rows at its edges in another order than the
            # rest, and equal vectors would score differently.
            scores = (wide * query).sum(axis=1).astype(np.float32)
            best = np.lexsort((ids, -scores))[:wanted]
            found.ids[row], found.scores[row] = ids[best], scores[best]
        return found
