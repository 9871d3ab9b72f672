"""The tables of the catalog, which is the only truth of a library.

    image ──< embedding >── model        content: one row for distinct bytes, and its vectors
      │                       │
      ├──< file >── folder    │          places: where that content lies, or why it cannot be used
      └──< change >───────────┘          the change log of the vector set
    dirty                                paths that something happened to and nobody looked at yet
    watcher                              what the process that watches the folders says of itself
    setting                              what was chosen for this library, by name
    image ──< tag, property              what people say of an image

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
    false,
    text,
    true,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Integer, TypeDecorator

REVISION = "0004"

# Whole numbers of 64 bits. SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
# Compared and ordered by its bytes, as in SQLite, whatever the language of a database is.
_Text = String().with_variant(String(collation="C"), "postgresql")


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
    """Distinct bytes that decode to a picture.

    `camera` is make and model with a space between, folded, to look for a text in it.
    """

    __tablename__ = "image"
    __table_args__ = (
        Index("ix_image_taken_at", "taken_at"),
        Index("ix_image_added_at", "added_at"),
        Index("ix_image_latitude", "latitude", "longitude"),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str | None] = mapped_column(String)
    width: Mapped[int]
    height: Mapped[int]
    taken_at: Mapped[str | None] = mapped_column(_Text)
    camera_make: Mapped[str | None] = mapped_column(String)
    camera_model: Mapped[str | None] = mapped_column(String)
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    added_at: Mapped[float]
    camera: Mapped[str | None] = mapped_column(_Text)


class Folder(Base):
    """A folder that was added as a whole.

    `include` and `exclude` are patterns as in a `.gitignore`, lists in JSON. `marker` is the name
    of a file that lies in the folder whenever its drive is mounted.
    """

    __tablename__ = "folder"
    __table_args__ = (CheckConstraint("events IN ('auto', 'yes', 'no')", name="events"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    path: Mapped[str] = mapped_column(FilePath, unique=True)
    added_at: Mapped[float]
    watched: Mapped[bool] = mapped_column(server_default=false())
    recursive: Mapped[bool] = mapped_column(server_default=true())
    follow_links: Mapped[bool] = mapped_column(server_default=false())
    include: Mapped[str] = mapped_column(String, server_default="[]")
    exclude: Mapped[str] = mapped_column(String, server_default="[]")
    marker: Mapped[str | None] = mapped_column(FilePath)
    events: Mapped[str] = mapped_column(String, server_default="auto")


class File(Base):
    """A place on disk, as it was when it was last read.

    `state` is "present", "missing" (it was there once and is gone), "offline" (its drive is not
    mounted) or "skipped" (it could not be used). A file that once was a picture keeps its
    `image_id` in each. `failure` is set while the last try failed, with the `reason` in words:
    "content" (only other bytes can help), "access" (the disk refused: tried again at `next_try`)
    or "crash" (its decoding ended the process: tried alone at `next_try`, and where there is none
    it is in quarantine). `device` numbers the file system, and `video` is the moving part of a
    live photo, a file beside it.
    """

    __tablename__ = "file"
    __table_args__ = (
        CheckConstraint("state IN ('present', 'missing', 'offline', 'skipped')", name="state"),
        CheckConstraint("state <> 'present' OR image_id IS NOT NULL", name="present_image"),
        CheckConstraint("state <> 'skipped' OR failure IS NOT NULL", name="skipped_failure"),
        CheckConstraint("failure IN ('content', 'access', 'crash')", name="failure"),
        CheckConstraint("failure IS NULL OR reason IS NOT NULL", name="failure_reason"),
        # With the state, so that most questions need not look at the rows.
        Index("ix_file_image_id_state", "image_id", "state"),
        # In PostgreSQL as well, whose module says so: SQLAlchemy would load all of that for a word.
        Index("ix_file_failure", "failure", sqlite_where=text("failure IS NOT NULL")),
        Index(
            "ix_file_missing_since",
            "missing_since",
            sqlite_where=text("missing_since IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folder.id"), index=True)
    image_id: Mapped[int | None] = mapped_column(ForeignKey("image.id"))
    path: Mapped[str] = mapped_column(FilePath, unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    inode: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String)
    reason: Mapped[str | None] = mapped_column(String)
    checked_at: Mapped[float]
    device: Mapped[int | None] = mapped_column(BigInteger)
    missing_since: Mapped[float | None]
    video: Mapped[str | None] = mapped_column(FilePath)
    failure: Mapped[str | None] = mapped_column(String)
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_try: Mapped[float | None]


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


class Dirty(Base):
    """A path that something happened to: a hint, kept until somebody has looked at it.

    A path that is marked again gets a higher `mark`, so that what is taken off the list for one
    mark is not taken off for a later one. Clocks have no part in it.
    """

    __tablename__ = "dirty"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - as SQLAlchemy declares it

    mark: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    path: Mapped[str] = mapped_column(FilePath, unique=True)
    noted_at: Mapped[float]


class Watcher(Base):
    """The heartbeat of the process that watches; at most one row, with id 1."""

    __tablename__ = "watcher"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    pid: Mapped[int] = mapped_column(_Id)
    host: Mapped[str] = mapped_column(String)
    started_at: Mapped[float]
    beat_at: Mapped[float]
    stage: Mapped[str] = mapped_column(String)
    queued: Mapped[int] = mapped_column(_Id)
    settling: Mapped[int] = mapped_column(_Id)
    done: Mapped[int] = mapped_column(_Id)
    failed: Mapped[int] = mapped_column(_Id)
    per_second: Mapped[float]
    lag: Mapped[float]
    last_event_at: Mapped[float | None]
    scanned_at: Mapped[float | None]


class Setting(Base):
    """What was chosen for this library, such as the recipe of its index; for all processes."""

    __tablename__ = "setting"

    name: Mapped[str] = mapped_column(String, primary_key=True)
    value: Mapped[str] = mapped_column(String)


class Tag(Base):
    """A word that people put on an image; `word` as they wrote it, `folded` without its case."""

    __tablename__ = "tag"
    __table_args__ = (
        Index("ix_tag_folded", "folded", "image_id"),
        {"sqlite_with_rowid": False},
    )

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    folded: Mapped[str] = mapped_column(_Text, primary_key=True)
    word: Mapped[str] = mapped_column(_Text)


class Property(Base):
    """A value of people's own under a key.

    `name` is the key and `value` the value as they wrote them; `key` and `folded` are the same
    without their case, and `number` is the value where it is one.
    """

    __tablename__ = "property"
    __table_args__ = (
        Index("ix_property_key_folded", "key", "folded", "image_id"),
        Index("ix_property_key_number", "key", "number", "image_id"),
        {"sqlite_with_rowid": False},
    )

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    key: Mapped[str] = mapped_column(_Text, primary_key=True)
    name: Mapped[str] = mapped_column(_Text)
    value: Mapped[str] = mapped_column(_Text)
    folded: Mapped[str] = mapped_column(_Text)
    number: Mapped[float | None]


def table(model: type[Base]) -> Table:
    """The plain table of a model: a statement on it costs a tenth of one on the model."""
    return Base.metadata.tables[model.__tablename__]
