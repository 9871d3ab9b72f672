"""Vectors that come from elsewhere or go there: what the exchange asks of the catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, exists, func, select

from searchlib.catalog.records import ModelRecord, Stat
from searchlib.catalog.schema import Embedding, File, Image, table
from searchlib.catalog.vectors import decode_vector

BLOCK_ROWS = 4096
_IMAGE, _FILE, _EMBEDDING = map(table, (Image, File, Embedding))
_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image of the library.

    Attributes:
        id: of the image.
        digest: 32 bytes.
        vector: float32 [dimension] of length 1, None where it was not embedded with the model.
    """

    id: int
    digest: bytes
    vector: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Some stored vectors, in the order of the image ids.

    Attributes:
        digests: 32 bytes each.
        paths: where each image lies, in alphabetical order; may be empty.
        vectors: float32 [n, dimension], of length 1.
    """

    digests: list[bytes]
    paths: list[tuple[str, ...]]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """The vector set of a model as it stood at one moment.

    Attributes:
        count: vectors in all blocks.
        left_out: vectors whose image has no file present, where these were not asked for.
        blocks: the vectors, once.
    """

    count: int
    left_out: int
    blocks: Iterator[StoredBlock]


def known_images(
    connection: Connection, model: ModelRecord | None, digests: Collection[bytes], place: str
) -> dict[bytes, KnownImage]:
    """The images of some digests, by digest; without vectors where there is no model yet."""
    found = {}
    embedded = and_(
        _EMBEDDING.c.image_id == _IMAGE.c.id,
        _EMBEDDING.c.model_id == (None if model is None else model.id),
    )
    columns = select(_IMAGE.c.digest, _IMAGE.c.id, _EMBEDDING.c.vector).select_from(
        _IMAGE.outerjoin(_EMBEDDING, embedded)
    )
    for some in _slices(list(digests)):
        for digest, image_id, row in connection.execute(columns.where(_IMAGE.c.digest.in_(some))):
            vector = decode_vector(row, model, place) if row is not None and model else None
            found[bytes(digest)] = KnownImage(image_id, bytes(digest), vector)
    return found


def digests_at(connection: Connection, paths: Collection[str]) -> dict[str, tuple[Stat, bytes]]:
    """What the catalog says of the files present at some paths: untouched if so, and the digest."""
    found = {}
    columns = (
        select(
            _FILE.c.path,
            _FILE.c.size,
            _FILE.c.mtime_ns,
            _FILE.c.inode,
            _FILE.c.device,
            _IMAGE.c.digest,
        )
        .join(_IMAGE, _IMAGE.c.id == _FILE.c.image_id)
        .where(_FILE.c.state == "present")
    )
    for some in _slices(list(paths)):
        for row in connection.execute(columns.where(_FILE.c.path.in_(some))):
            stat = Stat(row.size, row.mtime_ns, row.inode, row.device)
            found[row.path] = (stat, bytes(row.digest))
    return found


def stored_vectors(
    connection: Connection, model: ModelRecord | None, place: str, *, include_missing: bool
) -> StoredVectors:
    """The vectors of a model; to be read while the transaction is open."""
    if model is None:
        return StoredVectors(0, 0, iter(()))
    of_model = _EMBEDDING.c.model_id == model.id
    present = exists().where(_FILE.c.image_id == _EMBEDDING.c.image_id, _FILE.c.state == "present")
    wanted = of_model if include_missing else and_(of_model, present)
    counted = select(func.count()).select_from(_EMBEDDING)
    in_all: int = connection.execute(counted.where(of_model)).scalar_one()
    count: int = connection.execute(counted.where(wanted)).scalar_one()

    def blocks() -> Iterator[StoredBlock]:
        after = -1
        columns = (
            select(_EMBEDDING.c.image_id, _IMAGE.c.digest, _EMBEDDING.c.vector)
            .join(_IMAGE, _IMAGE.c.id == _EMBEDDING.c.image_id)
            .where(wanted)
            .order_by(_EMBEDDING.c.image_id)
            .limit(BLOCK_ROWS)
        )
        while rows := connection.execute(columns.where(_EMBEDDING.c.image_id > after)).all():
            first, after = rows[0].image_id, rows[-1].image_id
            paths = _paths(connection, first, after)
            yield StoredBlock(
                [bytes(row.digest) for row in rows],
                [paths.get(row.image_id, ()) for row in rows],
                np.stack([decode_vector(row.vector, model, place) for row in rows]),
            )

    return StoredVectors(count, in_all - count, blocks())


def _paths(connection: Connection, first: int, last: int) -> dict[int, tuple[str, ...]]:
    places = (
        select(_FILE.c.image_id, _FILE.c.path)
        .where(_FILE.c.image_id.between(first, last), _FILE.c.state == "present")
        .order_by(_FILE.c.image_id, _FILE.c.path)
    )
    rows = connection.execute(places)
    return {image: tuple(row.path for row in some) for image, some in groupby(rows, itemgetter(0))}


def _slices(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _PER_QUERY):
        yield items[start : start + _PER_QUERY]
