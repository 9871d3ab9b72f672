"""An index that grows by single additions, with a query now and then, and merges in the background.

    python -m benchmarks.index_streaming FOLDER SIZE

Vectors come one by one in a random order; after every 1,000 a query is asked, from the queries in
turn. When to merge, and with which recipe, is decided as the product decides it, and the merge runs
in a thread beside the additions, which do not wait for it. Every so often the queries are asked
exactly too, for the recall at that size. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_ours import IDENTITY, TARGET, default
from benchmarks.index_peers import K
from benchmarks.index_vectors import Vectors
from searchlib.index import FaissIndex, write_checkpoint
from searchlib.search.choice import Parts, is_build_due

EVERY = 1000
RECALL_EVERY = 20
"""Queries between two of which the exact answer is asked for too."""

RATE = 2000.0
"""Additions in a second, at most. A library writes each to its database before, and is slower."""


def stream(made: Vectors, size: int, rate: float = RATE) -> dict[str, Any]:
    """Add all, and ask."""
    queries, base = made.queries, made.base(size)
    order = np.random.default_rng(6).permutation(size)
    index = FaissIndex(queries.shape[1])
    adds = np.empty(size, np.float32)
    asked: list[dict[str, Any]] = []
    merges: list[dict[str, Any]] = []
    failed: list[str] = []
    merging: threading.Thread | None = None

    def merge(path: Path) -> None:
        start, at = time.perf_counter(), len(index)
        try:
            recipe = default(len(index), index.dimension)
            done = index.merge(recipe, checkpoint=path, target=TARGET)
            if done:
                write_checkpoint(path, index, identity=IDENTITY, seq=at)
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
            return
        facts = index.base
        merges.append(
            {
                "from": at,
                "to": len(index),
                "seconds": time.perf_counter() - start,
                "recipe": facts.recipe if facts else "exact",
                "done": done,
            }
        )

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=made.folder, prefix="streaming-") as scratch:
        path = Path(scratch) / "index.ckpt"
        for number, row in enumerate(order.tolist()):
            vector = base[row : row + 1].astype(np.float32)
            start = time.perf_counter()
            index.upsert([number], vector)
            adds[number] = time.perf_counter() - start
            if (number + 1) % EVERY:
                continue
            idle = merging is None or not merging.is_alive()
            if idle and not failed and _is_merge_due(index):
                merging = threading.Thread(target=merge, args=(path,))
                merging.start()
            query = queries[len(asked) % len(queries)][None]
            start = time.perf_counter()
            found = index.search(query, K)
            seconds = time.perf_counter() - start
            row_of: dict[str, Any] = {"size": number + 1, "ms": 1e3 * seconds, "fresh": index.fresh}
            row_of["merging"] = merging is not None and merging.is_alive()
            if len(asked) % RECALL_EVERY == 0:
                true = index.search(query, K, exact=True)
                row_of["recall"] = float(np.isin(true.ids, found.ids).mean())
            asked.append(row_of)
            ahead = (number + 1) / rate - (time.perf_counter() - began)
            if ahead > 0:
                time.sleep(ahead)
        if merging is not None:
            merging.join()
    if failed:
        raise SystemExit(f"the merge ended with {failed[0]}")
    shares = (50, 99, 100)
    return {
        "size": size,
        "seconds": time.perf_counter() - began,
        "queries": asked,
        "merges": merges,
        "add_ms": dict(zip(("p50", "p99", "max"), _ms(adds, shares), strict=True)),
    }


def _is_merge_due(index: FaissIndex) -> bool:
    """What LiveIndex decides by."""
    base = index.base
    parts = Parts(
        len(index),
        index.fresh,
        recipe=base.recipe if base else None,
        rows=base.rows if base else None,
        dead=index.dead,
    )
    return is_build_due(default(len(index), index.dimension), parts)


def _ms(seconds: np.ndarray[Any, np.dtype[np.float32]], shares: tuple[int, ...]) -> list[float]:
    found: list[float] = (1e3 * np.percentile(seconds, shares)).tolist()
    return found


def main() -> None:
    """Measure."""
    folder, size, *rate = sys.argv[1:]
    print(json.dumps(stream(Vectors(Path(folder), ""), int(size), *map(float, rate))))


if __name__ == "__main__":
    main()
