"""Bounds of scores that take far fewer numbers than a vector has.

Turn all vectors x by the same orthonormal basis, and let p(x) be the first m numbers and r(x) the
length of the rest. By the inequality of Cauchy and Schwarz x·y <= p(x)·p(y) + r(x) r(y), which is
again an inner product, of m + 1 numbers. Where the basis puts most of the length into the first
numbers (the eigenvectors of the second moments do), few pairs have a high bound, and only these
need be compared in full. How many numbers to take is decided on a sample; it changes the time that
a join takes and never its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from searchlib.index.protocol import Ids, Vectors
from searchlib.index.scan import load_faiss

Rows = npt.NDArray[np.intp]
Wide = npt.NDArray[np.float64]

TILE = 2048
"""Rows that are converted, or compared with others, at once."""

HELD_BYTES = 256 << 20
"""Vectors are held in float32 where they take no more; else they are converted again and again.
The numbers of the bounds may take as much."""

SAMPLE = 2048
"""Rows that the basis and its size are chosen with."""

WIDTHS = (32, 48, 64, 96, 128, 192, 256, 384)
"""How many numbers the bounds may take, with the length of the rest and the threshold. Products of
another width take the time of the next multiple of 16."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Vectors that do not change, wherever they are.

    Attributes:
        ids: int64[n]; below 0 where there is nothing in this row.
        read: gives the vectors of some of the rows, float16 or float32 [m, dimension].
    """

    ids: Ids
    read: Callable[[Rows], npt.NDArray[Any]]


class Table:
    """The vectors of some blocks, ascending by id."""

    def __init__(self, blocks: Sequence[Block], dimension: int) -> None:
        self.dimension = dimension
        self.width = -(-(dimension + 1) // 16) * 16
        self._blocks = list(blocks)
        self._starts = np.cumsum([0] + [len(block.ids) for block in blocks])
        ids = np.concatenate([np.empty(0, np.int64), *(block.ids for block in blocks)])
        places = np.flatnonzero(ids >= 0)
        self._places = places[np.argsort(ids[places], kind="stable")]
        self.ids: Ids = ids[self._places]
        self._held: Vectors | None = None
        if len(self) * self.width * 4 <= HELD_BYTES:
            self._held = self.take(np.arange(len(self)))
            self._blocks = []

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, stop: int) -> Vectors:
        """These rows, not to be written to: float32[stop - start, width], each the vector and
        behind it a 1 and zeros."""
        if self._held is not None:
            return self._held[start:stop]
        return self.take(np.arange(start, stop))

    def take(self, rows: Rows) -> Vectors:
        """The same of rows in any order, as a copy."""
        if self._held is not None:
            return self._held[rows]
        out = np.zeros((len(rows), self.width), np.float32)
        out[:, self.dimension] = 1
        places = self._places[rows]
        blocks = np.searchsorted(self._starts, places, side="right") - 1
        for block in np.unique(blocks):
            here = np.flatnonzero(blocks == block)
            for at in range(0, len(here), TILE):
                part = here[at : at + TILE]
                vectors = self._blocks[block].read(places[part] - self._starts[block])
                out[part, : self.dimension] = vectors
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """What gives a bound of the score of any two rows.

    Attributes:
        numbers: float32[n, width]; None where the vectors themselves are taken.
        one: the column that holds a 1, for the threshold of the other row.
        slack: how far rounding may put a product below the score.
    """

    numbers: Vectors | None
    one: int
    slack: float

    @classmethod
    def of(cls, table: Table, limit: float) -> Bounds:
        """Those that let pairs with a score of about `limit` be found in the least time."""
        off = rounding(table.width)
        full = cls(None, table.dimension, 2 * off)
        count = len(table)
        widths = [w for w in WIDTHS if w < table.width and count * w * 4 <= HELD_BYTES]
        if count < 4 * SAMPLE or table.dimension > SAMPLE or not widths:
            return full
        sample = _sampled(table)
        basis = _basis(sample)
        turned = sample[: SAMPLE // 2] @ basis
        best, least = 0, _cost(table.width, 0, table.dimension)
        for width in widths:
            some = _shortened(turned, turned, width)[:, :-1]
            bounds = some @ some.T
            np.fill_diagonal(bounds, -2)
            passing = float(np.mean(bounds >= limit))
            cost = _cost(width, passing, table.dimension)
            if cost < least:
                best, least = width, cost
        if not best:
            return full
        numbers = np.empty((count, best), np.float32)
        for start in range(0, count, TILE):
            part = table.read(start, start + TILE)[:, : table.dimension]
            numbers[start : start + TILE] = _shortened(part, part @ basis[:, : best - 2], best)
        return cls(numbers, best - 1, rounding(best) + off)


def rounding(width: int) -> float:
    """How far off an inner product of `width` numbers in float32 may be.

    width * 2**-24 times the sum of the absolute products, whatever the order of summation (Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1); that sum is below 2.1 for vectors of about
    unit length and a threshold. A few more steps stand for the rounding of the numbers themselves.
    """
    return (width + 8) * 2.0**-24 * 2.1


def _sampled(table: Table) -> Vectors:
    """Some of the vectors, in no order."""
    rows = np.random.default_rng(0).permutation(len(table))[:SAMPLE]
    return table.take(rows)[:, : table.dimension]


def usual(table: Table, k: int) -> float:
    """About the score of a vector's k-th neighbour."""
    sample = _sampled(table)
    if len(sample) < 2:
        return 0.0
    scores = sample @ sample.T
    np.fill_diagonal(scores, -2)
    rank = min(len(sample) - 1, max(1, round(k * len(sample) / len(table))))
    return float(np.median(np.partition(scores, -rank, axis=1)[:, -rank]))


def _basis(sample: Vectors) -> Wide:
    """The eigenvectors of the second moments, largest first, as columns; orthonormal to 1e-12.

    By FAISS, because LAPACK under numpy takes from 0.03 to 3 s for this on a machine that does
    other work. FAISS takes the mean off, which is 0 where every vector stands beside its opposite.
    """
    faiss = load_faiss()
    dimension = sample.shape[1]
    analysis = faiss.PCAMatrix(dimension, dimension)
    analysis.train(np.concatenate([sample, -sample]))
    rows = faiss.vector_to_array(analysis.A).reshape(dimension, dimension)
    basis: Wide = rows.T.astype(np.float64)
    # Newton and Schulz: each step squares how far it is from orthonormal.
    for _ in range(2):
        basis = basis @ (1.5 * np.eye(dimension) - 0.5 * (basis.T @ basis))
    return basis


def _shortened(vectors: npt.NDArray[Any], turned: Wide, width: int) -> Vectors:
    """The first numbers, the length of the rest and a 1: float32[n, width]."""
    first = turned[:, : width - 2]
    whole = (vectors.astype(np.float64) ** 2).sum(axis=1)
    out = np.empty((len(turned), width), np.float32)
    out[:, :-2] = first
    # Both sums are off by 1e-12 at most, so the root may be off by 1e-6, downwards as well.
    out[:, -2] = np.sqrt(np.maximum(whole - (first**2).sum(axis=1), 0)) + 1e-6
    out[:, -1] = 1
    return out


def _cost(width: int, passing: float, dimension: int) -> float:
    """Nanoseconds for a pair, of which the share `passing` is compared in full.

    Measured on one machine; only the ratios matter.
    """
    return 0.75 + 0.02 * width + passing * (80 + 0.2 * dimension)
