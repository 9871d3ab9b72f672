"""Folders to files: every picture below a folder, with what tells whether it was touched."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from searchlib.catalog import FolderRecord, Stat
from searchlib.images import is_image_name, kind_of, live_video
from searchlib.ingest.ignore import Ignore
from searchlib.ingest.place import stat_at

DEAD_LINK = "is a link to a file that does not exist"


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a picture.

    Attributes:
        path: absolute.
        stat: as it was when it was found.
        folder: the added folder that it belongs to; None for a file that was named itself.
        video: the moving part where it is a live photo.
        alone: whether it is to be read by a process of its own, for it may end the process.
    """

    path: str
    stat: Stat
    folder: str | None
    video: str | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder or file that nothing can be said of, nor of what is below it."""

    path: str
    reason: str
    is_file: bool = True


def walk(
    folder: FolderRecord, *, start: str | None = None, leave_out: Collection[str] = ()
) -> Iterator[Found | Unlisted]:
    """The pictures below a folder, by their names, in the order of their paths' bytes.

    Links to files are followed. Links to folders are followed only if the folder says so and they
    lead out of it, and no folder is walked twice, so that a walk always ends.

    Args:
        folder: what to walk, and its rules.
        start: begin at this folder below it instead.
        leave_out: absolute paths of folders that are none of the user's.

    Raises:
        InputError: an ignore file or a pattern cannot be used.
    """
    first = folder.path if start is None else start
    visited: set[tuple[int, int]] = set()
    try:
        stack = [_Folder(first, rules_at(folder, first), folder, visited, leave_out)]
    except OSError as error:
        yield Unlisted(first, f"this folder cannot be listed: {error.strerror}", False)
        return
    while stack:
        here = stack[-1]
        key = next(here.keys, None)
        if key is None:
            stack.pop()
        elif key.endswith(b"/"):
            path = here.path_of(key[:-1])
            try:
                stack.append(_Folder(path, here.ignore, folder, visited, leave_out))
            except FileNotFoundError:
                pass  # gone since the folder above was listed
            except OSError as error:
                yield Unlisted(path, f"this folder cannot be listed: {error.strerror}", False)
        else:
            item = here.file(here.path_of(key))
            if item is not None:
                yield item


class _Folder:
    """A listed folder: of each entry that counts no more than its name, for there may be many."""

    def __init__(
        self,
        path: str,
        ignore: Ignore,
        folder: FolderRecord,
        visited: set[tuple[int, int]],
        leave_out: Collection[str],
    ) -> None:
        self._start = os.path.join(path, "")
        self._folder = folder.path
        self._names: set[str] = set()
        keys: list[bytes] = []
        self.keys: Iterator[bytes] = iter(keys)
        if folder.follow_links and not _is_new(path, visited):
            return
        with os.scandir(path) as listing:
            self.ignore = ignore.inside(path)
            for entry in listing:
                if _is_folder(entry, folder):
                    if (
                        folder.recursive
                        and entry.path not in leave_out
                        and not self.ignore.leaves_out(entry.path, is_folder=True)
                    ):
                        # As the paths below it compare with those beside it.
                        keys.append(os.fsencode(entry.name) + b"/")
                elif not is_image_name(entry.name):
                    if kind_of(entry.name) == "video":
                        self._names.add(entry.name)
                elif not self.ignore.leaves_out(entry.path, is_folder=False):
                    keys.append(os.fsencode(entry.name))
        keys.sort()

    def path_of(self, name: bytes) -> str:
        return self._start + os.fsdecode(name)

    def file(self, path: str) -> Found | Unlisted | None:
        try:
            found = stat_at(path)
        except IsADirectoryError:
            return None
        except FileNotFoundError:
            if not os.path.islink(path):
                return None  # gone since the folder was listed
            return Unlisted(path, DEAD_LINK)
        except OSError as error:
            return Unlisted(path, f"cannot be read: {error.strerror}")
        video = live_video(path, self._names) if self._names else None
        return Found(path, found, self._folder, video)


def rules_at(folder: FolderRecord, path: str) -> Ignore:
    """The rules in force for a folder at or below an added one, its own ignore file apart.

    Raises:
        InputError: an ignore file or a pattern cannot be used.
    """
    ignore = Ignore.at(folder)
    here = folder.path
    for name in path[len(here) :].split(os.sep):
        if name:
            ignore = ignore.inside(here)
            here = os.path.join(here, name)
    return ignore


def is_in_scope(folder: FolderRecord, path: str, *, is_folder: bool) -> bool:
    """Whether a walk of a folder would come to a path, if something lies there.

    Raises:
        InputError: an ignore file or a pattern cannot be used.
    """
    start = os.path.join(folder.path, "")
    if path == folder.path:
        return True
    if not path.startswith(start):
        return False
    names = path[len(start) :].split(os.sep)
    if len(names) > 1 and not folder.recursive:
        return False
    ignore, here = Ignore.at(folder), folder.path
    for number, name in enumerate(names, 1):
        ignore = ignore.inside(here)
        here = os.path.join(here, name)
        last = number == len(names)
        if ignore.leaves_out(here, is_folder=is_folder or not last):
            return False
        if (
            (not last or is_folder)
            and os.path.islink(here)
            and not (folder.follow_links and _leads_out(here, folder))
        ):
            return False
    return folder.recursive if is_folder else is_image_name(path)


def _is_folder(entry: os.DirEntry[str], folder: FolderRecord) -> bool:
    try:
        if entry.is_dir(follow_symlinks=False):
            return True
        return folder.follow_links and entry.is_dir() and _leads_out(entry.path, folder)
    except OSError:
        return False


def _leads_out(link: str, folder: FolderRecord) -> bool:
    """Whether a link to a folder leads to one that is not walked under its own name anyway."""
    root = os.path.join(os.path.realpath(folder.path), "")
    return not os.path.join(os.path.realpath(link), "").startswith(root)


def _is_new(path: str, visited: set[tuple[int, int]]) -> bool:
    status = os.stat(path)
    key = (status.st_dev, status.st_ino)
    if key in visited:
        return False
    visited.add(key)
    return True
