"""A warm image query over HTTP, and what its parts take alone.

    python -m benchmarks.search_http LIBRARY FOLDER PORT ROUNDS

For each photograph of a folder, in turns: an upload to the server at PORT; `Library.search` of the
same bytes in this process; and the three steps that nobody can do without, called one by one:
`searchlib.images.load`, `ImageEncoder.embed`, and `LiveIndex.search` over every vector. Who asks
waits for the answer before anybody goes on, so that each has the machine to itself. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import median, module_command, percentile, run
from benchmarks.ingestion_stages import numbered
from benchmarks.search_load import Connection, K, Upload
from benchmarks.search_server import Serving
from benchmarks.table import Row
from searchlib import open_library
from searchlib.catalog import Catalog
from searchlib.encoder import ImageEncoder
from searchlib.images import load
from searchlib.search import LiveIndex

MOST_OF_ALONE = 1.2
STEPS = ("decode", "encode", "search")

_WARM_UP = 5


def measure(
    library: Path, log: Path, photographs: Path, rounds: int
) -> tuple[list[Row], dict[str, Any]]:
    """Start a server of a library and measure; the rows and every figure."""
    with Serving(library, log) as server:
        words = [str(library), str(photographs), str(server.port), str(rounds)]
        raw: dict[str, Any] = json.loads(run([*module_command("search_http"), *words]).stdout)
        raw["server_peak_bytes"] = server.peak_bytes()
        raw["server_ready_seconds"] = server.ready_seconds
    alone = [sum(steps) for steps in zip(*(raw[name] for name in STEPS), strict=True)]
    raw["alone"] = alone
    ratio = median(raw["http"]) / median(alone)
    raw["http_over_alone"] = ratio
    steps = " + ".join(f"{median(raw[name]):.1f}" for name in STEPS)
    what = "12-MP JPEG, warm"
    return [
        Row(f"{what}: upload over HTTP, p50 / p95 ms", _two(raw["http"])),
        Row(f"{what}: Library.search, p50 / p95 ms", _two(raw["library"])),
        Row(f"{what}: decode + encode + exact search alone, p50 ms", f"{median(alone):.1f}"),
        Row(f"{what}: of that decode + encode + search, p50 ms", steps),
        Row(
            f"{what}: HTTP over alone, p50",
            f"{ratio:.2f}",
            {},
            f"<= {MOST_OF_ALONE}",
            ratio <= MOST_OF_ALONE,
        ),
    ], raw


def _two(values: list[float]) -> str:
    return f"{median(values):.1f} / {percentile(values, 95):.1f}"


class Asker:
    """The three ways to ask; each takes a photograph's bytes and gives the milliseconds."""

    def __init__(self, library: Path, port: int) -> None:
        self.ms: dict[str, list[float]] = {"http": [], "library": [], **{s: [] for s in STEPS}}
        self._loop = asyncio.new_event_loop()
        self._connection = Connection(port)
        self._encoder = ImageEncoder()
        self._opened = open_library(library, create=False, background=False, encoder=self._encoder)
        self._catalog = Catalog(library, create=False)
        model = self._catalog.model()
        if model is None:
            raise SystemExit(f"{library}: this library is empty")
        self._index = LiveIndex(self._catalog, model, library)

    def http(self, upload: Upload, number: int) -> None:
        """Over HTTP."""
        message = upload.numbered(number)
        start = time.perf_counter()
        status, body = self._loop.run_until_complete(self._connection.ask(*message))
        self._took("http", start)
        if status != 200 or len(json.loads(body)["matches"]) != K:
            raise SystemExit(f"status {status}: {body[:200]!r}")

    def library(self, jpeg: bytes) -> None:
        """Through the Python API."""
        start = time.perf_counter()
        found = self._opened.search(jpeg, k=K)
        self._took("library", start)
        if len(found) != K:
            raise SystemExit(f"{len(found)} matches, not {K}")

    def alone(self, jpeg: bytes) -> None:
        """Step by step."""
        start = time.perf_counter()
        image = load(jpeg, min_side=self._encoder.min_side)
        start = self._took("decode", start)
        vector = self._encoder.embed(image.pixels)
        start = self._took("encode", start)
        self._index.search(vector[None], K, exact=True)
        self._took("search", start)

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self._loop.close()
        self._opened.close()
        self._catalog.close()

    def _took(self, name: str, start: float) -> float:
        now = time.perf_counter()
        self.ms[name].append(1000 * (now - start))
        return now


def main() -> None:
    """Measure."""
    library, folder, port, rounds = sys.argv[1:]
    paths = sorted(Path(folder).iterdir())
    asker = Asker(Path(library), int(port))
    turns: list[Callable[[Path, int], None]] = [
        lambda path, number: asker.http(Upload(path, int(port)), number),
        lambda path, number: asker.library(numbered(path.read_bytes(), number)),
        lambda path, number: asker.alone(numbered(path.read_bytes(), number)),
    ]
    number = time.time_ns() // 1000 % 10**9 * 1000
    for path in [*paths[:_WARM_UP], *paths * int(rounds)]:
        for turn in turns:
            # Other bytes each time, so that nobody answers from memory.
            number += 1
            turn(path, number)
        turns.reverse()
    asker.close()
    print(json.dumps({name: ms[min(_WARM_UP, len(paths)) :] for name, ms in asker.ms.items()}))


if __name__ == "__main__":
    main()
