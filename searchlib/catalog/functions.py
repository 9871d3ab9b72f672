"""Functions of Python that statements for SQLite call."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from functools import lru_cache

from searchlib.catalog import earth

FOLDER_MATCHES, NAME_MATCHES = "searchlib_folder_matches", "searchlib_name_matches"
METRES = "searchlib_metres"
_SEPARATOR = os.fsencode(os.sep)
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


def add_functions(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    connection.create_function(FOLDER_MATCHES, 2, _folder_matches, deterministic=True)
    connection.create_function(NAME_MATCHES, 2, _name_matches, deterministic=True)
    connection.create_function(METRES, 4, earth.metres, deterministic=True)


def encoded(pattern: str) -> bytes:
    """A pattern as a value of SQLite, whose text has no place for what may be in a path."""
    return pattern.encode("utf-32-le", "surrogatepass")


def _folder_matches(pattern: bytes, path: bytes) -> bool:
    # The files of a folder mostly follow one another.
    return _is_folder(pattern, path[: path.rfind(_SEPARATOR) + 1])


@lru_cache(maxsize=4096)
def _is_folder(pattern: bytes, folder: bytes) -> bool:
    # A question without a pattern should not pay for it.
    from searchlib.catalog import globs

    return globs.folder_pattern(_decoded(pattern)).matches(os.fsdecode(folder))


def _name_matches(pattern: bytes, path: bytes) -> bool:
    return _name_test(pattern)(path.decode(_ENCODING, _ERRORS))


@lru_cache(maxsize=256)
def _name_test(pattern: bytes) -> Callable[[str], bool]:
    from searchlib.catalog import globs

    return globs.name_pattern(_decoded(pattern)).matches


def _decoded(pattern: bytes) -> str:
    return pattern.decode("utf-32-le", "surrogatepass")
