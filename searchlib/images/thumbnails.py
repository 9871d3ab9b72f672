"""Small pictures for lists and pages, kept as files under the hash of the content they show.

    folder/ab/ab12...ef.webp     "ab" are the first two of the 64 digits

They are a cache: any of them can be deleted, and one that cannot be written is only missed.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from searchlib.images.names import printable

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

SIDE = 256
"""The longer side of a thumbnail in pixels, where the picture is not smaller itself."""

_QUALITY = 80
# WebP's effort, 0 to 6: half the time of the default 4, for files a few hundredths longer.
_EFFORT = 2

_TEMPORARY = ".tmp"
# Writing one takes milliseconds, so after an hour its writer is gone.
_STALE_SECONDS = 3600.0

_lock = threading.Lock()
_failed_folders: set[str] = set()


def thumbnail_path(folder: Path, digest: bytes) -> Path:
    """Where the thumbnail of this content is, whether it exists or not.

    Args:
        folder: of all thumbnails.
        digest: BLAKE3 of the content, 32 bytes.
    """
    name = digest.hex()
    return folder / name[:2] / f"{name}.webp"


def write_thumbnail(folder: Path, digest: bytes, pixels: Image.Image) -> bool:
    """Write a thumbnail where there is none: WebP, up to 256 pixels on the longer side.

    It appears under its name only when it is whole. What goes wrong on the disk is logged, the
    first time for each folder, and raises nothing.

    Args:
        folder: of all thumbnails; made where it is missing.
        digest: BLAKE3 of the content, 32 bytes.
        pixels: mode RGB, upright, in sRGB; left as it is. Never enlarged.

    Returns:
        True where it was written; False where it was there before, or could not be written.
    """
    path = thumbnail_path(folder, digest)
    try:
        if path.exists():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _reduced(pixels))
    except OSError as error:
        _warn_once(folder, error)
        return False
    return True


def thumbnail_bytes(pixels: Image.Image) -> bytes:
    """A thumbnail as `write_thumbnail` writes it: WebP, up to 256 pixels on the longer side."""
    written = io.BytesIO()
    _save(_reduced(pixels), written)
    return written.getvalue()


def remove_thumbnail(folder: Path, digest: bytes) -> None:
    """Remove the thumbnail of this content, if there is one. Errors are logged as on writing."""
    try:
        thumbnail_path(folder, digest).unlink(missing_ok=True)
    except OSError as error:
        _warn_once(folder, error)


def remove_stale_temporaries(folder: Path) -> int:
    """Remove what writers left behind that were killed more than an hour ago; how many it were."""
    removed = 0
    oldest = time.time() - _STALE_SECONDS
    try:
        for path in folder.glob(f"??/*{_TEMPORARY}"):
            # Where it is gone, its writer lives or another sweeps.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
    except OSError as error:
        _warn_once(folder, error)
    return removed


def _reduced(pixels: Image.Image) -> Image.Image:
    width, height = pixels.size
    longer = max(width, height)
    if longer <= SIDE:
        return pixels
    size = (max(round(width * SIDE / longer), 1), max(round(height * SIDE / longer), 1))
    from PIL import Image

    # First by whole numbers to twice the size, which is fast, and then with the good filter.
    return pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _write(path: Path, small: Image.Image) -> None:
    # A file that is torn by a loss of power is replaced no sooner than the cache is emptied, but
    # waiting for the disk at each one would take longer than all the rest of ingestion.
    temporary = path.with_name(f"{path.stem}.{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            _save(small, file)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _save(small: Image.Image, file: IO[bytes]) -> None:
    small.save(file, "WEBP", quality=_QUALITY, method=_EFFORT, exif=b"", icc_profile=b"")


def _warn_once(folder: Path, error: OSError) -> None:
    name = os.fspath(folder)
    with _lock:
        if name in _failed_folders:
            return
        _failed_folders.add(name)
    logger.warning("%s: thumbnails cannot be kept there: %s", printable(name), error.strerror)
