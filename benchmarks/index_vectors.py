"""`python -m benchmarks.index_vectors`: a million vectors to search, and a thousand to search with.

Nobody has a million photographs at hand. The base begins with some thousand real embeddings
(`index_pictures.py`), and what follows is drawn from the neighbourhoods of real ones: a normal
distribution with the mean and the covariance of a real vector and its NEIGHBOURS nearest, each of
another photograph, drawn as the mean plus a random combination of their distances from it. So what
is made lies between real pictures and is as far from them as they are from each other, which
neither averages of neighbours are (they come too near to everything) nor neighbours with noise
(all of them equally far from a question, in more and more directions as there are more of them).

Queries are real embeddings of photographs none of which is in the base, neither whole nor in
part. They are among the neighbours that vectors are made from: a library of a million holds
pictures that are more like a new one than any of eight thousand, and without this it would not.

Whether the base is as hard to search as a real one is told by its local intrinsic dimension, which
is printed beside that of the real part. Vectors of fewer than 512 numbers are turned into 512 by
a fixed rotation: all cosines stay, and a comparison costs what it does with 512.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import photographs
from benchmarks.common import BenchmarkError, cache_folder, say
from benchmarks.index_pictures import Embedded, embedded
from benchmarks.table import markdown
from searchlib.encoder import ImageEncoder, load_card
from searchlib.errors import SearchlibError

SIZES = (10_000, 100_000, 1_000_000)
DIMENSION = 512
QUERIES = 1000
NEAREST = 100
"""How many true neighbours of each query are kept."""

NEIGHBOURS = 32
_FORMAT = 1
_BLOCK = 2000
_SCANNED = 50_000
_TENTH = 9


@dataclass(frozen=True, slots=True)
class Shape:
    """What a base looks like from the queries.

    Attributes:
        vectors: how many it holds.
        dimension: the local intrinsic dimension, median over the queries.
        first, tenth: cosine of the first and of the tenth neighbour: of a tenth of the queries it
            is less than the first of the three numbers, of half of them than the second, of nine
            tenths than the third.
    """

    vectors: int
    dimension: float
    first: tuple[float, float, float]
    tenth: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Truth:
    """The nearest vectors of each query, by comparison with all.

    Attributes:
        rows: int64 [queries, NEAREST], nearest first.
        scores: their cosines, float32 [queries, NEAREST].
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def recall(self, found: NDArray[np.int64], k: int = 10) -> float:
        """Which share of the `k` nearest is among the first `k` found, int [queries, >= k]."""
        right = self.rows[: len(found), :k, None] == found[:, None, :k]
        return float(right.any(axis=2).mean())


class Vectors:
    """Base, queries and truth in a folder of the cache."""

    def __init__(self, folder: Path, words: str) -> None:
        self.folder = folder
        self.words = words

    @cached_property
    def queries(self) -> NDArray[np.float32]:
        """Float32 [queries, dimension], unit vectors."""
        kept: NDArray[np.float32] = np.load(self.folder / "queries.npy")
        return kept

    @property
    def base_file(self) -> Path:
        """The .npy file of the largest base; a smaller one is the beginning of it."""
        return self.folder / "base.npy"

    def base(self, size: int) -> NDArray[np.float16]:
        """The first `size` vectors, float16 [size, dimension], mapped."""
        mapped: NDArray[np.float16] = np.load(self.base_file, mmap_mode="r")[:size]
        return mapped

    def truth(self, size: int) -> Truth:
        """The nearest among the first `size`; measured at the first call and kept."""
        path = self.folder / f"truth-{size}.npz"
        if not path.exists():
            say(f"comparing {len(self.queries)} queries with each of {size:,} vectors")
            found = nearest(self.base(size), self.queries)
            np.savez(path.with_suffix(".unfinished.npz"), rows=found.rows, scores=found.scores)
            path.with_suffix(".unfinished.npz").rename(path)
        with np.load(path) as kept:
            return Truth(kept["rows"], kept["scores"])

    @property
    def real(self) -> int:
        """How many vectors at the beginning of the base are real."""
        return int(json.loads((self.folder / "real.json").read_text(encoding="utf-8")))

    def shape(self, size: int) -> Shape:
        """What the first `size` look like from the queries."""
        scores = self.truth(size).scores
        return Shape(
            size,
            intrinsic_dimension(scores),
            _three(scores[:, 0]),
            _three(scores[:, _TENTH]),
        )


