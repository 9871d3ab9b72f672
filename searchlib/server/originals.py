"""The files of images, opened so that nothing but what the library read is ever sent.

Between the catalog and the disk anything may have happened: a file may have been edited, replaced,
or swapped for a link to another one. So a file is opened once, without following a link at its
end, and compared with what the catalog knows of it; all that follows is done with the descriptor.
"""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import dataclass
from urllib.parse import quote

import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from searchlib.catalog import ImageRecord, Stat
from searchlib.errors import ImageGoneError
from searchlib.images import printable
from searchlib.ingest.place import stat_of
from searchlib.library import Library
from searchlib.server.problems import Problem

_PIECE_BYTES = 256 * 1024
# RFC 9110, 14.1.1; several ranges at once are answered with the whole, as it allows.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_TOKEN = re.compile(r"[^A-Za-z0-9._ ()-]")

# Only types that no browser takes for a page or a program.
_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "HEIF": "image/heic",
    "AVIF": "image/avif",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "JPEG2000": "image/jp2",
}

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer with bytes that came from elsewhere."""


@dataclass(frozen=True, slots=True)
class Original:
    """The opened file of an image; whoever has it closes it.

    Attributes:
        file: open for reading.
        size: bytes.
        path: where it lies.
    """

    file: io.FileIO
    size: int
    path: str

    def close(self) -> None:
        """Let go of the file; it can be called twice."""
        self.file.close()


def open_original(library: Library, image: ImageRecord) -> Original:
    """Open the first file of an image that is what the library read.

    Raises:
        ImageGoneError: every file of it is gone, or was changed or replaced.
    """
    for path, known in library.places(image.id).items():
        opened = _open(path, known)
        if opened is not None:
            return opened
    place = printable(image.paths[0]) if image.paths else f"image {image.id}"
    raise ImageGoneError(
        f"{place}: is gone, or not the file any more that the library read; "
        "it is looked at again by `searchlib add` or `searchlib watch`"
    )


def content_type(format: str | None) -> str:
    """The media type of a format, as Pillow names it."""
    return _TYPES.get(format or "", "application/octet-stream")


def disposition(path: str) -> str:
    """A Content-Disposition with the name of a file (RFC 6266, RFC 8187), whatever is in it."""
    name = os.path.basename(path)  # noqa: PTH119 - a Path per answer is of no use
    encoded = quote(os.fsencode(name).decode("utf-8", "replace"), safe="")
    ascii_name = _TOKEN.sub("_", name) or "image"
    return f"inline; filename=\"{ascii_name}\"; filename*=UTF-8''{encoded}"


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last that a Range field asks for; None for all.

    Raises:
        Problem: "bad-range", nothing of it lies in the file.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < int(first):
            return None  # no range at all, RFC 9110
    if start >= end:
        raise Problem(
            "bad-range",
            f"the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


class OriginalResponse(Response):
    """Sends an opened file, or a part of it, and closes it.

    Args:
        original: the file.
        part: the first byte and the one behind the last; None for all.
        headers: of the answer.
        media_type: of the file.
    """

    def __init__(
        self,
        original: Original,
        part: tuple[int, int] | None,
        *,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        self._original = original
        self._start, self._end = part or (0, original.size)
        super().__init__(None, 200 if part is None else 206, headers, media_type)
        self.headers["Content-Length"] = str(self._end - self._start)
        self.headers["Accept-Ranges"] = "bytes"
        if part is not None:
            self.headers["Content-Range"] = f"bytes {self._start}-{self._end - 1}/{original.size}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        descriptor, at = self._original.file.fileno(), self._start
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] == "HEAD":
                at = self._end
            while at < self._end:
                size = min(_PIECE_BYTES, self._end - at)
                piece = await anyio.to_thread.run_sync(os.pread, descriptor, size, at)
                if not piece:
                    # The length was told already: the connection has to be broken off.
                    raise ImageGoneError(
                        f"{printable(self._original.path)}: was cut short while it was sent"
                    )
                at += len(piece)
                await send(
                    {"type": "http.response.body", "body": piece, "more_body": at < self._end}
                )
            if self._start == self._end or scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._original.close()


def _open(path: str, known: Stat) -> Original | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        now = stat_of(status)
        same = (now.size, now.mtime_ns, now.inode) == (known.size, known.mtime_ns, known.inode)
        if same and stat.S_ISREG(status.st_mode):
            return Original(io.FileIO(descriptor), status.st_size, path)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
