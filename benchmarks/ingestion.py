"""`python -m benchmarks.ingestion`: what taking in, watching and starting again cost.

Six measurements: `restart` on a large unchanged folder, `throughput` from files of 12 MP to the
library, `memory` of a small and a large ingest, `latency` from a new file to the search that finds
it, a `storm` of new files, and `polling` as watchdog does it. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import ingest, photographs
from benchmarks.common import (
    ROOT,
    BenchmarkError,
    Run,
    cache_folder,
    machine,
    median,
    megabytes,
    percentile,
    run,
    say,
    searchlib_command,
)
from benchmarks.ingestion_stages import (
    contents,
    known_library,
    save_crops,
    stage,
    write_files,
)
from benchmarks.ingestion_throughput import throughput
from benchmarks.ingestion_watch import STORM_FOLDERS, latency, restarted, storm
from benchmarks.table import Row, table
from searchlib.errors import SearchlibError

MOST_RESTART_SECONDS = 10.0
MOST_GROWN = 1.2
MOST_BEYOND_SETTLE = 0.5
BUSY = 0.25
"""Of the cores: a load average above that before the first measurement is said in the notes."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        known: files of the restart.
        large, warm: files of 12 MP, and how many before the clock starts.
        few, many: small files of the two ingests.
        events: new files, one after the other.
        storm: new files at once.
        rounds: of restart and throughput.
    """

    known: int
    large: int
    warm: int
    few: int
    many: int
    events: int
    storm: int
    rounds: int


USUAL = Sizes(200_000, 240, 8, 1000, 20_000, 100, 20_000, 3)
FULL = Sizes(200_000, 240, 8, 1000, 100_000, 100, 100_000, 3)
QUICK = Sizes(2000, 8, 2, 40, 80, 4, 200, 1)
_LARGE_FILES = 60


class Bench:
    """The measurements, and what they share: photographs, small files, a library that is known."""

    def __init__(self, cache: Path, origin: photographs.Source, sizes: Sizes, on: ExitStack):
        self._cache = cache
        self._origin = origin
        self._sizes = sizes
        self._on = on

    def restart(self) -> tuple[list[Row], dict[str, Any]]:
        """Start on files all of which the library knows and none of which was touched."""
        folder, library = self._known
        runs: dict[str, list[Run]] = {"add": [], "watch --once": []}
        starts: list[tuple[float, int]] = []
        for number in range(self._sizes.rounds):
            for name in runs:
                done = _unchanged(name.split(), folder, library, self._sizes.known)
                runs[name].append(done)
                say(f"  round {number + 1}: searchlib {name} {done.seconds:.1f} s")
            starts.append(restarted(folder, library))
            say(f"  round {number + 1}: searchlib watch, idle after {starts[-1][0]:.1f} s")
        parts = {name: stage(name, library, folder) for name in ("walk", "pages", "compare")}
        what = f"start on {self._sizes.known:,} unchanged files"
        rows = [
            _seconds_row(f"{what}: searchlib {name}, s", [each.seconds for each in each_run])
            for name, each_run in runs.items()
        ]
        until_idle = [seconds for seconds, _ in starts]
        rows.append(_seconds_row(f"{what}: searchlib watch until idle, s", until_idle))
        for name, each_run in runs.items():
            cpu = median([each.cpu_seconds for each in each_run])
            peak = megabytes(max(each.peak_bytes for each in each_run))
            took = f"{cpu:.1f} / {peak:.0f}"
            rows.append(Row(f"{what}: searchlib {name}, CPU s / peak MB", took))
        peak = megabytes(max(each[1] for each in starts))
        rows.append(Row(f"{what}: searchlib watch, peak MB", f"{peak:.0f}"))
        best = [parts[name]["seconds"] for name in ("walk", "pages")]
        best.append(median([each["seconds"] for each in parts["compare"]["rounds"]]))
        words = " / ".join(f"{seconds:.1f}" for seconds in best)
        rows.append(Row("of that: folders alone / catalog alone / both compared, s", words))
        return rows, {
            "files": self._sizes.known,
            "runs": {name: [ingest.figures(each) for each in done] for name, done in runs.items()},
            "watch_until_idle": [{"seconds": each[0], "peak_bytes": each[1]} for each in starts],
            "parts": parts,
        }

    def throughput(self) -> tuple[list[Row], dict[str, Any]]:
        """Files of 12 MP decoded only, embedded only, and added, by as many threads."""
        scratch = self._scratch("throughput")
        jpegs = contents(
            photographs.files(self._cache, self._origin, "add", "12mp", self._large_files)
        )
        sizes = self._sizes
        return throughput(scratch, jpegs, warm=sizes.warm, large=sizes.large, rounds=sizes.rounds)

    def memory(self) -> tuple[list[Row], dict[str, Any]]:
        """The peak of a small ingest and of a large one."""
        peaks, rows, raw = [], [], {}
        for count in (self._sizes.few, self._sizes.many):
            with tempfile.TemporaryDirectory(dir=self._cache) as scratch:
                folder = Path(scratch) / "files"
                folders = max(1, count // 500)
                for _ in write_files(folder, contents(self._crops), count, folders):
                    pass
                done = ingest.add(folder, Path(scratch) / "library", expected=count)
            say(f"  {count:,} files: {megabytes(done.peak_bytes):.0f} MB, {done.seconds:.0f} s")
            peaks.append(done.peak_bytes)
            took = f"{megabytes(done.peak_bytes):.0f} / {count / done.seconds:.1f}"
            rows.append(Row(f"add {count:,} small JPEGs, peak MB / images/s", took))
            raw[str(count)] = ingest.figures(done)
        grown = peaks[1] / peaks[0]
        words = f"peak MB of {self._sizes.many:,} over that of {self._sizes.few:,}"
        rows.append(Row(words, f"{grown:.2f}", {}, f"<= {MOST_GROWN}", grown <= MOST_GROWN))
        return rows, raw

    def latency(self) -> tuple[list[Row], dict[str, Any]]:
        """From the close of a new file to the search that finds it."""
        given = photographs.files(
            self._cache, self._origin, "new", "500px", max(200, self._sizes.events + 1)
        )
        measured = latency(given, self._scratch("latency"), self._sizes.events)
        beyond = percentile(measured.seconds, 95) - measured.settle
        three = [percentile(measured.seconds, share) for share in (50, 95, 100)]
        rows = [
            Row(
                f"{len(measured.seconds)} new files, closed to found, p50 / p95 / max s",
                " / ".join(f"{seconds:.2f}" for seconds in three),
            ),
            Row(
                f"the same, p95 beyond the {measured.settle:.0f} s that a file stands still, s",
                f"{beyond:.2f}",
                {},
                f"<= {MOST_BEYOND_SETTLE}",
                beyond <= MOST_BEYOND_SETTLE,
            ),
        ]
        return rows, asdict(measured)

    def storm(self) -> tuple[list[Row], dict[str, Any]]:
        """Many files at once, from another process."""
        measured = storm(self._crops, self._scratch("storm"), self._sizes.storm)
        what = f"{measured.files:,} files at once into {STORM_FOLDERS} folders"
        written = measured.files / measured.write_seconds
        wrong = (measured.lost, measured.twice)
        rows = [
            Row(f"{what}: written, files/s", f"{written:.0f}"),
            Row(f"{what}: first file to idle, s", f"{measured.seconds:.1f}"),
            Row(f"{what}: taken in, files/s", f"{measured.files / measured.seconds:.1f}"),
            Row(f"{what}: lost / twice", f"{wrong[0]} / {wrong[1]}", {}, "0 / 0", wrong == (0, 0)),
            Row(f"{what}: overflows of the event queue", str(measured.overflows)),
            Row(f"{what}: peak MB of the watcher", f"{megabytes(measured.peak_bytes):.0f}"),
        ]
        return rows, asdict(measured)

    def polling(self) -> tuple[list[Row], dict[str, Any]]:
        """A round of watchdog's PollingObserver and a comparison with the catalog."""
        folder, library = self._known
        ours, theirs = stage("compare", library, folder), stage("poll", library, folder)
        peer = "PollingObserver"
        mine, other = (
            (
                median([each["seconds"] for each in figures["rounds"]]),
                megabytes(figures["resident"] - figures["resident_before"]),
                megabytes(figures["peak_bytes"] - figures["resident_before"]),
            )
            for figures in (ours, theirs)
        )
        what = f"look for changes in {self._sizes.known:,} files"
        rows = [
            Row(f"{what}, s a round", f"{mine[0]:.1f}", {peer: f"{other[0]:.1f}"}),
            Row(f"{what}, MB kept between rounds", f"{mine[1]:.0f}", {peer: f"{other[1]:.0f}"}),
            Row(f"{what}, MB at most", f"{mine[2]:.0f}", {peer: f"{other[2]:.0f}"}),
        ]
        return rows, {"comparison": ours, "polling_observer": theirs}

    @property
    def _large_files(self) -> int:
        return min(_LARGE_FILES, self._sizes.large)

    def _scratch(self, name: str) -> Path:
        folder = tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self._cache)
        return Path(self._on.enter_context(folder))

    @cached_property
    def _crops(self) -> Path:
        say("making small pictures")
        return save_crops(self._scratch("crops") / "crops", self._origin)

    @cached_property
    def _known(self) -> tuple[Path, Path]:
        """A folder of files, and a library that knows all of them."""
        say(f"writing {self._sizes.known:,} files and a library that knows them")
        return known_library(self._scratch("known"), contents(self._crops), self._sizes.known)


