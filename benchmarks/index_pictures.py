"""Real embeddings for the index to hold: of whole photographs, and of parts of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import photographs
from benchmarks.common import BenchmarkError, say
from searchlib.encoder import ImageEncoder
from searchlib.errors import SearchlibError
from searchlib.images import load

MOST_PICTURES = 2500
FEWEST_VIEWS = 4
ENOUGH = 8000
"""Vectors: where there are few photographs, more parts are taken of each."""

QUICK_VECTORS = 600

_PART = (0.35, 0.8)
"""Of the width and of the height: how large a part of a photograph is."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Embedded:
    """Real embeddings.

    Attributes:
        vectors: unit vectors, float32 [n, dimension].
        pictures: the number of the photograph of each, int64 [n]; ascending.
        key: names this set in the cache.
        words: what it is, for the report.
    """

    vectors: NDArray[np.float32]
    pictures: NDArray[np.int64]
    key: str
    words: str


def embedded(
    cache: Path, origin: photographs.Source, encoder: ImageEncoder, *, quick: bool = False
) -> Embedded:
    """The embeddings of a source; made at the first call and kept in the cache.

    Raises:
        BenchmarkError: none of the photographs can be decoded.
    """
    pictures = min(len(origin.names), MOST_PICTURES)
    if quick:
        pictures = min(pictures, QUICK_VECTORS // FEWEST_VIEWS)
    views = max(FEWEST_VIEWS, -(-(QUICK_VECTORS if quick else ENOUGH) // pictures))
    key = f"{origin.key}-{encoder.identity[:16]}-{pictures}x{views}-{_FORMAT}"
    path = cache / "embeddings" / f"{key}.npz"
    if not path.exists():
        say(f"embedding {pictures} photographs, {views} parts of each")
        _embed(path, origin, encoder, pictures, views)
    with np.load(path) as kept:
        vectors, owners = kept["vectors"], kept["pictures"]
    of = "skimage.data" if origin.folder is None else "the folder given with --data"
    words = (
        f"{len(vectors)} embeddings of {len(np.unique(owners))} photographs of {of} and of parts "
        f"of them, by {encoder.card.name}"
    )
    return Embedded(vectors, owners, key, words)


def _embed(
    path: Path, origin: photographs.Source, encoder: ImageEncoder, pictures: int, views: int
) -> None:
    def one(number: int) -> list[NDArray[np.float32]]:
        return [encoder.embed(view) for view in _views(origin, encoder, number, views)]

    workers = os.cpu_count() or 1
    with encoder.for_throughput(workers), ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(one, range(pictures)))
    owners = [number for number, each in enumerate(found) for _ in each]
    if not owners:
        raise BenchmarkError(f"{origin.folder}: none of these photographs can be decoded")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    vectors = np.stack([vector for each in found for vector in each])
    np.savez(unfinished, vectors=vectors, pictures=np.array(owners, np.int64))
    unfinished.rename(path)


def _views(
    origin: photographs.Source, encoder: ImageEncoder, number: int, views: int
) -> Iterator[Image.Image]:
    """A photograph and parts of it; nothing where it cannot be decoded."""
    random = np.random.default_rng([1, number])
    name = origin.names[number]
    try:
        if origin.folder is None:
            import skimage.data

            picture = load(getattr(skimage.data, name)()).pixels
        else:
            picture = load(origin.folder / name, min_side=encoder.min_side).pixels
    except SearchlibError:
        return
    yield picture
    for _ in range(views - 1):
        share = random.uniform(*_PART)
        size = max(1, int(picture.width * share)), max(1, int(picture.height * share))
        left = int(random.integers(0, picture.width - size[0] + 1))
        top = int(random.integers(0, picture.height - size[1] + 1))
        yield picture.crop((left, top, left + size[0], top + size[1]))
