"""An ingest that can be followed file by file, and stopped at any of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import TracebackType

from searchlib.errors import InputError
from searchlib.ingest.report import FileResult, Report


class Adding(Iterator[FileResult]):
    """What becomes of each file that is read, in an order that is stable; use it in a `with` block.

    Args:
        results: of an ingest.
        at_end: called once when the last file is done, or when it is stopped.
    """

    def __init__(
        self, results: Generator[FileResult, None, Report], *, at_end: Callable[[], None]
    ) -> None:
        self._results = results
        self._at_end: Callable[[], None] | None = at_end
        self._report: Report | None = None
        self._begun = False

    @property
    def report(self) -> Report:
        """The report, once all files are dealt with.

        Raises:
            InputError: it was stopped before its end, or is not there yet.
        """
        if self._report is None:
            raise InputError("there is no report before the last file; iterate to the end")
        return self._report

    def __next__(self) -> FileResult:
        self._begun = True
        try:
            return next(self._results)
        except StopIteration as stop:
            if self._report is None:
                self._report = stop.value
            self._finish()
            raise

    def close(self) -> None:
        """Stop after the files under way; what was told is committed. It can be called twice."""
        self._results.close()
        if self._begun:
            self._finish()

    def _finish(self) -> None:
        at_end, self._at_end = self._at_end, None
        if at_end is not None:
            at_end()

    def __enter__(self) -> Adding:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
