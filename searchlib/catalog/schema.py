"""The tables of the catalog, which is the only truth of a library.

    image ──< embedding >── model        content: one row for distinct bytes, and its vectors
      │                       │
      ├──< file >── folder    │          places: where that content lies, or why it was skipped
      └──< change >───────────┘          the change log of the vector set

The tables are made by the migrations; `REVISION` is the newest of them and a test keeps the two in
step. Times are seconds since 1970 (UTC), except `taken_at`: cameras write local time, mostly
without saying where, so that is kept as ISO 8601 text, with an offset only if there was one.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Integer, TypeDecorator

REVISION = "0001"

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


class FilePath(TypeDecorator[str]):
    """A path as the file system's bytes: a name need not be valid in any encoding."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else os.fsencode(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else os.fsdecode(value)


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double}
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Image(Base):
    """Distinct bytes that decode to a picture."""

    __tablename__ = "image"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str | None] = mapped_column(String)
    width: Mapped[int]
    height: Mapped[int]
    taken_at: Mapped[str | None] = mapped_column(String)
    camera_make: Mapped[str | None] = mapped_column(String)
    camera_model: Mapped[str | None] = mapped_column(String)
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    added_at: Mapped[float]


class Folder(Base):
    """A folder that was added as a whole."""

    __tablename__ = "folder"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    path: Mapped[str] = mapped_column(FilePath, unique=True)
    added_at: Mapped[float]


class File(Base):
    """A place on disk, as it was when it was last read.

    `state` is "present", "missing" (it was there once and is gone) or "skipped" (it could not be
    used, and `reason` says why). A file that once was a picture keeps its `image_id` in each.
    """

    __tablename__ = "file"
    __table_args__ = (
        CheckConstraint("state IN ('present', 'missing', 'skipped')", name="state"),
        CheckConstraint("state <> 'present' OR image_id IS NOT NULL", name="present_image"),
        CheckConstraint("state <> 'skipped' OR reason IS NOT NULL", name="skipped_reason"),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folder.id"), index=True)
    image_id: Mapped[int | None] = mapped_column(ForeignKey("image.id"), index=True)
    path: Mapped[str] = mapped_column(FilePath, unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    inode: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String)
    reason: Mapped[str | None] = mapped_column(String)
    checked_at: Mapped[float]


class Model(Base):
    """An encoder that vectors were made with; at most one is in use."""

    __tablename__ = "model"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    identity: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String)
    dimension: Mapped[int]
    in_use: Mapped[bool]
    added_at: Mapped[float]


class Embedding(Base):
    """A unit vector: little-endian float16, `model.dimension` of them."""

    __tablename__ = "embedding"

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"), primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class Change(Base):
    """One change of the vector set, written in the transaction that makes it.

    `seq` only ever rises, also when rows are removed. A reader that has applied all up to one seq
    looks up the images named after it: those that have an embedding are put, the others removed.
    """

    __tablename__ = "change"
    __table_args__ = (
        Index("ix_change_model_id_seq", "model_id", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    image_id: Mapped[int] = mapped_column(BigInteger)


def table(model: type[Base]) -> Table:
    """The plain table of a model: a statement on it costs a tenth of one on the model."""
    return Base.metadata.tables[model.__tablename__]
