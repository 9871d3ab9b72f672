"""TIFF directories (TIFF 6.0), as far as raw files need them: is it a DNG, and is it whole."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO

_STRIP_OFFSETS, _STRIP_BYTES = 273, 279
_TILE_OFFSETS, _TILE_BYTES = 324, 325
_SUB_DIRECTORIES = 330
_DNG_VERSION = 50706
_WANTED = {_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES, _SUB_DIRECTORIES, _DNG_VERSION}

_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
_INTEGERS = {1: "B", 3: "H", 4: "L", 13: "L"}

# Far above what cameras write, so that damaged directories come to an end.
_MOST_DIRECTORIES = 64
_MOST_VALUES = 1 << 16

_Directory = dict[int, tuple[int, ...]]


def is_dng(file: IO[bytes]) -> bool:
    """Whether the first directory of a TIFF says that it is a Digital Negative."""
    return any(_DNG_VERSION in directory for directory in _directories(file, most=1))


def missing_bytes(file: IO[bytes]) -> int:
    """How many bytes the picture data announces beyond the end of the file; 0 for a whole file.

    LibRaw hands out the preview of a file whose other half is missing, so a copy that was
    interrupted would pass for the photograph. Of a DNG the lengths are believed. The cameras'
    own dialects of TIFF are careless with them, so only the first half of each block counts.
    """
    end = file.seek(0, os.SEEK_END)
    last = 0
    believed = False
    for number, directory in enumerate(_directories(file, most=_MOST_DIRECTORIES)):
        believed = believed or (number == 0 and _DNG_VERSION in directory)
        for offsets, lengths in ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES)):
            blocks = zip(directory.get(offsets, ()), directory.get(lengths, ()), strict=False)
            for offset, length in blocks:
                if offset != 0xFFFFFFFF:  # Panasonic names the place in a tag of its own
                    last = max(last, offset + (length if believed else length // 2))
    return max(last - end, 0)


def _directories(file: IO[bytes], *, most: int) -> Iterator[_Directory]:
    """The wanted integers of up to so many directories, the first one first."""
    file.seek(0)
    head = file.read(8)
    order = _BYTE_ORDERS.get(head[:2])
    if order is None or len(head) < 8:
        return
    ahead = [struct.unpack(f"{order}L", head[4:])[0]]
    seen: set[int] = set()
    while ahead and len(seen) < most:
        at = ahead.pop(0)
        if at == 0 or at in seen:
            continue
        seen.add(at)
        directory, following = _directory(file, at, order)
        ahead += [following, *directory.get(_SUB_DIRECTORIES, ())[:_MOST_DIRECTORIES]]
        yield directory


def _directory(file: IO[bytes], at: int, order: str) -> tuple[_Directory, int]:
    """The directory at this place, and where the next one is; 0 for none."""
    file.seek(at)
    count = int.from_bytes(file.read(2), "little" if order == "<" else "big")
    table = file.read(12 * count + 4)
    directory: _Directory = {}
    for start in range(0, min(12 * count, len(table) - 11), 12):
        tag, kind, length = struct.unpack_from(f"{order}HHL", table, start)
        code = _INTEGERS.get(kind)
        if tag not in _WANTED or tag in directory or code is None or length > _MOST_VALUES:
            continue
        layout = struct.Struct(f"{order}{length}{code}")
        data = table[start + 8 : start + 12]
        if layout.size > len(data):
            file.seek(struct.unpack(f"{order}L", data)[0])
            data = file.read(layout.size)
        if len(data) >= layout.size:
            directory[tag] = layout.unpack_from(data)
    tail = table[12 * count :]
    return directory, struct.unpack(f"{order}L", tail)[0] if len(tail) == 4 else 0
