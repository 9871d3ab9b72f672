"""Libraries of a given size, written through the package's own catalog and index.

Nobody has a million photographs at hand, so what is written are the vectors of some hundred real
photographs, and from there on the same again with noise. What depends on the number of images (the
database, the index, memory, the time of a search) does not see the difference.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from benchmarks import photographs
from benchmarks.common import say
from searchlib.catalog import Catalog, Facts, FolderRecord, ModelRecord, NewContent, ReadFile, Stat
from searchlib.catalog.schema import REVISION
from searchlib.encoder import ImageEncoder
from searchlib.search import LiveIndex

REAL_VECTORS = 500
NOISE = 0.5
"""Length of the noise that is added to a unit vector; about 0.9 is the cosine of the two."""

FORMAT = 2
"""To be raised when what is written changes, so that libraries of before are not used again."""

ALBUMS = 1000
"""How many folders the files of a library lie in: a hundred in each of ten others."""

FIRST_TAKEN = datetime(2010, 1, 1)
YEARS = 10
"""In which years the photographs are said to be taken, in the order of their numbers."""

_BATCH = 4000


@dataclass(frozen=True, slots=True)
class BuiltLibrary:
    """A library of the cache.

    Attributes:
        size: how many images it has.
        folder: where it lies.
        build_seconds: what it took to write it, at the time.
        catalog_bytes, index_bytes: on disk.
    """

    size: int
    folder: Path
    build_seconds: float
    catalog_bytes: int
    index_bytes: int


def real_vectors(cache: Path, origin: photographs.Source) -> NDArray[np.float32]:
    """The vectors of REAL_VECTORS photographs, float32 [n, dimension]; kept in the cache."""
    encoder = ImageEncoder()
    path = cache / "vectors" / f"{origin.key}-{encoder.identity[:16]}-{REAL_VECTORS}.npy"
    if path.exists():
        kept: NDArray[np.float32] = np.load(path)
        return kept
    say(f"embedding {REAL_VECTORS} photographs for the libraries")
    found = photographs.pictures(origin, "library", "500px", REAL_VECTORS)
    workers = os.cpu_count() or 1
    with encoder.for_throughput(workers), ThreadPoolExecutor(workers) as pool:
        vectors = np.stack(list(pool.map(encoder.embed, (image for image, _ in found))))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    return vectors


def library(cache: Path, origin: photographs.Source, size: int) -> BuiltLibrary:
    """A library of `size` images; built at the first call and kept for this model and source."""
    encoder = ImageEncoder()
    name = f"{origin.key}-{encoder.identity[:16]}-{REVISION}-{FORMAT}-{size}"
    folder = cache / "libraries" / name
    if not folder.exists():
        vectors = real_vectors(cache, origin)
        say(f"building a library of {size:,} images")
        unfinished = folder.with_name(name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        seconds = _build(unfinished, encoder, vectors, size)
        (unfinished / "built.json").write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
        unfinished.rename(folder)
        say(f"built it in {seconds:.1f} s")
    _bring_index_up_to_date(folder, encoder)
    built = json.loads((folder / "built.json").read_text(encoding="utf-8"))
    lengths = {path.suffix: path.stat().st_size for path in folder.iterdir()}
    return BuiltLibrary(size, folder, built["seconds"], lengths[".db"], lengths[".ckpt"])


def as_json(built: BuiltLibrary) -> dict[str, object]:
    """For the report."""
    return {**asdict(built), "folder": str(built.folder)}


def _build(folder: Path, encoder: ImageEncoder, vectors: NDArray[np.float32], size: int) -> float:
    start = time.perf_counter()
    catalog = Catalog(folder, create=True)
    try:
        model = _model(catalog, encoder)
        catalog.folders.put(FolderRecord("/photographs"))
        for first in range(0, size, _BATCH):
            batch = list(_files(vectors, first, min(first + _BATCH, size), size))
            catalog.record(model, batch, gone=lambda *_: False)
        LiveIndex(catalog, model, folder).refresh()
    finally:
        catalog.close()
    return time.perf_counter() - start


def _bring_index_up_to_date(folder: Path, encoder: ImageEncoder) -> None:
    # A checkpoint of an older format would be built anew by every query that is measured.
    catalog = Catalog(folder, create=False)
    try:
        LiveIndex(catalog, _model(catalog, encoder), folder).refresh()
    finally:
        catalog.close()


def _model(catalog: Catalog, encoder: ImageEncoder) -> ModelRecord:
    return catalog.use_model(
        identity=encoder.identity, name=encoder.card.name, dimension=encoder.dimension
    )


def taken(number: int, size: int) -> datetime:
    """When the photograph of this number was taken, in a library of that size."""
    return FIRST_TAKEN + timedelta(seconds=number * YEARS * 365 * 86_400 // size)


def album(number: int, size: int) -> str:
    """The folder that the photograph of this number lies in, in a library of that size."""
    at = number * ALBUMS // size
    return f"/photographs/{at * 10 // ALBUMS}/{at:03}"


def _files(vectors: NDArray[np.float32], first: int, stop: int, size: int) -> Iterator[ReadFile]:
    """The images of these numbers: as if each were a photograph of 12 MP."""
    random = np.random.default_rng(first)
    numbers = np.arange(first, stop)
    far = NOISE * (numbers >= len(vectors))
    noise = random.standard_normal((len(numbers), vectors.shape[1]), np.float32)
    noise *= (far / np.sqrt(vectors.shape[1]))[:, None].astype(np.float32)
    noisy = vectors[numbers % len(vectors)] + noise
    unit = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    for number, vector in zip(numbers.tolist(), unit, strict=True):
        length = 3_000_000 + number
        yield ReadFile(
            path=f"{album(number, size)}/IMG_{number:08}.jpg",
            stat=Stat(length, 1_600_000_000_000_000_000 + number, 1_000_000 + number),
            digest=blake3(number.to_bytes(8, "little")).digest(),
            folder="/photographs",
            content=NewContent(
                Facts(
                    bytes=length,
                    format="JPEG",
                    width=4000,
                    height=3000,
                    taken_at=taken(number, size).isoformat(),
                    camera_make="Camera",
                    camera_model="Camera 1000",
                    latitude=48.2082,
                    longitude=16.3738,
                ),
                vector.astype(np.float32),
            ),
        )
