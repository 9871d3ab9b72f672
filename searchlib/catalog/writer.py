"""Writing what became of files: content once, places as they are, the change log with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select

from searchlib.catalog import labels
from searchlib.catalog.folding import folded_camera
from searchlib.catalog.records import ModelRecord, NewContent, Outcome, ReadFile, SkippedFile
from searchlib.catalog.schema import Change, Embedding, File, Folder, Image, table
from searchlib.catalog.vectors import encode_vector
from searchlib.errors import LibraryError

_IMAGE, _FILE, _EMBEDDING, _CHANGE = map(table, (Image, File, Embedding, Change))
# A disk that refuses may be back in a minute; one that still does after a day is asked once a day.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 60.0, 86400.0

_UPDATE_FILE = _FILE.update().where(_FILE.c.id == bindparam("place"))
_UPDATE_KEPT = _UPDATE_FILE.values(
    {name: bindparam(name) for name in ("checked_at", "failure", "reason", "attempts", "next_try")}
)


@dataclass(slots=True)
class _Place:
    id: int
    path: str
    image_id: int | None
    state: str
    failure: str | None = None
    attempts: int = 0
    device: int | None = None


@dataclass(frozen=True, slots=True)
class _Failed:
    failure: str | None = None
    reason: str | None = None
    attempts: int = 0
    next_try: float | None = None


def pause_after(attempts: int) -> float:
    """How many seconds after a failure of the disk a file is tried again."""
    doubled = min(attempts - 1, 30)
    return float(min(FIRST_RETRY_SECONDS * 2**doubled, LAST_RETRY_SECONDS))


class BatchWriter:
    """Writes a batch of files inside one transaction.

    What the batch touches is read once at the start, in a query for each table, and kept up to
    date while the files are written one after the other.
    """

    def __init__(
        self,
        connection: Connection,
        model: ModelRecord,
        files: Sequence[ReadFile | SkippedFile],
        *,
        gone: Callable[[str, int | None], bool],
    ) -> None:
        self._connection = connection
        self._model = model
        self._gone = gone
        self._now = time.time()
        digests = {file.digest for file in files if isinstance(file, ReadFile)}
        by_digest = select(Image.digest, Image.id).where(Image.digest.in_(digests))
        self._images: dict[bytes, int] = dict(connection.execute(by_digest).all())
        self._embedded: set[int] = set(
            connection.execute(
                select(Embedding.image_id).where(
                    Embedding.model_id == model.id,
                    Embedding.image_id.in_(self._images.values()),
                )
            ).scalars()
        )
        self._folders: dict[str, int] = dict(
            connection.execute(select(Folder.path, Folder.id)).all()
        )
        self._by_path: dict[str, _Place] = {}
        self._by_image: dict[int, list[_Place]] = {}
        columns = select(File.id, File.path, File.image_id, File.state, File.failure, File.attempts)
        paths = {file.path for file in files}
        for query in (
            columns.where(File.path.in_(paths)),
            columns.where(File.image_id.in_(self._images.values()), File.path.not_in(paths)),
        ):
            for row in connection.execute(query):
                place = _Place(*row)
                self._by_path[place.path] = place
                if place.image_id is not None:
                    self._by_image.setdefault(place.image_id, []).append(place)

    def write(self, file: ReadFile | SkippedFile) -> Outcome | None:
        """Write one file and say what it was to the library; None for a skipped one."""
        if isinstance(file, SkippedFile):
            self._write_skipped(file)
            return None
        known = file.digest in self._images
        vectors = len(self._embedded)
        image_id = self._image(file)
        place = self._by_path.get(file.path)
        if place is None:
            place = self._moved_from(image_id)
            outcome: Outcome = "moved" if place else "copy" if known else "added"
        elif place.image_id is None:
            outcome = "copy" if known else "added"
        elif place.image_id != image_id:
            outcome = "changed"
            if not known:
                labels.copy_labels(self._connection, place.image_id, image_id)
        else:
            outcome = "embedded" if len(self._embedded) > vectors else "unchanged"
        self._put_place(place, file, image_id)
        return outcome

    def _write_skipped(self, file: SkippedFile) -> None:
        place = self._by_path.get(file.path)
        again = place is not None and place.failure == file.failure
        attempts = (place.attempts if place is not None and again else 0) + 1
        next_try = self._now + pause_after(attempts) if file.failure == "access" else None
        failed = _Failed(file.failure, file.reason, attempts, next_try)
        if place is not None and place.state == "present" and file.failure == "access":
            # It is a picture as far as anybody knows, and with its old time it is looked at again.
            values = {"checked_at": self._now, **asdict(failed)}
            self._connection.execute(_UPDATE_KEPT, {**values, "place": place.id})
            place.failure, place.attempts = file.failure, attempts
            return
        image_id = None if place is None else place.image_id
        self._put_place(place, file, image_id, state="skipped", failed=failed)

    def _image(self, file: ReadFile) -> int:
        image_id = self._images.get(file.digest)
        if image_id is None:
            content = self._content(file)
            facts = content.facts
            row = {
                "digest": file.digest,
                "added_at": self._now,
                "camera": folded_camera(facts.camera_make, facts.camera_model),
                **asdict(facts),
            }
            image_id = self._insert(_IMAGE, row)
            self._images[file.digest] = image_id
        if image_id not in self._embedded:
            content = self._content(file)
            key = {"image_id": image_id, "model_id": self._model.id}
            self._connection.execute(
                _EMBEDDING.insert(), {**key, "vector": encode_vector(content.vector)}
            )
            self._connection.execute(_CHANGE.insert(), key)
            self._embedded.add(image_id)
        return image_id

    def _insert(self, table: Table, row: dict[str, Any]) -> int:
        key = self._connection.execute(table.insert(), row).inserted_primary_key
        assert key is not None
        return int(key[0])

    def _content(self, file: ReadFile) -> NewContent:
        if file.content is None:
            raise LibraryError(
                f"{file.path}: another process took its vector out of the library meanwhile; "
                "run the command again"
            )
        return file.content

    def _moved_from(self, image_id: int) -> _Place | None:
        """A place of the same content that is certainly empty now."""
        for place in self._by_image.get(image_id, []):
            if self._gone(place.path, place.device):
                return place
        return None

    def _put_place(
        self,
        place: _Place | None,
        file: ReadFile | SkippedFile,
        image_id: int | None,
        *,
        state: str = "present",
        failed: _Failed = _Failed(),
    ) -> None:
        values: dict[str, Any] = {
            "image_id": image_id,
            "path": file.path,
            "size": file.stat.size,
            "mtime_ns": file.stat.mtime_ns,
            "inode": file.stat.inode,
            "device": file.stat.device,
            "state": state,
            "checked_at": self._now,
            "missing_since": None,
            "video": file.video if isinstance(file, ReadFile) else None,
            **asdict(failed),
        }
        if file.folder is not None or place is None:
            # A file that is named itself stays in the folder that it was found in before.
            values["folder_id"] = self._folders.get(file.folder or "")
        if place is None:
            place = _Place(self._insert(_FILE, values), file.path, image_id, state)
        else:
            self._connection.execute(_UPDATE_FILE, {**values, "place": place.id})
            self._by_path.pop(place.path, None)
            if place.image_id is not None and place in self._by_image.get(place.image_id, []):
                self._by_image[place.image_id].remove(place)
            place.path, place.image_id, place.state = file.path, image_id, state
        place.failure, place.attempts = failed.failure, failed.attempts
        place.device = file.stat.device
        self._by_path[file.path] = place
        if image_id is not None:
            self._by_image.setdefault(image_id, []).append(place)
