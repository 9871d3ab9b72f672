"""The files that a scan found to be read, kept on disk so that memory does not grow with them."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType

from searchlib.ingest.walk import Found

_PER_BLOCK = 256
_IN_MEMORY_BYTES = 1 << 20


class Spool:
    """A queue of files: filled first, then emptied. It is gone with the process."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by close
        self._block: list[Found] = []
        self._read_at = 0
        self._left = 0

    def __len__(self) -> int:
        """How many files were put in and not taken out yet."""
        return self._left

    def extend(self, items: Iterable[Found]) -> None:
        """Put files in, behind all others."""
        for item in items:
            self._block.append(item)
            self._left += 1
            if len(self._block) == _PER_BLOCK:
                self._flush()

    def _flush(self) -> None:
        if self._block:
            self._file.seek(0, 2)
            pickle.dump(self._block, self._file, pickle.HIGHEST_PROTOCOL)
            self._block = []

    def blocks(self) -> Iterator[list[Found]]:
        """Take all out, a block at a time."""
        self._flush()
        while self._left:
            self._file.seek(self._read_at)
            block: list[Found] = pickle.load(self._file)
            self._read_at = self._file.tell()
            self._left -= len(block)
            yield block

    def close(self) -> None:
        """Give the disk space back; what is left in it is dropped."""
        self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
