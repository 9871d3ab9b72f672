"""Folders and files into a library, once: recover, compare, take in, look for what is gone.

    what a killed process left -> walk and compare -> spool -> intake -> absent files

An interrupted ingest loses at most what was not committed yet, and the next one finds exactly that
to be done.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from itertools import chain, count, pairwise
from pathlib import Path

from searchlib.catalog import Catalog, FolderRecord, ModelRecord
from searchlib.encoder import ImageEncoder
from searchlib.images import remove_thumbnail
from searchlib.ingest.absent import offline_words
from searchlib.ingest.compare import Comparison
from searchlib.ingest.intake import Handling, Intake
from searchlib.ingest.place import absolute
from searchlib.ingest.report import FileResult, Progress, Report
from searchlib.ingest.spool import Spool
from searchlib.ingest.working import Working, forget, left_behind

logger = logging.getLogger(__name__)

_DAY_SECONDS = 86400.0


def ingest(
    catalog: Catalog,
    encoder: ImageEncoder,
    model: ModelRecord,
    paths: Sequence[str | os.PathLike[str]],
    handling: Handling,
    *,
    retry: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Generator[FileResult, None, Report]:
    """Bring a library up to date with folders and files.

    Args:
        catalog: of the library.
        encoder: embeds what is new.
        model: the encoder's record in the catalog.
        paths: folders and files.
        handling: how files are taken in.
        retry: try untouched files again that could not be used before.
        stopped: asked between two files whether to stop.
        on_progress: called from this thread.

    Yields:
        What became of each file that had to be read, once it is committed.

    Returns:
        The report.

    Raises:
        InputError: an ignore file cannot be used.
        EncoderError: the model cannot be used at all.
        LibraryError: the catalog cannot be written, or the library changed its model meanwhile;
            what was committed stays.
    """
    started = time.monotonic()
    report = Report()
    catalog.database.require_writable()
    recover(catalog)
    roots = list(dict.fromkeys(map(absolute, paths)))
    comparison = Comparison(
        catalog,
        model,
        report,
        retry=retry,
        on_found=lambda found: on_progress(Progress("listing", found, None)),
        leave_out=own_folders(catalog),
        overlapping=_overlap(roots),
        stopped=stopped,
    )
    with Spool() as spool, closing(Working(catalog.database.folder)) as working:
        folders = _fill(spool, catalog, comparison, roots)
        on_progress(Progress("listing", comparison.found, None))
        intake = Intake(catalog, encoder, model, handling, working)
        total, done = len(spool), count(1)
        with encoder.for_throughput(handling.workers):
            for result in intake.run(
                chain.from_iterable(spool.blocks()),
                stopped=stopped,
                on_read=lambda: on_progress(
                    Progress("embedding", next(done), total, len(report.skipped))
                ),
            ):
                report.count(result)
                yield result
    report.cancelled = stopped()
    if not report.cancelled:
        # Only now: a file that was moved has its new path by this time.
        judge_absent(comparison, folders, report)
    report.seconds = time.monotonic() - started
    return report


def recover(catalog: Catalog) -> None:
    """Remember what was in the decoder when an earlier process ended."""
    for left in left_behind(catalog.database.folder):
        if left.paths:
            catalog.places.suspect(left.paths)
        forget(left)


def own_folders(catalog: Catalog) -> tuple[str, ...]:
    """The library's own folder, which may lie in a folder of pictures and has pictures in it."""
    folder = catalog.database.folder
    return absolute(folder), os.path.realpath(folder)


def judge_absent(comparison: Comparison, folders: Iterable[FolderRecord], report: Report) -> None:
    """Mark what is gone, and say which folders are not mounted."""
    report.missing, offline = comparison.absent.resolve(list(folders))
    for folder, files in offline.items():
        report.offline += files
        report.skip(folder, offline_words(files))


def purge(
    catalog: Catalog, thumbnails: Path | None, *, older_than_days: float, thorough: bool = False
) -> int:
    """Give up what is missing for longer than some days, and say how many files that were.

    Args:
        catalog: of the library.
        thumbnails: the folder of them, None for none.
        older_than_days: the grace time.
        thorough: also give up images that no file holds any more since it was edited.
    """
    before = time.time() - older_than_days * _DAY_SECONDS
    files = 0
    while (purged := catalog.places.purge(missing_before=before)).files:
        files += purged.files
        _remove_thumbnails(thumbnails, purged.digests)
    while thorough and (purged := catalog.places.purge_replaced(added_before=before)).digests:
        _remove_thumbnails(thumbnails, purged.digests)
    return files


def _remove_thumbnails(thumbnails: Path | None, digests: Iterable[bytes]) -> None:
    if thumbnails is not None:
        for digest in digests:
            remove_thumbnail(thumbnails, digest)


def _fill(
    spool: Spool,
    catalog: Catalog,
    comparison: Comparison,
    roots: Sequence[str],
) -> list[FolderRecord]:
    """Put all that has to be read into the spool; gives the folders among the paths."""
    folders = []
    for root in roots:
        if os.path.isdir(root):
            folder = catalog.folders.get(root) or catalog.folders.put(FolderRecord(root))
            folders.append(folder)
            found = comparison.whole(folder)
        else:
            gone_folder = catalog.folders.get(root)
            if gone_folder is not None:
                folders.append(gone_folder)
            found = comparison.file(root)
        spool.extend(found)
    return folders


def _overlap(roots: Sequence[str]) -> bool:
    """Whether one path is another or lies below it."""
    ends = sorted(os.path.join(root, "") for root in roots)
    # What begins with a path stands right behind it, or behind others that do.
    return any(after.startswith(before) for before, after in pairwise(ends))
