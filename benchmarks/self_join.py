"""`python -m benchmarks.self_join`: all pairs of 100,000 vectors above a cosine, ours and others'.

Each way is a process of its own: it loads the vectors, finds all pairs and tells how long that
took and how many there are. See README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import photographs
from benchmarks.common import (
    ROOT,
    BenchmarkError,
    cache_folder,
    machine,
    median,
    megabytes,
    module_command,
    run,
    say,
)
from benchmarks.table import Row, table
from searchlib.errors import SearchlibError

COUNT = 100_000
QUICK_COUNT = 10_000
THRESHOLD = 0.9
BLOCK = 4096
MOST_BYTES = 1e9
AGREES = 1e-4
"""Which share of the pairs may lie so near the threshold that rounding decides them."""

Codes = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of one way.

    Attributes:
        seconds: from the vectors in memory, in the form that it takes, to the last pair.
        peak_bytes: of the whole process.
        pairs: how many it found.
    """

    seconds: float
    peak_bytes: int
    pairs: int


def main() -> int:
    """Run it."""
    options = _options()
    if options.only:
        print(json.dumps(_measured(WAYS[options.only], options.vectors, options.threshold)))
        return 0
    try:
        path = _vectors(options)
        rounds = 1 if options.quick else options.rounds
        turns: dict[str, list[Turn]] = {name: [] for name in WAYS}
        for number in range(rounds):
            for name in WAYS if number % 2 == 0 else reversed(WAYS):
                turns[name].append(_turn(name, path, options.threshold))
                say(f"{name}: {turns[name][-1].seconds:.1f} s")
    except (SearchlibError, BenchmarkError) as error:
        say(f"benchmarks: {error}")
        return 1
    shape = np.load(path, mmap_mode="r").shape
    print(f"{shape[0]:,} vectors of {shape[1]} numbers, cosine >= {options.threshold}\n")
    print(table(_rows(turns)))
    raw = {
        "machine": machine(),
        "vectors": shape,
        "threshold": options.threshold,
        "turns": {name: [asdict(turn) for turn in some] for name, some in turns.items()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    say(f"all figures: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.self_join", description=__doc__)
    parser.add_argument("--vectors", type=Path, help="a .npy file of unit vectors [n, dimension]")
    parser.add_argument("--count", type=int, default=COUNT, help="how many are made without it")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument("--data", type=Path, help="a folder of photographs to make vectors of")
    parser.add_argument("--cache", type=Path, help="where vectors are kept")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "self_join.json"
    )
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _vectors(options: argparse.Namespace) -> Path:
    """The file of vectors: the given one, or the first of those that indexes are measured with."""
    if options.vectors is not None:
        return Path(options.vectors).resolve()
    # These embed photographs, which a given file spares.
    from benchmarks.index_vectors import vectors
    from searchlib.encoder import ImageEncoder

    cache = cache_folder(options.cache)
    count = QUICK_COUNT if options.quick else options.count
    made = vectors(
        cache,
        photographs.source(options.data),
        ImageEncoder(),
        sizes=(count,),
        quick=options.quick,
    )
    path = made.folder / f"self-join-{count}.npy"
    if not path.exists():
        np.save(path, made.base(count))
    return path


def _turn(name: str, path: Path, threshold: float) -> Turn:
    command = module_command("self_join")
    command += ["--only", name, "--vectors", str(path), "--threshold", str(threshold)]
    done = run(command)
    facts = json.loads(done.stdout)
    return Turn(facts["seconds"], done.peak_bytes, facts["pairs"])


def _rows(turns: dict[str, list[Turn]]) -> list[Row]:
    seconds = {name: median([turn.seconds for turn in some]) for name, some in turns.items()}
    peaks = {name: max(turn.peak_bytes for turn in some) for name, some in turns.items()}
    pairs = {name: some[0].pairs for name, some in turns.items()}
    fastest = min(seconds[name] for name in WAYS if name.startswith("FAISS"))
    apart = max(abs(count - pairs[OURS]) for count in pairs.values())
    others = [name for name in WAYS if name != OURS]
    return [
        Row(
            "self-join, s",
            f"{seconds[OURS]:.1f}",
            {name: f"{seconds[name]:.1f} ({seconds[OURS] / seconds[name]:.2f})" for name in others},
            "<= the fastest of FAISS",
            seconds[OURS] <= fastest,
        ),
        Row(
            "peak MB",
            f"{megabytes(peaks[OURS]):.0f}",
            {name: f"{megabytes(peaks[name]):.0f}" for name in others},
            f"<= {megabytes(MOST_BYTES):.0f}",
            peaks[OURS] <= MOST_BYTES,
        ),
        Row(
            "pairs",
            f"{pairs[OURS]:,}",
            {name: f"{pairs[name]:,}" for name in others},
            "the same but for rounding",
            apart <= AGREES * max(pairs.values()),
        ),
    ]


def _measured(
    way: Callable[[Codes, float], tuple[float, int]], path: Path, threshold: float
) -> dict[str, Any]:
    seconds, pairs = way(np.load(path).astype(np.float16, copy=False), threshold)
    return {"seconds": seconds, "pairs": pairs}


def _searchlib(codes: Codes, threshold: float) -> tuple[float, int]:
    import faiss  # noqa: F401 - its import counts for nobody

    from searchlib.index import FaissIndex
    from searchlib.index.pairs import self_join

    index = FaissIndex.over(np.arange(len(codes)), codes)
    start = time.perf_counter()
    pairs = sum(
        len(block) for block in self_join(index, threshold=threshold, exact_up_to=len(index))
    )
    return time.perf_counter() - start, pairs


def _range_search(codes: Codes, threshold: float) -> tuple[float, int]:
    """Each vector asks for all above the threshold; every pair is found twice, and itself."""
    import faiss

    vectors = codes.astype(np.float32)
    del codes
    index = faiss.IndexFlatIP(vectors.shape[1])
    start, pairs = time.perf_counter(), 0
    index.add(vectors)
    for at in range(0, len(vectors), BLOCK):
        some = vectors[at : at + BLOCK]
        limits, _, right = index.range_search(some, np.nextafter(np.float32(threshold), -1))
        left = np.repeat(np.arange(at, at + len(some)), np.diff(limits.astype(np.int64)))
        pairs += int(np.count_nonzero(left < right))
    return time.perf_counter() - start, pairs


def _growing(codes: Codes, threshold: float) -> tuple[float, int]:
    """The same in an index that grows: each block asks for those before it, half of the work."""
    import faiss

    index = faiss.IndexFlatIP(codes.shape[1])
    start, pairs = time.perf_counter(), 0
    for at in range(0, len(codes), BLOCK):
        some = codes[at : at + BLOCK].astype(np.float32)
        index.add(some)
        limits, _, right = index.range_search(some, np.nextafter(np.float32(threshold), -1))
        left = np.repeat(np.arange(at, at + len(some)), np.diff(limits.astype(np.int64)))
        pairs += int(np.count_nonzero(right < left))
    return time.perf_counter() - start, pairs


def _search(codes: Codes, threshold: float) -> tuple[float, int]:
    """Each asks for its nearest hundred, and again for more until the last is too far."""
    import faiss

    vectors = codes.astype(np.float32)
    del codes
    index = faiss.IndexFlatIP(vectors.shape[1])
    start, pairs = time.perf_counter(), 0
    index.add(vectors)
    rows, k = np.arange(len(vectors)), 100
    while len(rows):
        again = []
        for at in range(0, len(rows), BLOCK):
            some = rows[at : at + BLOCK]
            scores, right = index.search(vectors[some], k)
            more = (scores[:, -1] >= np.float32(threshold)) & (k < len(vectors))
            good = (scores >= np.float32(threshold)) & (right > some[:, None]) & ~more[:, None]
            pairs += int(np.count_nonzero(good))
            again.append(some[more])
        rows, k = np.concatenate(again), min(k * 10, len(vectors))
    return time.perf_counter() - start, pairs


def _numpy(codes: Codes, threshold: float) -> tuple[float, int]:
    """Products of blocks, half of them, and what is above."""
    vectors = codes.astype(np.float32)
    del codes
    start, pairs = time.perf_counter(), 0
    for top in range(0, len(vectors), BLOCK):
        for at in range(top, len(vectors), BLOCK):
            scores = vectors[top : top + BLOCK] @ vectors[at : at + BLOCK].T
            left, right = np.divmod(
                np.flatnonzero(scores >= np.float32(threshold)), scores.shape[1]
            )
            pairs += int(np.count_nonzero(left + top < right + at))
    return time.perf_counter() - start, pairs


OURS = "searchlib"
WAYS: dict[str, Callable[[Codes, float], tuple[float, int]]] = {
    OURS: _searchlib,
    "FAISS range_search": _range_search,
    "FAISS range_search, growing": _growing,
    "FAISS search": _search,
    "numpy": _numpy,
}


if __name__ == "__main__":
    sys.exit(main())
