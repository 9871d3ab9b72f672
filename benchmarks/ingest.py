"""Ingest: images a second of `searchlib add` beside the straightforward stack, and its memory."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import BenchmarkError, Run, median, peer_command, run, say, searchlib_command
from benchmarks.libraries import BuiltLibrary


@dataclass(frozen=True, slots=True)
class Peer:
    """What is measured beside `searchlib add`.

    Attributes:
        title: in the table.
        program: in the folder peers.
        needs: modules that must be installed.
    """

    title: str
    program: str
    needs: tuple[str, ...]


PEERS = {
    "onnxruntime": Peer("onnxruntime stack", "onnx_stack", ("onnxruntime",)),
    "torch-eager": Peer("torch stack", "torch_stack", ("torch", "onnx")),
}
"""By their names for the option --peer."""

OURS = "searchlib"


@dataclass(slots=True)
class Rates:
    """One kind of photograph, ingested by everyone in turn.

    Attributes:
        photographs: how many files.
        bytes: of all files together.
        runs: by who ran; each is a whole process that starts with nothing.
    """

    photographs: int
    bytes: int
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def rate(self, who: str) -> float:
        """Images a second, the median of the rounds."""
        return self.photographs / median([run.seconds for run in self.runs[who]])

    def peak_bytes(self, who: str) -> int:
        """The most memory of any round."""
        return max(run.peak_bytes for run in self.runs[who])

    def as_json(self) -> dict[str, Any]:
        """All figures of all rounds."""
        return {
            "photographs": self.photographs,
            "bytes": self.bytes,
            "images_per_second": {who: self.rate(who) for who in self.runs},
            "ratio": {who: self.rate(OURS) / self.rate(who) for who in self.runs},
            "runs": {who: [figures(run) for run in runs] for who, runs in self.runs.items()},
        }


def rates(folder: Path, onnx: Path | None, peers: list[str], *, rounds: int) -> Rates:
    """Ingest a folder of photographs over and over, each time into a new library or index.

    Everyone has a turn in every round, and the order is reversed from one round to the next, so
    that a machine that slows down slows down all of them.

    Raises:
        BenchmarkError: someone failed, or did not take in every file.
    """
    paths = sorted(folder.iterdir())
    # Read once before the first round: nobody waits for the disk in any of them.
    measured = Rates(len(paths), sum(len(path.read_bytes()) for path in paths))
    everyone = [OURS, *(peers if onnx else [])]
    for number in range(rounds):
        for who in everyone if number % 2 == 0 else reversed(everyone):
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                if who == OURS:
                    done = add(folder, Path(scratch) / "library", expected=len(paths))
                else:
                    done = _peer(who, folder, onnx, Path(scratch) / "index.faiss", len(paths))
            measured.runs.setdefault(who, []).append(done)
            say(f"  round {number + 1}: {who} {len(paths) / done.seconds:.1f} images/s")
    return measured


def add(folder: Path, library: Path, *, expected: int) -> Run:
    """`searchlib add` of a folder, as a process.

    Raises:
        BenchmarkError: it failed or did not add every file.
    """
    done = run([*searchlib_command(), "add", folder, "--library", library, "--json"])
    added = json.loads(done.stdout)["added"]
    if added != expected:
        raise BenchmarkError(f"searchlib added {added} of {expected} photographs of {folder}")
    return done


def _peer(who: str, folder: Path, onnx: Path | None, index: Path, expected: int) -> Run:
    done = run([*peer_command(PEERS[who].program), str(onnx), folder, index])
    images = json.loads(done.stdout)["images"]
    if images != expected:
        raise BenchmarkError(f"{who} took in {images} of {expected} photographs of {folder}")
    return done


def add_to(built: BuiltLibrary, folder: Path, scratch: Path) -> Run:
    """`searchlib add` of new photographs to a copy of a library that has many already."""
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        copy = Path(place) / "library"
        shutil.copytree(built.folder, copy)
        return add(folder, copy, expected=len(list(folder.iterdir())))


def figures(done: Run) -> dict[str, Any]:
    """A run for the report: all but what it printed."""
    return {name: value for name, value in asdict(done).items() if name != "stdout"}
