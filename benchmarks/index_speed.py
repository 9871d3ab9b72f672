"""How fast indexes of one size answer, side by side in one process.

    python -m benchmarks.index_speed FOLDER SIZE THREADS NAME...

NAME is a recipe or a peer. With one thread the process keeps to one processor, before any library
is loaded, so that none of them has another. All take their turns, a few queries at a time, and the
order is reversed each time: what else the machine does meets all of them. Prints JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import index_ours, index_peers
from benchmarks.common import median, percentile, say
from benchmarks.index_peers import K, Queries, Rows
from benchmarks.index_vectors import Truth, Vectors

BLOCK = 20
SLOW_SECONDS = 0.02
"""Who takes longer for a query is asked SLOW_QUERIES only."""

SLOW_QUERIES = 100
MOST_SECONDS = 20.0
"""After which nobody is asked more."""

PAIRS = 1000
_WARM = 5


@dataclass(slots=True)
class Contestant:
    """One that takes part.

    Attributes:
        search: float32 [q, dimension] to int64 [q, K].
        facts: of it, for the report.
        seconds: of each query.
        slow: whether it is asked fewer.
    """

    search: Callable[[Queries], Rows]
    facts: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    slow: bool = False


def compare(made: Vectors, size: int, names: list[str], threads: int) -> dict[str, Any]:
    """Time all; the figures of each by name."""
    queries, truth = made.queries, made.truth(size)
    entered: dict[str, Contestant] = {}
    found: dict[str, Any] = {"size": size, "threads": threads, "of": {}, "overhead": {}}
    ours = index_ours.recipes()
    for name in names:
        say(f"  {name}, {size:,}, {threads} threads")
        entered[name] = _ours(made, name, size) if name in ours else _peer(made, name, size)
        if name in ours:
            paired = _overhead(made, name, size, queries)
            if paired:
                found["overhead"][name] = paired
    for contestant in entered.values():
        warm = [_seconds(contestant, queries[place : place + 1]) for place in range(_WARM)]
        contestant.slow = min(warm) > SLOW_SECONDS
    _alternate(list(entered.values()), queries)
    for name, contestant in entered.items():
        found["of"][name] = contestant.facts | _figures(contestant, queries, truth)
    return found


def _ours(made: Vectors, name: str, size: int) -> Contestant:
    index = index_ours.opened(made, name, size)
    return Contestant(lambda queries: index.search(queries, K).ids, {"kind": "recipe"})


def _peer(made: Vectors, name: str, size: int) -> Contestant:
    peer = index_peers.opened(name, made, size)
    effort, _ = index_peers.tuned(peer, made.queries, made.truth(size))
    return Contestant(peer.search, {"kind": "peer", "effort": effort})


def _alternate(entered: list[Contestant], queries: Queries) -> None:
    for number, first in enumerate(range(0, len(queries), BLOCK)):
        for contestant in entered if number % 2 else reversed(entered):
            if contestant.slow and first >= SLOW_QUERIES:
                continue
            if sum(contestant.seconds) > MOST_SECONDS:
                continue
            for place in range(first, min(first + BLOCK, len(queries))):
                contestant.seconds.append(_seconds(contestant, queries[place : place + 1]))


def _seconds(contestant: Contestant, query: Queries) -> float:
    start = time.perf_counter()
    contestant.search(query)
    return time.perf_counter() - start


def _figures(contestant: Contestant, queries: Queries, truth: Truth) -> dict[str, Any]:
    asked = queries[:SLOW_QUERIES] if contestant.slow else queries
    start = time.perf_counter()
    rows = contestant.search(asked)
    together = time.perf_counter() - start
    return {
        "recall": truth.recall(rows),
        "queries": len(contestant.seconds),
        "p50_ms": 1e3 * median(contestant.seconds),
        "p95_ms": 1e3 * percentile(contestant.seconds, 95),
        "per_second": len(contestant.seconds) / sum(contestant.seconds),
        "per_second_together": len(asked) / together,
    }


def _overhead(made: Vectors, name: str, size: int, queries: Queries) -> dict[str, Any] | None:
    """What our index adds to the search of the very FAISS index that it has inside."""
    index = index_ours.opened(made, name, size)
    plain = _plain(index)
    times: list[tuple[float, float]] = []
    calls = (
        lambda query: plain(query),
        lambda query: index.search(query, K),
    )
    for place in range(_WARM):
        for call in calls:
            call(queries[place : place + 1])
    count, deadline = min(PAIRS, len(queries)), time.perf_counter() + 20
    for place in range(count):
        query, pair = queries[place : place + 1], [0.0, 0.0]
        # Who comes second finds more in the cache, so they change places, and one query before
        # both puts the same into it.
        calls[place % 2](query)
        for which in (0, 1) if place % 2 else (1, 0):
            start = time.perf_counter()
            calls[which](query)
            pair[which] = time.perf_counter() - start
        times.append((pair[0], pair[1]))
        if time.perf_counter() > deadline:
            break
    differences = [ours - plain_s for plain_s, ours in times]
    usual = median([pair[0] for pair in times])
    return {
        "pairs": len(times),
        "plain_ms": 1e3 * usual,
        "ours_ms": 1e3 * median([pair[1] for pair in times]),
        "difference_ms": 1e3 * median(differences),
        "share": median(differences) / usual,
    }


def _plain(index: Any) -> Callable[[NDArray[np.float32]], Any]:
    """A search of FAISS alone, over the same memory and with the same parameters."""
    # The stubs of FAISS lack most of what is used here.
    faiss: Any = importlib.import_module("faiss")
    base = index.state().base
    if base is None or base.accelerator is None:
        codes = np.concatenate([segment.codes for segment in index.state().fresh.segments])
        flat = faiss.IndexScalarQuantizer(
            codes.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        faiss.copy_array_to_vector(codes.view(np.uint8).ravel(), flat.codes)
        flat.ntotal = len(codes)
        faiss.omp_set_num_threads(1)
        return lambda query: flat.search(query, K)
    accelerator, tuning = base.accelerator, base.tuning
    inside = accelerator._index
    if accelerator.lists:
        chosen = faiss.SearchParametersIVF(nprobe=tuning.probes)
    elif accelerator.links:
        chosen = faiss.SearchParametersHNSW(efSearch=tuning.probes)
    else:
        chosen = faiss.SearchParameters()
    vectors = faiss.downcast_index(accelerator._refined.refine_index)
    refined = faiss.IndexRefine(inside, vectors)
    refined.own_fields = False
    parameters = faiss.IndexRefineSearchParameters(
        k_factor=float(tuning.factor), base_index_params=chosen
    )
    faiss.omp_set_num_threads(1)
    kept = (inside, vectors, chosen, index)

    def search(query: NDArray[np.float32]) -> Any:
        assert kept
        return refined.search(query, K, params=parameters)

    return search


def main() -> None:
    """Measure."""
    folder, size, threads, *names = sys.argv[1:]
    if int(threads) == 1 and len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        # Some libraries looked at the number of processors when they were imported, above.
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.index_speed", *sys.argv[1:]])
    print(json.dumps(compare(Vectors(Path(folder), ""), int(size), names, int(threads))))


if __name__ == "__main__":
    main()
