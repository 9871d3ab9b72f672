"""Folders to files: every picture below a folder, with what tells whether it was touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from searchlib.catalog import Stat
from searchlib.images import is_image_name
from searchlib.ingest.ignore import Ignore
from searchlib.ingest.place import stat_of
from searchlib.ingest.report import Skipped


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a picture.

    Attributes:
        path: absolute.
        stat: as it was when it was found.
        folder: the folder that was walked; None for a file that was named itself.
    """

    path: str
    stat: Stat
    folder: str | None


def walk(root: str) -> Iterator[Found | Skipped]:
    """The pictures below a folder, by their names; folders in alphabetical order.

    Links to folders are not followed, so that a walk always ends; links to files are.

    Args:
        root: an absolute path.

    Raises:
        InputError: an ignore file cannot be used.
    """
    stack = [(root, Ignore())]
    while stack:
        folder, ignore = stack.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(folder, f"this folder cannot be listed: {error.strerror}")
            continue
        ignore = ignore.inside(folder)
        below = []
        for entry in entries:
            if ignore.leaves_out(entry):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append((entry.path, ignore))
            elif is_image_name(entry.name):
                try:
                    if not entry.is_dir():
                        yield Found(entry.path, stat_of(entry.stat()), root)
                except OSError as error:
                    yield Skipped(entry.path, _words(entry, error))
        stack.extend(reversed(below))


def _words(entry: os.DirEntry[str], error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and entry.is_symlink():
        return "is a link to a file that does not exist"
    return f"cannot be read: {error.strerror}"
