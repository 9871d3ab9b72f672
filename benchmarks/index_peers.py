"""The peers: exact search by numpy and FAISS, graphs by hnswlib and usearch.

    python -m benchmarks.index_peers FOLDER SIZE NAME

builds the index of one peer over the first SIZE vectors of a folder of `index_vectors`, where there
is none yet, and prints what that took. Graphs of a million take an hour, so they are kept. They are
built with the defaults of their libraries, and searched with what a recall asked for takes.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import installed, say
from benchmarks.index_vectors import Truth, Vectors

K = 10
TARGET = 0.99
EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""What is tried of what a graph looks at."""

_HNSWLIB = {"M": 16, "ef_construction": 200}
_BLOCK = 20_000

Rows = NDArray[np.int64]
Queries = NDArray[np.float32]


class Searcher(Protocol):
    """One that takes part."""

    @property
    def name(self) -> str:
        """Of it, for the table."""
        ...

    def search(self, queries: Queries) -> Rows:
        """The K nearest rows of each query, float32 [q, dimension] to int64 [q, K]."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A peer that is opened and can be searched.

    Attributes:
        name: of it.
        search: see Searcher.
        use: sets what it looks at; None where it looks at everything.
    """

    name: str
    search: Callable[[Queries], Rows]
    use: Callable[[int], None] | None = None


def names() -> list[str]:
    """The peers that can be measured here."""
    found = ["numpy", "FAISS IndexFlatIP"]
    if installed("hnswlib"):
        found.append("hnswlib")
    if installed("usearch"):
        found += ["usearch f16", "usearch i8"]
    return found


def opened(name: str, made: Vectors, size: int) -> Plain:
    """A peer with its vectors; a graph must have been built."""
    if name == "hnswlib":
        return _hnswlib(made, size)
    if name.startswith("usearch"):
        return _usearch(name, made, size)
    matrix = _matrix(made.base_file, size)
    if name == "numpy":
        return Plain(name, lambda queries: _by_numpy(matrix, queries))
    # It looks at the memory of numpy: two copies of a million would be 4 GB.
    faiss: Any = importlib.import_module("faiss")
    flat = faiss.IndexFlatIP(matrix.shape[1])
    raw = matrix.view(np.uint8)
    flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(
        faiss.swig_ptr(raw), raw.nbytes, flat.codes.owner
    )
    flat.ntotal = size
    return Plain(name, lambda queries: flat.search(queries, K)[1])


def tuned(peer: Plain, queries: Queries, truth: Truth) -> tuple[int | None, float]:
    """The least effort with which it reaches TARGET on these very queries, and the recall then.

    Where none is enough, the most. It stays set.
    """
    if peer.use is None:
        return None, truth.recall(peer.search(queries[:100]))
    low, high = 0, len(EFFORTS) - 1
    found = dict.fromkeys(range(0), 0.0)
    while low < high:
        middle = (low + high) // 2
        peer.use(EFFORTS[middle])
        found[middle] = truth.recall(peer.search(queries))
        if found[middle] >= TARGET:
            high = middle
        else:
            low = middle + 1
    peer.use(EFFORTS[low])
    if low not in found:
        found[low] = truth.recall(peer.search(queries))
    return EFFORTS[low], found[low]


def build(name: str, made: Vectors, size: int) -> dict[str, Any]:
    """Builds a graph that is not there yet; what that took, and how large it is."""
    path = _path(name, made, size)
    facts = path.with_suffix(".json")
    if not facts.exists():
        say(f"building {name} over {size:,} vectors")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
        start = time.perf_counter()
        if name == "hnswlib":
            graph = _hnswlib_index(made.queries.shape[1])
            graph.init_index(size, **_HNSWLIB)
            _fill(graph.add_items, lambda rows, some: (some, rows), made, size)
        else:
            graph = _usearch_index(name, made.queries.shape[1])
            _fill(graph.add, lambda rows, some: (rows, some), made, size)
        seconds = time.perf_counter() - start
        if name == "hnswlib":
            graph.save_index(str(unfinished))
        else:
            graph.save(str(unfinished))
        unfinished.rename(path)
        took = {"seconds": seconds, "bytes": path.stat().st_size, "threads": os.cpu_count()}
        facts.write_text(json.dumps(took), encoding="utf-8")
    built: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    return built


def is_graph(name: str) -> bool:
    """Whether it has to be built."""
    return name.startswith(("hnswlib", "usearch"))


@cache
def _matrix(file: Path, size: int) -> NDArray[np.float32]:
    mapped: NDArray[np.float16] = np.load(file, mmap_mode="r")
    return mapped[:size].astype(np.float32)


def _fill(
    add: Callable[..., Any],
    arguments: Callable[[Rows, Queries], Sequence[Any]],
    made: Vectors,
    size: int,
) -> None:
    base = made.base(size)
    for start in range(0, size, _BLOCK):
        some = base[start : start + _BLOCK].astype(np.float32)
        add(*arguments(np.arange(start, start + len(some)), some))


def _by_numpy(matrix: NDArray[np.float32], queries: Queries) -> Rows:
    found = np.empty((len(queries), K), np.int64)
    for place, query in enumerate(queries):
        scores = matrix @ query
        best = np.argpartition(scores, -K)[-K:]
        found[place] = best[np.argsort(-scores[best])]
    return found


def _hnswlib(made: Vectors, size: int) -> Plain:
    graph = _hnswlib_index(made.queries.shape[1])
    graph.load_index(str(_path("hnswlib", made, size)), size)
    graph.set_num_threads(len(os.sched_getaffinity(0)))

    def search(queries: Queries) -> Rows:
        labels: Rows = graph.knn_query(queries, K)[0].astype(np.int64)
        return labels

    return Plain("hnswlib", search, graph.set_ef)


def _usearch(name: str, made: Vectors, size: int) -> Plain:
    graph = _usearch_index(name, made.queries.shape[1])
    graph.load(str(_path(name, made, size)))
    threads = len(os.sched_getaffinity(0))

    def search(queries: Queries) -> Rows:
        given = queries[0] if len(queries) == 1 else queries
        keys: Rows = graph.search(given, K, threads=threads).keys.astype(np.int64)
        return keys.reshape(len(queries), K)

    def use(effort: int) -> None:
        graph.expansion_search = effort

    return Plain(name, search, use)


# By name, because neither has types, and neither has to be installed where these are checked.
def _hnswlib_index(dimension: int) -> Any:
    return importlib.import_module("hnswlib").Index("ip", dimension)


def _usearch_index(name: str, dimension: int) -> Any:
    room = importlib.import_module("usearch.index")
    return room.Index(ndim=dimension, metric="ip", dtype=name.split()[1])


def _path(name: str, made: Vectors, size: int) -> Path:
    return made.folder / "peers" / f"{name.replace(' ', '-')}-{size}.bin"


def main() -> None:
    """Build one."""
    folder, size, name = sys.argv[1:]
    print(json.dumps(build(name, Vectors(Path(folder), ""), int(size))))


if __name__ == "__main__":
    main()
