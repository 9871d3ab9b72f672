"""`NAME.npy` with `NAME.jsonl`: an array, and a line for each of its rows.

The array is read and written in pieces and not mapped: a mapped file that another program cuts
short ends the whole process with SIGBUS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from blake3 import blake3

from searchlib.errors import VectorFileError
from searchlib.exchange.disk import reading, replacing
from searchlib.exchange.jsonl import (
    belongs_to_array,
    header_line,
    read_header,
    read_rows,
    require_count,
    row_key,
    row_line,
)
from searchlib.exchange.rows import BLOCK_ROWS, Block, Header, Key, OutBlock

_STORED = np.dtype("<f4")


class NpyPair:
    """An npy file and the JSON lines beside it.

    Raises:
        VectorFileError: one of them is missing, cannot be read, or has a header that is none.
    """

    def __init__(self, path: Path) -> None:
        lines = _lines_of(path)
        self.parts = (path, lines)
        with reading(path):
            pass
        if not lines.exists():
            raise VectorFileError(
                f"{path}: {lines.name} is missing beside it, which says which image each row is; "
                "copy both files"
            )
        self.header = read_header(lines)

    def blocks(self, dimension: int) -> Iterator[Block]:
        """See VectorFile."""
        path, lines = self.parts
        hasher = blake3()
        done = 0
        with reading(path) as file:
            count, dtype = _read_npy_header(file, path, dimension)
            require_count(path, self.header.count, count)
            rows = read_rows(lines)
            while done < count:
                some = min(BLOCK_ROWS, count - done)
                body = file.read(some * dimension * dtype.itemsize)
                hasher.update(body)
                keys = [
                    _key(row, lines, done + number)
                    for number, row in enumerate(islice(rows, some), 1)
                ]
                if len(keys) < some:
                    raise _other_count(path, lines, count, done + len(keys))
                vectors = np.frombuffer(body, dtype).reshape(some, dimension)
                yield Block(done + 1, keys, vectors.astype(np.float32))
                done += some
            more = sum(1 for _ in rows)
        if more:
            raise _other_count(path, lines, count, count + more)
        if self.header.vectors_blake3 not in (None, hasher.hexdigest()):
            raise VectorFileError(
                f"{path}: {lines.name} was written for other vectors than these; export or copy "
                "both files again"
            )


def _key(row: dict[str, Any], lines: Path, number: int) -> Key:
    where = f"{lines}: row {number}"
    if "vector" in row:
        raise VectorFileError(
            f"{where}: it has a vector of its own, so that this file does not belong to "
            f"{lines.stem}.npy; import it instead, or give it another name"
        )
    return row_key(row, where)


def _lines_of(path: Path) -> Path:
    return path.with_suffix(".jsonl")


def _other_count(path: Path, lines: Path, vectors: int, rows: int) -> VectorFileError:
    return VectorFileError(
        f"{path}: it has {vectors} vectors and {lines.name} has {rows} rows; each vector needs "
        "its row, so write or copy both files again"
    )


def _read_npy_header(
    file: IO[bytes], path: Path, dimension: int
) -> tuple[int, np.dtype[np.float32]]:
    """The number of vectors and how they are stored; the file then stands at the first.

    The format is that of numpy.lib.format.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, in_columns, dtype = read(file)
    except Exception as error:  # numpy raises ValueError, SyntaxError, TypeError and more
        raise VectorFileError(
            f"{path}: this is not an npy file that can be read; write it with numpy.save"
        ) from error
    if dtype.kind != "f" or dtype.itemsize != _STORED.itemsize:
        raise VectorFileError(
            f'{path}: its numbers are {dtype}; save it as float32: vectors.astype("float32")'
        )
    if in_columns or len(shape) != 2:
        raise VectorFileError(
            f"{path}: its shape is {shape}{' in Fortran order' if in_columns else ''}; save an "
            "array of count x dimension in C order (numpy.ascontiguousarray)"
        )
    count, found = shape
    if found != dimension:
        raise VectorFileError(
            f"{path}: row 1: its vectors have {found} numbers and the model's have {dimension}; "
            "embed the images with this model"
        )
    start = file.tell()
    there = file.seek(0, 2) - start
    file.seek(start)
    if count < 0 or there != count * dimension * dtype.itemsize:
        whole = there // (dimension * dtype.itemsize)
        raise VectorFileError(
            f"{path}: row {whole + 1}: the file ends in another place than its header says "
            f"({whole} whole rows of {count}); it is not whole, so write or copy it again"
        )
    return count, dtype


def write_npy(path: Path, header: Header, blocks: Iterable[OutBlock]) -> tuple[Path, ...]:
    """See `write_vectors`. The JSON lines come second: they hold the checksum of the vectors."""
    lines = _lines_of(path)
    _require_ours(path, lines)
    hasher = blake3()
    with (
        replacing(path, lines) as (temporary, temporary_lines),
        temporary.open("wb") as file,
        temporary_lines.open("w", encoding="utf-8") as text,
    ):
        shape = (header.count, header.dimension)
        described = {"descr": _STORED.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, described)
        # The checksum is known at the end, and is as long as this.
        text.write(header_line(replace(header, vectors_blake3="0" * 64)))
        for block in blocks:
            body = block.vectors.astype(_STORED).tobytes()
            hasher.update(body)
            file.write(body)
            for row in zip(block.digests, block.paths, strict=True):
                text.write(row_line(*row))
        text.seek(0)
        text.write(header_line(replace(header, vectors_blake3=hasher.hexdigest())))
    return (path, lines)


def _require_ours(path: Path, lines: Path) -> None:
    """Do not replace a file that was not named and does not belong to an array."""
    if lines.exists() and not belongs_to_array(lines):
        raise VectorFileError(
            f"{path}: {lines.name} lies beside it, belongs to no npy file, and would be replaced; "
            "choose another name"
        )
