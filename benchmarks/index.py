"""`python -m benchmarks.index`: what the index costs, beside FAISS, numpy, hnswlib and usearch.

Six measurements: `speed` of every recipe and peer at each size, `memory` of a process that opens
the largest index, `streaming` of single additions, `checkpoint` beside queries, `filters`, and
`join` of all near pairs. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import index_ours, index_peers, index_report, photographs
from benchmarks.common import (
    ROOT,
    BenchmarkError,
    Run,
    cache_folder,
    machine,
    module_command,
    run,
    say,
)
from benchmarks.index_join import WAYS
from benchmarks.index_vectors import SIZES, Vectors, numbers, shapes_json, vectors
from searchlib.encoder import ImageEncoder, load_card
from searchlib.errors import SearchlibError

QUICK_SIZES = (2000, 10_000)
MOST_JOINED = 100_000
BUSY = 0.25
"""Of the cores: a load average above that before the first measurement is said in the notes."""


class Bench:
    """The measurements, and what they share: the vectors, and the indexes over them."""

    def __init__(self, made: Vectors, sizes: tuple[int, ...], options: argparse.Namespace) -> None:
        self._made = made
        self._sizes = sizes
        self._reuse = options.reuse
        self._peers = [name for name in index_peers.names() if name not in options.without]
        self._recipes = [name for name in index_ours.recipes() if name not in options.without]
        self._default = index_ours.default(max(sizes), made.queries.shape[1]).name
        if options.quick:
            self._default = "inverted"

    def speed(self) -> dict[str, Any]:
        """Build every recipe and graph at each size, and time all of them side by side."""
        found: dict[str, Any] = {}
        peers_left, recipes_left = list(self._peers), list(self._recipes)
        for size in self._sizes:
            self._made.truth(size)
            entered = recipes_left + peers_left
            recipes = {name: self._built(name, size) for name in recipes_left}
            peers = {
                name: _json(self._run("index_peers", size, name))
                for name in peers_left
                if index_peers.is_graph(name)
            }
            single = _json(self._run("index_speed", size, 1, *entered))
            peers_left, recipes_left = _in_the_running(single["of"], peers_left, recipes_left)
            found[str(size)] = {
                "default": index_ours.default(size, self._made.queries.shape[1]).name,
                "built": recipes | peers,
                "single": single,
                "cores": _json(self._run("index_speed", size, os.cpu_count() or 1, *entered)),
            }
        return found

    def memory(self) -> dict[str, Any]:
        """Open the largest index in a fresh process, and ask it."""
        size, name = max(self._sizes), self._default
        self._built(name, size)
        imported = _json(self._run("index_open", size))
        measured = _json(self._run("index_open", size, name))
        return {"size": size, "recipe": name, **imported, **measured}

    def streaming(self) -> dict[str, Any]:
        """From nothing to the largest size by single additions."""
        return _json(self._run("index_streaming", max(self._sizes)))

    def checkpoint(self) -> dict[str, Any]:
        """Write checkpoints of the largest index while it is asked."""
        size = max(self._sizes)
        found: dict[str, Any] = {"size": size, "default": self._default}
        for name in dict.fromkeys([self._default, "exact"]):
            self._built(name, size)
            found[name] = _json(self._run("index_saving", size, name))
        return found

    def filters(self) -> dict[str, Any]:
        """Ask the largest index among some of its vectors."""
        size = max(self._sizes)
        self._built(self._default, size)
        found = _json(self._run("index_filters", size, self._default))
        return {"size": size, "recipe": self._default, **found}

    def join(self) -> dict[str, Any]:
        """All near pairs, by us and by FAISS."""
        size = min(max(self._sizes), MOST_JOINED)
        found: dict[str, Any] = {"size": size, "ways": {}}
        for way in WAYS:
            done = self._run("index_join", size, way)
            found["ways"][way] = {**_json(done), "peak_bytes": done.peak_bytes}
        return found

    def _built(self, name: str, size: int) -> dict[str, Any]:
        kept = index_ours.built(self._made, name, size, any_code=self._reuse)
        if kept is not None:
            return kept
        say(f"  building {name} over {size:,}")
        done = self._run("index_ours", size, name)
        return {**_json(done), "peak_bytes": done.peak_bytes}

    def _run(self, module: str, size: int, *words: object) -> Run:
        say(f"  {module} {size:,} {' '.join(map(str, words))}")
        command = [*module_command(module), str(self._made.folder), str(size)]
        return run([*command, *map(str, words)])


MEASUREMENTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "speed": Bench.speed,
    "memory": Bench.memory,
    "streaming": Bench.streaming,
    "checkpoint": Bench.checkpoint,
    "filters": Bench.filters,
    "join": Bench.join,
}


def main() -> int:
    """Run it all."""
    options = _options()
    sizes = QUICK_SIZES if options.quick else options.sizes
    raw = _kept(options.out)
    try:
        if options.only:
            encoder = ImageEncoder(load_card(options.model) if options.model else None)
            origin = photographs.source(options.data)
            made = vectors(
                cache_folder(options.cache), origin, encoder, sizes=sizes, quick=options.quick
            )
            raw["machine"] = machine()
            raw["notes"] = _notes(options)
            raw["vectors"] = shapes_json(made, sizes)
            bench = Bench(made, sizes, options)
            for name in options.only:
                say(name)
                found = MEASUREMENTS[name](bench)
                if name == "speed":
                    found = raw.get("speed", {}) | found
                raw[name] = found
                raw.setdefault("dates", {})[name] = datetime.now(UTC).isoformat(timespec="seconds")
                # After each: the whole of it takes hours.
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        print(
            index_report.report(raw, options.only or [name for name in MEASUREMENTS if name in raw])
        )
        if options.write:
            index_report.write(raw, ROOT / "indexes")
    except (SearchlibError, BenchmarkError) as error:
        say(f"benchmarks: {error}")
        return 1
    say(f"all figures: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.index",
        description="What the index costs, beside FAISS, numpy, hnswlib and usearch.",
    )
    parser.add_argument("--sizes", type=numbers, default=SIZES, help="10000,100000,1000000")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=list(MEASUREMENTS),
        default=list(MEASUREMENTS),
        metavar="NAME",
        help="what is measured; the JSON keeps what it has of the rest. Nothing: print it again",
    )
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="recipes and peers to leave out"
    )
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument(
        "--reuse", action="store_true", help="indexes of the cache, also of another code"
    )
    parser.add_argument(
        "--write", action="store_true", help="put the figures into indexes/README.md and *.toml"
    )
    parser.add_argument("--model", type=Path, metavar="CARD", help="the built-in one without")
    parser.add_argument("--data", type=Path, help="a folder of photographs")
    parser.add_argument("--cache", type=Path, help="where vectors and indexes are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "index.json")
    return parser.parse_args()


def _kept(path: Path) -> dict[str, Any]:
    """What was measured before."""
    if not path.exists():
        return {}
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _in_the_running(
    measured: dict[str, Any], peers: list[str], recipes: list[str]
) -> tuple[list[str], list[str]]:
    """The peers and recipes that are worth building at the next size, which may take hours.

    What misses the recall here misses it with more vectors. Of the peers those go on that are not
    twice as slow as the best of them, of the candidates those that are faster than comparing all.
    """

    def reaches(name: str) -> bool:
        return bool(measured[name]["recall"] >= index_peers.TARGET)

    graphs = [name for name in peers if index_peers.is_graph(name) and reaches(name)]
    best = max((measured[name]["per_second"] for name in graphs), default=0)
    return (
        [
            name
            for name in peers
            if not index_peers.is_graph(name)
            or (name in graphs and measured[name]["per_second"] >= best / 2)
        ],
        [
            name
            for name in recipes
            if index_ours.is_of_product(name)
            or (reaches(name) and measured[name]["p50_ms"] < measured["exact"]["p50_ms"])
        ],
    )


def _json(done: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _notes(options: argparse.Namespace) -> list[str]:
    notes = []
    if options.quick:
        notes.append("--quick: too little was measured for these figures to mean anything.")
    if options.data is None:
        notes.append("Thirteen photographs are too few for vectors whose recall says anything.")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        notes.append(f"The machine was busy before it began: load {load:.1f} on {cores} cores.")
    missing = [name for name in ("hnswlib", "usearch") if name not in " ".join(index_peers.names())]
    if missing:
        notes.append(f"Not installed, so not measured: {', '.join(missing)}.")
    return notes


if __name__ == "__main__":
    sys.exit(main())
