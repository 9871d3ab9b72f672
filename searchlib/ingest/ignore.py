"""What a folder walk leaves out: hidden things, the litter of other programs, what the user
excludes, and what a `.searchlibignore` names, which is written like a `.gitignore`
(https://git-scm.com/docs/gitignore) and counts for the folder that it lies in and all below.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from searchlib.catalog import FolderRecord
from searchlib.errors import InputError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".searchlibignore"

LITTER = frozenset(
    {
        "@eaDir",  # thumbnails that Synology's indexer keeps beside the pictures
        "node_modules",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
    }
)

_Rule = tuple[str, "GitIgnoreSpec"]


@dataclass(frozen=True, slots=True)
class Ignore:
    """The rules in force inside one folder.

    Attributes:
        rules: of what excludes, from the root down to this folder: the folder that it counts for,
            with a separator at the end, and what it says.
        only: where there is one, no file counts that it does not name.
    """

    rules: tuple[_Rule, ...] = ()
    only: _Rule | None = None

    @classmethod
    def at(cls, folder: FolderRecord) -> Ignore:
        """The rules of an added folder, without those of the ignore files in it.

        Raises:
            InputError: it has a pattern that means nothing.
        """
        start = os.path.join(folder.path, "")
        excluded = _spec(folder.exclude, folder.path)
        included = _spec(folder.include, folder.path)
        return cls(
            () if excluded is None else ((start, excluded),),
            None if included is None else (start, included),
        )

    def inside(self, folder: str) -> Ignore:
        """The rules in force inside a folder below.

        Raises:
            InputError: its ignore file cannot be read or has a pattern that means nothing.
        """
        path = Path(folder, IGNORE_FILE)
        try:
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return self
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        spec = _spec(lines, str(path))
        if spec is None:
            return self
        rule = (os.path.join(folder, ""), spec)
        return Ignore((*self.rules, rule), self.only)

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether an entry of the folder should be passed over.

        Args:
            path: absolute; its ancestors were not left out.
            is_folder: whether it is a folder that would be walked.
        """
        name = path[path.rindex(os.sep) + 1 :]
        if name.startswith(".") or name in LITTER:
            return True
        if not is_folder and self.only is not None:
            start, spec = self.only
            if not spec.match_file(path[len(start) :]):
                return True
        if not self.rules:
            return False
        if is_folder:
            path += "/"
        # The rule nearest to the entry that says anything about it decides.
        for start, spec in reversed(self.rules):
            verdict = spec.check_file(path[len(start) :]).include
            if verdict is not None:
                return verdict
        return False


def check_rules(folder: FolderRecord) -> None:
    """Refuse an added folder that no folder can be, or whose rules cannot be used.

    Raises:
        InputError: its path or marker is none, or it has a pattern that means nothing.
    """
    if "\0" in folder.path:
        raise InputError(f"{folder.path!r}: no folder can have this path")
    marker = folder.marker
    if marker is not None and (marker in ("", ".", "..") or {"/", "\0"} & set(marker)):
        raise InputError(f"{marker!r}: name a file that lies in the folder itself as its marker")
    Ignore.at(folder)


def _spec(patterns: Iterable[str], where: str) -> GitIgnoreSpec | None:
    lines = list(patterns)
    if not lines:
        return None
    # Costs more to import than most walks take; a query needs it never.
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct this pattern or take it out") from error
