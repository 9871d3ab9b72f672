"""Writes docs/reference.md and docs/http-reference.md from the code.

    python docs/generate.py [--check]

The Python reference holds what `searchlib.__all__` names, and the types that these take and give;
its words are those of the docstrings. The HTTP reference is the server's OpenAPI document (extra
`server`). With --check nothing is written, and it ends with 1 where a file is not what the code
says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
if str(FOLDER.parent) not in sys.path:
    sys.path.insert(0, str(FOLDER.parent))

# Found where the lines above say, and nowhere before.
from docs.http_reference import http_reference  # noqa: E402
from docs.python_reference import python_reference  # noqa: E402

PAGES: dict[str, Callable[[], str]] = {
    "reference.md": python_reference,
    "http-reference.md": http_reference,
}


def main(arguments: Sequence[str] | None = None, *, folder: Path = FOLDER) -> int:
    """Writes or checks the pages in a folder; gives the exit code."""
    parser = argparse.ArgumentParser(description="Write the references from the code.")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args(arguments)
    stale = 0
    for name, make in PAGES.items():
        page, path = make(), folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == page:
            continue
        if options.check:
            stale = 1
            sys.stderr.write(f"{path}: is not what the code says; run python docs/generate.py\n")
        else:
            path.write_text(page, encoding="utf-8")
            sys.stderr.write(f"{path}: written\n")
    return stale


if __name__ == "__main__":
    sys.exit(main())
