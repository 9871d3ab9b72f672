"""One client of a server and many at once: throughput, errors, and how even the answers come."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.common import median, percentile
from benchmarks.search_load import load
from benchmarks.search_server import Serving
from benchmarks.table import Row

CLIENTS = 32
LEAST_GAIN = 1.7
MOST_SPREAD = 4.0

_WARM_SECONDS = 3.0


def measure(
    library: Path, log: Path, photographs: dict[str, Path], *, seconds: float, rounds: int
) -> tuple[list[Row], dict[str, Any]]:
    """One client and many, in turns.

    Args:
        library: to serve.
        log: a file for what the server says.
        photographs: folders of what is sent, by a name of its kind; the bars are those of the
            first, and of the others it is only said what they come to.
        seconds: of each turn.
        rounds: of one client and many.
    """
    rows: list[Row] = []
    raw: dict[str, Any] = {"clients": CLIENTS, "seconds": seconds}
    with Serving(library, log) as server:
        for place, (kind, folder) in enumerate(photographs.items()):
            turns: dict[int, list[dict[str, Any]]] = {1: [], CLIENTS: []}
            for _ in range(rounds):
                for clients, done in turns.items():
                    done.append(
                        load(server, folder, clients=clients, seconds=seconds, warm=_WARM_SECONDS)
                    )
            more, raw[kind] = _judged(kind, turns, with_bars=place == 0)
            rows += more
        raw["server_peak_bytes"] = server.peak_bytes()
    return rows, raw


def _judged(
    kind: str, turns: dict[int, list[dict[str, Any]]], *, with_bars: bool
) -> tuple[list[Row], dict[str, Any]]:
    rate = {
        clients: median([len(turn["ms"]) / turn["seconds"] for turn in done])
        for clients, done in turns.items()
    }
    busy = {
        clients: median([turn["server_cpu_seconds"] / turn["seconds"] for turn in done])
        for clients, done in turns.items()
    }
    own = max(turn["cpu_seconds"] / turn["seconds"] for turn in turns[CLIENTS])
    each = {
        clients: 1000 * busy[clients] / rate[clients] if rate[clients] else 0.0 for clients in turns
    }
    many = [ms for turn in turns[CLIENTS] for ms in turn["ms"]] or [0.0]
    errors = [error for done in turns.values() for turn in done for error in turn["errors"]]
    # What the machine has over what one client makes use of already.
    most = (os.cpu_count() or 1) / max(busy[1], 1e-9)
    gain = rate[CLIENTS] / rate[1] if rate[1] else 0.0
    spread = percentile(many, 99) / max(percentile(many, 50), 1e-9)
    bars = ["", "", ""]
    met: list[bool | None] = [None, None, None]
    if with_bars:
        bars = [f">= {LEAST_GAIN}", "0", f"<= {MOST_SPREAD:.0f}"]
        met = [gain >= LEAST_GAIN, not errors, spread <= MOST_SPREAD]
    what = f"{CLIENTS} clients, {kind} uploads"
    rows = [
        Row(f"{what}: queries/s of one / of all", f"{rate[1]:.1f} / {rate[CLIENTS]:.1f}"),
        Row(f"{what}: throughput over one client's", f"{gain:.2f}", {}, bars[0], met[0]),
        Row(f"{what}: errors", str(len(errors)), {}, bars[1], met[1]),
        Row(
            f"{what}: p50 / p99 ms",
            f"{percentile(many, 50):.0f} / {percentile(many, 99):.0f}",
        ),
        Row(f"{what}: p99 over p50", f"{spread:.2f}", {}, bars[2], met[2]),
        Row(
            f"{what}: processors the server keeps busy, one / all",
            f"{busy[1]:.2f} / {busy[CLIENTS]:.2f}",
        ),
        Row(
            f"{what}: gain if all processors were busy and a query cost the same",
            f"{most:.2f}",
        ),
        Row(
            f"{what}: processor ms a query, one / all",
            f"{each[1]:.0f} / {each[CLIENTS]:.0f}",
        ),
        Row(f"{what}: processors the clients take themselves", f"{own:.2f}"),
    ]
    return rows, {
        "turns": {str(clients): done for clients, done in turns.items()},
        "gain": gain,
        "most_gain": most,
        "p99_over_p50": spread,
        "errors": errors,
    }
