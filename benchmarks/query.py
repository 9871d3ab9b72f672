"""Queries: warm, cold, their memory, and the recall of the index, on a library of some size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.common import (
    BenchmarkError,
    Run,
    median,
    module_command,
    peer_command,
    percentile,
    run,
    searchlib_command,
)
from benchmarks.ingest import figures
from benchmarks.libraries import BuiltLibrary
from benchmarks.warm import K
from searchlib.catalog import Catalog
from searchlib.encoder import built_in_card

COLD_PEER = "executorch.runtime"


@dataclass(frozen=True, slots=True)
class Warm:
    """Queries inside one process, after the first few.

    Attributes:
        encode_ms: of each query, to its vector.
        search_ms: of each query, from its vector to the matches.
        peak_bytes: of the process.
    """

    encode_ms: list[float]
    search_ms: list[float]
    peak_bytes: int

    def as_json(self) -> dict[str, Any]:
        """All figures, and the percentiles of these."""
        return {
            "encode_ms": {**_spread(self.encode_ms), "all": self.encode_ms},
            "search_ms": {**_spread(self.search_ms), "all": self.search_ms},
            "peak_bytes": self.peak_bytes,
        }


@dataclass(frozen=True, slots=True)
class Cold:
    """Queries that are a process each.

    Attributes:
        ours: `searchlib search`.
        peer: the same through executorch.runtime; empty where that was not measured.
        agreement: what share of the paths both gave, on average; None without a peer.
    """

    ours: list[Run]
    peer: list[Run]
    agreement: float | None

    @property
    def seconds(self) -> float:
        """The median of ours."""
        return median([run.seconds for run in self.ours])

    @property
    def peak_bytes(self) -> int:
        """The most memory of any of ours."""
        return max(run.peak_bytes for run in self.ours)

    @property
    def peer_seconds(self) -> float:
        """The median of the peer's."""
        return median([run.seconds for run in self.peer])

    def as_json(self) -> dict[str, Any]:
        """All figures of all rounds."""
        return {
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "runs": [figures(run) for run in self.ours],
            "agreement": self.agreement,
            "share_of_peer_seconds": self.seconds / self.peer_seconds if self.peer else None,
            COLD_PEER: [figures(run) for run in self.peer],
        }


def warm(built: BuiltLibrary, queries: Path) -> Warm:
    """Ask a library for every picture of a folder, in one process."""
    done = run([*module_command("warm"), built.folder, queries])
    told = json.loads(done.stdout)
    return Warm(told["encode_ms"], told["search_ms"], done.peak_bytes)


def recall(built: BuiltLibrary, queries: Path) -> list[float]:
    """Recall@10 of the library's index for every picture of a folder."""
    done = run([*module_command("recall"), built.folder, queries])
    values: list[float] = json.loads(done.stdout)["recall"]
    return values


def cold(built: BuiltLibrary, queries: Path, *, rounds: int, peer: Path | None) -> Cold:
    """Ask a library for one picture after the other, each time in a new process.

    The first query is not counted: it brings the files of the program into memory.

    Args:
        built: the library.
        queries: a folder with `rounds` pictures and more.
        rounds: how many queries.
        peer: a folder of `peer_files`, to measure the peer in turn with ours.
    """
    ours, others, shared = [], [], []
    for number, picture in enumerate(sorted(queries.iterdir())[: rounds + 1]):
        done = run([*searchlib_command(), "search", picture, "--library", built.folder, "--json"])
        paths = [match["path"] for match in json.loads(done.stdout)["matches"]]
        if len(paths) != K:
            raise BenchmarkError(f"searchlib gave {len(paths)} matches for {picture}, not {K}")
        if number:
            ours.append(done)
        if peer:
            program = peer_command("executorch_query")
            files = [built_in_card().path, peer / "index.faiss", peer / "paths.json"]
            done = run([*program, *files, picture])
            if number:
                others.append(done)
                shared.append(len({*paths} & {*json.loads(done.stdout)}) / K)
    return Cold(ours, others, sum(shared) / len(shared) if shared else None)


def peer_files(built: BuiltLibrary, target: Path) -> Path:
    """What the peer of a cold query loads: the same vectors in an IndexFlatIP, and the paths."""
    catalog = Catalog(built.folder, create=False)
    try:
        model = catalog.model()
        if model is None:
            raise BenchmarkError(f"{built.folder}: this library is empty")
        _, ids, vectors = catalog.all_vectors(model)
        images = catalog.images(ids.tolist())
    finally:
        catalog.close()
    target.mkdir(parents=True, exist_ok=True)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.astype(np.float32))
    faiss.write_index(index, str(target / "index.faiss"))
    paths = [images[id].paths[0] for id in ids.tolist()]
    (target / "paths.json").write_text(json.dumps(paths), encoding="utf-8")
    return target


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": percentile(values, 50), "p95": percentile(values, 95)}
