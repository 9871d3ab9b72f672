"""The ways to hand a picture over, and `load`, which takes them all."""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from searchlib.errors import SourceError
from searchlib.images.decode import DEFAULT_MAX_PIXELS, LoadedImage, MinSide, convert, decode
from searchlib.images.files import fingerprint, open_file
from searchlib.images.names import printable

if TYPE_CHECKING:
    import numpy as np

Source: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray"
"""A path, a `file:` URI, encoded bytes, a Pillow image, or an array.

Arrays are uint8 with values 0 to 255: height x width x 3 (RGB), height x width x 4 (RGBA, alpha
not multiplied in) or height x width (grey).
"""

_WEB = re.compile(r"https?://", re.IGNORECASE)
_FILE = re.compile(r"file:", re.IGNORECASE)


def load(
    source: Source,
    *,
    min_side: MinSide | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> LoadedImage:
    """Decode a picture to upright RGB pixels in sRGB, and read what it says of itself.

    Transparent parts become white. Of an animation it is the first frame, of a file with several
    pictures the first or the one the file names as its main one.

    Args:
        source: see `Source`. A `str` that begins with "file:" is a URI; to open a file of such a
            name, pass a `pathlib.Path`.
        min_side: the least width and height, in pixels of the upright picture, that the caller
            has use for. A larger picture may come back smaller, by 2, 4 or 8 a side and never
            below this, which saves most of the time for a large JPEG. A picture that is smaller
            from the start stays as it is. None for all the pixels.
        max_pixels: refuse a picture with more, by its header, before it is decoded.

    Raises:
        SourceError: it cannot be read, or is not one of the kinds of source.
        DecodeError: it was read and is not a picture that can be decoded.
        TooLargeError: it has more pixels than `max_pixels`.
        InputError: `min_side` or `max_pixels` is below 1.
    """
    if isinstance(source, bytes):
        return decode(
            io.BytesIO(source),
            label="<bytes>",
            digest=fingerprint(source).digest,
            min_side=min_side,
            max_pixels=max_pixels,
        )
    if isinstance(source, Image.Image):
        return convert(source, label="<image>", min_side=min_side, max_pixels=max_pixels)
    if isinstance(source, (str, os.PathLike)):
        with open_file(_path(source)) as opened:
            return opened.load(min_side=min_side, max_pixels=max_pixels)
    return convert(_from_array(source), label="<array>", min_side=min_side, max_pixels=max_pixels)


def digest(source: Source) -> bytes | None:
    """The BLAKE3 of a source's encoded bytes, 32 bytes, without decoding them.

    None for a Pillow image or an array, which have no encoded bytes.

    Raises:
        SourceError: it cannot be read.
    """
    if isinstance(source, bytes):
        return fingerprint(source).digest
    if isinstance(source, (str, os.PathLike)):
        return fingerprint(_path(source)).digest
    return None


def _path(source: str | os.PathLike[str]) -> str:
    if not isinstance(source, str):
        path = os.fspath(source)
        if not isinstance(path, str):
            raise SourceError(f"<{type(source).__name__}>", "is a path of bytes; pass text")
        return path
    if _WEB.match(source):
        raise SourceError(
            printable(source), "URLs are not supported; download the file and pass its path"
        )
    return _uri_path(source) if _FILE.match(source) else source


def _uri_path(uri: str) -> str:
    """The path of a `file:` URI (RFC 8089)."""
    from urllib.parse import unquote_to_bytes, urlsplit

    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise SourceError(printable(uri), f"is not a URI: {error}") from error
    if parts.netloc.lower() not in ("", "localhost"):
        raise SourceError(printable(uri), "names a file of another machine; pass a local path")
    if parts.query or parts.fragment:
        raise SourceError(printable(uri), "has a bare ? or #; write them as %3F and %23")
    return os.fsdecode(unquote_to_bytes(os.fsencode(parts.path)))


def _from_array(array: object) -> Image.Image:
    import numpy as np

    label = f"<{type(array).__name__}>"
    if not isinstance(array, np.ndarray):
        raise SourceError(
            label, "is not a picture; pass a path, encoded bytes, a Pillow image or an array"
        )
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or 0 in array.shape:
        raise SourceError(
            "<array>",
            f"has shape {array.shape} and dtype {array.dtype}; pass uint8 of height x width x 3 "
            "(RGB), height x width x 4 (RGBA) or height x width (grey)",
        )
    return Image.fromarray(np.ascontiguousarray(array))
