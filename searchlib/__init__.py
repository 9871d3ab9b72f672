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
    from searchlib.encoder import ImageEncoder
    from searchlib.ingest import Progress, Report, Skipped
    from searchlib.library import Library, Status, open_library
    from searchlib.search import Match

__all__ = [
    "ImageEncoder",
    "Library",
    "Match",
    "Progress",
    "Report",
    "SearchlibError",
    "Skipped",
    "Status",
    "errors",
    "open_library",
]

# Imported when first asked for: what stands behind them takes half a second.
_HOMES = {
    "ImageEncoder": "searchlib.encoder",
    "Library": "searchlib.library",
    "Match": "searchlib.search",
    "Progress": "searchlib.ingest",
    "Report": "searchlib.ingest",
    "Skipped": "searchlib.ingest",
    "Status": "searchlib.library",
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
