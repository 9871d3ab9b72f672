"""Searching among the images that meet a condition.

There are two ways. Either the nearest of all images are looked at, and those that do not meet the
condition dropped: that is cheap where enough of them do. Or all images that meet it are read from
the catalog, and only these are searched: that is cheap where they are few, or known already. The
first is tried first unless they are known to be few, and what the second reads is kept for as long
as nobody changes the catalog.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog
from searchlib.index import Subset
from searchlib.search.live_index import LiveIndex

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition
    from searchlib.search.served_index import ServedIndex

# So few images are read at once, where an index knows that they are so few.
_FEW = 256
# How many of the nearest are looked at first, and at most, before all that meet a condition are
# read. To look up 400 in the catalog takes about as long as to search a hundred thousand vectors.
_LOOK_FIRST = 200
_LOOK_LAST = 400
_MARGIN = 1.5
# Subsets are kept for so many conditions; each takes up to 8 bytes an image.
_KEPT = 16


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The nearest images that meet a condition, best first.

    Attributes:
        ids: int64 [n].
        scores: their cosines as the index has them, float32 [n].
        complete: there are no more.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    complete: bool


class Filter:
    """Finds candidates under conditions; may be used from many threads.

    Args:
        catalog: knows which images meet a condition.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._version: Hashable = None
        self._subsets: OrderedDict[Condition, Subset] = OrderedDict()
        self._common: set[Condition] = set()

    def nearest(
        self,
        vector: NDArray[np.float32],
        index: LiveIndex | ServedIndex,
        count: int,
        *,
        where: Condition | None,
        exact: bool,
    ) -> Candidates:
        """At least `count` candidates, or all that there are.

        Args:
            vector: float32 [dimension], of length 1.
            index: that is searched.
            count: how many are wanted.
            where: what they must meet; only those that are images with a file in place count then.
                Without a condition, images of which all files are gone are among them.
            exact: compare with every vector.
        """
        if where is None:
            return _search(index, vector, count, None, exact)
        version = self._catalog.selection.version()
        subset = self._known(where, version)
        if subset is None:
            if where in self._common or not self._catalog.selection.is_rare(where, _FEW):
                found = self._among_the_nearest(vector, index, count, where, exact)
                if found is not None:
                    self._note_common(where, version)
                    return found
            subset = Subset.of(self._catalog.selection.ids(where))
            self._keep(where, subset, version)
        return _search(index, vector, count, subset, exact)

    def _among_the_nearest(
        self,
        vector: NDArray[np.float32],
        index: LiveIndex | ServedIndex,
        count: int,
        where: Condition,
        exact: bool,
    ) -> Candidates | None:
        """The first way; None where too few of the nearest meet the condition."""
        look = max(_LOOK_FIRST, 2 * count)
        while True:
            near = _search(index, vector, look, None, exact)
            fitting = self._catalog.selection.among(near.ids.tolist(), where)
            kept = np.flatnonzero(np.isin(near.ids, np.fromiter(fitting, np.int64, len(fitting))))
            if near.complete or len(kept) >= count:
                complete = near.complete and len(kept) <= count
                return Candidates(near.ids[kept[:count]], near.scores[kept[:count]], complete)
            if look >= _LOOK_LAST or not len(kept):
                return None
            # As many as are enough if the share of those that fit stays what it is.
            enough = look * count / len(kept)
            if enough > _LOOK_LAST:
                return None
            look = min(math.ceil(_MARGIN * enough), _LOOK_LAST)

    def _known(self, where: Condition, version: Hashable) -> Subset | None:
        with self._lock:
            if version != self._version:
                self._subsets.clear()
                self._common.clear()
                self._version = version
            subset = self._subsets.get(where)
            if subset is not None:
                self._subsets.move_to_end(where)
            return subset

    def _note_common(self, where: Condition, version: Hashable) -> None:
        """Remember that the first way was good for a condition, and need not be chosen again."""
        with self._lock:
            if version == self._version and len(self._common) < _KEPT:
                self._common.add(where)

    def _keep(self, where: Condition, subset: Subset, version: Hashable) -> None:
        """Keep a subset that was read after the version was asked for."""
        with self._lock:
            if version == self._version:
                self._subsets[where] = subset
                while len(self._subsets) > _KEPT:
                    self._subsets.popitem(last=False)


def _search(
    index: LiveIndex | ServedIndex,
    vector: NDArray[np.float32],
    count: int,
    among: Subset | None,
    exact: bool,
) -> Candidates:
    if among is not None and not len(among):
        return Candidates(np.empty(0, np.int64), np.empty(0, np.float32), True)
    found = index.search(vector[None], count, among=among, exact=exact)
    ids, scores = found.ids[0], found.scores[0]
    return Candidates(ids, scores, len(ids) < count)
