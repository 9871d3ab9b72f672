"""The database file: how it is opened, upgraded and spoken of when it fails.

SQLite in WAL mode with foreign keys on and `synchronous=FULL`: what was committed survives a crash
and a power cut. Writing transactions start with BEGIN IMMEDIATE, so that two writers wait for each
other at the start and not half-way. A library in a folder that cannot be written is opened
read-only.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from searchlib.catalog.schema import REVISION
from searchlib.errors import (
    DiskFullError,
    LibraryBusyError,
    LibraryDamagedError,
    LibraryError,
    LibraryNotFoundError,
    LibraryReadOnlyError,
)

logger = logging.getLogger(__name__)

NAME = "catalog.db"
BUSY_SECONDS = 30.0
_WRITES = "searchlib_writes"
_DAMAGED = ("malformed", "not a database", "file is encrypted", "could not decode", "no such")


class Database:
    """The catalog's database of one library.

    Args:
        folder: the library's folder.
        create: make folder and database where they are missing.

    Raises:
        LibraryNotFoundError: there is no library and `create` is False.
        LibraryReadOnlyError: it has to be made or upgraded and the folder cannot be written.
        LibraryTooNewError, LibraryDamagedError, LibraryBusyError, DiskFullError: see errors.
    """

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self.path = folder / NAME
        with self.translated():
            exists = self.path.exists()
            if not exists and not create:
                raise LibraryNotFoundError(
                    f"{folder}: there is no library here; make one with `searchlib add FOLDER`"
                )
            if folder.exists() and not folder.is_dir():
                raise LibraryError(
                    f"{folder}: this is a file; name a folder for the library with --library"
                )
            folder.mkdir(parents=True, exist_ok=True)
        self.writable = os.access(self.path if exists else folder, os.W_OK) and (
            os.access(folder, os.W_OK)
        )
        self._engine = self._create_engine()
        try:
            with self.translated():
                self._upgrade()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections; SQLite then folds the write-ahead log into the file."""
        self._engine.dispose()

    def require_writable(self) -> None:
        """Refuse what would have to write in the end.

        Raises:
            LibraryReadOnlyError: the library's folder cannot be written.
        """
        if not self.writable:
            raise self._read_only()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it was at its start."""
        with self.translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block, or rolls back on an exception."""
        self.require_writable()
        with self.translated(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what SQLite and the file system raise into this package's errors."""
        try:
            yield
        except DatabaseError as error:
            raise self._translate(str(error.orig)) from error
        except sqlite3.DatabaseError as error:
            raise self._translate(str(error)) from error
        except UnicodeDecodeError as error:
            # The driver, about to quote a name of the schema that is no text.
            raise self.damaged("text that is none") from error
        except OSError as error:
            raise self._translate(error.strerror or str(error)) from error

    def damaged(self, reason: str) -> LibraryDamagedError:
        """The error for a database that holds what this package never wrote."""
        return LibraryDamagedError(
            f"{self.path}: the database is damaged ({reason}); put a backup in its place, or "
            "move it away and add your folders again"
        )

    def _translate(self, reason: str) -> LibraryError:
        lower = reason.lower()
        if "disk is full" in lower or "no space left" in lower or self._no_space():
            return DiskFullError(
                f"{self.folder}: no space left on this disk; what was added before is safe. "
                "Free some space and run the command again"
            )
        if "locked" in lower:
            return LibraryBusyError(
                f"{self.path}: another process has kept the database for {BUSY_SECONDS:.0f} "
                "seconds; wait for it or stop it, then try again"
            )
        if any(word in lower for word in _DAMAGED):
            return self.damaged(reason)
        if any(word in lower for word in ("readonly", "read-only", "permission", "unable to open")):
            return self._read_only()
        if "i/o error" in lower:
            return LibraryError(
                f"{self.path}: the disk failed ({reason}); see to its space, quota and health, "
                "then run the command again"
            )
        return LibraryError(f"{self.path}: {reason}")

    def _read_only(self) -> LibraryReadOnlyError:
        return LibraryReadOnlyError(
            f"{self.folder}: this folder cannot be written; change its permissions or choose "
            "another one with --library"
        )

    def _no_space(self) -> bool:
        # A full disk can also show as an I/O error or as a database that cannot be opened.
        try:
            return shutil.disk_usage(self.folder).free < 64 * 1024
        except OSError:
            return False

    def _create_engine(self) -> Engine:
        query = ""
        if not self.writable:
            query = "?mode=ro"
            # SQLite cannot make the -shm file that a reader of a write-ahead log needs. With no
            # log there is nothing in it, and nobody here who could start one.
            if not self.path.with_name(NAME + "-wal").exists():
                query += "&immutable=1"
        uri = f"file:{urllib.parse.quote(os.fsencode(self.path.absolute()))}{query}"

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(
                uri,
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("PRAGMA foreign_keys = ON")
                if self.writable:
                    _use_write_ahead_log(connection)
                    connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
            return connection

        engine = create_engine("sqlite://", creator=connect, pool_size=16, poolclass=QueuePool)
        event.listen(engine, "begin", _begin)
        return engine

    def _upgrade(self) -> None:
        with self._engine.connect() as connection:
            revision = _revision(connection)
        if revision == REVISION:
            return
        # Costs 0.3 s to import, which a query on an up-to-date library should not pay.
        from searchlib.catalog.migrate import require_known, upgrade

        if revision is not None:
            require_known(revision, self.path)
        if not self.writable:
            raise self._read_only()
        if revision is not None:
            self._backup(revision)
        with self.writing() as connection:
            # Another process may have done it since.
            if _revision(connection) != REVISION:
                upgrade(connection)

    def _backup(self, revision: str) -> None:
        target = self.path.with_name(f"{NAME}.before-{REVISION}")
        logger.info("keeping a copy of the catalog at revision %s in %s", revision, target)
        with closing(sqlite3.connect(self.path)) as old, closing(sqlite3.connect(target)) as copy:
            old.backup(copy)


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
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: Connection) -> str | None:
    found = connection.execute(
        text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'")
    ).first()
    if found is None:
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
