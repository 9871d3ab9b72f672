"""Files that are one shot: the raw file beside its JPEG, the film beside a live photograph.

Cameras and phones write them into one folder under one name and differing extensions.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from itertools import product
from typing import Literal

from searchlib.images.names import IMAGE_EXTENSIONS, RAW_EXTENSIONS

VIDEO_EXTENSIONS = frozenset({".mov", ".mp4", ".m4v"})
"""Of the films of live photographs, lower case, with the dot."""

# The formats that phones take live photographs in.
_LIVE_EXTENSIONS = {".jpg", ".jpeg", ".heic", ".heif"}

Kind = Literal["raw", "still", "video"]

_RANKS: dict[Kind | None, int] = {"still": 0, "raw": 1, "video": 2, None: 3}


def stack_key(path: str) -> str:
    """What all files of one shot have in common: the folder and the name up to its last dot.

    Case counts, for on most disks names that differ in it are two files. "IMG_1.CR2" and
    "IMG_1.JPG" share a key; "IMG_1.CR2.jpg" has another, which some programs give to a picture
    they made of the raw file.
    """
    return os.path.splitext(path)[0]  # noqa: PTH122 - a Path would change the text


def kind_of(path: str) -> Kind | None:
    """What a file is by its extension, in any case; None for what belongs to no stack."""
    extension = _extension(path)
    if extension in RAW_EXTENSIONS:
        return "raw"
    if extension in IMAGE_EXTENSIONS:
        return "still"
    return "video" if extension in VIDEO_EXTENSIONS else None


def live_video(path: str, names: Container[str]) -> str | None:
    """The film of a live photograph.

    Args:
        path: of a still; anything but a JPEG or a HEIC has no film.
        names: the names of the files in its folder, without the folder.

    Returns:
        The path of the film, or None. Its extension may be all lower or all upper case.
    """
    if _extension(path) not in _LIVE_EXTENSIONS:
        return None
    folder, name = os.path.split(path)
    stem = stack_key(name)
    for extension, change in product(sorted(VIDEO_EXTENSIONS), (str.lower, str.upper)):
        film = stem + change(extension)
        if film in names:
            return os.path.join(folder, film)  # noqa: PTH118 - the same
    return None


def leader(paths: Sequence[str]) -> str:
    """Which file of a stack stands for it: the first developed still by name, else the raw file.

    The order of `paths` does not matter.

    Raises:
        ValueError: `paths` is empty.
    """
    return min(paths, key=lambda path: (_RANKS[kind_of(path)], path))


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - the same
