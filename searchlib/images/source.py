"""The ways to hand a picture over, and `load`, which takes them all."""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from searchlib.errors import DecodeError, SourceError
from searchlib.images import DEFAULT_MAX_PIXELS
from searchlib.images.decode import LoadedImage, MinSide, convert, decode
from searchlib.images.encoded import BASE64_LABEL, DATA_LABEL, data_uri, from_base64
from searchlib.images.files import fingerprint, open_file
from searchlib.images.formats import HEAD_BYTES, sniff, stranger
from searchlib.images.names import printable
from searchlib.images.remote import OWN_POLICY, FetchPolicy, fetch_picture

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class NamedBytes:
    """Encoded bytes of a picture that came from elsewhere.

    Attributes:
        label: where from, in words for messages. An extension of a camera raw file at its end
            counts, as that of a path does.
        content: the bytes.
    """

    label: str
    content: bytes = field(repr=False)


Source: TypeAlias = "str | os.PathLike[str] | bytes | NamedBytes | Image.Image | np.ndarray"
"""A path, a URL, a URI, base64, encoded bytes, a Pillow image, or an array.

A `str` is an `http:` or `https:` URL, a `file:` or `data:` URI, or else a path; where no such file
exists and the text is base64 of a picture, it is that. Other paths are passed as `pathlib.Path`.

Arrays are uint8 with values 0 to 255: height x width x 3 (RGB), height x width x 4 (RGBA, alpha
not multiplied in) or height x width (grey).
"""

_SCHEME = re.compile(r"(https?(?=://)|file|data):", re.IGNORECASE)
_OTHER_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)

# Linux takes paths of up to 4095 bytes. A text beyond it is not shown to the file system, which
# would only say that it is too long.
_LONGEST_PATH = 4095
# A longer text is not repeated in an error.
_LONGEST_LABEL = 300
_SHOWN = 60
_LONGEST_BASE64_LABEL = 80
# A shorter text that happens to be base64 is a missing file: "photos/holiday" is both. The
# smallest pictures are longer.
_SHORTEST_BASE64 = 32


def load(
    source: Source,
    *,
    min_side: MinSide | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    policy: FetchPolicy = OWN_POLICY,
) -> LoadedImage:
    """Decode a picture to upright RGB pixels in sRGB, and read what it says of itself.

    Transparent parts become white. Of an animation it is the first frame, of a file with several
    pictures the first or the one the file names as its main one.

    Args:
        source: see `Source`.
        min_side: the least width and height, in pixels of the upright picture, that the caller
            has use for. A larger picture may come back smaller, by 2, 4 or 8 a side and never
            below this, which saves most of the time for a large JPEG. A picture that is smaller
            from the start stays as it is. None for all the pixels. A camera raw file comes
            back at this or half of its sensor's sides, whichever is less, or larger.
        max_pixels: refuse a picture with more, by its header, before it is decoded.
        policy: what may be fetched of a URL.

    Raises:
        SourceError: it cannot be read or fetched, or is not one of the kinds of source.
        DecodeError: it was read and is not a picture that can be decoded.
        TooLargeError: it has more pixels than `max_pixels`.
        InputError: `min_side` or `max_pixels` is below 1.
    """
    source = _settled(source, policy)
    if isinstance(source, NamedBytes):
        return decode(
            io.BytesIO(source.content),
            label=source.label,
            digest=fingerprint(source.content).digest,
            min_side=min_side,
            max_pixels=max_pixels,
        )
    if isinstance(source, Image.Image):
        return convert(source, label="<image>", min_side=min_side, max_pixels=max_pixels)
    if isinstance(source, (str, os.PathLike)):
        with open_file(source) as opened:
            return opened.load(min_side=min_side, max_pixels=max_pixels)
    return convert(_from_array(source), label="<array>", min_side=min_side, max_pixels=max_pixels)


def digest(source: Source, *, policy: FetchPolicy = OWN_POLICY) -> bytes | None:
    """The BLAKE3 of a source's encoded bytes, 32 bytes, without decoding them.

    None for a Pillow image or an array, which have no encoded bytes.

    Raises:
        SourceError: it cannot be read or fetched.
        DecodeError: it is base64, and not of a picture.
    """
    source = _settled(source, policy)
    if isinstance(source, NamedBytes):
        return fingerprint(source.content).digest
    if isinstance(source, (str, os.PathLike)):
        return fingerprint(source).digest
    return None


def resolve(source: Source, *, policy: FetchPolicy = OWN_POLICY) -> Source:
    """The same picture as a source that can be taken twice: what is fetched or text, as bytes.

    Paths, `file:` URIs and what is no text come back as they are.

    Raises:
        SourceError, DecodeError: as `digest`; files are not looked into.
    """
    if not isinstance(source, str):
        return source
    scheme = _SCHEME.match(source)
    kind = scheme[1].lower() if scheme is not None else None
    if kind == "file":
        return source
    if kind == "data":
        return NamedBytes(DATA_LABEL, data_uri(source))
    if kind is not None:
        return NamedBytes(*fetch_picture(source, policy))
    return source if _exists(source) else _base64_or_missing(source)


def _base64_or_missing(text: str) -> str | NamedBytes:
    """A text that is no file: the picture that it is in base64, or itself to be found missing."""
    if (other := _OTHER_URL.match(text)) is not None:
        words = f"{other[1]}:// is not supported; pass a path or a URL of http or https"
        raise SourceError(_shortened(text), words)
    content = from_base64(text) if len(text) >= _SHORTEST_BASE64 else None
    if content is not None:
        head = content[:HEAD_BYTES]
        if sniff(head) is not None:
            return NamedBytes(BASE64_LABEL, content)
        if not _in_a_folder(text):
            label = text if len(text) <= _LONGEST_BASE64_LABEL else BASE64_LABEL
            words = f"no such file, and as base64 it is {len(content)} bytes that are no picture"
            raise DecodeError(label, f"{words}: {stranger(head)}")
    if len(text) > _LONGEST_LABEL:
        raise SourceError(_shortened(text), "no such file, and not base64 of a picture either")
    return text


def _exists(text: str) -> bool:
    with suppress(ValueError):  # a NUL, or what cannot be encoded
        return len(text) <= _LONGEST_PATH and os.path.lexists(text)
    return False


def _in_a_folder(text: str) -> bool:
    folder = os.path.dirname(text)  # noqa: PTH120 - a Path would find "." where there is none
    if not folder or len(folder) > _LONGEST_PATH:
        return False
    return os.path.isdir(folder)  # noqa: PTH112 - a Path raises where it may not look


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_LABEL:
        return printable(text)
    return f"{printable(text[:_SHOWN])}... ({len(text)} characters)"


def _settled(source: Source, policy: FetchPolicy) -> Source:
    """A source whose text is the path of a file and nothing else."""
    source = resolve(source, policy=policy)
    if isinstance(source, bytes):
        return NamedBytes("<bytes>", source)
    if isinstance(source, str):
        return _uri_path(source) if _SCHEME.match(source) else source
    if isinstance(source, os.PathLike) and not isinstance(os.fspath(source), str):
        raise SourceError(f"<{type(source).__name__}>", "is a path of bytes; pass text")
    return source


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
            label, "is not a picture; pass a path, a URL, encoded bytes, a Pillow image or an array"
        )
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or 0 in array.shape:
        raise SourceError(
            "<array>",
            f"has shape {array.shape} and dtype {array.dtype}; pass uint8 of height x width x 3 "
            "(RGB), height x width x 4 (RGBA) or height x width (grey)",
        )
    return Image.fromarray(np.ascontiguousarray(array))
