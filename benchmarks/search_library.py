"""The library that queries are measured on: one of `libraries` with tags on it, and real files.

A tenth, nine tenths and a thousandth of its images have a tag each, drawn by chance, several of
each kind. Some photographs that lie in the cache were added to it as a user adds them, so that they
can be asked for as stored images.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from benchmarks import libraries, photographs
from benchmarks.common import BenchmarkError, say
from searchlib import open_library
from searchlib.library import Library

SHARES = (0.001, 0.1, 0.9)
STORED = 12
TAGS = {0.001: 10, 0.1: 5, 0.9: 2}
"""How many tags that are on this share of the images; together 2.3 on each."""

FORMAT = 1
"""To be raised when what is written changes, so that libraries of before are not used again."""

_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class SearchLibrary:
    """A library of the cache; who changes it makes a copy first.

    Attributes:
        size: how many images it was made with; the stored photographs come on top.
        folder: where it lies.
        stored: a folder with photographs of 12 MP that are in it.
    """

    size: int
    folder: Path
    stored: Path

    def copy(self, target: Path) -> Path:
        """A copy of it at a place that does not exist yet."""
        shutil.copytree(self.folder, target)
        return target


def library(cache: Path, origin: photographs.Source, size: int) -> SearchLibrary:
    """A library of `size` images and STORED photographs; built at the first call and kept."""
    base = libraries.library(cache, origin, size)
    stored = photographs.files(cache, origin, "stored", "12mp", STORED)
    folder = cache / "search" / f"{base.folder.name}-{FORMAT}"
    if not folder.exists():
        say(f"putting tags on a library of {size:,} images")
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(base.folder, unfinished)
        with open_library(unfinished, create=False, background=False) as opened:
            _tag(opened, size)
            added = opened.add(stored)
            if added.added != STORED:
                raise BenchmarkError(f"{added.added} of {STORED} photographs were added: {added}")
            # The index is written while nobody measures.
            opened.build_index()
        unfinished.rename(folder)
    return SearchLibrary(size, folder, stored)


def tag_name(share: float, number: int) -> str:
    """Of one of the tags that are on a share of the images."""
    return f"share-{share:g}-{number % TAGS[share]}"


def filters(share: float, size: int, number: int) -> dict[str, str]:
    """Conditions that keep a share of the images, of each kind that is measured.

    Args:
        share: one of SHARES.
        size: of the library.
        number: another number gives other images, as far as there are others.
    """
    length = round(share * size)
    # Away from both ends, where a range would be cut off.
    first = (size - length) * (number % 10) // 10
    since = libraries.taken(first, size)
    until = libraries.taken(first + length - 1, size)
    if until <= since:
        until = since + timedelta(seconds=1)
    if share >= 0.9:
        folder = f"photographs/[!{number % 10}]"
    elif share >= 0.1:
        folder = f"photographs/{number % 10}"
    else:
        folder = libraries.album(size // 1000 * (37 * number % 1000), size)
    return {
        "tag": f"tag:{tag_name(share, number)}",
        "taken": f"taken:{since.isoformat()}..{until.isoformat()}",
        "folder": f'folder:"{folder}"',
    }


def _tag(opened: Library, size: int) -> None:
    ids = _ids(opened, size)
    random = np.random.default_rng(5)
    for share, count in TAGS.items():
        for number in range(count):
            chosen = np.sort(random.choice(ids, round(share * size), replace=False))
            for start in range(0, len(chosen), _AT_ONCE):
                opened.tag(chosen[start : start + _AT_ONCE].tolist(), tag_name(share, number))


def _ids(opened: Library, size: int) -> Sequence[int]:
    ids: list[int] = []
    while page := opened.images(after=ids[-1] if ids else None, limit=5000, newest_first=False):
        ids += [image.id for image in page]
    if len(ids) != size:
        raise BenchmarkError(f"{opened.folder}: {len(ids)} images, not {size}")
    return ids
