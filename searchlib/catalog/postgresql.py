"""The catalog in a PostgreSQL database, through psycopg 3.

The tables lie in the schema that the URL's search path names first, `public` where it names none. A
transaction that writes takes a lock of that schema before all else: numbers of changes then become
visible in their order, which is what a reader of the change log relies on. Readers take none, and
see one snapshot ("repeatable read").

A path may have about 2,700 bytes there, and text no NUL; a SQLite file has neither limit.

The library's folder holds only what can be made again. A file in it tells which database it belongs
to, so that one index never gets vectors of two catalogs.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

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
from searchlib.catalog.schema import Base
from searchlib.catalog.sqlite import NAME as SQLITE_NAME
from searchlib.errors import (
    DiskFullError,
    LibraryBusyError,
    LibraryError,
    LibraryNotFoundError,
    LibraryReadOnlyError,
)

try:
    import psycopg
except ImportError as error:
    raise LibraryError(
        "the driver of PostgreSQL is not installed; run `pip install 'searchlib[postgresql]'`"
    ) from error

logger = logging.getLogger(__name__)

OLDEST_SERVER = 14
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_CONNECT_SECONDS = 10
# The driver tells no code of what goes wrong before it is connected.
_BUSY = ("starting up", "shutting down", "too many", "connection slots")
# Together in one message to the server. The number only tells this lock from those of others.
_LOCK = (
    f"SET LOCAL lock_timeout = '{BUSY_SECONDS:.0f}s'; "
    "SELECT pg_advisory_xact_lock(1936027250, current_schema()::regnamespace::oid::integer)"
)
_LOOK = text(
    """
    SELECT current_setting('server_version_num')::integer AS version,
           current_setting('server_version') AS version_text,
           current_setting('server_encoding') AS encoding,
           current_schema() AS schema,
           current_setting('transaction_read_only')::boolean AS read_only,
           has_table_privilege(to_regclass('change'), 'INSERT') AS may_insert
    """
)
_SNAPSHOT = text("SELECT pg_current_snapshot()::text")
_TABLES = text(
    "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
    "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"
)

# An index of a part of the rows is one in both databases.
for _index in (index for table in Base.metadata.tables.values() for index in table.indexes):
    _part = _index.dialect_options["sqlite"]["where"]
    if _part is not None:
        _index.dialect_options["postgresql"]["where"] = _part


class Postgresql(Backend):
    """A catalog in a PostgreSQL database; see Database for what is raised."""

    reads: ClassVar[Mapping[str, Any]] = {
        "isolation_level": "REPEATABLE READ",
        "postgresql_readonly": True,
    }
    driver_error = psycopg.Error

    def __init__(self, folder: Path, *, create: bool, url: str) -> None:
        self.folder = folder
        parsed = _parsed(url)
        self.place = _shown(parsed)
        if (folder / SQLITE_NAME).exists():
            raise LibraryError(
                f"{folder}: this folder has a library of its own ({SQLITE_NAME}); name another "
                "folder with --library"
            )
        self.engine = _engine(parsed)
        try:
            with self.translated():
                server_writable = self._look(create=create)
                make_folder(folder)
                self.writable = os.access(folder, os.W_OK) and server_writable
                self._mark_folder()
        except BaseException:
            self.engine.dispose()
            raise

    def _look(self, *, create: bool) -> bool:
        """Refuse a server or a database that cannot be used; tells if it can be written."""
        with self.engine.connect() as connection:
            found = connection.execute(_LOOK).one()
            revision = None if found.schema is None else self.revision(connection)
        if found.version < OLDEST_SERVER * 10_000:
            raise LibraryError(
                f"{self.place}: this is PostgreSQL {found.version_text}; searchlib needs "
                f"{OLDEST_SERVER} or newer"
            )
        if found.encoding != "UTF8":
            raise LibraryError(
                f"{self.place}: this database is encoded as {found.encoding}; make one with "
                "`createdb --encoding=UTF8 --template=template0 NAME`"
            )
        if found.schema is None:
            raise LibraryNotFoundError(
                f"{self.place}: no schema of the search path is there; make one with CREATE SCHEMA"
            )
        if revision is None and not create:
            raise LibraryNotFoundError(
                f"{self.place}: there is no library here; make one with `searchlib add FOLDER`"
            )
        if found.schema != "public":
            self.place += f" (schema {found.schema})"
        return not found.read_only and found.may_insert is not False

    def _mark_folder(self) -> None:
        """Write into the folder which database it belongs to, or refuse one of another."""
        marker = self.folder / MARKER
        # One that is empty was left behind by a process that was killed.
        if self.writable and not (marker.exists() and marker.read_bytes().strip()):
            # It appears whole, for others may open the library at this moment.
            temporary = marker.with_name(f"{MARKER}.{secrets.token_hex(4)}.tmp")
            try:
                temporary.write_text(self.place + "\n", encoding="utf-8")
                temporary.replace(marker)
            finally:
                temporary.unlink(missing_ok=True)
        found = marker.read_text(encoding="utf-8").strip() if marker.exists() else ""
        if found not in ("", self.place):
            raise LibraryError(
                f"{self.folder}: this folder belongs to the catalog in {found}, not to "
                f"{self.place}; name another folder with --library, or remove {marker} if the "
                "database was moved"
            )

    def revision(self, connection: Connection) -> str | None:
        there = "SELECT to_regclass(quote_ident(current_schema()) || '.alembic_version')"
        if connection.execute(text(there)).scalar() is None:
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def keep_copy(self, revision: str, *, newest: str) -> None:
        """Nothing: an upgrade is one transaction here, and backups are the server's business."""
        logger.info("%s: upgrading the catalog from %s to %s", self.place, revision, newest)

    def version(self) -> str:
        # Of the transactions that are done; a commit is one more. It changes for others' as well.
        with self.engine.connect() as connection:
            return str(connection.execute(_SNAPSHOT).scalar())

    def size(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(_TABLES).scalar() or 0)

    def explained(self, error: BaseException) -> LibraryError:
        state = getattr(error, "sqlstate", None) or ""
        reason = _first_line(error)
        if state == "53100":
            return DiskFullError(
                f"{self.place}: no space left on the disk of the server; what was added before is "
                "safe. Free some space and run the command again"
            )
        if state == "55P03":
            return LibraryBusyError(
                f"{self.place}: another process has kept the database for {BUSY_SECONDS:.0f} "
                "seconds; wait for it or stop it, then try again"
            )
        unready = not state and any(words in reason for words in _BUSY)
        if unready or state in ("40001", "40P01", "53300", "57P03"):
            return LibraryBusyError(f"{self.place}: the server is busy ({reason}); try again")
        if state in ("25006", "42501"):
            return self.read_only()
        if state == "42P07":
            return LibraryError(
                f"{self.place}: another program has its tables here ({reason}); give the library "
                "a database or a schema of its own"
            )
        if state == "54000":
            return LibraryError(
                f"{self.place}: a path is too long for PostgreSQL, which takes about 2,700 bytes "
                f"({reason}); shorten or exclude it, or keep the library in a folder"
            )
        if state in ("42P01", "42703") or state.startswith("XX"):
            return self.damaged(reason)
        if state == "3D000" or (reason.startswith("database ") and reason.endswith("not exist")):
            return LibraryNotFoundError(
                f"{self.place}: there is no such database; make it with `createdb`"
            )
        if state.startswith("28") or (not state and "FATAL" in str(error)):
            return LibraryError(
                f"{self.place}: the server refuses the connection ({reason}); correct the user or "
                "the password in the URL"
            )
        if isinstance(error, psycopg.OperationalError) and (not state or state[:2] in ("08", "57")):
            return LibraryError(
                f"{self.place}: the server cannot be reached ({reason}); see that it runs, and "
                "that the URL is right"
            )
        return LibraryError(f"{self.place}: {reason}")

    def file_failed(self, reason: str) -> LibraryError:
        lower = reason.lower()
        if "no space left" in lower or has_no_space(self.folder):
            return disk_full(self.folder)
        if "read-only" in lower or "permission" in lower:
            return folder_read_only(self.folder)
        return LibraryError(f"{self.folder}: {reason}")

    def read_only(self) -> LibraryReadOnlyError:
        if not os.access(self.folder, os.W_OK):
            return folder_read_only(self.folder)
        return LibraryReadOnlyError(
            f"{self.place}: this user may not write here, or the server only reads; ask for the "
            "right to write, or name the main server"
        )


