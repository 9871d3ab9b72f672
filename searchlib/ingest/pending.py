"""Files that were not in their places, until it is clear that they were not moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from searchlib.catalog import FolderRecord
from searchlib.ingest.compare import Comparison

# For so long what is gone may have been moved to where something is still coming to rest.
_MOVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Absent:
    comparison: Comparison
    folders: list[FolderRecord]
    after_spool: bool
    due: float


class Pending:
    """Holds back the judgement of what is absent: what was moved is to have its new place first."""

    def __init__(self) -> None:
        self._waiting: list[_Absent] = []

    def __len__(self) -> int:
        """How many comparisons wait."""
        return len(self._waiting)

    def add(
        self, comparison: Comparison, folders: list[FolderRecord], *, after_spool: bool
    ) -> None:
        """Hold a comparison back, if anything is absent in it.

        Args:
            comparison: that has found what there is.
            folders: that it compared.
            after_spool: whether the new places may be among the files in the spool.
        """
        if len(comparison.absent):
            due = time.monotonic() + _MOVE_SECONDS
            self._waiting.append(_Absent(comparison, folders, after_spool, due))

    def take(
        self, *, spool_is_empty: bool, nothing_settles: bool
    ) -> Iterator[tuple[Comparison, list[FolderRecord]]]:
        """Those that can be judged now; they wait no more."""
        now = time.monotonic()
        for each in list(self._waiting):
            waits_for_spool = each.after_spool and not spool_is_empty
            if not waits_for_spool and (nothing_settles or now >= each.due):
                self._waiting.remove(each)
                yield each.comparison, each.folders

    def clear(self) -> None:
        """Judge none of them."""
        self._waiting.clear()
