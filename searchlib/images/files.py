"""Reading files from disk: once, never blocking, and never two versions of one file.

A picture is hashed and decoded from one and the same read. Files are not mapped into memory: a
mapped file that another program cuts short ends the whole process with SIGBUS.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, TYPE_CHECKING

from blake3 import blake3

from searchlib.errors import SourceError
from searchlib.images import DEFAULT_MAX_PIXELS
from searchlib.images.decode import LoadedImage, MinSide, decode
from searchlib.images.names import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Up to here a file is held in memory, so that the disk is read once; photographs are far below.
HOLD_BYTES = 64 * 1024 * 1024

_CHUNK_BYTES = 1024 * 1024

# Some decoders want the whole file at once; beyond this they are refused it.
_READ_ALL_BYTES = 1024 * 1024 * 1024

_CHANGED = "changed while being read; try again when it is at rest"

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one content from another.

    Attributes:
        digest: BLAKE3, 32 bytes.
        size: bytes.
    """

    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file that was read and hashed, and can be decoded without reading it from disk again.

    Use it in a `with` block, or call `close`. One thread at a time.

    Attributes:
        path: as it was given.
        digest: BLAKE3 of the content, 32 bytes.
        size: bytes.
        mtime_ns: time of the last change, nanoseconds since 1970.
        inode: with `device`, what stays the same when the file is moved on its volume.
        device: the volume.
    """

    path: str
    digest: bytes
    size: int
    mtime_ns: int
    inode: int
    device: int
    _content: bytes | io.FileIO = field(repr=False, compare=False)

    @property
    def fingerprint(self) -> Fingerprint:
        """The digest and the size, as `fingerprint` gives them."""
        return Fingerprint(self.digest, self.size)

    def load(
        self, *, min_side: MinSide | None = None, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> LoadedImage:
        """Decode the picture. For the arguments and the errors see `searchlib.images.load`."""
        content = self._content
        label = printable(self.path)
        try:
            return decode(
                _stream(content),
                label=label,
                digest=self.digest,
                min_side=min_side,
                max_pixels=max_pixels,
            )
        finally:
            # Before any other error: what failed to decode may be half of a new version.
            if not isinstance(content, bytes):
                self._require_unchanged(content, label)

    def _require_unchanged(self, file: io.FileIO, label: str) -> None:
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            raise SourceError(label, _CHANGED)

    def close(self) -> None:
        """Let go of the file. It can be called twice."""
        if not isinstance(self._content, bytes):
            self._content.close()

    def __enter__(self) -> OpenedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_file(path: str | os.PathLike[str]) -> OpenedFile:
    """Read and hash a file, so that its digest can be looked up before it is decoded.

    Up to 64 MiB are held in memory and the file is closed; a larger file stays open until `close`
    and is read a second time by `load`.

    Raises:
        SourceError: it is missing, not a regular file, not readable, or changed while being read.
    """
    path = os.fspath(path)
    label = printable(path)
    file, before = _open(path, label)
    content: bytes | io.FileIO = file
    try:
        if before.st_size <= HOLD_BYTES:
            content = _read(file, before.st_size + 1)
            digest, size = blake3(content).digest(), len(content)
        else:
            digest, size = _hash(file)
        after = os.fstat(file.fileno())
        if _version(before, before.st_size) != _version(after, size):
            raise SourceError(label, _CHANGED)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise SourceError(label, _words(error)) from error
        raise
    if content is not file:
        file.close()
    return OpenedFile(
        path=path,
        digest=digest,
        size=size,
        mtime_ns=after.st_mtime_ns,
        inode=after.st_ino,
        device=after.st_dev,
        _content=content,
    )


def fingerprint(source: str | os.PathLike[str] | bytes) -> Fingerprint:
    """The BLAKE3 digest and the size of a file, or of bytes. A file is read in small pieces.

    Raises:
        SourceError: as `open_file`.
    """
    if isinstance(source, bytes):
        return Fingerprint(blake3(source).digest(), len(source))
    path = os.fspath(source)
    label = printable(path)
    file, before = _open(path, label)
    with file:
        try:
            digest, size = _hash(file)
            after = os.fstat(file.fileno())
        except OSError as error:
            raise SourceError(label, _words(error)) from error
    if _version(before, before.st_size) != _version(after, size):
        raise SourceError(label, _CHANGED)
    return Fingerprint(digest, size)


def _open(path: str, label: str) -> tuple[io.FileIO, os.stat_result]:
    """Open a regular file, and nothing that could block or has an effect when opened."""
    try:
        _require_regular(os.stat(path), label)  # noqa: PTH116 - a Path cannot hold a NUL to report
        # The name may have passed to a pipe since: opening one waits for a writer but for this.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            _require_regular(status, label)
        except BaseException:
            os.close(descriptor)
            raise
        return io.FileIO(descriptor), status
    except OSError as error:
        raise SourceError(label, _words(error)) from error
    except ValueError as error:  # a NUL in the name
        raise SourceError(label, f"is not a path: {error}") from error


def _require_regular(status: os.stat_result, label: str) -> None:
    for is_kind, words in _KINDS:
        if is_kind(status.st_mode):
            raise SourceError(label, f"is {words}, not a file")


def _read(file: io.FileIO, limit: int) -> bytes:
    """The file from where it stands up to its end or `limit` bytes, whichever comes first."""
    pieces = []
    while limit > 0 and (piece := file.read(limit)):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def _hash(file: io.FileIO) -> tuple[bytes, int]:
    hasher = blake3()
    while chunk := file.read(_CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.digest(), file.tell()


class _Undescribed(io.RawIOBase):
    """A file that does not tell its descriptor.

    Given one, libtiff maps the file into memory.
    """

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readall(self) -> bytes:
        rest = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if rest > _READ_ALL_BYTES:
            raise OSError(f"its {rest} bytes are more than are read at once")
        return self._file.readall()


def _stream(content: bytes | io.FileIO) -> IO[bytes]:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    return io.BufferedReader(_Undescribed(content))


def _version(status: os.stat_result, size: int) -> tuple[int, ...]:
    return status.st_size, size, status.st_mtime_ns


def _words(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "no such file"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to read it"
    return f"cannot be read: {error.strerror or error}"
