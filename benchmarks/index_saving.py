"""How long a checkpoint holds up the queries that come meanwhile.

    python -m benchmarks.index_saving FOLDER SIZE RECIPE

A thread asks one query after the other; the main thread writes the checkpoint of the index, with
some new and some removed vectors in it, and rests in between. Prints JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.common import median, percentile
from benchmarks.index_ours import IDENTITY, checkpoint, recipes
from benchmarks.index_peers import K
from benchmarks.index_vectors import Vectors
from searchlib.index import read_checkpoint, write_checkpoint

ROUNDS = 5
CHANGED = 10_000
_REST_SECONDS = 1.0


def measure(made: Vectors, size: int, name: str) -> dict[str, Any]:
    """Ask and write at the same time."""
    recipes()
    queries = made.queries
    asked: list[tuple[float, float]] = []
    written: list[tuple[float, float]] = []
    ended = threading.Event()

    with tempfile.TemporaryDirectory(dir=made.folder, prefix="saving-") as scratch:
        for file in checkpoint(made, name, size).parent.iterdir():
            shutil.copy(file, scratch)
        path = Path(scratch) / checkpoint(made, name, size).name
        index, _ = read_checkpoint(path, identity=IDENTITY, dimension=queries.shape[1])
        index.remove(range(0, size, max(1, size // CHANGED)))
        changed = min(CHANGED, size)
        index.upsert(range(size, size + changed), made.base(changed).astype("float32"))

        def ask() -> None:
            place = 0
            while not ended.is_set():
                start = time.perf_counter()
                index.search(queries[place : place + 1], K)
                asked.append((start, time.perf_counter()))
                place = (place + 1) % len(queries)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            time.sleep(_REST_SECONDS)
            for number in range(ROUNDS):
                start = time.perf_counter()
                write_checkpoint(path, index, identity=IDENTITY, seq=size + number)
                written.append((start, time.perf_counter()))
                time.sleep(_REST_SECONDS)
        finally:
            ended.set()
            asking.join()
    during: list[float] = []
    beside: list[float] = []
    for start, stop in asked:
        met = any(start < end and stop > begin for begin, end in written)
        (during if met else beside).append(1e3 * (stop - start))
    return {
        "write_seconds": [end - begin for begin, end in written],
        "during_ms": {"queries": len(during), "p50": median(during), "max": max(during)},
        "beside_ms": {
            "queries": len(beside),
            "p50": median(beside),
            "p99": percentile(beside, 99),
            "max": max(beside),
        },
    }


def main() -> None:
    """Measure."""
    folder, size, name = sys.argv[1:]
    print(json.dumps(measure(Vectors(Path(folder), ""), int(size), name)))


if __name__ == "__main__":
    main()
