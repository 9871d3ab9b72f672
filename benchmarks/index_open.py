"""What a process pays for an index: opening it, the first query, memory.

    python -m benchmarks.index_open FOLDER SIZE RECIPE
    python -m benchmarks.index_open FOLDER SIZE

opens the checkpoint that `index_ours` wrote, asks 10,000 queries, and prints JSON; without RECIPE
it imports the same and opens nothing, which is what the memory is compared with. One tenth of the
queries are real, the others are vectors of the base, so that all of it is asked for.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_ours import opened
from benchmarks.index_peers import K
from benchmarks.index_vectors import Vectors

QUERIES = 10_000


def measure(made: Vectors, size: int, name: str | None) -> dict[str, Any]:
    """Open and ask."""
    queries = _queries(made, size)
    found: dict[str, Any] = {"before": memory()}
    if name is None:
        import faiss

        assert faiss
        return {"imported": memory()}
    start = time.perf_counter()
    index = opened(made, name, size)
    found["open_seconds"] = time.perf_counter() - start
    found["opened"] = memory()
    start = time.perf_counter()
    index.search(queries[:1], K)
    found["first_seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    for place in range(1, len(queries)):
        index.search(queries[place : place + 1], K)
    found["queries_seconds"] = time.perf_counter() - start
    found["queries"] = len(queries)
    found["after"] = memory()
    return found


def memory() -> dict[str, int]:
    """Resident bytes of this process: now, at most so far, and of now those of mapped files."""
    wanted = {"VmRSS": "resident", "VmHWM": "peak", "RssFile": "mapped"}
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, words = line.partition(":")
        if name in wanted:
            found[wanted[name]] = int(words.split()[0]) * 1024
    return found


def _queries(made: Vectors, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(4)
    rows = np.sort(random.integers(0, size, QUERIES - len(made.queries)))
    both = np.concatenate([made.queries, made.base(size)[rows].astype(np.float32)])
    return np.ascontiguousarray(both[random.permutation(len(both))])


def main() -> None:
    """Measure."""
    folder, size, *name = sys.argv[1:]
    print(json.dumps(measure(Vectors(Path(folder), ""), int(size), name[0] if name else None)))


if __name__ == "__main__":
    main()
