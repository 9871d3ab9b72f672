"""The folder of uploaded pictures, which is the server's own.

    uploads/ab/ab12...ef.jpg         "ab" are the first two of the 64 digits of the content's BLAKE3
    uploads/ab/.ab12...ef.jpg.<random>.tmp      is being written
    uploads/.trash/2024-06-01/ab12...ef.jpg     was deleted on that day (UTC)

A picture gets its name only when it is whole and on the disk, and is added to the library after
that. A server that is killed between the two leaves a whole file that the library does not know:
the next start adds it, for its sender may have been told. What was not whole is removed.

Deleting moves a file to the trash, from where it goes for good after 30 days. Nothing is ever
removed or moved but files of this folder whose name is the digest of the image.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import threading
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from searchlib.catalog import ImageRecord
from searchlib.errors import DiskFullError, LibraryError, LibraryReadOnlyError, NotFoundError
from searchlib.images import (
    IMAGE_EXTENSIONS,
    RAW_EXTENSIONS,
    NamedBytes,
    fingerprint,
    load,
    printable,
    reads_raw,
)
from searchlib.images.formats import HEAD_BYTES, sniff
from searchlib.library import Library
from searchlib.server.problems import Problem

logger = logging.getLogger(__name__)

TRASH = ".trash"
TRASH_DAYS = 30

_TEMPORARY = ".tmp"
_STALE_SECONDS = 3600.0
_MANAGED = re.compile(r"([0-9a-f]{64})(\.[a-z0-9]{1,5})")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Of a picture whose sender gave no name that fits one; of another format: see `_extension`.
_EXTENSIONS = {"JPEG": ".jpg", "TIFF": ".tif", "HEIF": ".heic", "JPEG2000": ".jp2"}
_LEAST = (1, 1)


class Uploads:
    """Keeps uploaded pictures; may be used from many threads.

    Args:
        library: that they are added to.
        folder: made with the first picture.
    """

    def __init__(self, library: Library, folder: Path) -> None:
        self._library = library
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolves no links
        self._adding = threading.Lock()
        self._mutex = threading.Lock()
        self._waiting: list[Path] = []

    def add(self, picture: NamedBytes) -> tuple[ImageRecord, bool]:
        """Keep a picture and add it to the library.

        Args:
            picture: of its label only the extension counts.

        Returns:
            The image, and whether it is new: bytes that the library has, wherever, are not kept
            a second time.

        Raises:
            ImageError: it is no picture that can be used; nothing of it is kept.
            Problem: the same, where only embedding it shows.
            DiskFullError, LibraryReadOnlyError: it cannot be kept.
            LibraryError, EncoderError: the library or the model cannot be used; the picture is kept
                and added by the next start.
        """
        digest = fingerprint(picture.content).digest.hex()
        known = self._library.by_digest(digest)
        if known is not None:
            return known, False
        # Before anything is written: what is no picture should leave no trace, in the library
        # neither. All of the file is read for it, at an eighth of its pixels.
        load(picture, min_side=_LEAST, max_pixels=self._library.max_query_pixels)
        path = self._path(digest, picture)
        self._write(path, picture.content)
        reason = self._take_in(path)
        image = self._library.by_digest(digest)
        if image is None:
            with suppress(OSError):
                path.unlink()
            self._library.add(path, workers=1)  # finds that it is gone
            raise Problem("not-a-picture", f"{picture.label}: {reason or 'cannot be used'}")
        return image, True

    def remove(self, id: int) -> None:
        """Take an uploaded image out of the library, and its files to the trash.

        Raises:
            NotFoundError: there is no image of this id.
            Problem: "not-managed", a file of it lies elsewhere; nothing was touched.
            LibraryError: the library cannot be written; the next start makes it good.
        """
        image = self._library.image(id)
        if image is None:
            raise NotFoundError(f"there is no image {id} with a file in place in this library")
        others = [path for path in image.paths if not self._is_managed(path, image.digest)]
        if others:
            raise Problem(
                "not-managed",
                f"image {id} lies at {printable(others[0])}, which was not uploaded; delete the "
                "file there yourself",
            )
        trash = self._folder / TRASH / datetime.now(UTC).date().isoformat()
        try:
            trash.mkdir(parents=True, exist_ok=True)
            for path in image.paths:
                with suppress(FileNotFoundError):  # another request was faster
                    Path(path).replace(trash / Path(path).name)
        except OSError as error:
            raise self._cannot(error) from error
        self._library.add(*image.paths, workers=1)

    def recover(self) -> None:
        """Bring the library in step with the folder, and remove what is over: for the start.

        Raises:
            LibraryError, EncoderError: the library or the model cannot be used.
        """
        if not self._folder.is_dir():
            return
        self._sweep()
        self._expire()
        report = self._library.add(self._folder, background=True)
        if report.added or report.embedded:
            logger.info("took in %d uploads of an earlier run", report.added + report.embedded)
        for skipped in report.skipped:
            path = Path(skipped.path)
            if path.parent.parent == self._folder and _MANAGED.fullmatch(path.name):
                logger.warning("an upload cannot be used: %s: %s", path.name, skipped.reason)

    def _path(self, digest: str, picture: NamedBytes) -> Path:
        return self._folder / digest[:2] / f"{digest}{_extension(picture)}"

    def _is_managed(self, path: str, digest: str) -> bool:
        at = Path(path)
        named = _MANAGED.fullmatch(at.name)
        return (
            named is not None
            and named[1] == digest
            and at.parent == self._folder / digest[:2]
            and not at.is_symlink()
        )

    def _write(self, path: Path, content: bytes) -> None:
        """The file, whole and on the disk, or nothing."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
                _sync(path.parent)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
        except OSError as error:
            raise self._cannot(error) from error

    def _take_in(self, path: Path) -> str | None:
        """Add a file with all others that wait; says why it could not be used, or None."""
        with self._mutex:
            self._waiting.append(path)
        with self._adding:
            with self._mutex:
                batch, self._waiting = list(dict.fromkeys(self._waiting)), []
            if path not in batch and self._library.find(path) is not None:
                return None
            # Not in the batch, and not there: whoever took it along failed.
            report = self._library.add(*(batch if path in batch else [path]), retry=True)
        return next((each.reason for each in report.skipped if each.path == str(path)), None)

    def _sweep(self) -> None:
        """Remove what was being written when a server was killed."""
        oldest = time.time() - _STALE_SECONDS
        for temporary in self._folder.glob(f"??/.*{_TEMPORARY}"):
            with suppress(OSError):
                if temporary.stat().st_mtime < oldest:
                    temporary.unlink()

    def _expire(self) -> None:
        """Remove from the trash what lies there for long enough."""
        oldest = datetime.now(UTC).date() - timedelta(days=TRASH_DAYS)
        with suppress(OSError):
            for day in (self._folder / TRASH).iterdir():
                with suppress(ValueError):  # not a day: somebody else's
                    if date.fromisoformat(day.name) < oldest and not day.is_symlink():
                        shutil.rmtree(day, ignore_errors=True)

    def _cannot(self, error: OSError) -> LibraryError:
        words = f"{printable(self._folder)}: uploads cannot be kept there: {error.strerror}"
        if error.errno in _NO_SPACE:
            return DiskFullError(f"{words}; make room and try again")
        return LibraryReadOnlyError(f"{words}; correct its permissions, or choose another folder")


def _extension(picture: NamedBytes) -> str:
    """The extension that the sender wrote if it is one of a picture, else that of the format."""
    extension = os.path.splitext(picture.label)[1].lower()  # noqa: PTH122 - any text, not a path
    if extension in IMAGE_EXTENSIONS or (extension in RAW_EXTENSIONS and reads_raw()):
        return extension
    format = sniff(picture.content[:HEAD_BYTES]) or "JPEG"
    named = _EXTENSIONS.get(format, f".{format.lower()}")
    return named if named in IMAGE_EXTENSIONS else ".jpg"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
