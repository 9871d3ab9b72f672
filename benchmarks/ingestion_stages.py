"""Parts of an ingest as processes of their own, and the small pictures that they are given.

    python -m benchmarks.ingestion_stages STAGE ARGUMENT...

Prints JSON. Each stage makes ready what it needs, and measures only then.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from benchmarks import photographs
from benchmarks.common import module_command, run
from searchlib import open_library
from searchlib.catalog import Catalog, Facts, FolderRecord, ModelRecord, NewContent, ReadFile
from searchlib.encoder import ImageEncoder
from searchlib.images import open_file
from searchlib.ingest import Report
from searchlib.ingest.compare import Comparison
from searchlib.ingest.place import gone_from, stat_of
from searchlib.ingest.walk import walk
from searchlib.search import LiveIndex

CROPS = 2000
KNOWN_FOLDERS = 400
_BATCH = 4000
_SIDES = (64, 128)
_CROPS_OF_EACH = 20
_PAGE = 2000
_PREPARED = 60
_POLLS = 3


def stage(name: str, *arguments: str | int | Path) -> dict[str, Any]:
    """Run a stage as a process; gives what it printed, and the peak memory of the process."""
    done = run([*module_command("ingestion_stages"), name, *map(str, arguments)])
    return {**json.loads(done.stdout), "peak_bytes": done.peak_bytes}


def save_crops(folder: Path, origin: photographs.Source) -> Path:
    """A folder with CROPS small JPEGs, each another part of a photograph."""
    folder.mkdir()
    edited = photographs.pictures(origin, "small", "500px", CROPS // _CROPS_OF_EACH)
    for number, (image, quality) in enumerate(edited):
        random = np.random.default_rng(number)
        for place in range(_CROPS_OF_EACH):
            side = int(random.integers(_SIDES[0], _SIDES[1] + 1))
            left = int(random.integers(0, image.width - side + 1))
            top = int(random.integers(0, image.height - side + 1))
            crop = image.crop((left, top, left + side, top + side))
            crop.save(folder / f"{number * _CROPS_OF_EACH + place:05}.jpg", quality=quality)
    return folder


def numbered(jpeg: bytes, number: int) -> bytes:
    """The same JPEG with a number in a comment behind its first marker, so with other bytes."""
    text = f"{number:012}".encode()
    return jpeg[:2] + b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text + jpeg[2:]


def write_files(root: Path, jpegs: Sequence[bytes], count: int, folders: int) -> Iterator[Path]:
    """Write `count` files, no two the same, into that many new folders, one after the other."""
    here = None
    for number, jpeg in enumerate(islice(cycle(jpegs), count)):
        folder = root / f"{number * folders // count:04}"
        if folder != here:
            folder.mkdir(parents=True)
            here = folder
        path = folder / f"IMG_{number:07}.jpg"
        path.write_bytes(numbered(jpeg, number))
        yield path


def known_library(scratch: Path, jpegs: Sequence[bytes], count: int) -> tuple[Path, Path]:
    """A folder of small files, and a library that knows all of them, with vectors made up."""
    folder, library = scratch / "files", scratch / "library"
    encoder = ImageEncoder()
    random = np.random.default_rng(0)
    catalog = Catalog(library, create=True)
    try:
        model = catalog.use_model(
            identity=encoder.identity, name=encoder.card.name, dimension=encoder.dimension
        )
        catalog.folders.put(FolderRecord(str(folder), watched=True))
        written = write_files(folder, jpegs, count, KNOWN_FOLDERS)
        while batch := [
            _as_read(path, folder, random.standard_normal(encoder.dimension, np.float32))
            for path in islice(written, _BATCH)
        ]:
            catalog.record(model, batch, gone=gone_from)
        LiveIndex(catalog, model, library).refresh()
    finally:
        catalog.close()
    return folder, library


def _as_read(path: Path, folder: Path, vector: NDArray[np.float32]) -> ReadFile:
    content = path.read_bytes()
    return ReadFile(
        path=str(path),
        stat=stat_of(path.stat()),
        digest=blake3(content).digest(),
        folder=str(folder),
        content=NewContent(
            Facts(bytes=len(content), format="JPEG", width=_SIDES[0], height=_SIDES[0]),
            vector / np.linalg.norm(vector),
        ),
    )


def contents(folder: Path) -> list[bytes]:
    """Of the files of a folder, by name."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def _timed(act: Callable[[], int]) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    count = act()
    seconds = time.perf_counter() - start
    return {"count": count, "seconds": seconds, "cpu_seconds": time.process_time() - cpu}