MEASUREMENTS: dict[str, Callable[[Bench], tuple[list[Row], dict[str, Any]]]] = {
    "restart": Bench.restart,
    "throughput": Bench.throughput,
    "memory": Bench.memory,
    "latency": Bench.latency,
    "storm": Bench.storm,
    "polling": Bench.polling,
}


def main() -> int:
    """Run it all."""
    options = _options()
    raw: dict[str, Any] = {
        "machine": machine(),
        "options": {name: str(value) for name, value in vars(options).items()},
    }
    notes, rows = _notes(options), []
    try:
        with ExitStack() as on:
            sizes = QUICK if options.quick else FULL if options.full else USUAL
            origin = photographs.source(options.data)
            bench = Bench(cache_folder(options.cache), origin, sizes, on)
            for name in options.only:
                say(name)
                more, raw[name] = MEASUREMENTS[name](bench)
                rows += more
    except (SearchlibError, BenchmarkError) as error:
        say(f"benchmarks: {error}")
        return 1
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
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ingestion",
        description="What taking in, watching and starting again cost.",
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS), metavar="NAME"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="100,000 images; takes an hour")
    size.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument("--data", type=Path, help="a folder of photographs to make the files from")
    parser.add_argument("--cache", type=Path, help="where files and libraries are kept")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "ingestion.json"
    )
    return parser.parse_args()


