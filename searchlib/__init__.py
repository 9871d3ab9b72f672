"""Image similarity search that runs beside an app or a photo library.

    import searchlib

    with searchlib.open_library("my-library") as library:
        library.add("Photos")
        for match in library.search("photo.jpg", k=10):
            print(match.score, match.path)

What is named here is public; the rest is not. The errors are drawn in `searchlib.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchlib import errors
from searchlib.errors import SearchlibError
from searchlib.lazily import lazily

if TYPE_CHECKING:
    from searchlib.catalog import Failure, FolderRecord, Heartbeat, ImageRecord
    from searchlib.client import Client
    from searchlib.embeddings import ImageEmbeddings, TextEmbeddings
    from searchlib.encoder import ImageEncoder
    from searchlib.exchange import Drift, ExportReport, ImportReport, VectorProgress
    from searchlib.images import FetchPolicy
    from searchlib.ingest import (
        Adding,
        FileResult,
        ModelChange,
        Progress,
        Report,
        Skipped,
        WatchEvent,
    )
    from searchlib.library import Library, open_library
    from searchlib.search import (
        Background,
        Contribution,
        Match,
        Question,
        Results,
        Term,
        Threshold,
        Timings,
    )
    from searchlib.status import Status

__all__ = [
    "Adding",
    "Background",
    "Client",
    "Contribution",
    "Drift",
    "ExportReport",
    "Failure",
    "FetchPolicy",
    "FileResult",
    "FolderRecord",
    "Heartbeat",
    "ImageEmbeddings",
    "ImageEncoder",
    "ImageRecord",
    "ImportReport",
    "Library",
    "Match",
    "ModelChange",
    "Progress",
    "Question",
    "Report",
    "Results",
    "SearchlibError",
    "Skipped",
    "Status",
    "Term",
    "TextEmbeddings",
    "Threshold",
    "Timings",
    "VectorProgress",
    "WatchEvent",
    "errors",
    "open_library",
]

# Imported when first asked for: what stands behind them takes half a second.
_HOMES = {
    "Adding": "searchlib.ingest",
    "Background": "searchlib.search",
    "Client": "searchlib.client",
    "Contribution": "searchlib.search",
    "Drift": "searchlib.exchange",
    "ExportReport": "searchlib.exchange",
    "Failure": "searchlib.catalog",
    "FetchPolicy": "searchlib.images",
    "FileResult": "searchlib.ingest",
    "FolderRecord": "searchlib.catalog",
    "Heartbeat": "searchlib.catalog",
    "ImageEmbeddings": "searchlib.embeddings",
    "ImageEncoder": "searchlib.encoder",
    "ImageRecord": "searchlib.catalog",
    "ImportReport": "searchlib.exchange",
    "Library": "searchlib.library",
    "Match": "searchlib.search",
    "ModelChange": "searchlib.ingest",
    "Progress": "searchlib.ingest",
    "Question": "searchlib.search",
    "Report": "searchlib.ingest",
    "Results": "searchlib.search",
    "Skipped": "searchlib.ingest",
    "Status": "searchlib.status",
    "Term": "searchlib.search",
    "TextEmbeddings": "searchlib.embeddings",
    "Threshold": "searchlib.search",
    "Timings": "searchlib.search",
    "VectorProgress": "searchlib.exchange",
    "WatchEvent": "searchlib.ingest",
    "open_library": "searchlib.library",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
