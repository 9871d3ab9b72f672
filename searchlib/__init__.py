"""Image similarity search that runs beside an app or a photo library.

    import searchlib

    with searchlib.open_library("my-library") as library:
        library.add("Photos")
        for match in library.search("photo.jpg", k=10):
            print(match.score, match.path)

What is named here is public; the rest is not. The errors are drawn in `searchlib.errors`.
"""

from searchlib import errors
from searchlib.encoder import ImageEncoder
from searchlib.errors import SearchlibError
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
