"""`NAME.parquet`: columns of digest, path and vector, read and written by row groups.

pyarrow is typed or not as it is installed or not, so that it is taken as untyped here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import VectorFileError
from searchlib.exchange.disk import reading, replacing
from searchlib.exchange.jsonl import require_count
from searchlib.exchange.rows import (
    BLOCK_ROWS,
    Block,
    Header,
    Key,
    OutBlock,
    file_uri,
    make_key,
    parse_header,
)

# With a buffer a column is read in pieces and not by whole row groups.
_READING = {"buffer_size": 1 << 20, "pre_buffer": False, "page_checksum_verification": True}
# Vectors hardly ever repeat: a dictionary would be their double.
_WRITING = {"use_dictionary": False, "compression": "zstd", "write_page_checksum": True}


class ParquetVectors:
    """A Parquet file of vectors.

    Raises:
        VectorFileError: it cannot be read, lacks a column, or its header is none; or pyarrow is
            missing.
    """

    def __init__(self, path: Path) -> None:
        self.parts = (path,)
        with self._open() as (file, _):
            self._columns = _columns(file.schema_arrow, path)
            self.header = _header(file.metadata.metadata or {}, path)

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        path = self.parts[0]
        arrow = _pyarrow("pyarrow", path)
        parquet = _pyarrow("pyarrow.parquet", path)
        with reading(path) as opened:
            try:
                file = parquet.ParquetFile(opened, **_READING)
                yield file, arrow
            except (arrow.ArrowException, OSError) as error:
                raise VectorFileError(
                    f"{path}: this is not a Parquet file that can be read; it is damaged or cut "
                    "off, so write or copy it again"
                ) from error

    def blocks(self, dimension: int) -> Iterator[Block]:
        """See VectorFile."""
        path = self.parts[0]
        done = 0
        with self._open() as (file, arrow):
            batches = file.iter_batches(
                batch_size=BLOCK_ROWS, columns=self._columns, use_threads=False
            )
            for batch in batches:
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                digests, paths = (
                    _texts(columns.get(name), batch.num_rows, f"{path}: row {done + 1}")
                    for name in ("digest", "path")
                )
                keys = [
                    _key(*row, f"{path}: row {number}")
                    for number, row in enumerate(zip(digests, paths, strict=True), done + 1)
                ]
                vectors = _vectors(columns["vector"], dimension, arrow, path, done + 1)
                if keys:
                    yield Block(done + 1, keys, vectors)
                done += len(keys)
        require_count(path, self.header.count, done)


def _pyarrow(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise VectorFileError(
            f"{path}: pyarrow is missing; install the extra: pip install 'searchlib[parquet]'"
        ) from error


def _columns(schema: Any, path: Path) -> list[str]:
    texts = ("string", "large_string", "string_view")
    lists = tuple(
        f"{kind}<{inner}: {text}>"
        for kind in ("list", "large_list")
        for inner in ("element", "item")
        for text in texts
    )
    found = []
    for name, types in (("digest", texts), ("path", (*texts, *lists))):
        if name in schema.names:
            kind = str(schema.field(name).type).replace(" not null", "")
            if kind not in (*types, "null"):
                raise VectorFileError(
                    f"{path}: the column {name} is {kind}; it must be {' or '.join(types[:1])}"
                )
            found.append(name)
    if not found or "vector" not in schema.names:
        raise VectorFileError(
            f"{path}: it has the columns {', '.join(schema.names)}; it needs vector, and digest or "
            "path"
        )
    return [*found, "vector"]


def _header(metadata: dict[bytes, bytes], path: Path) -> Header:
    fields = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in metadata.items()
    }
    return parse_header(fields, path) if "searchlib" in fields else Header()


def _texts(column: Any, count: int, where: str) -> list[Any]:
    if column is None:
        return [None] * count
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError as error:
        raise VectorFileError(
            f"{where}: in it or the rows after it a text is not UTF-8; write such a path as a "
            "file: URI"
        ) from error
    return values


def _key(digest: Any, path: Any, where: str) -> Key:
    paths = path if isinstance(path, list) else [] if path is None else [path]
    return make_key(digest, paths, where)


def _vectors(
    column: Any, dimension: int, arrow: Any, path: Path, first: int
) -> NDArray[np.float32]:
    """A column's rows, float32 [n, dimension]."""
    types = arrow.types
    fixed = types.is_fixed_size_list(column.type)
    is_list = fixed or types.is_list(column.type) or types.is_large_list(column.type)
    if not is_list or not (
        types.is_float32(column.type.value_type) or types.is_float64(column.type.value_type)
    ):
        raise VectorFileError(
            f"{path}: row {first}: the column vector is {column.type}; it must be lists of float "
            "or double"
        )
    valid = np.asarray(column.is_valid())
    if not valid.all():
        row = first + int(np.argmin(valid))
        raise VectorFileError(f"{path}: row {row}: it has no vector; leave the row out")
    if fixed:
        lengths = np.full(len(column), column.type.list_size)
    else:
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if (other := lengths != dimension).any():
        place = int(np.argmax(other))
        raise VectorFileError(
            f"{path}: row {first + place}: its vector has {lengths[place]} numbers and the model's "
            f"have {dimension}; embed the image with this model"
        )
    # Numbers that are missing become NaN, which is found with the others.
    values = column.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        vectors: NDArray[np.float32] = values.astype(np.float32).reshape(len(column), dimension)
    return vectors


def write_parquet(path: Path, header: Header, blocks: Iterable[OutBlock]) -> tuple[Path, ...]:
    """See `write_vectors`; each block becomes a row group."""
    arrow = _pyarrow("pyarrow", path)
    parquet = _pyarrow("pyarrow.parquet", path)
    schema = arrow.schema(
        [
            arrow.field("digest", arrow.string(), nullable=False),
            arrow.field("path", arrow.list_(arrow.string()), nullable=False),
            arrow.field("vector", arrow.list_(arrow.float32(), header.dimension), nullable=False),
        ],
        metadata={name: str(value) for name, value in header.fields().items()},
    )
    with (
        replacing(path) as (temporary,),
        temporary.open("wb") as file,
        parquet.ParquetWriter(file, schema, **_WRITING) as writer,
    ):
        for block in blocks:
            flat = arrow.array(block.vectors.ravel())
            columns = [
                arrow.array(block.digests, arrow.string()),
                arrow.array([[*map(_text, paths)] for paths in block.paths], schema.types[1]),
                arrow.FixedSizeListArray.from_arrays(flat, header.dimension),
            ]
            columns[2] = columns[2].cast(schema.types[2])
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
    return (path,)


def _text(path: str) -> str:
    """The path, or its URI where its bytes are no valid text."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return file_uri(path)
    return path
