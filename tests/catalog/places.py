"""Where a test's library is: its folder, and the database of its catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from searchlib.catalog import Catalog


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