def _parsed(url: str) -> URL:
    """The URL with the driver that is used.

    Raises:
        LibraryError: it is none, or of another database; says nothing of what is in it, for there
            may be a password.
    """
    try:
        parsed = make_url(url)
        scheme = parsed.drivername
    except (ArgumentError, ValueError):
        scheme = ""
    # One more @ is in the password, and what follows it would be taken for the host.
    if scheme not in _SCHEMES or url.count("@") > 1:
        raise LibraryError(
            "the URL of the database is none that can be used; write it as "
            "postgresql://USER:PASSWORD@HOST/DATABASE, with signs such as @ and / in the password "
            "as %40 and %2F"
        ) from None
    return parsed.set(drivername="postgresql+psycopg")


def _shown(url: URL) -> str:
    """The URL without its password, and without options, which may hold one."""
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    asked = "&".join(
        f"{name}={value if isinstance(value, str) else ','.join(value)}"
        for name, value in url.query.items()
        if name in ("host", "port")
    )
    server = f"{user}{url.host or ''}{port}"
    return f"postgresql://{server}/{url.database or ''}{'?' if asked else ''}{asked}"


def _engine(url: URL) -> Engine:
    defaults = {"connect_timeout": _CONNECT_SECONDS, "application_name": "searchlib"}
    engine = create_engine(
        url,
        connect_args={
            "client_encoding": "utf8",
            **{name: value for name, value in defaults.items() if name not in url.query},
        },
        isolation_level="READ COMMITTED",
        pool_size=8,
        max_overflow=18,
        # A process that watches outlives a server that is started anew.
        pool_pre_ping=True,
    )
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql(_LOCK)


def _first_line(error: BaseException) -> str:
    """The server's words in one line, without the driver's words before them."""
    line = next(iter(str(error).strip().splitlines()), "no reason given")
    for words in ("connection failed: ", "connection is bad: ", "FATAL:  "):
        line = line.rpartition(words)[2]
    return line.strip()
