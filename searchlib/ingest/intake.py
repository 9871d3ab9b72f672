"""The pipeline: files are read, decoded and embedded side by side and committed in batches.

    [ read, hash, look up, decode, embed ] x workers -> commit

Each worker takes one file all the way to its vector. The commit order is that of the files given.
What is committed stays, and nobody is told of a file before it is committed. No more than a few
files per worker are under way, so that memory does not grow with their number.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from searchlib.catalog import Catalog, ModelRecord, Outcome, ReadFile, SkippedFile
from searchlib.encoder import ImageEncoder
from searchlib.encoder.priority import step_back
from searchlib.errors import EncoderError
from searchlib.images import DEFAULT_MAX_PIXELS, printable
from searchlib.ingest.alone import read_alone
from searchlib.ingest.place import gone_from
from searchlib.ingest.read import read_file
from searchlib.ingest.report import FileResult
from searchlib.ingest.walk import Found
from searchlib.ingest.working import Working

logger = logging.getLogger(__name__)

BATCH_FILES = 64
BATCH_SECONDS = 2.0
_AHEAD = 4

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True)
class Handling:
    """How files are taken in.

    Attributes:
        workers: how many are worked on at once.
        max_pixels: refuse pictures with more.
        thumbnails: the folder for them, None for none.
        background: let other threads of this process have the processors first; for an ingest in a
            process that has more to do, such as a server.
    """

    workers: int
    max_pixels: int = DEFAULT_MAX_PIXELS
    thumbnails: Path | None = None
    background: bool = False


class Intake:
    """Takes files into a library.

    Args:
        catalog: of the library.
        encoder: embeds what is new.
        model: the encoder's record in the catalog.
        handling: how.
        working: where it is kept which files are in the decoder.
    """

    def __init__(
        self,
        catalog: Catalog,
        encoder: ImageEncoder,
        model: ModelRecord,
        handling: Handling,
        working: Working,
    ) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._model = model
        self._handling = handling
        self._working = working

    def run(
        self,
        files: Iterable[Found],
        *,
        stopped: Callable[[], bool] = lambda: False,
        on_read: Callable[[], None] = lambda: None,
    ) -> Generator[FileResult, None, None]:
        """Take some files in, and tell of each when it is committed.

        Args:
            files: to read.
            stopped: asked between two files whether to stop; what was read is committed still.
            on_read: called for each file when it is read; it may not be committed yet.

        Raises:
            EncoderError: the model cannot be used at all.
            LibraryError: the catalog cannot be written, or the library changed its model meanwhile;
                what was committed stays.
        """
        batch: list[ReadFile | SkippedFile] = []
        last = time.monotonic()
        try:
            workers, background = self._handling.workers, self._handling.background
            with closing(in_order(self._read, files, workers, background=background)) as results:
                for result in results:
                    batch.append(result)
                    on_read()
                    late = time.monotonic() - last > BATCH_SECONDS
                    if len(batch) >= BATCH_FILES or late:
                        done, batch = batch, []
                        yield from self._commit(done)
                        last = time.monotonic()
                    if stopped():
                        break
        except BaseException:
            # Stopped or failed: what was read before is not lost for it.
            self._record(batch)
            raise
        yield from self._commit(batch)

    def _read(self, found: Found) -> ReadFile | SkippedFile:
        handling = self._handling
        if found.alone:
            try:
                return read_alone(
                    found,
                    self._encoder.card,
                    max_pixels=handling.max_pixels,
                    thumbnails=handling.thumbnails,
                )
            except EncoderError as error:
                # One file that nobody dares to read must not keep all others out.
                reason = f"could not be tried alone: {error}"
                return SkippedFile(found.path, found.stat, found.folder, reason, "crash")
        with self._working.on(found.path):
            return read_file(
                found,
                self._encoder,
                known=lambda digest: self._catalog.has_vector(digest, self._model),
                max_pixels=handling.max_pixels,
                thumbnails=handling.thumbnails,
            )

    def _commit(self, batch: list[ReadFile | SkippedFile]) -> Iterator[FileResult]:
        outcomes = self._record(batch)
        for file, outcome in zip(batch, outcomes, strict=True):
            if isinstance(file, SkippedFile):
                logger.info("skipped %s: %s", printable(file.path), file.reason)
                yield FileResult(file.path, "skipped", file.reason)
            else:
                assert outcome is not None
                yield FileResult(file.path, outcome)

    def _record(self, batch: list[ReadFile | SkippedFile]) -> list[Outcome | None]:
        return self._catalog.record(self._model, batch, gone=gone_from) if batch else []


def in_order(
    work: Callable[[_Item], _Done],
    items: Iterable[_Item],
    workers: int,
    *,
    background: bool = False,
) -> Generator[_Done, None, None]:
    """Work on some items at once, and give the results in the order of the items.

    No more than a few results wait for their turn, so that memory does not grow with the number
    of items. The threads step back behind queries: see `searchlib.encoder.priority`.
    """
    with ThreadPoolExecutor(
        workers,
        thread_name_prefix="searchlib-ingest",
        initializer=partial(step_back, lower=background),
    ) as pool:
        waiting: deque[Future[_Done]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= workers * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
