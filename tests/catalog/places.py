"""Where a test's library is: its folder, and the database of its catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from searchlib.catalog import Catalog
from searchlib.catalog.schema import Base

# TRUNCATE would make all files of the tables anew.
_FROM_1 = (
    "SELECT setval(oid::regclass, 1, false) FROM pg_class "
    "WHERE relkind = 'S' AND relnamespace = current_schema()::regnamespace"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A library that may not be there yet.

    Attributes:
        folder: of the library.
        url: of its catalog; None where that is a SQLite file in the folder.
    """

    folder: Path
    url: str | None

    def open(self, *, create: bool = True) -> Catalog:
        """Its catalog, to be closed."""
        return Catalog(self.folder, create=create, url=self.url)


def emptied(catalog: Catalog) -> Catalog:
    """A catalog with nothing in it any more, which numbers all things from 1 again."""
    with catalog.database.writing() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
        postgresql = connection.dialect.name == "postgresql"
        connection.execute(text(_FROM_1 if postgresql else "DELETE FROM sqlite_sequence"))
    return catalog