def vectors(
    cache: Path,
    origin: photographs.Source,
    encoder: ImageEncoder,
    *,
    sizes: Sequence[int] = SIZES,
    quick: bool = False,
) -> Vectors:
    """The vectors for these sizes; what is not there yet is made and kept.

    Raises:
        BenchmarkError: the photographs cannot be used.
    """
    given = embedded(cache, origin, encoder, quick=quick)
    folder = cache / "index" / f"{given.key}-{_FORMAT}"
    made = Vectors(folder, given.words)
    if not made.base_file.exists() or len(made.base(max(sizes))) < max(sizes):
        say(f"making {max(sizes):,} vectors")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _make(folder, given, max(sizes))
    return made


def intrinsic_dimension(scores: NDArray[np.float32], k: int = 20) -> float:
    """The local intrinsic dimension around queries, the median over them.

    The maximum likelihood estimate of Levina and Bickel (2004): the inverse of the mean of
    log(r_k / r_j) over the k - 1 nearer ones, with r the Euclidean distances.

    Args:
        scores: cosines of the nearest vectors of each query, float32 [queries, at least k],
            highest first.
        k: how many of them are looked at.
    """
    distances = np.sqrt(np.maximum(2 - 2 * scores[:, :k].astype(np.float64), 1e-9))
    means = np.log(distances[:, -1:] / distances[:, :-1]).mean(axis=1)
    return float(np.median(1 / np.maximum(means, 1e-9)))


def shapes_table(made: Vectors, sizes: Sequence[int]) -> str:
    """The shapes of the real part and of each base, in Markdown."""
    lines = [["base", "intrinsic dimension", "cosine of the first", "cosine of the tenth"]]
    for size in (made.real, *sizes):
        shape = made.shape(size)
        name = f"{size:,} real" if size == made.real else f"{size:,}"
        spreads = [" / ".join(f"{x:.2f}" for x in three) for three in (shape.first, shape.tenth)]
        lines.append([name, f"{shape.dimension:.1f}", *spreads])
    return markdown(lines)


def shapes_json(made: Vectors, sizes: Sequence[int]) -> dict[str, Any]:
    """The same for the report."""
    return {
        "what": made.words,
        "dimension": made.queries.shape[1],
        "queries": len(made.queries),
        "real": asdict(made.shape(made.real)),
        "bases": [asdict(made.shape(size)) for size in sizes],
    }


def nearest(
    base: NDArray[np.float16],
    queries: NDArray[np.float32],
    *,
    keep: NDArray[np.bool_] | None = None,
) -> Truth:
    """The NEAREST of each query in float32, among all or those where `keep` is True."""
    import faiss

    rows = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(base), _SCANNED):
        some = base[start : start + _SCANNED].astype(np.float32)
        numbers = np.arange(start, start + len(some))
        if keep is not None:
            chosen = keep[start : start + _SCANNED]
            some, numbers = some[chosen], numbers[chosen]
        if not len(some):
            continue
        k = min(NEAREST, len(some))
        more, places = faiss.knn(queries, some, k, metric=faiss.METRIC_INNER_PRODUCT)
        rows, scores = np.hstack([rows, numbers[places]]), np.hstack([scores, more])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
        rows, scores = np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
    return Truth(rows, scores)


