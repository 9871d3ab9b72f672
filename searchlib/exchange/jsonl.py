"""JSON lines: rows without vectors beside an npy file, or rows with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import VectorFileError
from searchlib.exchange.disk import reading, replacing
from searchlib.exchange.rows import (
    BLOCK_ROWS,
    Block,
    Header,
    Key,
    OutBlock,
    make_key,
    parse_header,
)

_LONGEST_LINE = 1 << 24


class JsonLines:
    """`NAME.jsonl` alone, with a vector in each row.

    Raises:
        VectorFileError: it cannot be read or its header is none.
    """

    def __init__(self, path: Path) -> None:
        self.parts = (path,)
        with reading(path) as file:
            if not file.read(1):
                raise VectorFileError(f"{path}: the file is empty; write or copy it again")
        self.header = read_header(path)

    def blocks(self, dimension: int) -> Iterator[Block]:
        """See VectorFile."""
        path = self.parts[0]
        keys: list[Key] = []
        vectors: list[NDArray[np.float32]] = []
        number = 0
        for number, row in enumerate(read_rows(path), 1):
            where = f"{path}: row {number}"
            keys.append(row_key(row, where))
            if "vector" not in row:
                raise VectorFileError(
                    f"{where}: it has no vector; if this file belongs to {path.stem}.npy, name that"
                )
            vectors.append(_vector(row["vector"], dimension, where))
            if len(keys) == BLOCK_ROWS:
                yield Block(number - len(keys) + 1, keys, np.stack(vectors))
                keys, vectors = [], []
        if keys:
            yield Block(number - len(keys) + 1, keys, np.stack(vectors))
        require_count(path, self.header.count, number)


def _vector(value: Any, dimension: int, where: str) -> NDArray[np.float32]:
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        raise VectorFileError(f"{where}: its vector must be a list of numbers")
    if len(value) != dimension:
        raise VectorFileError(
            f"{where}: its vector has {len(value)} numbers and the model's have {dimension}; "
            "embed the image with this model"
        )
    with np.errstate(over="ignore"):
        try:
            return np.array(value, np.float64).astype(np.float32)
        except OverflowError:
            return np.full(dimension, np.inf, np.float32)


def read_header(path: Path) -> Header:
    """The header of a file of JSON lines, empty where its first line is none."""
    for _, fields in _objects(path):
        return parse_header(fields, path) if "searchlib" in fields else Header()
    return Header()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, without the header.

    Raises:
        VectorFileError: it cannot be read, or a line is not a JSON object.
    """
    first = True
    for number, fields in _objects(path):
        if "searchlib" not in fields:
            yield fields
        elif not first:
            raise VectorFileError(
                f"{path}: line {number}: this is a second header; import the files one by one"
            )
        first = False


def row_key(row: dict[str, Any], where: str) -> Key:
    """By what a row's image is known."""
    paths = row.get("paths")
    if paths is not None and not isinstance(paths, list):
        raise VectorFileError(f"{where}: its paths must be a list of texts")
    singles = [row[name] for name in ("path", "uri") if row.get(name) is not None]
    return make_key(row.get("digest"), [*singles, *(paths or [])], where)


def require_count(path: Path, expected: int | None, found: int) -> None:
    """Hold the number of rows against the header's."""
    if expected is not None and expected != found:
        raise VectorFileError(
            f"{path}: it has {found} rows and its header says {expected}; it is not whole, so "
            "write or copy it again"
        )


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with reading(path) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            where = f"{path}: line {number}"
            if len(line) == _LONGEST_LINE:
                raise VectorFileError(f"{where}: this line has no end; it is not a file of vectors")
            if line.isspace():
                continue
            try:
                fields = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise VectorFileError(f"{where}: this is not UTF-8; write it as UTF-8") from error
            except (ValueError, RecursionError) as error:
                # What the parser says of huge numbers and deep lists has no place in one line.
                what = error.msg if isinstance(error, json.JSONDecodeError) else "out of bounds"
                raise VectorFileError(
                    f"{where}: this is not JSON ({what}); the file is damaged or cut off, so "
                    "write or copy it again"
                ) from error
            if not isinstance(fields, dict):
                raise VectorFileError(f"{where}: this is no JSON object; each line must be one")
            yield number, fields


def header_line(header: Header) -> str:
    """The first line of a file."""
    return json.dumps(header.fields()) + "\n"


def row_line(digest: str, paths: tuple[str, ...], vector: NDArray[np.float32] | None = None) -> str:
    """A row's line; a byte of a path that is no text becomes an escaped lone surrogate."""
    line = json.dumps({"digest": digest, "paths": paths})
    if vector is not None:
        # Nine digits tell any two float32 apart.
        numbers = ", ".join(f"{number:.9g}" for number in vector.tolist())
        line = f'{line[:-1]}, "vector": [{numbers}]}}'
    return line + "\n"


def belongs_to_array(path: Path) -> bool:
    """Whether these are the lines that we wrote beside an npy file."""
    with reading(path) as file:
        first = file.readline(1 << 16)
    try:
        return "vectors_blake3" in json.loads(first)
    except (ValueError, TypeError, RecursionError):
        return False


def write_jsonl(path: Path, header: Header, blocks: Iterable[OutBlock]) -> tuple[Path, ...]:
    """See `write_vectors`."""
    array = path.with_suffix(".npy")
    if array.exists() and path.exists() and belongs_to_array(path):
        raise VectorFileError(
            f"{path}: this file belongs to {array.name} beside it, which would be of no use "
            "without it; choose another name"
        )
    with replacing(path) as (temporary,), temporary.open("w", encoding="utf-8") as file:
        file.write(header_line(header))
        for block in blocks:
            for row in zip(block.digests, block.paths, block.vectors, strict=True):
                file.write(row_line(*row))
    return (path,)
