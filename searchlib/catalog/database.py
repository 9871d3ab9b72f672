"""The catalog's database: how it is opened, read, written and upgraded.

It is a SQLite file in the library's folder, or a PostgreSQL database that a URL names. The modules
`sqlite` and `postgresql` hold what differs; a transaction means the same in both. One that reads
sees the database as it was at its start. Those that write follow one another, so that a reader that
sees a change of some number sees all with lower numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from searchlib.catalog.backend import WRITES, Backend
from searchlib.catalog.schema import REVISION
from searchlib.catalog.sqlite import Sqlite
from searchlib.errors import LibraryDamagedError

logger = logging.getLogger(__name__)


class Database:
    """The catalog's database of one library.

    Args:
        folder: the library's folder.
        create: make folder and database where they are missing.
        url: of a PostgreSQL database, as SQLAlchemy writes it: `postgresql://user@host/database`;
            a SQLite file in the folder if None.

    Attributes:
        folder: the library's folder.
        place: the database as errors name it; without a password.
        writable: whether anything can be written there, and in the folder.

    Raises:
        LibraryNotFoundError: there is no library and `create` is False, or no such database.
        LibraryReadOnlyError: it has to be made or upgraded and cannot be written.
        LibraryTooNewError, LibraryDamagedError, LibraryBusyError, DiskFullError: see errors.
        LibraryError: the server cannot be reached, refuses the user, or is not one that can be
            used; or the folder belongs to the catalog of another database.
    """

    def __init__(self, folder: Path, *, create: bool, url: str | None = None) -> None:
        self._backend = _open(folder, create, url)
        self.folder = folder
        self.place = self._backend.place
        self.writable = self._backend.writable
        try:
            with self.translated():
                self._upgrade()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections; SQLite then folds the write-ahead log into the file."""
        self._backend.close()

    def require_writable(self) -> None:
        """Refuse what would have to write in the end.

        Raises:
            LibraryReadOnlyError: the library cannot be written.
        """
        if not self.writable:
            raise self._backend.read_only()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it was at its start."""
        with self.translated(), self._backend.engine.connect() as connection:
            yield connection.execution_options(**self._backend.reads)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block, or rolls back on an exception."""
        self.require_writable()
        with self.translated(), self._backend.engine.connect() as connection:
            connection.execution_options(**{WRITES: True})
            with connection.begin():
                yield connection

    def translated(self) -> AbstractContextManager[None]:
        """Turn what the database and the file system raise into this package's errors."""
        return self._backend.translated()

    def damaged(self, reason: str) -> LibraryDamagedError:
        """The error for a database that holds what this package never wrote."""
        return self._backend.damaged(reason)

    @property
    def is_sqlite(self) -> bool:
        """Whether statements are for SQLite; for PostgreSQL otherwise."""
        return self._backend.engine.dialect.name == "sqlite"

    def version(self) -> Hashable:
        """Differs from before whenever anything was committed since, by whomever."""
        with self.translated():
            return self._backend.version()

    def size(self) -> int:
        """How many bytes the catalog takes on its disk."""
        with self.translated():
            return self._backend.size()

    def _upgrade(self) -> None:
        with self.reading() as connection:
            revision = self._backend.revision(connection)
        if revision == REVISION:
            return
        # Costs 0.3 s to import, which a query on an up-to-date library should not pay.
        from searchlib.catalog.migrate import require_known, upgrade

        if revision is not None:
            require_known(revision, self.place)
        self.require_writable()
        if revision is not None:
            self._backend.keep_copy(revision, newest=REVISION)
        with self.writing() as connection:
            # Another process may have done it since.
            if self._backend.revision(connection) != REVISION:
                upgrade(connection)


def _open(folder: Path, create: bool, url: str | None) -> Backend:
    if url is None:
        return Sqlite(folder, create=create)
    # Its driver is an extra.
    from searchlib.catalog.postgresql import Postgresql

    return Postgresql(folder, create=create, url=url)
