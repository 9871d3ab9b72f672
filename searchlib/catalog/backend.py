"""What differs between the engines that keep a catalog, behind one interface."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from searchlib.errors import (
    DiskFullError,
    LibraryDamagedError,
    LibraryError,
    LibraryReadOnlyError,
)

BUSY_SECONDS = 30.0
# The file that tells which database, not in this folder, a library belongs to.
MARKER = "catalog.url"
# The option of a connection whose transactions write.
WRITES = "searchlib_writes"


class Backend(ABC):
    """A database that is open, and the words for what fails in it.

    Attributes:
        folder: of the library.
        place: the database as errors name it; without a password.
        writable: whether anything can be written there, and in the folder.
        engine: whose transactions write, one at a time, where a connection has the option WRITES.
        reads: the options of a connection that sees the database as it was at its start.
        driver_error: what the driver raises where SQLAlchemy is not in between.
    """

    folder: Path
    place: str
    writable: bool
    engine: Engine
    reads: ClassVar[Mapping[str, Any]] = {}
    driver_error: type[Exception]

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what the database and the file system raise into this package's errors."""
        try:
            yield
        except DBAPIError as error:
            raise self.explained(error.orig or error) from error
        except self.driver_error as error:
            raise self.explained(error) from error
        except UnicodeDecodeError as error:
            # The driver, about to quote a name of the schema that is no text.
            raise self.damaged("text that is none") from error
        except OSError as error:
            raise self.file_failed(error.strerror or str(error)) from error

    @abstractmethod
    def revision(self, connection: Connection) -> str | None:
        """The revision of the schema that is there, None where there is none."""

    @abstractmethod
    def keep_copy(self, revision: str, *, newest: str) -> None:
        """Keep what is there before it is upgraded, as far as this is the library's business."""

    @abstractmethod
    def version(self) -> Hashable:
        """Differs from before whenever anything was committed since, by whomever."""

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @abstractmethod
    def size(self) -> int:
        """How many bytes the catalog takes on its disk."""

    @abstractmethod
    def explained(self, error: BaseException) -> LibraryError:
        """The error of this package for one of the driver's."""

    @abstractmethod
    def file_failed(self, reason: str) -> LibraryError:
        """The error for what the file system refused."""

    @abstractmethod
    def read_only(self) -> LibraryReadOnlyError:
        """The error for a library that cannot be written."""

    def damaged(self, reason: str) -> LibraryDamagedError:
        """The error for a database that holds what this package never wrote."""
        return LibraryDamagedError(
            f"{self.place}: the database is damaged ({reason}); put a backup in its place, or "
            "move it away and add your folders again"
        )


def make_folder(folder: Path) -> None:
    """Make a library's folder where it is missing.

    Raises:
        LibraryError: there is a file of this name.
        OSError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise LibraryError(
            f"{folder}: this is a file; name a folder for the library with --library"
        )
    folder.mkdir(parents=True, exist_ok=True)


def disk_full(folder: Path) -> DiskFullError:
    """The error for a library's folder whose disk is full."""
    return DiskFullError(
        f"{folder}: no space left on this disk; what was added before is safe. "
        "Free some space and run the command again"
    )


def folder_read_only(folder: Path) -> LibraryReadOnlyError:
    """The error for a library's folder that cannot be written."""
    return LibraryReadOnlyError(
        f"{folder}: this folder cannot be written; change its permissions or choose "
        "another one with --library"
    )


def has_no_space(folder: Path) -> bool:
    """Whether a folder's disk is full."""
    try:
        return shutil.disk_usage(folder).free < 64 * 1024
    except OSError:
        return False
