"""`python -m benchmarks.embeddings`: how soon, how much memory, and whether threads stay apart.

Of each model: a process from its start to its first vector, with its peak memory, and 2,000 calls
of `forward` from eight threads, whose vectors are compared with those of one thread bit by bit.
See README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import photographs
from benchmarks.common import ROOT, BenchmarkError, machine, median, megabytes, run, say
from benchmarks.table import markdown
from searchlib import ImageEmbeddings, SearchlibError
from searchlib.encoder import BUILT_IN

CALLS = 2000
THREADS = 8
STARTS = 7

_FIRST_VECTOR = """
import os, sys
from searchlib import ImageEmbeddings
ImageEmbeddings(sys.argv[1]).forward(sys.argv[2])
assert "torch" not in sys.modules, "torch was imported"
try:
    pages = int(open("/proc/self/statm").read().split()[1])
except OSError:
    pages = 0
print(pages * os.sysconf("SC_PAGE_SIZE"))
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a model.

    Attributes:
        start_seconds: of each process from its start to its end, with one vector made.
        start_resident_bytes: the most memory that any of them had at that moment; 0 where the
            system does not tell.
        start_peak_bytes: the most memory that any of them had at once.
        calls: of `forward` from several threads.
        wrong: vectors among them that were not bitwise those of one thread.
        calls_per_second: of these.
        grown_bytes: by how much resident memory was larger at the end than after a tenth of them.
    """

    start_seconds: list[float]
    start_resident_bytes: int
    start_peak_bytes: int
    calls: int
    wrong: int
    calls_per_second: float
    grown_bytes: int


def main() -> int:
    """Run it all."""
    options = _options()
    lines = [
        [
            "model",
            "first vector, s",
            "MB then",
            "peak MB",
            "calls",
            "wrong",
            "calls/s",
            "memory grown, MB",
        ]
    ]
    raw = {}
    try:
        pictures = _pictures()
        for source in options.models:
            say(f"{source}")
            figures = _measure(source, pictures, quick=options.quick)
            raw[source] = asdict(figures)
            lines.append(
                [
                    source if "/" not in source else Path(source).parent.name,
                    f"{median(figures.start_seconds):.2f}",
                    f"{megabytes(figures.start_resident_bytes):.0f}",
                    f"{megabytes(figures.start_peak_bytes):.0f}",
                    str(figures.calls),
                    str(figures.wrong),
                    f"{figures.calls_per_second:.1f}",
                    f"{megabytes(figures.grown_bytes):.1f}",
                ]
            )
    except (SearchlibError, BenchmarkError) as error:
        say(f"benchmarks: {error}")
        return 1
    print(markdown(lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), "models": raw}, indent=1)
    options.out.write_text(text + "\n", encoding="utf-8")
    say(f"all figures: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.embeddings", description="Start, memory and threads of encoders."
    )
    parser.add_argument(
        "--models", nargs="+", default=[BUILT_IN], help="names, cards or .pte files"
    )
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "embeddings.json"
    )
    return parser.parse_args()


def _pictures() -> list[bytes]:
    """The first edited photographs of 500 pixels, as JPEGs."""
    with tempfile.TemporaryDirectory() as folder:
        made = photographs.files(Path(folder), photographs.source(None), "embeddings", "500px", 10)
        return [path.read_bytes() for path in sorted(made.iterdir())]


def _measure(source: str, pictures: Sequence[bytes], *, quick: bool) -> Figures:
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(pictures[0])
        file.flush()
        command = [sys.executable, "-c", _FIRST_VECTOR, source, file.name]
        runs = [run(command) for _ in range(1 + (1 if quick else STARTS))][1:]
    model = ImageEmbeddings(source)
    alone = [model.forward(picture) for picture in pictures]

    def right(number: int) -> bool:
        vector = model.forward(pictures[number % len(pictures)])
        return np.array_equal(vector, alone[number % len(pictures)])

    calls = CALLS // 20 if quick else CALLS
    with ThreadPoolExecutor(THREADS) as pool:
        first = list(pool.map(right, range(calls // 10)))
        before = _resident()
        start = time.perf_counter()
        rest = list(pool.map(right, range(calls // 10, calls)))
        seconds = time.perf_counter() - start
        grown = _resident() - before
    return Figures(
        start_seconds=[each.seconds for each in runs],
        start_resident_bytes=max(int(each.stdout) for each in runs),
        start_peak_bytes=max(each.peak_bytes for each in runs),
        calls=calls,
        wrong=[*first, *rest].count(False),
        calls_per_second=len(rest) / seconds,
        grown_bytes=grown,
    )


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    gc.collect()
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
