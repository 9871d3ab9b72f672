"""The files that a scan found to be read, kept on disk so that memory does not grow with them."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import IO

from searchlib.errors import DiskFullError
from searchlib.ingest.walk import Found

_PER_BLOCK = 256
_IN_MEMORY_BYTES = 1 << 20


class Spool:
    """A queue of files: filled first, then emptied. It is gone with the process."""

    def __init__(self) -> None:
        self._file = _temporary()
        self._block: list[Found] = []
        self._read_at = 0
        self._left = 0

    def __len__(self) -> int:
        """How many files were put in and not taken out yet."""
        return self._left

    def extend(self, items: Iterable[Found]) -> None:
        """Put files in, behind all others.

        Raises:
            DiskFullError: there is no space for temporary files.
        """
        for item in items:
            self._block.append(item)
            self._left += 1
            if len(self._block) == _PER_BLOCK:
                self._flush()

    def _flush(self) -> None:
        block, self._block = self._block, []
        if not block:
            return
        try:
            self._file.seek(0, os.SEEK_END)
            pickle.dump(block, self._file, pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            self.clear()
            raise DiskFullError(
                f"{tempfile.gettempdir()}: temporary files cannot be written ({error.strerror}); "
                "free some space there, or name another folder in $TMPDIR"
            ) from error

    def blocks(self) -> Iterator[list[Found]]:
        """Take all out, a block at a time."""
        while self._left:
            self._flush()
            self._file.seek(self._read_at)
            block: list[Found] = pickle.load(self._file)
            self._read_at = self._file.tell()
            self._left -= len(block)
            if not self._left:
                self.clear()
            yield block

    def clear(self) -> None:
        """Take all out and drop it."""
        # After an error on its way to the disk it is of no more use.
        with suppress(OSError):
            self._file.close()
        self._file = _temporary()
        self._block, self._read_at, self._left = [], 0, 0

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


def _temporary() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)
