"""Warm queries: a process that opens a library and asks it one picture after the other.

    python -m benchmarks.warm LIBRARY FOLDER

Prints JSON: for each picture of the folder the milliseconds of the vector (read, look up the
digest, decode, resize, encoder) and of the search (index, and the records of what it found).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from searchlib import open_library

K = 10
_WARM_UP = 5


def main() -> None:
    """Measure."""
    library, folder = map(Path, sys.argv[1:])
    pictures = sorted(folder.iterdir())
    encode, search = [], []
    with open_library(library, create=False, background=False) as opened:
        for number, path in enumerate([*pictures[:_WARM_UP], *pictures]):
            found = opened.search(path, k=K)
            if len(found) != K:
                raise SystemExit(f"{library}: {len(found)} matches for {path}, not {K}")
            if number >= _WARM_UP:
                spent = found.timings
                encode.append((spent.decode + spent.encode) * 1000)
                search.append((spent.total - spent.decode - spent.encode) * 1000)
    print(json.dumps({"encode_ms": encode, "search_ms": search}))


if __name__ == "__main__":
    main()
