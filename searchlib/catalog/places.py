"""Places: where files lie or lay, what failed there, and when what is gone is given up."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from searchlib.catalog import labels, models
from searchlib.catalog.chunks import chunks
from searchlib.catalog.database import Database
from searchlib.catalog.records import UNKNOWN_STAT, Failure, KnownFile, ModelRecord, Purged, Stat
from searchlib.catalog.schema import Change, Embedding, File, Image, table

_FILE, _CHANGE = table(File), table(Change)
# Three terms each; SQLite takes an expression of a thousand.
_ROOTS = 100
_WAS_WORKING = "it was being decoded when the process ended; it will be tried alone"


class Places:
    """The places of a catalog; may be used from many threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(
        self,
        root: str,
        model: ModelRecord,
        *,
        after: str | None = None,
        limit: int | None = None,
    ) -> dict[str, KnownFile]:
        """The files at or below an absolute path, by path, in the order of the paths' bytes.

        Args:
            root: the path.
            model: whose vectors count for `KnownFile.embedded`.
            after: only those behind this path.
            limit: only so many of them.
        """
        below = root.rstrip(os.sep)
        # One lower bound, for SQLite starts at no more than one; what lies between the folder and
        # the separator, its namesakes with something behind, is filtered out.
        query = _known(model).where(
            _FILE.c.path >= root if after is None else _FILE.c.path > after,
            _FILE.c.path < below + chr(ord(os.sep) + 1),
            or_(_FILE.c.path == root, _FILE.c.path >= below + os.sep),
        )
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(_FILE.c.path).limit(limit))
            return {known.path: known for known in map(_known_file, rows)}

    def at(self, paths: Iterable[str], model: ModelRecord) -> dict[str, KnownFile]:
        """The files at some absolute paths, by path; see `known` for the model."""
        found = {}
        with self._database.reading() as connection:
            for some in chunks(paths):
                for known in map(
                    _known_file, connection.execute(_known(model).where(_FILE.c.path.in_(some)))
                ):
                    found[known.path] = known
        return found

    def mark_present(self, model: ModelRecord, file_ids: Iterable[int]) -> None:
        """Mark files as being where they were again.

        Args:
            model: that their images have a vector of.
            file_ids: of the files.

        Raises:
            ModelMismatchError: the model is not in use any more.
        """
        now = time.time()
        with self._database.writing() as connection:
            models.require_in_use(connection, model, self._database.folder)
            for some in chunks(file_ids):
                connection.execute(
                    update(File)
                    .where(File.id.in_(some))
                    .values(state="present", checked_at=now, missing_since=None)
                )

    def mark_missing(self, paths: Iterable[str]) -> int:
        """Mark the files at some paths as missing from now on, and say how many were not before."""
        return self._mark(paths, "missing", time.time())

    def mark_offline(self, paths: Iterable[str]) -> int:
        """Mark the files at some paths as lying on a drive that is not mounted."""
        return self._mark(paths, "offline", None)

    def _mark(
        self, paths: Iterable[str], state: Literal["missing", "offline"], since: float | None
    ) -> int:
        values = {
            "state": state,
            # Never before it was last seen, whatever the clock says now.
            "missing_since": None
            if since is None
            else case((File.checked_at > since, File.checked_at), else_=since),
            "checked_at": time.time(),
            # What could not be used must not pass for its old self when it is back.
            "size": case((File.state == "skipped", UNKNOWN_STAT.size), else_=File.size),
            "failure": None,
            "reason": None,
            "attempts": 0,
            "next_try": None,
        }
        forgiven = {name: values[name] for name in ("failure", "reason", "attempts", "next_try")}
        count = 0
        with self._database.writing() as connection:
            for some in chunks(paths):
                # One that is marked so already may have been found and lost again since.
                again = and_(File.path.in_(some), File.state == state, File.failure.is_not(None))
                connection.execute(update(File).where(again).values(**forgiven))
                here = and_(File.path.in_(some), File.state != state)
                if state == "missing":
                    # Of a place that never was a picture nothing is worth remembering.
                    connection.execute(delete(File).where(here, File.image_id.is_(None)))
                changed = connection.execute(
                    update(File).where(here, File.image_id.is_not(None)).values(**values)
                )
                count += changed.rowcount
        return count

    def note_folder(self, file_ids: Iterable[int], folder_id: int | None) -> None:
        """Remember that files belong to another added folder than before, or to none."""
        with self._database.writing() as connection:
            for some in chunks(file_ids):
                here = File.id.in_(some)
                connection.execute(update(File).where(here).values(folder_id=folder_id))

    def note_stats(self, stats: Iterable[tuple[int, Stat]]) -> None:
        """Remember new numbers of untouched files, whose file system was mounted anew."""
        with self._database.writing() as connection:
            for some in chunks(stats):
                for id, stat in some:
                    values = {"inode": stat.inode, "device": stat.device}
                    connection.execute(update(File).where(File.id == id).values(**values))

    def note_videos(self, videos: Iterable[tuple[int, str | None]]) -> None:
        """Remember the moving parts of live photos, None where there is none any more."""
        with self._database.writing() as connection:
            for some in chunks(videos):
                for id, video in some:
                    connection.execute(update(File).where(File.id == id).values(video=video))

    def failures(
        self, *, due_before: float | None = None, limit: int | None = None
    ) -> list[Failure]:
        """The files whose last try failed, by path.

        Args:
            due_before: only those that are to be tried again before this time.
            limit: only so many.
        """
        query = select(
            _FILE.c.path,
            _FILE.c.failure,
            _FILE.c.reason,
            _FILE.c.attempts,
            _FILE.c.checked_at,
            _FILE.c.next_try,
        ).where(File.failure.is_not(None))
        if due_before is not None:
            query = query.where(File.next_try < due_before)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(File.path).limit(limit))
            return [Failure(*row) for row in rows]

    def suspect(self, paths: Collection[str]) -> None:
        """Remember files that were in the decoder when a process ended, to be tried alone."""
        now = time.time()
        crash = {"failure": "crash", "reason": _WAS_WORKING, "next_try": now}
        with self._database.writing() as connection:
            known = set(connection.execute(select(File.path).where(File.path.in_(paths))).scalars())
            if known:
                connection.execute(update(File).where(File.path.in_(known)).values(**crash))
            for path in set(paths) - known:
                unknown = {"size": -1, "mtime_ns": 0, "inode": 0, "state": "skipped"}
                connection.execute(
                    insert(File).values(path=path, checked_at=now, **unknown, **crash)
                )

    def try_again(self, paths: Collection[str] | None = None) -> int:
        """Have files that failed tried again now, and say how many.

        Args:
            paths: of them, with all below where one is a folder; all if None.
        """
        failed = File.failure.is_not(None)
        now = time.time()
        count = 0
        with self._database.writing() as connection:
            for some in chunks(paths, _ROOTS) if paths is not None else [None]:
                here = failed if some is None else and_(failed, or_(*map(_below, some)))
                changed = connection.execute(update(File).where(here).values(next_try=now))
                count += changed.rowcount
        return count

    def purge(self, *, missing_before: float, limit: int = 1000) -> Purged:
        """Give up some of the files that are missing since before a time, in one transaction.

        An image goes with its last place, and its vectors of all models and its labels with it.
        Call it again until it gives up nothing.
        """
        # By the time alone, for which there is an index; none but a missing file has one.
        gone = File.missing_since < missing_before
        with self._database.writing() as connection:
            rows = connection.execute(select(File.id, File.image_id).where(gone).limit(limit)).all()
            connection.execute(delete(File).where(File.id.in_([row.id for row in rows])))
            images = Image.id.in_({row.image_id for row in rows if row.image_id is not None})
            return Purged(len(rows), _give_up(connection, images, limit))

    def purge_replaced(self, *, added_before: float, limit: int = 1000) -> Purged:
        """Give up some images that no file holds any more, for all were edited or broke.

        Call it again until it gives up nothing. It looks at all images, so not after each change.
        """
        with self._database.writing() as connection:
            return Purged(0, _give_up(connection, Image.added_at < added_before, limit))


