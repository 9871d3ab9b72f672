"""Vectors of a library to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from searchlib.catalog import Catalog, ModelRecord, StoredBlock
from searchlib.exchange.formats import write_vectors
from searchlib.exchange.model import Target
from searchlib.exchange.report import ExportReport, VectorProgress
from searchlib.exchange.rows import Header, OutBlock


def export_vectors(
    catalog: Catalog,
    model: ModelRecord | None,
    target: Target,
    path: Path,
    *,
    include_missing: bool = False,
    on_progress: Callable[[VectorProgress], None] | None = None,
) -> ExportReport:
    """Write the vectors of a model as they stand at one moment.

    Args:
        catalog: of the library.
        model: whose vectors; None in a library that has none yet.
        target: the same model for the header, also where there is no vector.
        path: of the file; its end tells the format.
        include_missing: also those whose image has no file in place; they have no paths.
        on_progress: called from this thread.

    Raises:
        VectorFileError: the file cannot be written; what was there stays.
        LibraryError: the catalog cannot be read.
    """
    started = time.monotonic()
    tell = on_progress or (lambda _: None)
    with catalog.stored_vectors(model, include_missing=include_missing) as stored:

        def blocks() -> Iterator[OutBlock]:
            done = 0
            tell(VectorProgress("exporting", done, stored.count))
            for block in stored.blocks:
                yield _out(block)
                done += len(block.digests)
                tell(VectorProgress("exporting", done, stored.count))

        header = Header(target.name, target.identity, target.dimension, stored.count)
        files = write_vectors(path, header, blocks())
    return ExportReport(
        files=files,
        model=target.name,
        identity=target.identity,
        dimension=target.dimension,
        count=stored.count,
        left_out=stored.left_out,
        bytes=sum(file.stat().st_size for file in files),
        seconds=time.monotonic() - started,
    )


def _out(block: StoredBlock) -> OutBlock:
    return OutBlock([digest.hex() for digest in block.digests], block.paths, block.vectors)
