"""What a filter costs, and what recall it leaves.

    python -m benchmarks.index_filters FOLDER SIZE RECIPE

For each share of the vectors, chosen by chance, queries are asked among those and without a filter
in turns. Then the same for vectors that lie together: the nearest to one query, which is what a
folder or a day is like; the other queries are far from all of them. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import median, percentile
from benchmarks.index_ours import opened
from benchmarks.index_peers import K
from benchmarks.index_vectors import Truth, Vectors, nearest
from searchlib.index import FaissIndex, Subset

SHARES = (0.001, 0.01, 0.1, 0.5, 0.9)
TOGETHER = (0.01, 0.1)
QUERIES = 200
_BLOCK = 50_000


def measure(made: Vectors, size: int, name: str) -> dict[str, Any]:
    """All shares."""
    index = opened(made, name, size)
    # Those of one photograph stand together, so every so many-th of them.
    queries = np.ascontiguousarray(made.queries[:: max(1, len(made.queries) // QUERIES)])
    random = np.random.default_rng(8)
    found: dict[str, Any] = {"by_chance": {}, "together": {}}
    for share in SHARES:
        rows = random.choice(size, max(K, round(share * size)), replace=False)
        found["by_chance"][str(share)] = _among(made, size, index, queries, rows)
    base, last = made.base(size), made.queries[-1]
    blocks = range(0, size, _BLOCK)
    # numpy multiplies float16 one number at a time.
    near = [base[start : start + _BLOCK].astype(np.float32) @ last for start in blocks]
    middle = np.concatenate(near)
    for share in TOGETHER:
        count = max(K, round(share * size))
        rows = np.argpartition(-middle, count)[:count]
        found["together"][str(share)] = _among(made, size, index, queries, rows)
    return found


def _among(
    made: Vectors,
    size: int,
    index: FaissIndex,
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> dict[str, Any]:
    rows = np.sort(rows)
    keep = np.zeros(size, np.bool_)
    keep[rows] = True
    true = nearest(made.base(size), queries, keep=keep)
    subset = Subset.of(rows)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    ids = np.empty((len(queries), K), np.int64)
    for place in range(len(queries)):
        query = queries[place : place + 1]
        for filtered in (True, False) if place % 2 else (False, True):
            start = time.perf_counter()
            found = index.search(query, K, among=subset if filtered else None)
            seconds[filtered].append(1e3 * (time.perf_counter() - start))
            if filtered:
                ids[place] = found.ids[0]
    return {
        "allowed": len(rows),
        "recall": Truth(true.rows, true.scores).recall(ids),
        "p50_ms": median(seconds[True]),
        "p95_ms": percentile(seconds[True], 95),
        "unfiltered_p50_ms": median(seconds[False]),
    }


def main() -> None:
    """Measure."""
    folder, size, name = sys.argv[1:]
    print(json.dumps(measure(Vectors(Path(folder), ""), int(size), name)))


if __name__ == "__main__":
    main()