def _give_up(connection: Connection, which: ColumnElement[bool], limit: int) -> tuple[bytes, ...]:
    """Delete those of some images that have no place, with all of theirs; gives their digests."""
    orphans: dict[int, bytes] = dict(
        connection.execute(
            select(Image.id, Image.digest)
            .where(
                which,
                ~exists().where(File.image_id == Image.id),
                # The newest image keeps its row, or the next one would get its id.
                or_(
                    Image.id < select(func.max(Image.id)).scalar_subquery(),
                    exists().where(Embedding.image_id == Image.id),
                ),
            )
            .limit(limit)
        ).all()
    )
    vectors = connection.execute(
        select(Embedding.image_id, Embedding.model_id).where(Embedding.image_id.in_(orphans))
    ).all()
    if vectors:
        changes: list[dict[str, Any]] = [dict(row._mapping) for row in vectors]
        connection.execute(delete(Embedding).where(Embedding.image_id.in_(orphans)))
        connection.execute(_CHANGE.insert(), changes)
    labels.take_all(connection, orphans)
    newest = select(func.max(Image.id)).scalar_subquery()
    connection.execute(delete(Image).where(Image.id.in_(orphans), Image.id < newest))
    return tuple(orphans.values())


def _known(model: ModelRecord) -> Select[Any]:
    return select(
        _FILE.c.id,
        _FILE.c.path,
        _FILE.c.size,
        _FILE.c.mtime_ns,
        _FILE.c.inode,
        _FILE.c.device,
        _FILE.c.state,
        _FILE.c.folder_id,
        models.has_vector_of(model, File.image_id).label("embedded"),
        _FILE.c.video,
        _FILE.c.failure,
        _FILE.c.reason,
        _FILE.c.next_try,
    )


def _known_file(row: Row[Any]) -> KnownFile:
    # By place: asked by name, a row of many takes as long as all else that is done with it.
    id, path, size, mtime_ns, inode, device, *others = tuple(row)
    return KnownFile(id, path, Stat(size, mtime_ns, inode, device), *others)


def _below(root: str) -> ColumnElement[bool]:
    below = root.rstrip(os.sep)
    # All paths below a folder lie between "folder/" and the next byte after the separator.
    return or_(
        _FILE.c.path == root,
        and_(_FILE.c.path >= below + os.sep, _FILE.c.path < below + chr(ord(os.sep) + 1)),
    )
