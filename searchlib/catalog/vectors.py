"""The vector set: how a vector is stored, and the change log that an index replays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, func, select

from searchlib.catalog.chunks import chunks
from searchlib.catalog.records import ModelRecord
from searchlib.catalog.schema import Change, Embedding
from searchlib.errors import LibraryDamagedError

STORED = np.dtype("<f2")
_PER_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Changes:
    """The net effect of a stretch of the change log.

    Attributes:
        seq: the last change in it; the one asked from where nothing happened.
        ids: images whose vector is to be put, int64 [n].
        vectors: of these, float16 [n, dimension].
        removed: images that have no vector any more, int64 [m].
    """

    seq: int
    ids: NDArray[np.int64]
    vectors: NDArray[np.float16]
    removed: NDArray[np.int64]


def encode_vector(vector: NDArray[np.float32]) -> bytes:
    """A unit vector, float32 [dimension], as it is stored."""
    return vector.astype(STORED).tobytes()


def decode_vector(row: bytes, model: ModelRecord, place: str) -> NDArray[np.float32]:
    """A stored vector as float32 [dimension], of length 1 again after the rounding.

    Raises:
        LibraryDamagedError: it is not a unit vector of the model's dimension.
    """
    _check_length(row, model, place)
    with np.errstate(all="ignore"):
        vector = np.frombuffer(row, STORED).astype(np.float32)
        length = np.linalg.norm(vector)
    if not 0.99 < length < 1.01:
        raise LibraryDamagedError(
            f"{place}: a stored vector has the length {length:.3g} where all have 1; put a "
            "backup in its place"
        )
    unit: NDArray[np.float32] = vector / length
    return unit


def _check_length(row: bytes, model: ModelRecord, place: str) -> None:
    if len(row) != model.dimension * STORED.itemsize:
        raise LibraryDamagedError(
            f"{place}: a stored vector has {len(row)} bytes where {model.name} has "
            f"{model.dimension * STORED.itemsize}; put a backup in its place"
        )


def last_seq(connection: Connection, model: ModelRecord) -> int:
    """The number of the last change of a model's vectors, 0 where there was none."""
    query = select(func.max(Change.seq)).where(Change.model_id == model.id)
    return connection.execute(query).scalar() or 0


def count_after(connection: Connection, model: ModelRecord, after: int) -> int:
    """How many changes of a model's vectors came after one."""
    query = select(func.count()).where(Change.model_id == model.id, Change.seq > after)
    return connection.execute(query).scalar_one()


def read_all(
    connection: Connection, model: ModelRecord, place: str
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """All image ids of a model, int64 [n] rising, and their vectors, float16 [n, dimension]."""
    return _read(connection, model, place, _vectors_of(model))


def read_some(
    connection: Connection, model: ModelRecord, ids: Iterable[int], place: str
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """The vectors of some images: ids int64 [n] rising and vectors float16 [n, dimension]."""
    parts = [
        _read(connection, model, place, _vectors_of(model).where(Embedding.image_id.in_(some)))
        for some in chunks(sorted(set(map(int, ids))))
    ]
    none = np.empty(0, np.int64), np.empty((0, model.dimension), np.float16)
    found, vectors = zip(none, *parts, strict=True)
    return np.concatenate(found), np.concatenate(vectors)


def read_ids(connection: Connection, model: ModelRecord) -> NDArray[np.int64]:
    """All image ids of a model that have a vector, int64 [n], rising."""
    query = select(Embedding.image_id).where(Embedding.model_id == model.id)
    rows = connection.execute(query.order_by(Embedding.image_id)).scalars()
    return np.fromiter(rows, np.int64)


def read_blocks(
    connection: Connection, model: ModelRecord, place: str
) -> Iterator[NDArray[np.float16]]:
    """The vectors of a model in the order of their ids, float16 [m, dimension] each."""
    query = select(Embedding.vector).where(Embedding.model_id == model.id)
    query = query.order_by(Embedding.image_id).execution_options(yield_per=_PER_BLOCK)
    with connection.execute(query) as result:
        for rows in result.scalars().partitions():
            for row in rows:
                _check_length(row, model, place)
            block = np.frombuffer(b"".join(rows), STORED).reshape(len(rows), model.dimension)
            yield block.astype(np.float16, copy=False)


def changes_after(connection: Connection, model: ModelRecord, after: int, place: str) -> Changes:
    """The net effect of all changes after one."""
    seq = max(last_seq(connection, model), after)
    return _changes(connection, model, Change.seq > after, seq, place)


def change_at(connection: Connection, model: ModelRecord, seq: int, place: str) -> Changes | None:
    """The one change of a number as it stands now, None where there is none."""
    change = _changes(connection, model, Change.seq == seq, seq, place)
    return change if len(change.ids) + len(change.removed) else None


def _changes(
    connection: Connection,
    model: ModelRecord,
    which: ColumnElement[bool],
    seq: int,
    place: str,
) -> Changes:
    named = select(Change.image_id).where(Change.model_id == model.id, which)
    query = _vectors_of(model).where(Embedding.image_id.in_(named))
    ids, vectors = _read(connection, model, place, query)
    # np.setdiff1d loads masked arrays, which takes longer than all the search of a first query.
    removed = set(connection.execute(named.distinct()).scalars()).difference(ids.tolist())
    return Changes(seq, ids, vectors, np.array(sorted(removed), np.int64))


def _vectors_of(model: ModelRecord) -> Select[int, bytes]:
    return (
        select(Embedding.image_id, Embedding.vector)
        .where(Embedding.model_id == model.id)
        .order_by(Embedding.image_id)
    )


def _read(
    connection: Connection, model: ModelRecord, place: str, query: Select[int, bytes]
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    ids: list[int] = []
    body = bytearray()
    with connection.execute(query.execution_options(yield_per=_PER_BLOCK)) as rows:
        for image_id, row in rows:
            _check_length(row, model, place)
            ids.append(image_id)
            body += row
    vectors = np.frombuffer(body, STORED).reshape(len(ids), model.dimension)
    return np.array(ids, np.int64), vectors.astype(np.float16, copy=False)
