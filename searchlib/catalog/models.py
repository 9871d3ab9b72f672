"""The models of a library: which one is in use, and what another one lacks to be used.

At most one model is in use: the row is changed in one statement, inside a transaction that holds
the right to write.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    SQLColumnExpression,
    case,
    exists,
    func,
    insert,
    select,
    update,
)

from searchlib.catalog.records import ModelRecord, ModelVectors, Unembedded
from searchlib.catalog.schema import Change, Embedding, File, Image, Model, table
from searchlib.catalog.vectors import encode_vector
from searchlib.errors import ModelMismatchError

_COLUMNS = select(Model.id, Model.identity, Model.name, Model.dimension)
_PRESENT = exists().where(File.image_id == Image.id, File.state == "present")


def model_in_use(connection: Connection) -> ModelRecord | None:
    """The model in use, None in a library that has no vector yet."""
    row = connection.execute(_COLUMNS.where(Model.in_use)).first()
    return None if row is None else ModelRecord(*row)


def known_model(connection: Connection, *, identity: str, name: str, dimension: int) -> ModelRecord:
    """The record of a model, which is made where there is none; it is not put to use."""
    query = _COLUMNS.where(Model.identity == identity)
    row = connection.execute(query).first()
    if row is None:
        values = {"identity": identity, "name": name, "dimension": dimension}
        connection.execute(insert(Model).values(**values, in_use=False, added_at=time.time()))
        row = connection.execute(query).one()
    return ModelRecord(*row)


def put_to_use(connection: Connection, model: ModelRecord) -> None:
    """Make a model the one in use."""
    connection.execute(update(Model).values(in_use=Model.id == model.id))


def require_in_use(connection: Connection, model: ModelRecord, folder: Path) -> None:
    """Refuse to write for a model that another process has replaced.

    Raises:
        ModelMismatchError: another model is in use.
    """
    current = model_in_use(connection)
    if current is None or current.id != model.id:
        name = "no model" if current is None else f"the model {current.name}"
        raise ModelMismatchError(
            f"{folder}: the library changed to {name} meanwhile; run the command again"
        )


def mismatch(folder: Path, current: ModelRecord, *, identity: str, name: str) -> ModelMismatchError:
    """The error for an encoder that is not the one of the library's vectors."""
    return ModelMismatchError(
        f"{folder}: this library's vectors were made with the model {current.name} "
        f"({current.identity[:12]}), not with {name} ({identity[:12]}); vectors of two models "
        f"cannot be compared. Change its model with `searchlib models use {name}`, or use another "
        "--library"
    )


def vectors_by_model(connection: Connection) -> tuple[ModelVectors, ...]:
    """The models that have vectors, the one in use first and then by name."""
    count = select(Embedding.model_id, func.count().label("n")).group_by(Embedding.model_id)
    counted = count.subquery()
    query = (
        select(Model.name, Model.identity, counted.c.n, Model.in_use)
        .join(counted, counted.c.model_id == Model.id)
        .order_by(Model.in_use.desc(), Model.name, Model.id)
    )
    return tuple(ModelVectors(*row) for row in connection.execute(query))


def has_vector_of(model: ModelRecord, image_id: SQLColumnExpression[Any]) -> ColumnElement[bool]:
    """Whether an image has a vector of a model, as a part of a query."""
    return exists().where(Embedding.image_id == image_id, Embedding.model_id == model.id)


def coverage(connection: Connection, model: ModelRecord) -> tuple[int, int]:
    """How many images with a file present have a vector of a model, and how many have none."""
    has_vector = case((has_vector_of(model, Image.id), 1), else_=0)
    query = select(func.count(), func.coalesce(func.sum(has_vector), 0)).where(_PRESENT)
    images, vectors = connection.execute(query.select_from(Image)).one()
    return int(vectors), int(images) - int(vectors)


def without_vector(
    connection: Connection, model: ModelRecord, *, after: int, limit: int
) -> list[Unembedded]:
    """The next images after an id that have a file present and no vector of a model, by id."""
    query = _lacking(model).where(Image.id > after).order_by(Image.id).limit(limit)
    digests: dict[int, bytes] = dict(connection.execute(query).all())
    places = select(File.image_id, File.path).where(
        File.image_id.in_(digests), File.state == "present"
    )
    paths: dict[int, list[str]] = {image_id: [] for image_id in digests}
    for image_id, path in connection.execute(places.order_by(File.id)):
        if image_id is not None:
            paths[image_id].append(path)
    return [Unembedded(id, digest, tuple(paths[id])) for id, digest in digests.items()]


def is_complete(connection: Connection, model: ModelRecord, *, without: Collection[int]) -> bool:
    """Whether every image with a file present, but for some ids, has a vector of a model."""
    return all(row.id in without for row in connection.execute(_lacking(model)))


def _lacking(model: ModelRecord) -> Select[int, bytes]:
    return select(Image.id, Image.digest).where(~has_vector_of(model, Image.id), _PRESENT)


def put_vectors(
    connection: Connection,
    model: ModelRecord,
    vectors: Sequence[tuple[int, NDArray[np.float32]]],
) -> None:
    """Write vectors of images, and the changes with them; those that are there already stay."""
    known = select(Embedding.image_id).where(
        Embedding.model_id == model.id, Embedding.image_id.in_([id for id, _ in vectors])
    )
    there = set(connection.execute(known).scalars())
    keys = [{"image_id": id, "model_id": model.id} for id, _ in vectors if id not in there]
    if keys:
        by_id = dict(vectors)
        rows = [{**key, "vector": encode_vector(by_id[key["image_id"]])} for key in keys]
        connection.execute(table(Embedding).insert(), rows)
        connection.execute(table(Change).insert(), keys)
