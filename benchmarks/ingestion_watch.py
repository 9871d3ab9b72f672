"""`searchlib watch` as a process: how soon a new file is found, and what a storm of files costs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.common import ROOT, BenchmarkError, module_command, say, searchlib_command
from benchmarks.ingestion_stages import contents
from searchlib import open_library
from searchlib.catalog import Catalog
from searchlib.search import LiveIndex

SETTLE = 1.0
POLL_SECONDS = 0.01
STORM_FOLDERS = 200

_LONGEST_SECONDS = 60.0
_SILENT_SECONDS = 180.0
_QUIET_SECONDS = 10.0
_NO_RESCAN = 1_000_000


class Watching:
    """A process that watches a folder, and what it has said so far.

    Args:
        folder: to watch; it is there.
        library: of the process.

    Attributes:
        added: how often each path was said to be a new image.
        outcomes: what became of files, counted.
        scans: why folders were scanned, counted.
        idle_at: when it was last idle, in seconds since 1970; None while it is at work.
        said_at: when it last said anything, on time.monotonic().
    """

    def __init__(self, folder: Path, library: Path) -> None:
        self.added: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.scans: Counter[str] = Counter()
        self.idle_at: float | None = None
        self.said_at = time.monotonic()
        self.started_at = time.time()
        self._errors = library.with_suffix(".stderr")
        # Without the timer: what the events and the scans after a loss leave out is lost.
        command = [*searchlib_command(), "watch", str(folder), "--library", str(library), "--json"]
        command += ["--settle", str(SETTLE), "--rescan", str(_NO_RESCAN)]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Watching:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_until_idle(self, *, images: int = 0) -> float:
        """Wait until it has nothing to do; gives when that began, in seconds since 1970.

        Args:
            images: so many are to be added first; where they are not, it has to be quiet for a
                while before it counts as idle.

        Raises:
            BenchmarkError: it ended, or says nothing for minutes.
        """
        while True:
            silent = time.monotonic() - self.said_at
            idle_at = self.idle_at
            if idle_at is not None and (len(self.added) >= images or silent > _QUIET_SECONDS):
                return idle_at
            if self._process.poll() is not None:
                said = (self._errors.read_text().strip().splitlines() or ["it said nothing"])[-1]
                raise BenchmarkError(f"searchlib watch ended: {said}")
            if silent > _SILENT_SECONDS:
                raise BenchmarkError(f"searchlib watch has said nothing for {silent:.0f} s")
            time.sleep(POLL_SECONDS)

    def peak_bytes(self) -> int:
        """The most memory that was resident in it so far; 0 where the system does not tell."""
        # Not ru_maxrss, in which the memory of this process would count.
        status = Path(f"/proc/{self._process.pid}/status")
        for line in status.read_text().splitlines() if status.exists() else ():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            event = said["event"]
            if event == "file":
                self.outcomes[said["outcome"]] += 1
                if said["outcome"] == "added":
                    self.added[said["path"]] += 1
            elif event == "scanning":
                self.scans[said["reason"]] += 1
            self.idle_at = said["at"] if event == "idle" else None
            self.said_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class Latency:
    """How long it took until new files were found.

    Attributes:
        settle: seconds that a file has to stand still for.
        seconds: for each file, from its close to the first search that found it.
        how: for each file, "renamed" into its place or "written" there.
    """

    settle: float
    seconds: list[float]
    how: list[str]


def latency(photographs: Path, scratch: Path, count: int) -> Latency:
    """Put new photographs into a watched folder, one after the other, and search for each.

    Raises:
        BenchmarkError: one was not found within a minute.
    """
    pictures = contents(photographs)[: count + 1]
    folder, library = scratch / "watched", scratch / "library"
    folder.mkdir()
    (folder / "first.jpg").write_bytes(pictures.pop())
    seconds, how = [], []
    with Watching(folder, library) as watching:
        watching.wait_until_idle(images=1)
        with _Searcher(library) as searcher:
            pause = random.Random(0)
            for number, content in enumerate(pictures):
                # Not in step with anything that the watcher does now and then.
                time.sleep(pause.uniform(0.3, 1.3))
                by_rename = number % 2 == 0
                path = folder / f"{number:04}.jpg"
                seconds.append(searcher.seconds_until_found(path, content, by_rename=by_rename))
                how.append("renamed" if by_rename else "written")
        with open_library(library) as opened:
            last = folder / f"{len(pictures) - 1:04}.jpg"
            if opened.search(last, k=1)[0].path != str(last):
                raise BenchmarkError(f"{last} is not what a search for it finds")
    return Latency(SETTLE, seconds, how)


class _Searcher:
    """An open library that is searched; the vectors of the queries are made beforehand.

    Library.search would decode and embed the file at every poll until the library has it, and so
    slow down the watcher whose speed is measured.
    """

    def __init__(self, library: Path) -> None:
        self._library = open_library(library, create=False, background=False)

    def __enter__(self) -> _Searcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.close()

    def seconds_until_found(self, path: Path, content: bytes, *, by_rename: bool) -> float:
        """From the close of a new file to the search that finds it."""
        vector = self._library.embed(content)
        written = path.with_suffix(".part") if by_rename else path
        with written.open("wb") as file:
            file.write(content)
        closed = time.perf_counter()
        if by_rename:
            written.replace(path)
        while True:
            matches = self._library.search(vector, k=1)
            seconds = time.perf_counter() - closed
            if matches and matches[0].path == str(path):
                return seconds
            if seconds > _LONGEST_SECONDS:
                raise BenchmarkError(f"{path} was not found within {seconds:.0f} s")
            time.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Storm:
    """Many files written at once into a watched folder.

    Attributes:
        files: how many.
        write_seconds: that the other process took to write them.
        seconds: from the first file to the watcher being idle.
        lost: files that the library does not have at the end.
        twice: images that it has too many, and files that it embedded more than once.
        scans: why the watcher scanned the folder, and how often.
        outcomes: what the watcher said became of files.
        peak_bytes: of the watcher.
    """

    files: int
    write_seconds: float
    seconds: float
    lost: int
    twice: int
    scans: dict[str, int]
    outcomes: dict[str, int]
    peak_bytes: int

    @property
    def overflows(self) -> int:
        """How often the kernel's queue of events ran over and the folder was scanned for it."""
        return sum(count for reason, count in self.scans.items() if "overflow" in reason)


