"""Image similarity search that runs beside an app or a photo library.

    import searchlib

    with searchlib.open_library("my-library") as library:
        library.add("Photos")
        for match in library.search("photo.jpg", k=10):
            print(match.score, match.path)

What is named here is public; the rest is not. The errors are drawn in `searchlib.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from searchlib import errors
from searchlib.errors import SearchlibError

if TYPE_CHECKING:
    from searchlib.catalog import Failure, FolderRecord, Heartbeat
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
    from searchlib.search import Match
    from searchlib.status import Status

__all__ = [
    "Adding",
    "Drift",
    "ExportReport",
    "Failure",
    "FetchPolicy",
    "FileResult",
    "FolderRecord",
    "Heartbeat",
    "ImageEmbeddings",
    "ImageEncoder",
    "ImportReport",
    "Library",
    "Match",
    "ModelChange",
    "Progress",
    "Report",
    "SearchlibError",
    "Skipped",
    "Status",
    "TextEmbeddings",
    "VectorProgress",
    "WatchEvent",
    "errors",
    "open_library",
]

# Imported when first asked for: what stands behind them takes half a second.
_HOMES = {
    "Adding": "searchlib.ingest",
    "Drift": "searchlib.exchange",
    "ExportReport": "searchlib.exchange",
    "Failure": "searchlib.catalog",
    "FetchPolicy": "searchlib.images",
    "FileResult": "searchlib.ingest",
    "FolderRecord": "searchlib.catalog",
    "Heartbeat": "searchlib.catalog",
    "ImageEmbeddings": "searchlib.embeddings",
    "ImageEncoder": "searchlib.encoder",
    "ImportReport": "searchlib.exchange",
    "Library": "searchlib.library",
    "Match": "searchlib.search",
    "ModelChange": "searchlib.ingest",
    "Progress": "searchlib.ingest",
    "Report": "searchlib.ingest",
    "Skipped": "searchlib.ingest",
    "Status": "searchlib.status",
    "TextEmbeddings": "searchlib.embeddings",
    "VectorProgress": "searchlib.exchange",
    "WatchEvent": "searchlib.ingest",
    "open_library": "searchlib.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
