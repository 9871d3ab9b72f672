"""`python -m benchmarks.search`: what a query costs, over HTTP, on the command line, with filters.

Five measurements: a warm query over `http`, many `clients` at once, queries during an `ingest`, a
`cold` query as a process beside rclip and clip-retrieval's way of searching, and `filters`. See
README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import (
    photographs,
    search_clients,
    search_cold,
    search_filters,
    search_http,
    search_ingest,
    search_library,
)
from benchmarks.common import ROOT, BenchmarkError, cache_folder, machine, say
from benchmarks.table import Row, table
from searchlib.errors import SearchlibError

BUSY = 0.25
"""Of the cores: a load average above that before the first measurement is said in the notes."""

Measured = tuple[list[Row], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        photographs: of 12 MP and of 500 px that are asked with.
        http_rounds: over the photographs of 12 MP.
        seconds: of each turn of one client or all.
        client_rounds: of one client and all.
        files: taken in while queries come.
        idle: seconds of queries before an ingest, of each kind.
        window: seconds of each turn during an ingest.
        ingest_rounds: of queries of each kind and of none.
        cold_rounds: of queries as a process.
        filter_queries: of each filter, first and repeated.
    """

    photographs: int
    http_rounds: int
    seconds: float
    client_rounds: int
    files: int
    idle: float
    window: float
    ingest_rounds: int
    cold_rounds: int
    filter_queries: int


USUAL = Sizes(40, 3, 20.0, 2, 15_000, 30.0, 20.0, 2, 9, 60)
QUICK = Sizes(4, 1, 3.0, 1, 1500, 3.0, 5.0, 1, 2, 8)
_NEW_PHOTOGRAPHS = 200


class Bench:
    """The measurements, and what they share: a library, and photographs that are not in it."""

    def __init__(self, options: argparse.Namespace, on: ExitStack, notes: list[str]) -> None:
        self._cache = cache_folder(options.cache)
        self._origin = photographs.source(options.data)
        self._sizes = QUICK if options.quick else USUAL
        self._size: int = options.size
        self._large: int | None = options.filters_at
        self._rclip: Path | None = options.rclip
        self._notes = notes
        scratch = tempfile.TemporaryDirectory(prefix="search-", dir=self._cache)
        self._scratch = Path(on.enter_context(scratch))

    def http(self) -> Measured:
        """A warm query over HTTP, and its parts alone."""
        log, rounds = self._scratch / "http.log", self._sizes.http_rounds
        return search_http.measure(self._served("http"), log, self._asked["12-MP"], rounds)

    def clients(self) -> Measured:
        """One client and many."""
        return search_clients.measure(
            self._served("clients"),
            self._scratch / "clients.log",
            self._asked,
            seconds=self._sizes.seconds,
            rounds=self._sizes.client_rounds,
        )

    def ingest(self) -> Measured:
        """Queries while photographs are taken in."""
        sizes = self._sizes
        new = photographs.files(self._cache, self._origin, "new", "500px", _NEW_PHOTOGRAPHS)
        return search_ingest.measure(
            self._library,
            self._cache,
            new,
            self._asked,
            files=sizes.files,
            idle=sizes.idle,
            window=sizes.window,
            rounds=sizes.ingest_rounds,
        )

    def cold(self) -> Measured:
        """Queries as processes."""
        return search_cold.measure(
            self._library,
            self._cache,
            self._asked["12-MP"],
            rounds=self._sizes.cold_rounds,
            venv=self._rclip,
            notes=self._notes,
        )

    def filters(self) -> Measured:
        """Queries with filters and without."""
        rows, raw = [], {}
        for size in filter(None, (self._size, self._large)):
            library = search_library.library(self._cache, self._origin, size)
            more, raw[str(size)] = search_filters.measure(
                library, self._origin, self._scratch, self._sizes.filter_queries
            )
            rows += more
        return rows, raw

    @cached_property
    def _library(self) -> search_library.SearchLibrary:
        return search_library.library(self._cache, self._origin, self._size)

    @cached_property
    def _asked(self) -> dict[str, Path]:
        kinds: dict[str, photographs.Kind] = {"12-MP": "12mp", "500-px": "500px"}
        count = self._sizes.photographs
        return {
            name: photographs.files(self._cache, self._origin, "ask", kind, count)
            for name, kind in kinds.items()
        }

    def _served(self, name: str) -> Path:
        # A server may write to its library.
        return self._library.copy(self._scratch / name)


MEASUREMENTS: dict[str, Callable[[Bench], Measured]] = {
    "http": Bench.http,
    "clients": Bench.clients,
    "ingest": Bench.ingest,
    "cold": Bench.cold,
    "filters": Bench.filters,
}


def main() -> int:
    """Run it all."""
    options = _options()
    raw: dict[str, Any] = {
        "machine": machine(),
        "options": {name: str(value) for name, value in vars(options).items()},
    }
    notes, rows = _notes(options), []
    failed = False
    with ExitStack() as on:
        bench = Bench(options, on, notes)
        for name in options.only:
            say(name)
            try:
                more, raw[name] = MEASUREMENTS[name](bench)
            except (SearchlibError, BenchmarkError) as error:
                # The others are worth their time all the same.
                say(f"benchmarks: {name}: {error}")
                notes.append(f"{name} could not be measured: {error}")
                failed = True
                continue
            rows += more
    raw["machine"]["load_average_at_end"] = os.getloadavg()
    raw["notes"] = notes
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    facts = raw["machine"]
    print(f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, {facts['date']}")
    print(f"\n{table(rows)}\n")
    for note in notes:
        print(f"- {note}")
    say(f"all figures: {options.out}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search",
        description="What a query costs, over HTTP, on the command line, with filters.",
    )
    parser.add_argument("--size", type=int, default=100_000, help="of the library (100000)")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(MEASUREMENTS),
        metavar="NAME[,NAME]...",
        help=f"of {', '.join(MEASUREMENTS)}",
    )
    parser.add_argument(
        "--filters-at", type=int, metavar="SIZE", help="measure filters at another size as well"
    )
    parser.add_argument("--rclip", type=Path, metavar="VENV", help="an environment with rclip 3.3")
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument("--data", type=Path, help="a folder of photographs to make the files from")
    parser.add_argument("--cache", type=Path, help="where files and libraries are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search.json")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"--only: there is no measurement {unknown[0]!r}")
    return options


def _notes(options: argparse.Namespace) -> list[str]:
    notes = [
        f"A library of {options.size:,} images: vectors of real photographs, repeated with noise, "
        "and files that are recorded but are not on the disk. Nothing that is asked with is in it, "
        "and no two uploads have the same bytes.",
        "Server and clients share the processors of one machine. In brackets: what share of the "
        "peer's time or memory searchlib takes.",
    ]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        notes.insert(0, f"The machine was busy before it began: load {load:.1f} on {cores} cores.")
    if options.quick:
        notes.insert(0, "--quick: too little was measured for these figures to mean anything.")
    return notes


if __name__ == "__main__":
    sys.exit(main())
