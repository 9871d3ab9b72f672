"""What rows must be before any is taken over: good vectors, and no two that contradict."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from searchlib.errors import VectorFileError
from searchlib.exchange.formats import VectorFile
from searchlib.exchange.rows import Block, Key, local_path
from searchlib.images import printable

UNIT_TOLERANCE = 1e-3
SAME_COSINE = 0.999
"""Two vectors of one image that are this much alike do not contradict."""

# Vectors held at once while suspects are compared.
_HELD = 1 << 15


def checked_blocks(file: VectorFile, dimension: int) -> Iterator[Block]:
    """The rows of a file, with vectors of length 1 to the last bit.

    Raises:
        VectorFileError: a vector has NaN, Inf or another length than 1; names the row.
    """
    for block in file.blocks(dimension):
        vectors = block.vectors.astype(np.float64)
        path = file.parts[0]
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            row = block.first + int(np.argmin(finite))
            raise VectorFileError(
                f"{path}: row {row}: its vector has numbers that are missing, NaN or infinite; "
                "embed the image again or leave the row out"
            )
        lengths = np.linalg.norm(vectors, axis=1)
        other = np.abs(lengths - 1) > UNIT_TOLERANCE
        if other.any():
            place = int(np.argmax(other))
            raise VectorFileError(
                f"{path}: row {block.first + place}: its vector has the length "
                f"{lengths[place]:.6g} and it must be 1; divide each vector by its length, and "
                "see that it comes from the model as it is"
            )
        yield Block(block.first, block.keys, (vectors / lengths[:, None]).astype(np.float32))


class Repeats:
    """Finds rows that name the same image and have different vectors.

    Remembers 32 bytes for each key and no vectors; where a key comes again with other bytes, the
    file is read once more.

    Args:
        root: what relative paths are below.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._high, self._low, self._vectors, self._rows = (array("Q") for _ in range(4))

    def see(self, block: Block) -> None:
        """Take note of some rows."""
        for row, (key, vector) in enumerate(zip(block.keys, block.vectors, strict=True)):
            of_vector = int.from_bytes(blake3(vector.tobytes()).digest(8), "little")
            for name in set(self._names(key)):
                digest = blake3(name).digest(16)
                self._high.append(int.from_bytes(digest[:8], "little"))
                self._low.append(int.from_bytes(digest[8:], "little"))
                self._vectors.append(of_vector)
                self._rows.append(block.first + row)

    def _names(self, key: Key) -> list[bytes]:
        if key.digest is not None:
            return [b"digest" + key.digest]
        paths = [local_path(path, self._root) or path for path in key.paths]
        return [b"path" + os.fsencode(path) for path in paths]

    def require_agreement(self, file: VectorFile, dimension: int) -> None:
        """Compare all rows that name the same image.

        Raises:
            VectorFileError: two of them contradict; names both.
        """
        firsts, others = self._suspects()
        leaders = np.unique(firsts)
        for start in range(0, len(leaders), _HELD):
            some = leaders[start : start + _HELD]
            mine = np.isin(firsts, some)
            self._compare(file, dimension, firsts[mine], others[mine])

    def _suspects(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Rows whose key an earlier row has with other bytes in its vector: that row, and they."""
        high, low, vectors, rows = (
            np.frombuffer(column, np.uint64) if column else np.empty(0, np.uint64)
            for column in (self._high, self._low, self._vectors, self._rows)
        )
        order = np.lexsort((rows, low, high))
        high, low, vectors, rows = high[order], low[order], vectors[order], rows[order]
        begins = np.ones(len(rows), bool)
        begins[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        first = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
        suspect = vectors != vectors[first]
        return rows[first][suspect], rows[suspect]

    def _compare(
        self,
        file: VectorFile,
        dimension: int,
        firsts: NDArray[np.uint64],
        others: NDArray[np.uint64],
    ) -> None:
        against: dict[int, set[int]] = {}
        for first, other in zip(firsts.tolist(), others.tolist(), strict=True):
            against.setdefault(other, set()).add(first)
        wanted = set(firsts.tolist())
        held: dict[int, NDArray[np.float32]] = {}
        for block in checked_blocks(file, dimension):
            for row, vector in enumerate(block.vectors, block.first):
                for first in sorted(against.get(row, ())):
                    cosine = float(held[first] @ vector)
                    if cosine < SAME_COSINE:
                        name = printable(block.keys[row - block.first].name)
                        raise VectorFileError(
                            f"{file.parts[0]}: row {row}: row {first} names the same image "
                            f"({name}) and has another vector (cosine {cosine:.3f}); leave one of "
                            "them out"
                        )
                if row in wanted:
                    held[row] = vector.copy()