def _notes(options: argparse.Namespace) -> list[str]:
    notes = [
        "All files are in the page cache. Peak memory is that of the whole process, mapped files "
        "included; MB are 10^6 bytes. Seconds of a process include its start.",
        "Both on the same processors: 1 / (1 / decode + 1 / embed). Where decoding and embedding "
        "each keep all processors busy, nothing that does both can be faster than that, and the "
        "slower of the two is out of reach.",
    ]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        notes.insert(0, f"The machine was busy before it began: load {load:.1f} on {cores} cores.")
    if options.quick:
        notes.insert(0, "--quick: too little was measured for these figures to mean anything.")
    return notes


def _unchanged(words: Sequence[str], folder: Path, library: Path, expected: int) -> Run:
    """A command on a folder in which nothing has changed.

    Raises:
        BenchmarkError: it saw anything else than `expected` unchanged files.
    """
    name, *options = words
    command: list[str | Path] = [*searchlib_command(), name, folder, *options]
    done = run([*command, "--library", library, "--json" if name == "watch" else "--jsonl"])
    unchanged = json.loads(done.stdout.splitlines()[-1])["unchanged"]
    if unchanged != expected:
        raise BenchmarkError(f"searchlib {name} saw {unchanged} of {expected} unchanged files")
    return done


def _seconds_row(what: str, seconds: Sequence[float]) -> Row:
    middle = median(seconds)
    target = f"<= {MOST_RESTART_SECONDS:.0f}"
    return Row(what, f"{middle:.1f}", {}, target, middle <= MOST_RESTART_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
