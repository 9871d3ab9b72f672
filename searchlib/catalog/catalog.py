"""Catalog: all that is known of a library, asked and told in records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BindParameter, and_, bindparam, delete, func, insert, select, update

from searchlib.catalog import foreign, models
from searchlib.catalog.chunks import chunks
from searchlib.catalog.database import Database
from searchlib.catalog.foreign import KnownImage, StoredVectors
from searchlib.catalog.labels import Labels, labels_of
from searchlib.catalog.places import Places
from searchlib.catalog.records import (
    Counts,
    Facts,
    ImageRecord,
    ModelRecord,
    Outcome,
    ReadFile,
    SkippedFile,
    Stat,
    Unembedded,
)
from searchlib.catalog.schema import Dirty, Embedding, File, Folder, Image, Setting, table
from searchlib.catalog.selection import Selection
from searchlib.catalog.vectors import (
    Changes,
    change_at,
    changes_after,
    count_after,
    decode_vector,
    last_seq,
    read_all,
    read_blocks,
    read_ids,
    read_some,
)
from searchlib.catalog.watching import DirtyList, Folders, Pulse
from searchlib.catalog.writer import BatchWriter

_IMAGE, _FILE, _EMBEDDING = table(Image), table(File), table(Embedding)
_OF_DIGEST = and_(
    _IMAGE.c.digest == bindparam("digest"),
    _EMBEDDING.c.image_id == _IMAGE.c.id,
    _EMBEDDING.c.model_id == bindparam("model_id"),
)
_HAS_VECTOR = select(_EMBEDDING.c.image_id).where(_OF_DIGEST)
_VECTOR = select(_EMBEDDING.c.vector).where(_OF_DIGEST)
# Made once, for they are asked with every search.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_PLACES = select(_FILE.c.image_id, _FILE.c.path, _FILE.c.video).where(
    _FILE.c.image_id.in_(_IDS), _FILE.c.state == "present"
)
_IMAGES = select(_IMAGE).where(_IMAGE.c.id.in_(_IDS))


class Catalog:
    """The catalog of one library; may be used from many threads.

    Args:
        folder: the library's folder.
        create: make an empty library where there is none.
        url: of the PostgreSQL database that holds the catalog; a SQLite file in the folder if None.

    Attributes:
        places: where files lie or lay, and what failed there.
        folders: that were added as a whole.
        dirty: paths that something happened to and nobody looked at yet.
        pulse: the heartbeat of the process that watches.
        labels: what people say of images.
        selection: which images meet a condition.

    Raises:
        LibraryError: as Database.
    """

    def __init__(self, folder: Path, *, create: bool = True, url: str | None = None) -> None:
        self.database = Database(folder, create=create, url=url)
        self.places = Places(self.database)
        self.folders = Folders(self.database)
        self.dirty = DirtyList(self.database)
        self.pulse = Pulse(self.database)
        self.labels = Labels(self.database)
        self.selection = Selection(self.database)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def use_model(self, *, identity: str, name: str, dimension: int) -> ModelRecord:
        """The model in use, which is made this one if there is none yet.

        Raises:
            ModelMismatchError: the library's vectors were made with another model.
        """
        current = self.model()
        if current is None:
            with self.database.writing() as connection:
                # Another process may have done it since.
                current = models.model_in_use(connection)
                if current is None:
                    current = models.known_model(
                        connection, identity=identity, name=name, dimension=dimension
                    )
                    models.put_to_use(connection, current)
        if current.identity != identity:
            raise models.mismatch(self.database.folder, current, identity=identity, name=name)
        return current

    def model(self) -> ModelRecord | None:
        """The model in use, None in a library that has no vector yet."""
        with self.database.reading() as connection:
            return models.model_in_use(connection)

    def known_model(self, *, identity: str, name: str, dimension: int) -> ModelRecord:
        """The record of a model that vectors are to be made with before it is in use."""
        with self.database.writing() as connection:
            return models.known_model(connection, identity=identity, name=name, dimension=dimension)

    def coverage(self, model: ModelRecord) -> tuple[int, int]:
        """How many images with a file present have a vector of a model, and how many have none."""
        with self.database.reading() as connection:
            return models.coverage(connection, model)

    def without_vector(self, model: ModelRecord, *, after: int, limit: int) -> list[Unembedded]:
        """The next images after an id that have a file present and no vector of a model, by id."""
        with self.database.reading() as connection:
            return models.without_vector(connection, model, after=after, limit=limit)

    def put_vectors(
        self, model: ModelRecord, vectors: Sequence[tuple[int, NDArray[np.float32]]]
    ) -> None:
        """Give images their vectors of a model, which need not be in use, all or none.

        Args:
            model: that the vectors were made with.
            vectors: image ids, and float32 [dimension] of length 1. An image that has a vector of
                this model keeps it.
        """
        with self.database.writing() as connection:
            models.put_vectors(connection, model, vectors)

    def switch_model(self, model: ModelRecord, *, without: Collection[int]) -> bool:
        """Put a model to use if every image with a file present has a vector of it.

        Args:
            model: the new one.
            without: ids of images that may have none.

        Returns:
            False, and nothing happened, where another image has none.
        """
        with self.database.writing() as connection:
            complete = models.is_complete(connection, model, without=without)
            if complete:
                models.put_to_use(connection, model)
            return complete

    def record(
        self,
        model: ModelRecord,
        files: Sequence[ReadFile | SkippedFile],
        *,
        gone: Callable[[str, int | None], bool],
    ) -> list[Outcome | None]:
        """Write what became of some files, all of it or nothing.

        Args:
            model: that the new vectors were made with.
            files: in the order in which they should be written.
            gone: tells whether a path is certainly empty, and no drive is away that held it: gets
                the path and `Stat.device`.

        Returns:
            For each file what it was to the library, None for a skipped one.

        Raises:
            ModelMismatchError: the model is not in use any more.
        """
        with self.database.writing() as connection:
            models.require_in_use(connection, model, self.database.folder)
            writer = BatchWriter(connection, model, files, gone=gone)
            return [writer.write(file) for file in files]

    def has_vector(self, digest: bytes, model: ModelRecord) -> bool:
        """Whether these bytes were embedded with this model."""
        with self.database.reading() as connection:
            return connection.execute(_HAS_VECTOR, _key(digest, model)).first() is not None

    def vector(self, digest: bytes, model: ModelRecord) -> NDArray[np.float32] | None:
        """The stored vector of an image, float32 [dimension] of length 1, or None."""
        with self.database.reading() as connection:
            row = connection.execute(_VECTOR, _key(digest, model)).scalar()
        return None if row is None else decode_vector(row, model, self.database.place)

    def known_images(
        self, digests: Collection[bytes], model: ModelRecord | None
    ) -> dict[bytes, KnownImage]:
        """The images of some digests, by digest; without vectors where there is no model yet."""
        with self.database.reading() as connection:
            return foreign.known_images(connection, model, digests, self.database.place)

    def digests_at(self, paths: Collection[str]) -> dict[str, tuple[Stat, bytes]]:
        """The files present at some absolute paths: what tells if they were touched, the digest."""
        with self.database.reading() as connection:
            return foreign.digests_at(connection, paths)

    @contextmanager
    def stored_vectors(
        self, model: ModelRecord | None, *, include_missing: bool
    ) -> Iterator[StoredVectors]:
        """The vectors of a model as they stand now, to be read inside the block.

        Args:
            model: whose vectors; none where there is no model.
            include_missing: also those whose image has no file present.
        """
        with self.database.reading() as connection:
            yield foreign.stored_vectors(
                connection, model, self.database.place, include_missing=include_missing
            )

    def images(self, ids: Collection[int]) -> dict[int, ImageRecord]:
        """The images of these ids that have a file present."""
        found: dict[int, ImageRecord] = {}
        with self.database.reading() as connection:
            for some in chunks(ids):
                paths: dict[int, list[str]] = {}
                videos: dict[int, list[str]] = {}
                for image_id, path, video in connection.execute(_PLACES, {"ids": some}):
                    if image_id is not None:
                        paths.setdefault(image_id, []).append(path)
                        if video is not None:
                            videos.setdefault(image_id, []).append(video)
                tags, properties = labels_of(connection, paths)
                for row in connection.execute(_IMAGES, {"ids": list(paths)}):
                    found[row.id] = ImageRecord(
                        id=row.id,
                        digest=row.digest.hex(),
                        facts=Facts(
                            bytes=row.bytes,
                            format=row.format,
                            width=row.width,
                            height=row.height,
                            taken_at=row.taken_at,
                            camera_make=row.camera_make,
                            camera_model=row.camera_model,
                            latitude=row.latitude,
                            longitude=row.longitude,
                        ),
                        paths=tuple(sorted(paths[row.id])),
                        videos=tuple(sorted(videos.get(row.id, ()))),
                        tags=tags.get(row.id, ()),
                        properties=properties.get(row.id, ()),
                        added_at=row.added_at,
                    )
        return found

    def last_seq(self, model: ModelRecord) -> int:
        """The number of the last change of the vector set, 0 where there was none."""
        with self.database.reading() as connection:
            return last_seq(connection, model)

    def change_at(self, model: ModelRecord, seq: int) -> Changes | None:
        """The one change of a number as it stands now, or None where there is none."""
        with self.database.reading() as connection:
            return change_at(connection, model, seq, self.database.place)

    def all_vectors(self, model: ModelRecord) -> tuple[int, NDArray[np.int64], NDArray[np.float16]]:
        """The whole vector set as it stood at one moment.

        Returns:
            The last change that it contains; the image ids, int64 [n], rising; the vectors as
            they are stored, float16 [n, dimension].
        """
        with self.database.reading() as connection:
            seq = last_seq(connection, model)
            return seq, *read_all(connection, model, self.database.place)

    def vectors(
        self, model: ModelRecord, ids: Iterable[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """The vectors of some images as they stood at one moment.

        Args:
            model: whose vectors.
            ids: of the images, in any order, also twice.

        Returns:
            The ids of those that have a vector, int64 [n], rising, each once; their vectors as
            they are stored, float16 [n, dimension].
        """
        with self.database.reading() as connection:
            return read_some(connection, model, ids, self.database.place)

    @contextmanager
    def vector_blocks(
        self, model: ModelRecord
    ) -> Iterator[tuple[int, NDArray[np.int64], Iterator[NDArray[np.float16]]]]:
        """The same as `all_vectors`, a block at a time: to be read inside the block."""
        with self.database.reading() as connection:
            seq = last_seq(connection, model)
            ids = read_ids(connection, model)
            yield seq, ids, read_blocks(connection, model, self.database.place)

    def changes_since(self, model: ModelRecord, after: int) -> int:
        """How many changes of the vector set came after a change number."""
        with self.database.reading() as connection:
            return count_after(connection, model, after)

    def changes(self, model: ModelRecord, *, after: int) -> Changes:
        """What happened to the vector set after a change number."""
        with self.database.reading() as connection:
            return changes_after(connection, model, after, self.database.place)

    def setting(self, name: str) -> str | None:
        """What was chosen for this library under a name, None where nothing was."""
        with self.database.reading() as connection:
            return connection.execute(select(Setting.value).where(Setting.name == name)).scalar()

    def put_setting(self, name: str, value: str | None) -> None:
        """Choose something for this library under a name; None takes back what was chosen."""
        here = Setting.name == name
        with self.database.writing() as connection:
            if value is None:
                connection.execute(delete(Setting).where(here))
            elif not connection.execute(update(Setting).where(here).values(value=value)).rowcount:
                connection.execute(insert(Setting).values(name=name, value=value))

    def ensure_setting(self, name: str, value: str) -> str:
        """What was chosen for this library under a name; this value from now on if nothing was."""
        with self.database.writing() as connection:
            # Others who write wait for this transaction, so that only one of them is the first.
            query = select(Setting.value).where(Setting.name == name)
            there = connection.execute(query).scalar()
            if there is not None:
                return there
            connection.execute(insert(Setting).values(name=name, value=value))
            return value

    def counts(self, model: ModelRecord | None) -> Counts:
        """What is in the catalog, counted at one moment."""
        by_state = select(File.state, func.count()).group_by(File.state)
        failed = select(func.count(File.id)).where(File.failure.is_not(None))
        images = select(func.count(func.distinct(File.image_id))).where(File.state == "present")
        with self.database.reading() as connection:
            states = dict(connection.execute(by_state).all())
            by_model = models.vectors_by_model(connection)
            vectors = {found.identity: found.vectors for found in by_model}
            return Counts(
                images=connection.execute(images).scalar_one(),
                files_present=states.get("present", 0),
                files_missing=states.get("missing", 0),
                files_offline=states.get("offline", 0),
                files_skipped=states.get("skipped", 0),
                files_failed=connection.execute(failed).scalar_one(),
                folders=connection.execute(select(func.count(Folder.id))).scalar_one(),
                dirty=connection.execute(select(func.count(Dirty.mark))).scalar_one(),
                vectors=0 if model is None else vectors.get(model.identity, 0),
                seq=0 if model is None else last_seq(connection, model),
                last_change=connection.execute(select(func.max(File.checked_at))).scalar(),
                models=by_model,
            )


def _key(digest: bytes, model: ModelRecord) -> dict[str, Any]:
    return {"digest": digest, "model_id": model.id}
