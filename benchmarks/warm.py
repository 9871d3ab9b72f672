"""Warm queries: a process that opens a library and asks it one picture after the other.

    python -m benchmarks.warm LIBRARY FOLDER

Prints JSON: for each picture of the folder the milliseconds of the vector (read, look up the
digest, decode, resize, encoder) and of the search (index, and the records of what it found).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from searchlib.catalog import Catalog
from searchlib.encoder import ImageEncoder
from searchlib.search import LiveIndex, nearest, query_vector

K = 10
_WARM_UP = 5


def main() -> None:
    """Measure."""
    library, folder = map(Path, sys.argv[1:])
    pictures = sorted(folder.iterdir())
    # What Library.search does, in its two halves.
    catalog = Catalog(library, create=False)
    encoder = ImageEncoder()
    model = catalog.model()
    if model is None:
        raise SystemExit(f"{library}: this library is empty")
    index = LiveIndex(catalog, model, library)
    encode, search = [], []
    for number, path in enumerate([*pictures[:_WARM_UP], *pictures]):
        start = time.perf_counter()
        if catalog.model() is None:
            raise SystemExit(f"{library}: this library is empty")
        vector = query_vector(path, catalog, encoder, model)
        embedded = time.perf_counter()
        matches = nearest(vector, catalog, index, K)
        end = time.perf_counter()
        if len(matches) != K:
            raise SystemExit(f"{library}: {len(matches)} matches for {path}, not {K}")
        if number >= _WARM_UP:
            encode.append((embedded - start) * 1000)
            search.append((end - embedded) * 1000)
    catalog.close()
    print(json.dumps({"encode_ms": encode, "search_ms": search}))


if __name__ == "__main__":
    main()
