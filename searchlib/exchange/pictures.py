"""One file of a row's image: read, hashed and decoded for its facts, never embedded."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import KnownImage, NewContent, ReadFile, Stat
from searchlib.errors import ImageError
from searchlib.exchange.rows import Key, local_path
from searchlib.images import OpenedFile, open_file
from searchlib.ingest.place import facts_of, stat_of, stat_of_opened

# Facts are of the whole picture; a JPEG need not be decoded larger than this to be proven whole.
_MIN_SIDE = (64, 64)


@dataclass(frozen=True, slots=True)
class Picture:
    """A readable file of a row's image.

    Attributes:
        file: as the catalog takes it.
        known: the image as the library knows it; None where it is new.
    """

    file: ReadFile
    known: KnownImage | None


def read_picture(
    key: Key,
    vector: NDArray[np.float32],
    root: Path,
    *,
    look_up: Callable[[bytes], KnownImage | None],
    max_pixels: int,
) -> Picture | str:
    """The first of a row's files that can be used, or why none can.

    Args:
        key: of the row.
        vector: of the row, to be stored where the library has none.
        root: what relative paths are below.
        look_up: the library's image of a digest.
        max_pixels: refuse pictures with more.
    """
    reason = "the library has no image of this digest, and the row has no path"
    for text in key.paths:
        path = local_path(text, root)
        if path is None:
            reason = "this is not a path on this machine's disk"
            continue
        try:
            with open_file(path) as opened:
                if key.digest not in (None, opened.digest):
                    reason = "the file has another digest than the row says; it was changed since"
                    continue
                return _picture(opened, path, vector, look_up, max_pixels)
        except ImageError as error:
            reason = error.reason
    return reason


def _picture(
    opened: OpenedFile,
    path: str,
    vector: NDArray[np.float32],
    look_up: Callable[[bytes], KnownImage | None],
    max_pixels: int,
) -> Picture:
    known = look_up(opened.digest)
    content = None
    if known is None or known.vector is None:
        image = opened.load(min_side=_MIN_SIDE, max_pixels=max_pixels)
        content = NewContent(facts_of(image.facts, opened.size), vector)
    at_rest = stat_of_opened(opened)
    return Picture(ReadFile(path, at_rest, opened.digest, None, content), known)


def stat_at(path: str) -> Stat | None:
    """What tells whether the regular file at a path was touched, None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - one for each row
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return stat_of(status)