def decode(folder: str, warm: str, threads: str) -> dict[str, Any]:
    """Read, hash and decode the files of a folder, as an ingest does, and no more."""
    min_side = ImageEncoder().min_side

    def one(path: Path) -> None:
        with open_file(path) as opened:
            opened.load(min_side=min_side)

    def all_of(folder: str) -> int:
        return len(list(pool.map(one, sorted(Path(folder).iterdir()))))

    with ThreadPoolExecutor(int(threads)) as pool:
        all_of(warm)
        return _timed(lambda: all_of(folder))


def encode(folder: str, warm: str, threads: str) -> dict[str, Any]:
    """Embed as many decoded pictures as a folder has, and no more; the first of them in turn."""
    del warm  # the first pictures of the folder do for that
    encoder = ImageEncoder()
    paths = sorted(Path(folder).iterdir())
    images = []
    for path in paths[:_PREPARED]:
        with open_file(path) as opened:
            images.append(opened.load(min_side=encoder.min_side).pixels)

    def some(count: int) -> int:
        return len(list(pool.map(encoder.embed, islice(cycle(images), count))))

    workers = int(threads)
    with encoder.for_throughput(workers), ThreadPoolExecutor(workers) as pool:
        some(4 * workers)
        return _timed(lambda: some(len(paths)))


def add(folder: str, warm: str, threads: str) -> dict[str, Any]:
    """`Library.add` of a folder to a new library that has some pictures already."""
    with (
        tempfile.TemporaryDirectory(dir=Path(folder).parent) as scratch,
        open_library(Path(scratch) / "library") as library,
    ):
        library.add(warm, workers=int(threads))
        return _timed(lambda: library.add(folder, workers=int(threads)).added)


def list_folder(_: str, folder: str) -> dict[str, Any]:
    """Walk a folder and ask for the stat of each file."""
    return _timed(lambda: sum(1 for _ in walk(FolderRecord(folder))))


def pages(library: str, folder: str) -> dict[str, Any]:
    """Have the catalog say all that it knows of the files of a folder."""
    with _opened(library) as (catalog, model):

        def read() -> int:
            count, after = 0, None
            while page := catalog.places.known(folder, model, after=after, limit=_PAGE):
                count += len(page)
                after = next(reversed(page))
            return count

        return _timed(read)


def compare(library: str, folder: str) -> dict[str, Any]:
    """Compare a folder with the catalog, which knows all of it; says how memory grew."""
    with _opened(library) as (catalog, model):
        record = catalog.folders.get(folder)
        assert record is not None
        before = resident_bytes()

        def scan() -> int:
            report = Report()
            comparison = Comparison(catalog, model, report)
            read = sum(1 for _ in comparison.whole(record))
            return report.unchanged if not read else -read

        rounds = [_timed(scan) for _ in range(_POLLS)]
        return {"rounds": rounds, "resident_before": before, "resident": resident_bytes()}


def poll(_: str, folder: str) -> dict[str, Any]:
    """The rounds of watchdog's PollingObserver of a folder in which nothing happens."""
    from watchdog.observers.api import EventQueue, ObservedWatch
    from watchdog.observers.polling import PollingEmitter

    before = resident_bytes()
    # What the observer's thread does, but for the pauses.
    emitter_queue = EventQueue()
    emitter = PollingEmitter(emitter_queue, ObservedWatch(folder, recursive=True))
    emitter.on_thread_start()

    def look() -> int:
        emitter.queue_events(0)
        return emitter_queue.qsize()

    rounds = [_timed(look) for _ in range(_POLLS)]
    return {"rounds": rounds, "resident_before": before, "resident": resident_bytes()}


def write(folder: str, crops: str, count: str, folders: str) -> dict[str, Any]:
    """Write small files as fast as it goes."""
    jpegs = contents(Path(crops))
    started = time.time()
    figures = _timed(
        lambda: sum(1 for _ in write_files(Path(folder), jpegs, int(count), int(folders)))
    )
    return {**figures, "started_at": started}


@contextmanager
def _opened(library: str) -> Iterator[tuple[Catalog, ModelRecord]]:
    catalog = Catalog(Path(library), create=False)
    try:
        model = catalog.model()
        assert model is not None
        yield catalog, model
    finally:
        catalog.close()


def resident_bytes() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "decode": decode,
    "encode": encode,
    "add": add,
    "walk": list_folder,
    "pages": pages,
    "compare": compare,
    "poll": poll,
    "write": write,
}


def main() -> None:
    """Run a stage."""
    name, *arguments = sys.argv[1:]
    act = STAGES[name]
    if len(arguments) != len(inspect.signature(act).parameters):
        raise SystemExit(f"{name} takes: {', '.join(inspect.signature(act).parameters)}")
    print(json.dumps(act(*arguments)))


if __name__ == "__main__":
    main()
