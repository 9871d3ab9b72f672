"""Reading and replacing files of vectors, with errors that name the file."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from searchlib.errors import VectorFileError

STALE_AFTER = 3600.0
"""Seconds without a write after which a temporary file is taken for abandoned."""


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """A file of vectors, opened for reading.

    Raises:
        VectorFileError: it cannot be opened or read.
    """
    try:
        # Opening a pipe would wait for whoever writes to it.
        if path.exists() and not path.is_file():
            raise VectorFileError(f"{path}: this is not a file; name a file of vectors")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise VectorFileError(f"{path}: there is no such file") from error
    except OSError as error:
        raise VectorFileError(
            f"{path}: it cannot be read: {error.strerror or error}; see to the file and its disk"
        ) from error


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Write some files of one folder under other names, then put them in place, in this order.

    Gives the names to write to. At the end of the block the files are synchronised to the disk and
    renamed; on an exception they are deleted and what was there stays.

    Raises:
        VectorFileError: something cannot be written.
    """
    folder = paths[0].parent
    token = secrets.token_hex(8)
    temporaries = [folder / f".{path.name}.{token}.part" for path in paths]
    try:
        _remove_stale(paths)
        yield temporaries
        for temporary in temporaries:
            _synchronise(temporary)
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
        _synchronise(folder)
    except OSError as error:
        raise VectorFileError(
            f"{paths[0]}: it cannot be written: {error.strerror or error}; choose another folder, "
            "or see to its space and permissions"
        ) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()


def stamp(paths: tuple[Path, ...]) -> tuple[tuple[int, int, int], ...]:
    """What tells that files were not touched between two readings."""
    with contextlib.suppress(OSError):
        return tuple((s.st_size, s.st_mtime_ns, s.st_ino) for s in (path.stat() for path in paths))
    return ()


def _remove_stale(paths: tuple[Path, ...]) -> None:
    """Delete what a writer left that was killed."""
    names = tuple(f".{path.name}." for path in paths)
    with os.scandir(paths[0].parent) as listing:
        for entry in listing:
            if entry.name.startswith(names) and entry.name.endswith(".part"):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat().st_mtime > STALE_AFTER:
                        Path(entry.path).unlink()


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
