"""Photographs to measure with: real pictures, cut, scaled, brightened and saved again, so that no
two files have the same content.

Without a folder of photographs, those that come with scikit-image are used. They have half a
megapixel and less; scaled to 12 MP they would be smooth, and a JPEG decoder is fast on what is
smooth. So they get the grain of a sensor, which brings the files to the 3 to 6 MB that a phone's
have.
"""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.common import BenchmarkError, installed, say
from searchlib.errors import ImageError
from searchlib.images import is_image_name, load

Kind = Literal["500px", "12mp"]

LARGE = (4000, 3000)
SMALL_SIDE = 500
GRAIN = 5.0
"""Standard deviation, in levels of 255, of what is added where a picture is scaled up."""

_PLAIN_PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "rocket",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "brick",
    "grass",
    "gravel",
    "moon",
)
_LEAST_SIDE = 200


@dataclass(frozen=True, slots=True)
class Source:
    """Where the photographs come from.

    Attributes:
        names: files below `folder`, or functions of skimage.data where that is None.
        folder: of the user's photographs.
    """

    names: tuple[str, ...]
    folder: Path | None

    @property
    def key(self) -> str:
        """Eight hex digits that name this source in the cache."""
        said = "\n".join([str(self.folder), *self.names])
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:8]

    @property
    def words(self) -> str:
        """What this source is, for the report."""
        if self.folder is None:
            return f"{len(self.names)} photographs of skimage.data, edited"
        return f"{len(self.names)} photographs of the folder given with --data, edited"


def source(data: Path | None) -> Source:
    """The photographs of a folder, or those of scikit-image.

    Raises:
        BenchmarkError: there is none in the folder, or scikit-image is missing.
    """
    if data is None:
        if not installed("skimage"):
            raise BenchmarkError("scikit-image is missing; install it or give --data")
        return Source(_PLAIN_PHOTOGRAPHS, None)
    root = data.resolve()
    names = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*"))
        if is_image_name(path.name) and path.is_file() and _usable(path)
    ]
    if not names:
        raise BenchmarkError(f"{data}: there are no photographs here")
    # Neighbours in a folder are alike, and a set takes no more than the first few.
    order = np.random.default_rng(0).permutation(len(names))
    return Source(tuple(names[place] for place in order), root)


def _usable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return min(image.size) >= _LEAST_SIDE
    except Exception:  # whatever a broken file makes a plugin raise
        return False


def files(folder: Path, origin: Source, name: str, kind: Kind, count: int) -> Path:
    """A folder with `count` JPEGs; made at the first call and kept.

    Args:
        folder: the cache.
        origin: where the photographs come from.
        name: sets of different names share no file.
        kind: "500px" has 500 pixels on the longer side, "12mp" has 4000 x 3000.
        count: how many.
    """
    target = folder / "photographs" / origin.key / f"{name}-{kind}-{count}"
    if target.exists():
        return target
    say(f"making {count} photographs ({kind}) for {name}")
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for i, (image, quality) in enumerate(pictures(origin, name, kind, count)):
        image.save(unfinished / f"{i:05}.jpg", quality=quality)
    unfinished.rename(target)
    return target


def pictures(
    origin: Source, name: str, kind: Kind, count: int
) -> Iterator[tuple[Image.Image, int]]:
    """The same as pictures in mode RGB, with the JPEG quality to save them at."""
    for i in range(count):
        random = np.random.default_rng([zlib.crc32(name.encode()), i])
        yield _edited(_opened(origin, i), kind, random), int(random.integers(75, 96))


def _opened(origin: Source, i: int) -> Image.Image:
    """The i-th photograph of a source, from the start again behind the last one."""
    for attempt in range(len(origin.names)):
        name = origin.names[(i + attempt) % len(origin.names)]
        if origin.folder is None:
            return _of_skimage(name)
        try:
            return load(origin.folder / name, min_side=2 * SMALL_SIDE).pixels
        except ImageError:
            continue
    raise BenchmarkError(f"{origin.folder}: none of these photographs can be decoded")


@cache
def _of_skimage(name: str) -> Image.Image:
    import skimage.data

    return load(getattr(skimage.data, name)()).pixels


def _edited(image: Image.Image, kind: Kind, random: np.random.Generator) -> Image.Image:
    cut = image.crop(_box(image.size, kind, random))
    if random.random() < 0.5:
        cut = ImageOps.mirror(cut)
    if kind == "12mp":
        scaled = cut.resize(LARGE, Image.Resampling.BICUBIC)
        if cut.width < LARGE[0] / 1.5:
            scaled = _grained(scaled, random)
    else:
        scale = SMALL_SIDE / max(cut.size)
        size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
        scaled = cut.resize(size, Image.Resampling.LANCZOS)
    brighter = ImageEnhance.Brightness(scaled).enhance(random.uniform(0.8, 1.2))
    return ImageEnhance.Color(brighter).enhance(random.uniform(0.7, 1.3))


def _box(
    size: tuple[int, int], kind: Kind, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """A part of a picture of 4:3 (for 500 px also 3:4), 60 to 100 % of what fits in."""
    shape = (3, 4) if kind == "500px" and random.random() < 0.5 else (4, 3)
    whole = min(size[0] / shape[0], size[1] / shape[1])
    scale = whole * random.uniform(0.6, 1.0)
    width, height = int(shape[0] * scale), int(shape[1] * scale)
    left = int(random.integers(0, size[0] - width + 1))
    top = int(random.integers(0, size[1] - height + 1))
    return left, top, left + width, top + height


def _grained(image: Image.Image, random: np.random.Generator) -> Image.Image:
    # One grain, laid on at another place each time: to draw 12 million numbers takes longer than
    # all the rest.
    shift = tuple(int(step) for step in random.integers(0, 1000, 2))
    grain = np.roll(_grain(), shift, (0, 1))
    rows, columns = image.height, image.width
    grained = np.asarray(image, np.int16) + grain[:rows, :columns, None]
    return Image.fromarray(np.clip(grained, 0, 255).astype(np.uint8))


@cache
def _grain() -> NDArray[np.int16]:
    random = np.random.default_rng(0)
    shape = (LARGE[1], LARGE[0])
    return np.rint(random.normal(0, GRAIN, shape)).astype(np.int16)