def _make(folder: Path, given: Embedded, size: int) -> None:
    held_out = _held_out(given.pictures, min(QUERIES, len(given.pictures) // 8))
    lift = _lift(given.vectors.shape[1])
    real = given.vectors[~held_out]
    queries = np.ascontiguousarray(given.vectors[held_out][:QUERIES] @ lift)
    np.save(folder / "queries.npy", queries)
    (folder / "real.json").write_text(json.dumps(min(len(real), size)), encoding="utf-8")
    near = _neighbourhoods(given)
    means = np.stack([given.vectors[rows].mean(axis=0) for rows in near])
    unfinished = folder / "unfinished.npy"
    base = np.lib.format.open_memmap(
        unfinished, mode="w+", dtype=np.float16, shape=(size, lift.shape[1])
    )
    base[: len(real)] = (real @ lift)[:size]
    for start in range(len(real), size, _BLOCK):
        # A seed for each block: a larger base begins with a smaller one.
        random = np.random.default_rng([2, start])
        chosen = random.integers(0, len(near), _BLOCK)
        weights = random.standard_normal((_BLOCK, near.shape[1]), np.float32)
        # Scaled to length 1, so that no vector is nearer to its mean than real ones are; and
        # centred: weights that add up to 0 times the vectors are the same times their distances
        # from the mean.
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        weights -= weights.mean(axis=1, keepdims=True)
        step = (weights[:, None, :] @ given.vectors[near[chosen]])[:, 0]
        vectors = (means[chosen] + step) @ lift
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        base[start : start + _BLOCK] = vectors[: size - start]
    base.flush()
    del base
    unfinished.rename(folder / "base.npy")


def _held_out(pictures: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Whole photographs, with all parts of them, until there are `count` vectors; bool [n]."""
    order = np.random.default_rng(0).permutation(np.unique(pictures))
    held_out = np.zeros(len(pictures), np.bool_)
    for picture in order:
        if held_out.sum() >= count:
            break
        held_out |= pictures == picture
    return held_out


def _neighbourhoods(given: Embedded) -> NDArray[np.int64]:
    """Each vector and its nearest, at most one of each photograph; int64 [n, NEIGHBOURS + 1].

    Where there are too few photographs for that, any parts of them.
    """
    several = len(np.unique(given.pictures)) <= NEIGHBOURS
    near = np.empty((len(given.vectors), NEIGHBOURS + 1), np.int64)
    for row, vector in enumerate(given.vectors):
        order = np.argsort(-(given.vectors @ vector), kind="stable")
        if not several:
            _, first = np.unique(given.pictures[order], return_index=True)
            order = order[np.sort(first)]
        near[row] = order[: NEIGHBOURS + 1]
    return near


def _lift(dimension: int) -> NDArray[np.float32]:
    """Orthonormal rows, float32 [dimension, max(dimension, DIMENSION)]."""
    if dimension >= DIMENSION:
        return np.eye(dimension, dtype=np.float32)
    square = np.random.default_rng(3).standard_normal((DIMENSION, dimension))
    return np.ascontiguousarray(np.linalg.qr(square)[0].T, dtype=np.float32)


def _three(values: NDArray[np.float32]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, (10, 50, 90)).tolist()
    return low, middle, high


def main() -> int:
    """Make the vectors and print what they look like."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.index_vectors", description="Vectors to measure indexes with."
    )
    parser.add_argument("--sizes", type=numbers, default=SIZES, help="10000,100000,1000000")
    parser.add_argument("--model", type=Path, metavar="CARD", help="the built-in one without")
    parser.add_argument("--data", type=Path, help="a folder of photographs")
    parser.add_argument("--cache", type=Path, help="where they are kept")
    options = parser.parse_args()
    try:
        encoder = ImageEncoder(load_card(options.model) if options.model else None)
        origin = photographs.source(options.data)
        made = vectors(cache_folder(options.cache), origin, encoder, sizes=options.sizes)
        print(f"{made.words}\n{made.folder}\n\n{shapes_table(made, options.sizes)}")
    except (SearchlibError, BenchmarkError) as error:
        say(f"benchmarks: {error}")
        return 1
    return 0


def numbers(text: str) -> tuple[int, ...]:
    """Ascending numbers from 1, from words with commas between."""
    found = sorted({int(word) for word in text.split(",")})
    if found[0] < 1:
        raise argparse.ArgumentTypeError(f"{text}: give numbers from 1")
    return tuple(found)


if __name__ == "__main__":
    sys.exit(main())
