"""The catalog in a SQLite file in the library's folder.

In WAL mode with foreign keys on and `synchronous=FULL`: what was committed survives a crash and a
power cut. Writing transactions start with BEGIN IMMEDIATE, so that two writers wait for each other
at the start and not half-way. A library in a folder that cannot be written is opened read-only.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import urllib.parse
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import QueuePool

from searchlib.catalog.backend import (
    BUSY_SECONDS,
    MARKER,
    WRITES,
    Backend,
    disk_full,
    folder_read_only,
    has_no_space,
    make_folder,
)
from searchlib.catalog.functions import add_functions
from searchlib.errors import (
    LibraryBusyError,
    LibraryError,
    LibraryNotFoundError,
    LibraryReadOnlyError,
)

logger = logging.getLogger(__name__)

NAME = "catalog.db"
# Of each connection that is in use, as far as it reads so much. With SQLite's usual 2 MB a question
# that looks at 100,000 images takes twice as long.
_CACHE_KIB = 16 * 1024
_DAMAGED = ("malformed", "not a database", "file is encrypted", "could not decode", "no such")


class Sqlite(Backend):
    """A catalog in the file `catalog.db`; see Database for what is raised."""

    driver_error = sqlite3.DatabaseError

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.place = str(self.path)
        with self.translated():
            exists = self.path.exists()
            if not exists and (folder / MARKER).exists():
                place = (folder / MARKER).read_text(encoding="utf-8").strip()
                raise LibraryError(
                    f"{folder}: the catalog of this library is in {place}; give this URL, with "
                    "the password where it needs one, in SEARCHLIB_DATABASE"
                )
            if not exists and not create:
                raise LibraryNotFoundError(
                    f"{folder}: there is no library here; make one with `searchlib add FOLDER`"
                )
            make_folder(folder)
        self.writable = os.access(self.path if exists else folder, os.W_OK) and (
            os.access(folder, os.W_OK)
        )
        self._uri = self._made_uri()
        self.engine = self._create_engine()
        # On a connection that never writes: SQLite counts the commits of all others for it.
        self._version_lock = threading.Lock()
        self._version: sqlite3.Connection | None = None

    def version(self) -> int:
        with self._version_lock:
            if self._version is None:
                self._version = sqlite3.connect(
                    self._uri,
                    uri=True,
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                )
            (number,) = self._version.execute("PRAGMA data_version").fetchone()
            return int(number)

    def close(self) -> None:
        with self._version_lock:
            if self._version is not None:
                self._version.close()
                self._version = None
        super().close()

    def revision(self, connection: Connection) -> str | None:
        found = connection.execute(
            text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'")
        ).first()
        if found is None:
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def keep_copy(self, revision: str, *, newest: str) -> None:
        target = self.path.with_name(f"{NAME}.before-{newest}")
        logger.info("keeping a copy of the catalog at revision %s in %s", revision, target)
        with closing(sqlite3.connect(self.path)) as old, closing(sqlite3.connect(target)) as copy:
            old.backup(copy)

    def size(self) -> int:
        parts = (self.path, self.path.with_name(f"{NAME}-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())

    def explained(self, error: BaseException) -> LibraryError:
        return self.file_failed(str(error))

    def file_failed(self, reason: str) -> LibraryError:
        lower = reason.lower()
        # A full disk can also show as an I/O error or as a database that cannot be opened.
        if "disk is full" in lower or "no space left" in lower or has_no_space(self.folder):
            return disk_full(self.folder)
        if "locked" in lower:
            return LibraryBusyError(
                f"{self.path}: another process has kept the database for {BUSY_SECONDS:.0f} "
                "seconds; wait for it or stop it, then try again"
            )
        if any(word in lower for word in _DAMAGED):
            return self.damaged(reason)
        if any(word in lower for word in ("readonly", "read-only", "permission", "unable to open")):
            return self.read_only()
        if "i/o error" in lower:
            return LibraryError(
                f"{self.path}: the disk failed ({reason}); see to its space, quota and health, "
                "then run the command again"
            )
        return LibraryError(f"{self.path}: {reason}")

    def read_only(self) -> LibraryReadOnlyError:
        return folder_read_only(self.folder)

    def _made_uri(self) -> str:
        query = ""
        if not self.writable:
            query = "?mode=ro"
            # SQLite cannot make the -shm file that a reader of a write-ahead log needs. With no
            # log there is nothing in it, and nobody here who could start one.
            if not self.path.with_name(NAME + "-wal").exists():
                query += "&immutable=1"
        return f"file:{urllib.parse.quote(os.fsencode(self.path.absolute()))}{query}"

    def _create_engine(self) -> Engine:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(
                self._uri,
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                add_functions(connection)
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                if self.writable:
                    _use_write_ahead_log(connection)
                    connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
            return connection

        # Those that were used last are used first, so that no more of them fill their cache than
        # are used at once.
        engine = create_engine(
            "sqlite://", creator=connect, pool_size=16, poolclass=QueuePool, pool_use_lifo=True
        )
        event.listen(engine, "begin", _begin)
        return engine


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Go over to the write-ahead log, for which SQLite does not wait while others do the same."""
    patience = time.monotonic() + BUSY_SECONDS
    while not _try_write_ahead_log(connection, last=time.monotonic() > patience):
        time.sleep(0.01)


def _try_write_ahead_log(connection: sqlite3.Connection, *, last: bool) -> bool:
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if last or "locked" not in str(error):
            raise
        return False
    return True


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
