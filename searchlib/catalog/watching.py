"""What watching keeps: the folders, the paths nobody has looked at yet, and the heartbeat."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from searchlib.catalog.chunks import chunks
from searchlib.catalog.database import Database
from searchlib.catalog.records import FolderRecord, Heartbeat
from searchlib.catalog.schema import Dirty, File, Folder, Watcher, table

_FOLDER, _DIRTY, _WATCHER = table(Folder), table(Dirty), table(Watcher)


class Folders:
    """The folders that were added as a whole."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, *, watched: bool = False) -> list[FolderRecord]:
        """The folders by path, or only those that are watched."""
        query = select(_FOLDER).order_by(Folder.path)
        if watched:
            query = query.where(Folder.watched)
        with self._database.reading() as connection:
            return [_folder(row) for row in connection.execute(query)]

    def get(self, path: str) -> FolderRecord | None:
        """The folder of a path, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(_FOLDER).where(Folder.path == path)).first()
        return None if row is None else _folder(row)

    def put(self, folder: FolderRecord) -> FolderRecord:
        """Remember a folder and its rules, in place of older ones. It comes back with its id."""
        values = {
            "recursive": folder.recursive,
            "follow_links": folder.follow_links,
            "include": json.dumps(folder.include),
            "exclude": json.dumps(folder.exclude),
            "marker": folder.marker,
            "events": folder.events,
            "watched": folder.watched,
        }
        here = Folder.path == folder.path
        with self._database.writing() as connection:
            if not connection.execute(update(Folder).where(here).values(**values)).rowcount:
                row = {"path": folder.path, "added_at": time.time(), **values}
                connection.execute(insert(Folder).values(**row))
            return _folder(connection.execute(select(_FOLDER).where(here)).one())

    def forget(self, path: str) -> bool:
        """Forget that a folder was added; its files stay known. False if it was not."""
        with self._database.writing() as connection:
            id = connection.execute(select(Folder.id).where(Folder.path == path)).scalar()
            if id is None:
                return False
            connection.execute(update(File).where(File.folder_id == id).values(folder_id=None))
            connection.execute(delete(Folder).where(Folder.id == id))
            return True


class DirtyList:
    """The paths that something happened to, in the order in which that was noted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, paths: Collection[str]) -> None:
        """Put paths on the list, behind all others; those that are on it get a higher mark."""
        now = time.time()
        with self._database.writing() as connection:
            for some in chunks(paths):
                connection.execute(delete(Dirty).where(Dirty.path.in_(some)))
                connection.execute(_DIRTY.insert(), [{"path": p, "noted_at": now} for p in some])

    def after(self, mark: int, *, limit: int) -> list[tuple[int, str]]:
        """The next marks and paths behind a mark."""
        query = select(Dirty.mark, Dirty.path).where(Dirty.mark > mark)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(Dirty.mark).limit(limit))
            return [(mark, path) for mark, path in rows]

    def take_off(self, marks: Iterable[int]) -> None:
        """Take off what was dealt with; a path that was noted again since stays on the list."""
        with self._database.writing() as connection:
            for some in chunks(marks):
                connection.execute(delete(Dirty).where(Dirty.mark.in_(some)))

    def size(self) -> tuple[int, float | None]:
        """How many paths are on it, and when the oldest was noted, in seconds since 1970."""
        query = select(func.count(), func.min(Dirty.noted_at)).select_from(Dirty)
        with self._database.reading() as connection:
            count, oldest = connection.execute(query).one()
            return count, oldest


class Pulse:
    """The heartbeat of the process that watches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, heartbeat: Heartbeat) -> None:
        """Write it in place of the last one."""
        values = asdict(heartbeat)
        with self._database.writing() as connection:
            if not connection.execute(update(Watcher).values(**values)).rowcount:
                connection.execute(insert(Watcher).values(id=1, **values))

    def last(self) -> Heartbeat | None:
        """The last one that was written, None where the folders were never watched."""
        columns = [_WATCHER.c[name] for name in Heartbeat.__slots__]
        with self._database.reading() as connection:
            row = connection.execute(select(*columns)).first()
        return None if row is None else Heartbeat(*row)


def _folder(row: Row[Any]) -> FolderRecord:
    return FolderRecord(
        path=row.path,
        recursive=row.recursive,
        follow_links=row.follow_links,
        include=tuple(json.loads(row.include)),
        exclude=tuple(json.loads(row.exclude)),
        marker=row.marker,
        events=row.events,
        watched=row.watched,
        id=row.id,
    )
