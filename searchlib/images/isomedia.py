"""HEIF, AVIF and CR3 containers (ISO/IEC 14496-12): which of them, and is the file whole."""

from __future__ import annotations

import os
from typing import IO

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}

# The brands of the container, which say nothing of what is inside.
_IMAGE_BRANDS = {b"mif1", b"msf1"}

# Cameras append blocks of their own, which are not boxes and whose length is not to be believed.
_LOAD_BEARING = {b"ftyp", b"meta", b"mdat", b"moov"}


def picture_format(head: bytes) -> str | None:
    """ "HEIF", "AVIF", "RAW" or None by the brands of the `ftyp` box at the start of a file."""
    if head[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(head[:4], "big"), len(head))
    major, compatible = head[8:12], {head[at : at + 4] for at in range(16, size - 3, 4)}
    if major in _AVIF_BRANDS or (major in _IMAGE_BRANDS and compatible & _AVIF_BRANDS):
        return "AVIF"
    if major == b"crx ":  # Canon's CR3
        return "RAW"
    return "HEIF" if major in _HEIF_BRANDS | _IMAGE_BRANDS else None


def missing_bytes(file: IO[bytes]) -> int:
    """How many bytes the boxes announce beyond the end of the file; 0 for a whole file.

    libheif draws what it has of a photograph cut short and leaves the other tiles grey, without
    an error, so a copy that was interrupted would pass for the picture.
    """
    end = file.seek(0, os.SEEK_END)
    start = 0
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1 and len(header) == 16:
            size = int.from_bytes(header[8:], "big")
        if size < 8 or kind not in _LOAD_BEARING | {b"free", b"skip", b"uuid"}:
            break  # 0 means up to the end of the file; less than a header is no box
        start += size
        if start > end and kind in _LOAD_BEARING:
            return start - end
    return 0
