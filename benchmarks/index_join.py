"""All pairs of a base with a cosine of at least 0.9, by us and by plain FAISS.

    python -m benchmarks.index_join FOLDER SIZE WAY

WAY is one of WAYS. Prints JSON: what it took without loading the vectors, and how many pairs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_vectors import Vectors
from searchlib.index import FaissIndex
from searchlib.index.pairs import self_join

THRESHOLD = 0.9
_BLOCK = 4096


def by_us(made: Vectors, size: int) -> tuple[float, int]:
    """`self_join` of an index over the mapped vectors."""
    index = FaissIndex.over(np.arange(size), np.asarray(made.base(size)))
    start = time.perf_counter()
    pairs = sum(len(some) for some in self_join(index, threshold=THRESHOLD))
    return time.perf_counter() - start, pairs


def by_range_search(made: Vectors, size: int) -> tuple[float, int]:
    """IndexFlatIP.range_search with all vectors, a block at a time; each pair is found twice."""
    import faiss

    vectors = made.base(size).astype(np.float32)
    start = time.perf_counter()
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    found = 0
    for first in range(0, size, _BLOCK):
        limits, _, _ = flat.range_search(vectors[first : first + _BLOCK], THRESHOLD)
        found += int(limits[-1])
    return time.perf_counter() - start, (found - size) // 2


def by_blocks(made: Vectors, size: int) -> tuple[float, int]:
    """The same with an index of each block, asked by the vectors up to its end: half of it."""
    import faiss

    vectors = made.base(size).astype(np.float32)
    start = time.perf_counter()
    found = 0
    for first in range(0, size, _BLOCK):
        block = vectors[first : first + _BLOCK]
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(block)
        limits, _, _ = flat.range_search(vectors[: first + len(block)], THRESHOLD)
        before = int(limits[first])
        found += before + (int(limits[-1]) - before - len(block)) // 2
    return time.perf_counter() - start, found


WAYS: dict[str, Callable[[Vectors, int], tuple[float, int]]] = {
    "searchlib": by_us,
    "FAISS range_search": by_range_search,
    "FAISS range_search, half": by_blocks,
}


def main() -> None:
    """Measure one."""
    folder, size, way = sys.argv[1:]
    seconds, pairs = WAYS[way](Vectors(Path(folder), ""), int(size))
    found: dict[str, Any] = {"seconds": seconds, "pairs": pairs}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
