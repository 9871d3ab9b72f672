"""Queries while the same process takes in photographs as fast as it can, and what either costs.

The server watches an empty folder. First it is asked while it has nothing else to do. Then a folder
of new photographs is moved there, and in turns it is asked, at the same pace, and left alone.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import BenchmarkError, percentile, say
from benchmarks.ingestion_stages import contents, write_files
from benchmarks.search_library import SearchLibrary
from benchmarks.search_load import load
from benchmarks.search_server import Serving
from benchmarks.table import Row

EVERY_SECONDS = 0.5
MOST_SLOWER = 2.0
LEAST_RATE = 0.7

_BEFORE_SECONDS = 3.0
_LONGEST_SECONDS = 60.0
_FOLDERS = 20
_LOOK_SECONDS = 0.1


class Counting:
    """Watches the number of images of a library grow, in a thread of its own.

    Args:
        library: its folder.
    """

    def __init__(self, library: Path) -> None:
        # Ids rise and are not used again, and the highest is found at once. To ask the server would
        # take time from what is measured.
        self._database = f"file:{library / 'catalog.db'}?mode=ro"
        self._grown: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def __enter__(self) -> Counting:
        self._thread.start()
        while not self._grown:
            if not self._thread.is_alive():
                raise BenchmarkError(f"{self._database}: cannot be read")
            time.sleep(_LOOK_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def count(self) -> int:
        """How many images came since the start."""
        return self._grown[-1][1] - self._grown[0][1]

    def rate(self, since: float, until: float) -> tuple[float, int]:
        """Seconds and images between the first and the last commit of a span of monotonic time."""
        some = [each for each in self._grown if since <= each[0] <= until]
        if len(some) < 2:
            return until - since, 0
        return some[-1][0] - some[0][0], some[-1][1] - some[0][1]

    def _count(self) -> None:
        connection = sqlite3.connect(self._database, uri=True)
        while not self._ended.wait(_LOOK_SECONDS):
            (count,) = connection.execute("SELECT max(id) FROM image").fetchone()
            if not self._grown or count != self._grown[-1][1]:
                self._grown.append((time.monotonic(), count))
        connection.close()


def measure(
    library: SearchLibrary,
    cache: Path,
    new: Path,
    questions: dict[str, Path],
    *,
    files: int,
    idle: float,
    window: float,
    rounds: int,
) -> tuple[list[Row], dict[str, Any]]:
    """Latency idle and during the ingest, and the rate of the ingest with and without queries.

    Args:
        library: a copy of it is served.
        cache: where the files are written for as long as it takes.
        new: a folder of photographs; what is taken in are their bytes, each with a number in it.
        questions: folders of what is asked, by a name of its kind, in turns; the bars are those of
            the first.
        files: how many are taken in; they have to last for all windows.
        idle: seconds of queries to each kind before.
        window: seconds of each turn.
        rounds: of each kind of questions, and each time of none.
    """
    windows: list[tuple[str | None, float, int]] = []
    with _served(library, cache, new, files) as (server, counting, start):
        before = {kind: _asked(server, folder, idle) for kind, folder in questions.items()}
        start()
        begun = time.monotonic()
        while not counting.count:
            if time.monotonic() - begun > _LONGEST_SECONDS:
                raise BenchmarkError("searchlib serve --watch took nothing in for a minute")
            time.sleep(0.1)
        time.sleep(_BEFORE_SECONDS)
        during: dict[str, list[dict[str, Any]]] = {kind: [] for kind in questions}
        for _ in range(rounds):
            for kind, folder in questions.items():
                for asked in (kind, None):
                    since = time.monotonic()
                    if asked:
                        during[kind].append(_asked(server, folder, window))
                    else:
                        time.sleep(window)
                    took, images = counting.rate(since, time.monotonic())
                    windows.append((asked, took, images))
                    if counting.count >= files:
                        raise BenchmarkError(f"all {files} files were taken in before the end")
                    say(f"  {asked or 'no queries'}: {images / took:.1f} images/s")
        peak = server.peak_bytes()
    return _judged(before, during, windows, peak)


@contextmanager
def _served(
    library: SearchLibrary, cache: Path, new: Path, files: int
) -> Iterator[tuple[Serving, Counting, Callable[[], object]]]:
    with TemporaryDirectory(prefix="search-ingest-", dir=cache) as scratch:
        here = Path(scratch)
        say(f"  writing {files:,} files")
        jpegs = list(islice(cycle(contents(new)), files))
        for _ in write_files(here / "coming", jpegs, files, _FOLDERS):
            pass
        watched = here / "watched"
        watched.mkdir()
        copy = library.copy(here / "library")
        with (
            Serving(copy, here / "serve.log", "--watch", str(watched)) as server,
            Counting(copy) as counting,
        ):
            yield server, counting, lambda: (here / "coming").rename(watched / "new")


def _asked(server: Serving, folder: Path, seconds: float) -> dict[str, Any]:
    # The warm-up is of the client: its own start is no query.
    return load(server, folder, clients=1, seconds=seconds, warm=0.2, every=EVERY_SECONDS)


def _judged(
    before: dict[str, dict[str, Any]],
    during: dict[str, list[dict[str, Any]]],
    windows: list[tuple[str | None, float, int]],
    peak: int,
) -> tuple[list[Row], dict[str, Any]]:
    rows: list[Row] = []
    raw: dict[str, Any] = {"idle": before, "during": during, "every": EVERY_SECONDS}
    for place, kind in enumerate(before):
        calm = before[kind]["ms"]
        turns = during[kind]
        loaded = [ms for turn in turns for ms in turn["ms"]]
        errors = [error for turn in [before[kind], *turns] for error in turn["errors"]]
        if errors or not calm or not loaded:
            raise BenchmarkError(f"queries during an ingest: {(errors or ['no answers'])[0]}")
        slower = percentile(loaded, 95) / percentile(calm, 95)
        what = f"{kind} uploads, one each {EVERY_SECONDS:g} s"
        bar, met = (f"<= {MOST_SLOWER:.0f}", slower <= MOST_SLOWER) if place == 0 else ("", None)
        rows += [
            Row(f"{what}: idle, p50 / p95 ms", _two(calm)),
            Row(f"{what}: during an ingest, p50 / p95 ms", _two(loaded)),
            Row(f"{what}: p95 during an ingest over idle", f"{slower:.2f}", {}, bar, met),
        ]
        raw[f"{kind} p95_over_idle"] = slower
    alone = _rate(windows, None)
    what = "ingest of 500-px JPEGs"
    rows.append(Row(f"{what} without queries, images/s", f"{alone:.1f}"))
    for place, kind in enumerate(before):
        share = _rate(windows, kind) / alone if alone else 0.0
        bar, met = (f">= {LEAST_RATE}", share >= LEAST_RATE) if place == 0 else ("", None)
        words = f"{what} with {kind} queries, images/s"
        rows.append(Row(words, f"{_rate(windows, kind):.1f}"))
        rows.append(Row(f"{words}, over without", f"{share:.2f}", {}, bar, met))
        raw[f"{kind} rate_share"] = share
    raw["windows"] = [
        {"queries": kind, "seconds": seconds, "images": count} for kind, seconds, count in windows
    ]
    raw["server_peak_bytes"] = peak
    return rows, raw


def _rate(windows: list[tuple[str | None, float, int]], kind: str | None) -> float:
    some = [each for each in windows if each[0] == kind]
    return sum(each[2] for each in some) / max(sum(each[1] for each in some), 1e-9)


def _two(values: list[float]) -> str:
    return f"{percentile(values, 50):.0f} / {percentile(values, 95):.0f}"