def storm(crops: Path, scratch: Path, count: int) -> Storm:
    """Have another process write small files into new folders while they are watched.

    Raises:
        BenchmarkError: the other process failed, or the watcher did.
    """
    folder, library = scratch / "watched", scratch / "library"
    folder.mkdir()
    with Watching(folder, library) as watching:
        watching.wait_until_idle()
        command = [*module_command("ingestion_stages"), "write", str(folder), str(crops)]
        done = subprocess.run(
            [*command, str(count), str(STORM_FOLDERS)], cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode:
            raise BenchmarkError(f"the files were not written: {done.stderr.strip()}")
        written = json.loads(done.stdout)
        say(f"  wrote {count:,} files in {written['seconds']:.1f} s")
        idle_at = watching.wait_until_idle(images=count)
        peak = watching.peak_bytes()
    lost, twice = _check(folder, library)
    repeated = sum(times - 1 for times in watching.added.values())
    return Storm(
        files=count,
        write_seconds=written["seconds"],
        seconds=idle_at - written["started_at"],
        lost=lost,
        twice=twice + repeated,
        scans=dict(watching.scans),
        outcomes=dict(watching.outcomes),
        peak_bytes=peak,
    )


def _check(folder: Path, library: Path) -> tuple[int, int]:
    """How many files of a folder a library does not have, and how many images it has too many."""
    on_disk = {entry.path for here in os.scandir(folder) for entry in os.scandir(here)}
    catalog = Catalog(library, create=False)
    try:
        model = catalog.model()
        if model is None:
            return len(on_disk), 0
        known = catalog.places.known(str(folder), model)
        have = {path for path, file in known.items() if file.state == "present" and file.embedded}
        images = catalog.counts(model).images
        vectors = len(LiveIndex(catalog, model, library))
    finally:
        catalog.close()
    twice = len(have - on_disk) + max(0, images - len(on_disk)) + max(0, vectors - images)
    return len(on_disk - have), twice


def restarted(folder: Path, library: Path) -> tuple[float, int]:
    """Seconds from the start of a watcher to its being idle, and its peak memory."""
    with Watching(folder, library) as watching:
        return watching.wait_until_idle() - watching.started_at, watching.peak_bytes()
