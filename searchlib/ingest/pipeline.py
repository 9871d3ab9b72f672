"""The pipeline: files are read, decoded and embedded side by side and committed in batches.

    list and compare -> [ read, hash, look up, decode, embed ] x workers -> commit

Each worker takes one file all the way to its vector. The commit order is that of the listing. What
is committed stays: an interrupted ingest loses at most what was not committed yet, and the next
one finds exactly that to be done.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from searchlib.catalog import (
    Catalog,
    ModelRecord,
    NewContent,
    Outcome,
    ReadFile,
    SkippedFile,
)
from searchlib.encoder import ImageEncoder
from searchlib.errors import ImageError, OutputError
from searchlib.images import DEFAULT_MAX_PIXELS, OpenedFile, open_file, printable
from searchlib.ingest.place import facts_of, gone, processors, stat_of_opened
from searchlib.ingest.plan import make_plan
from searchlib.ingest.report import Progress, Report, Skipped
from searchlib.ingest.walk import Found

logger = logging.getLogger(__name__)

BATCH_FILES = 64
BATCH_SECONDS = 2.0
_AHEAD = 4

_Result = ReadFile | SkippedFile | Skipped
_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


def ingest(
    catalog: Catalog,
    encoder: ImageEncoder,
    model: ModelRecord,
    paths: Sequence[str | os.PathLike[str]],
    *,
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    retry: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring a library up to date with folders and files.

    Args:
        catalog: of the library.
        encoder: embeds what is new.
        model: the encoder's record in the catalog.
        paths: folders and files.
        workers: how many files are worked on at once; as many as there are processors if None.
        max_pixels: refuse pictures with more.
        retry: try untouched files again that could not be used before.
        on_progress: called from this thread.

    Raises:
        InputError: an ignore file cannot be used.
        EncoderError: the model cannot be used at all.
        LibraryError: the catalog cannot be written, or the library changed its model meanwhile;
            what was committed stays.
    """
    started = time.monotonic()
    tell = on_progress or (lambda _: None)
    plan = make_plan(
        catalog,
        model,
        paths,
        retry=retry,
        on_found=lambda n: tell(Progress("listing", n, None)),
    )
    for folder in plan.folders:
        catalog.use_folder(folder)
    catalog.mark_present(model, plan.returned)
    report = Report(unchanged=plan.unchanged, skipped=plan.skipped)
    if plan.read:
        worker = _Worker(catalog, encoder, model, max_pixels)
        committer = _Committer(catalog, model, report)
        count = workers or processors()
        with encoder.for_throughput(count):
            try:
                with closing(in_order(worker.read, plan.read, count)) as results:
                    for done, result in enumerate(results, 1):
                        committer.take(result)
                        tell(Progress("embedding", done, len(plan.read), len(report.skipped)))
            finally:
                committer.commit()
    # By path and only now: a file that was moved has its new path by this time.
    report.missing = catalog.mark_missing(plan.missing)
    report.seconds = time.monotonic() - started
    return report


def in_order(
    work: Callable[[_Item], _Done], items: Iterable[_Item], workers: int
) -> Generator[_Done, None, None]:
    """Work on some items at once, and give the results in the order of the items.

    No more than a few results wait for their turn, so that memory does not grow with the number
    of items.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="searchlib-ingest") as pool:
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


class _Worker:
    """Takes one file to its vector; used by many threads."""

    def __init__(
        self, catalog: Catalog, encoder: ImageEncoder, model: ModelRecord, max_pixels: int
    ) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._model = model
        self._max_pixels = max_pixels

    def read(self, found: Found) -> _Result:
        try:
            with open_file(found.path) as opened:
                try:
                    return self._take_in(found, opened)
                except ImageError as error:
                    if not error.lasting:
                        raise
                    return SkippedFile(
                        found.path, stat_of_opened(opened), found.folder, error.reason
                    )
                except OutputError as error:
                    return SkippedFile(found.path, stat_of_opened(opened), found.folder, str(error))
        except ImageError as error:
            return Skipped(found.path, error.reason)

    def _take_in(self, found: Found, opened: OpenedFile) -> ReadFile:
        content = None
        if not self._catalog.has_vector(opened.digest, self._model):
            image = opened.load(min_side=self._encoder.min_side, max_pixels=self._max_pixels)
            vector = self._encoder.embed(image.pixels)
            content = NewContent(facts_of(image.facts, opened.size), vector)
        return ReadFile(found.path, stat_of_opened(opened), opened.digest, found.folder, content)


class _Committer:
    """Collects results and writes them in batches, each in one transaction."""

    def __init__(self, catalog: Catalog, model: ModelRecord, report: Report) -> None:
        self._catalog = catalog
        self._model = model
        self._report = report
        self._batch: list[ReadFile | SkippedFile] = []
        self._last = time.monotonic()

    def take(self, result: _Result) -> None:
        if not isinstance(result, ReadFile):
            self._report.skipped.append(Skipped(result.path, result.reason))
            logger.info("skipped %s: %s", printable(result.path), result.reason)
        if not isinstance(result, Skipped):
            self._batch.append(result)
        late = time.monotonic() - self._last > BATCH_SECONDS
        if len(self._batch) >= BATCH_FILES or (self._batch and late):
            self.commit()

    def commit(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            for outcome in self._catalog.record(self._model, batch, gone=gone):
                self._count(outcome)
        self._last = time.monotonic()

    def _count(self, outcome: Outcome | None) -> None:
        match outcome:
            case "added":
                self._report.added += 1
            case "copy":
                self._report.copies += 1
            case "moved":
                self._report.moved += 1
            case "changed":
                self._report.changed += 1
            case "embedded":
                self._report.embedded += 1
            case "unchanged":
                self._report.unchanged += 1
