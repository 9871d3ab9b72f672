"""Which lists of an inverted index hold the rows that a search may return.

Where few rows may be returned, or rows that lie together and far from the question, the lists that
are nearest to it may hold none of them. So a search among some rows looks into as many lists as it
takes to see the same share of those rows as a search among all sees of all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.index.protocol import Vectors
from searchlib.index.scan import Mask, load_faiss
from searchlib.index.training import centroid_index

FAR = 1.2
"""How many times as many lists as for rows here and there tell that the rows lie together and far
from the question. Seen from there they are about as near as each other."""

Counts = npt.NDArray[np.int64]


class Lists:
    """Where the rows of an inverted index are.

    Args:
        ivf: FAISS's index.
    """

    def __init__(self, ivf: Any) -> None:
        faiss = load_faiss()
        self._centroids: Vectors = centroid_index(ivf).reconstruct_n(0, ivf.nlist)
        self._of_row = np.empty(ivf.ntotal, np.int32)
        for number in range(ivf.nlist):
            size = ivf.invlists.list_size(number)
            if size:
                rows = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
                self._of_row[rows] = number

    def counts(self, mask: Mask) -> Counts:
        """How many of the rows of a mask, bool[rows], each list holds; int64[lists]."""
        return np.bincount(self._of_row[mask], minlength=len(self._centroids))

    def probes(self, queries: Vectors, counts: Counts, share: float) -> tuple[int, bool]:
        """How many lists show each query this share of the rows that were counted.

        Returns also whether the rows lie together and far from a query, and all are shown.

        Args:
            queries: float32[q, dimension].
            counts: of the rows that may be returned.
            share: of them, up to 1.
        """
        order = np.argsort(-(queries @ self._centroids.T), axis=1)
        seen = np.cumsum(counts[order], axis=1)
        total = int(seen[0, -1])
        probes = int((seen < share * total).sum(axis=1).max()) + 1
        if probes <= FAR * share * len(counts):
            return probes, False
        return int((seen < total).sum(axis=1).max()) + 1, True
