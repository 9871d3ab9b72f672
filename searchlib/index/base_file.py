"""The two files of a base: its rows, and what finds the best of them.

`NAME.base`, a sealed file of kind BASE. Its facts are `generation`, `dimension`, `rows`,
`block_rows` and `offset`; its body, whose parts begin where the one before ends:

    ids      int64[rows], -1 for a row that was dead when this was written
    zeros    up to a multiple of 4096
    codes    float16[rows, dimension], from byte `offset` of the file on
    blocks   16 bytes for each `block_rows` rows: the first half of the BLAKE3 of their codes

The digest of the header is that of the ids and the blocks, which are verified when the file is
opened. The codes are verified block by block before a row of them is returned to anybody, because
to read all of them would make opening take as long as the library is large.

`NAME.faiss`, a sealed file of kind ACCELERATOR. Its facts are `generation`, `rows`, `recipe`,
`fingerprint` and `trained_for`; its body is what FAISS serialises, verified as a whole.

Both are written once and never changed, under a name that is new each time: `generation`, 16
random hex digits. They count from the moment on when a checkpoint names them and their seals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from searchlib.index.accelerator import Accelerator
from searchlib.index.base import Base, Seals
from searchlib.index.protocol import Ids
from searchlib.index.recipes import Recipe
from searchlib.index.sealed import (
    PAGE,
    Kind,
    bytes_of,
    map_sealed,
    refused,
    verify_body,
    write_sealed,
)
from searchlib.index.segments import Codes

BLOCK_ROWS = 256
"""Rows under one checksum: at 512 dimensions 256 kB, which take a twentieth of a millisecond."""

_SHORT = 16
_FEW = 64


def base_path(checkpoint: Path, generation: str) -> Path:
    """Where the rows of a generation lie."""
    return checkpoint.with_name(f"{checkpoint.stem}-{generation}.base")


def accelerator_path(checkpoint: Path, generation: str) -> Path:
    """Where the accelerator of a generation lies."""
    return checkpoint.with_name(f"{checkpoint.stem}-{generation}.faiss")


def write_base(
    path: Path, generation: str, ids: Ids, blocks: Iterable[Codes], dimension: int
) -> bytes:
    """Writes the rows of a base.

    Args:
        path: of the file.
        generation: that is in its name.
        ids: int64[rows].
        blocks: their codes, float16[m, dimension] each, `rows` in all.
        dimension: how many numbers a vector has.

    Returns:
        The seal of its header.

    Raises:
        OSError: it cannot be written.
    """
    padding = -(PAGE + ids.nbytes) % PAGE
    table: list[bytes] = []

    def parts() -> Iterator[memoryview]:
        yield from bytes_of(ids, np.zeros(padding, np.uint8))
        for block in _in_blocks(blocks, dimension):
            (view,) = bytes_of(block)
            table.append(_short(view))
            yield view
        yield from bytes_of(np.frombuffer(b"".join(table), np.uint8))

    facts = {
        "generation": generation,
        "dimension": dimension,
        "rows": len(ids),
        "block_rows": BLOCK_ROWS,
        "offset": PAGE + ids.nbytes + padding,
    }
    return write_sealed(
        path, Kind.BASE, parts(), facts, digest=lambda: _digest(ids, b"".join(table))
    )


def write_accelerator(path: Path, generation: str, accelerator: Accelerator) -> bytes:
    """Writes an accelerator and returns the seal of its header.

    Raises:
        OSError: it cannot be written.
    """
    facts = {
        "generation": generation,
        "rows": accelerator.rows,
        "recipe": accelerator.recipe.name,
        "fingerprint": accelerator.recipe.fingerprint.hex(),
        "trained_for": accelerator.trained_for,
    }
    return write_sealed(path, Kind.ACCELERATOR, bytes_of(accelerator.to_bytes()), facts)


def read_base(path: Path, seals: Seals, dimension: int) -> Base:
    """Opens the rows of a base.

    Raises:
        CheckpointError: it is missing, damaged where that shows before the codes are read, or not
            the one that the seals name.
    """
    header, pages = map_sealed(path, Kind.BASE)
    facts = header.facts
    if header.seal.hex() != seals.base:
        raise refused(path, "it is not the one that the checkpoint names")
    rows, block_rows, offset = facts["rows"], facts["block_rows"], facts["offset"]
    end = offset + 2 * rows * dimension
    length = end + _SHORT * -(-rows // block_rows)
    if facts["dimension"] != dimension or rows != seals.rows or length != len(pages):
        raise refused(path, "its header contradicts the checkpoint")
    # A copy, because the pages of the file are let go now and then, and every answer has ids.
    ids = np.frombuffer(pages, np.int64, rows, PAGE).copy()
    table = pages[end:]
    if _digest(ids, table) != header.digest:
        raise refused(path, "its ids are damaged")
    codes = np.frombuffer(pages, np.float16, rows * dimension, offset).reshape(rows, dimension)
    check = _BlockCheck(path, codes, table, block_rows)
    return Base(ids, codes, seals=seals, pages=pages, check=check)


def read_accelerator(path: Path, seals: Seals, recipe: Recipe, codes: Codes) -> Accelerator:
    """Opens the accelerator of a base with these codes.

    Raises:
        CheckpointError: it is missing, damaged, not the one that the seals name, or of another
            recipe.
    """
    header, pages = map_sealed(path, Kind.ACCELERATOR)
    if header.seal.hex() != seals.accelerator:
        raise refused(path, "it is not the one that the checkpoint names")
    if header.facts["fingerprint"] != recipe.fingerprint.hex():
        raise refused(path, f"it was built by another version of the recipe {recipe.name}")
    verify_body(path, header, pages)
    accelerator = Accelerator.from_bytes(
        recipe,
        memoryview(pages)[PAGE:],
        dimension=codes.shape[1],
        rows=len(codes),
        trained_for=header.facts["trained_for"],
    )
    return accelerator.attached(codes)


def recipe_of(path: Path) -> str:
    """The name of the recipe of an accelerator.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    header, _ = map_sealed(path, Kind.ACCELERATOR)
    return str(header.facts["recipe"])


