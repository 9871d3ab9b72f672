"""What a folder walk leaves out: hidden things, the litter of other programs, and what the user
names in a `.searchlibignore`, which is written like a `.gitignore` (https://git-scm.com/docs/gitignore)
and counts for the folder that it lies in and all below.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class Ignore:
    """The rules in force inside one folder.

    Attributes:
        rules: of each ignore file from the root down to this folder: the folder that it lies in,
            with a separator at the end, and what it says.
    """

    rules: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    def inside(self, folder: str) -> Ignore:
        """The rules in force inside a folder below.

        Raises:
            InputError: its ignore file cannot be read or has a pattern that means nothing.
        """
        path = Path(folder, IGNORE_FILE)
        try:
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return self
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        # Costs more to import than most walks take; a query needs it never.
        from pathspec import GitIgnoreSpec

        try:
            spec = GitIgnoreSpec.from_lines(lines)
        except ValueError as error:
            raise InputError(f"{path}: {error}; correct this pattern or take it out") from error
        return Ignore((*self.rules, (os.path.join(folder, ""), spec)))  # noqa: PTH118

    def leaves_out(self, entry: os.DirEntry[str]) -> bool:
        """Whether the walk should pass over an entry of the folder."""
        if entry.name.startswith(".") or entry.name in LITTER:
            return True
        if not self.rules:
            return False
        path = entry.path + "/" if entry.is_dir(follow_symlinks=False) else entry.path
        # The file nearest to the entry that says anything about it decides.
        for folder, spec in reversed(self.rules):
            verdict = spec.check_file(path[len(folder) :]).include
            if verdict is not None:
                return verdict
        return False
