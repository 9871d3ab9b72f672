"""What a process pays for an index: opening it, the first query, memory.

    python -m benchmarks.index_open FOLDER SIZE RECIPE
    python -m benchmarks.index_open FOLDER SIZE

The second, which comes first, makes 10,000 queries, imports what the other does and opens
nothing: what the memory is compared with. The first opens the checkpoint that `index_ours` wrote
and asks the queries. One tenth of them are real, the others are vectors of the base, so that all
of it is asked for. Prints JSON.
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
    if name is None:
        import faiss

        assert faiss
        found: dict[str, Any] = {"imported": memory()}
        np.save(_path(made, size), _queries(made, size))
        return found
    queries = np.load(_path(made, size))
    found = {"before": memory()}
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


def _path(made: Vectors, size: int) -> Path:
    return made.folder / f"queries-{size}.npy"


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