class _BlockCheck:
    """Verifies blocks of codes before they are used, each once."""

    def __init__(self, path: Path, codes: Codes, table: bytes, block_rows: int) -> None:
        self._path = path
        self._codes = codes
        self._table = table
        self._block_rows = block_rows
        self._verified = bytearray(-(-len(codes) // block_rows))
        self._whole = False

    def __call__(self, rows: npt.NDArray[np.intp] | None) -> None:
        if self._whole:
            return
        if rows is None:
            blocks = set(range(len(self._verified)))
        else:
            # Of few rows, without what numpy takes for each call.
            some = (
                rows if rows.size < _FEW else np.unique(rows // self._block_rows * self._block_rows)
            )
            blocks = {row // self._block_rows for row in some.ravel().tolist() if row >= 0}
        checked = False
        for block in blocks:
            if self._verified[block]:
                continue
            start = block * self._block_rows
            (view,) = bytes_of(self._codes[start : start + self._block_rows])
            if _short(view) != self._table[block * _SHORT : (block + 1) * _SHORT]:
                raise refused(self._path, f"vectors from row {start} on are damaged")
            self._verified[block] = 1
            checked = True
        if checked:
            self._whole = 0 not in self._verified


def _in_blocks(blocks: Iterable[Codes], dimension: int) -> Iterator[Codes]:
    """The same rows, `BLOCK_ROWS` at a time."""
    rest = np.empty((0, dimension), np.float16)
    for block in blocks:
        joined = np.concatenate([rest, block]) if len(rest) else block
        whole = len(joined) - len(joined) % BLOCK_ROWS
        for start in range(0, whole, BLOCK_ROWS):
            yield joined[start : start + BLOCK_ROWS]
        rest = joined[whole:]
    if len(rest):
        yield rest


def _short(view: memoryview) -> bytes:
    return blake3(view).digest(_SHORT)


def _digest(ids: Ids, table: bytes) -> bytes:
    hashed = blake3()
    for part in bytes_of(ids):
        hashed.update(part)
    hashed.update(table)
    return hashed.digest()
