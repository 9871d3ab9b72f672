"""File names: which ones a folder walk tries, and how any name is shown to a person."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.util import find_spec

IMAGE_EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        *(".png", ".apng"),
        ".gif",
        ".webp",
        *(".heic", ".heif", ".hif", ".heics", ".heifs"),
        *(".avif", ".avifs"),
        *(".tif", ".tiff"),
        *(".bmp", ".dib"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        *(".tga", ".ico", ".psd", ".qoi", ".pcx", ".sgi", ".dds"),
    }
)
"""The usual extensions of the formats that `formats` opens, lower case, with the dot.

Camera raw files are apart, in `RAW_EXTENSIONS`: what Pillow finds in them is a thumbnail, not the
picture.
"""

RAW_EXTENSIONS = frozenset(
    {
        *(".cr2", ".cr3", ".crw"),  # Canon
        *(".nef", ".nrw"),  # Nikon
        *(".arw", ".sr2", ".srf"),  # Sony
        *(".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw", ".rwl"),
        *(".3fr", ".fff", ".iiq", ".cap", ".mos", ".mef"),  # Hasselblad, Phase One, Leaf, Mamiya
        *(".erf", ".mrw", ".kdc", ".dcr", ".x3f", ".gpr"),
    }
)
"""The extensions of camera raw files, lower case, with the dot."""

# Control characters move the cursor or end the line; the bidirectional ones show a name that is
# not the file's; surrogates cannot be encoded at all, so printing one raises.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def is_image_name(path: str | os.PathLike[str]) -> bool:
    """Whether a folder walk should try this file, judged by its name alone.

    Camera raw files are tried where rawpy is installed. The case of the extension does not
    matter. Names that begin with "._" are refused: on
    volumes without resource forks macOS keeps a second file of that name beside each picture,
    with the same extension and no picture inside.
    """
    name = os.path.basename(os.fspath(path))  # noqa: PTH119 - a Path per file slows a walk
    if name.startswith("._"):
        return False
    extension = _extension(name)
    return extension in IMAGE_EXTENSIONS or (extension in RAW_EXTENSIONS and reads_raw())


def is_raw_name(name: str) -> bool:
    """Whether a path has the extension of a camera raw file."""
    return _extension(name) in RAW_EXTENSIONS


@cache
def reads_raw() -> bool:
    """Whether camera raw files can be decoded: rawpy is installed. Looked up once."""
    return find_spec("rawpy") is not None


def _extension(name: str) -> str:
    _, extension = os.path.splitext(name)  # noqa: PTH122 - a Path per file slows a walk
    return extension.lower()


def printable(path: str | os.PathLike[str]) -> str:
    """The path as one line of valid text, for messages and logs; not to be opened again.

    Bytes that are not UTF-8 (Python holds them as surrogates) come out as ``\\xff``, control and
    direction characters as ``\\n`` or ``\\u202e``. All else is left as it is.
    """
    return _UNPRINTABLE.sub(_escape, os.fspath(path))


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":  # a byte that surrogateescape let through
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
