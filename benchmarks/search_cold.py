"""A query that is a process: `searchlib search`, and in turns with it what else one would use."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import BenchmarkError, Run, median, megabytes, run, say, searchlib_command
from benchmarks.ingest import figures
from benchmarks.search_library import SearchLibrary
from benchmarks.search_peers import ClipRetrieval, K, Rclip, clip_retrieval, rclip
from benchmarks.table import Row

MOST_OF_RCLIP = 0.5
AIM = 1 / 3
RCLIP = "rclip 3.3"
RETRIEVAL = "clip-retrieval's way"

_NEW, _STORED, _ID = "a new picture", "a stored picture", "the id of a stored picture"


def measure(
    library: SearchLibrary,
    cache: Path,
    pictures: Path,
    *,
    rounds: int,
    venv: Path | None,
    notes: list[str],
) -> tuple[list[Row], dict[str, Any]]:
    """Each query once in every round; the first round brings the programs into memory.

    Args:
        library: that is asked.
        cache: where the peers are kept.
        pictures: a folder of photographs that are not in it, more than `rounds`.
        rounds: that count.
        venv: an environment with rclip.
        notes: gets a line of each peer that cannot be measured, and what was put into its place.
    """
    new, stored = sorted(pictures.iterdir()), sorted(library.stored.iterdir())
    # As an installed package has it; a checkout may have none, and a variable that forbids it.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache / "bytecode")}

    def ours(term: str) -> Run:
        words = ["search", term, "--library", str(library.folder), "--json"]
        done = run([*searchlib_command(), *words], environment=bytecode)
        matches = json.loads(done.stdout)["matches"]
        if len(matches) != K:
            raise BenchmarkError(f"searchlib gave {len(matches)} matches for {term}, not {K}")
        return done

    turns: dict[str, Callable[[int], Run]] = {
        _NEW: lambda number: ours(str(new[number])),
        _STORED: lambda number: ours(str(stored[number % len(stored)])),
        _ID: lambda number: ours(f"id:{1 + 997 * number % library.size}"),
    }
    peers = _peers(library.size, cache, venv, notes)
    for name, peer in peers.items():
        turns[name] = partial(_asked, peer, new)
    runs: dict[str, list[Run]] = {name: [] for name in turns}
    for number in range(min(rounds + 1, len(new))):
        for name, turn in turns.items():
            done = turn(number)
            if number:
                runs[name].append(done)
                say(f"  round {number}, {name}: {done.seconds:.2f} s")
    return _judged(library.size, runs)


def _peers(
    size: int, cache: Path, venv: Path | None, notes: list[str]
) -> dict[str, Rclip | ClipRetrieval]:
    peers: dict[str, Rclip | ClipRetrieval] = {}
    makers: dict[str, Callable[[], Rclip | ClipRetrieval]] = {
        RCLIP: lambda: rclip(cache, size, venv),
        RETRIEVAL: lambda: clip_retrieval(cache, size),
    }
    for name, make in makers.items():
        try:
            peers[name] = make()
        except BenchmarkError as error:
            notes.append(f"Without {name}: {error}.")
    if RCLIP in peers:
        notes.append(
            f"{RCLIP} is the package from PyPI with `--no-indexing`. Its model has the shape of "
            "the one that it fetches (ViT-B-32-256, float32) and random weights; its database was "
            "written through its own code, with random vectors."
        )
    if RETRIEVAL in peers:
        notes.append(
            f"{RETRIEVAL}: the classes of clip_back in clip-retrieval 2.45 (HNSW32 as autofaiss "
            "chooses it, metadata in Parquet) with the model of rclip in onnxruntime in place of "
            "torch, as a process that opens them and asks once. It is made to be a server."
        )
    return peers


def _asked(peer: Rclip | ClipRetrieval, pictures: Sequence[Path], number: int) -> Run:
    return peer.search(pictures[number])


def _judged(size: int, runs: dict[str, list[Run]]) -> tuple[list[Row], dict[str, Any]]:
    seconds = {name: median([run.seconds for run in done]) for name, done in runs.items()}
    rows = []
    for name in (_NEW, _STORED, _ID):
        others = {
            peer: f"{seconds[peer]:.2f} ({seconds[name] / seconds[peer]:.2f})"
            for peer in (RCLIP, RETRIEVAL)
            if peer in seconds
        }
        row = Row(f"cold query of {name}, {size:,} images, s", f"{seconds[name]:.2f}", others)
        if name == _NEW and RCLIP in seconds:
            share = seconds[name] / seconds[RCLIP]
            target = f"<= {MOST_OF_RCLIP} of rclip, aim {AIM:.2f}"
            row = Row(row.what, row.ours, others, target, share <= MOST_OF_RCLIP)
        elif name != _NEW:
            target, met = "less than of a new one", seconds[name] < seconds[_NEW]
            row = Row(row.what, row.ours, others, target, met)
        rows.append(row)
    for what, unit in (("processor time", "s"), ("peak", "MB")):
        found = {
            name: median([run.cpu_seconds for run in done])
            if unit == "s"
            else megabytes(max(run.peak_bytes for run in done))
            for name, done in runs.items()
        }
        digits = 2 if unit == "s" else 0
        others = {
            peer: f"{found[peer]:.{digits}f} ({found[_NEW] / found[peer]:.2f})"
            for peer in (RCLIP, RETRIEVAL)
            if peer in found
        }
        words = f"cold query of {_NEW}, {size:,} images, {what}, {unit}"
        rows.append(Row(words, f"{found[_NEW]:.{digits}f}", others))
    raw: dict[str, Any] = {name: [figures(run) for run in done] for name, done in runs.items()}
    if RETRIEVAL in runs:
        steps = [json.loads(run.stdout) for run in runs[RETRIEVAL]]
        raw["clip_retrieval_steps"] = steps
        search = median([each["search_ms"] for each in steps])
        rows.append(
            Row("search and metadata alone, warm, p50 ms", "", {RETRIEVAL: f"{search:.1f}"})
        )
    return rows, raw
