"""Which picture formats are opened, how they are told apart, and by which class.

The list is closed on purpose. Pillow can open some forty formats; those that start another
program (EPS runs Ghostscript), that are stubs without a decoder (WMF, BUFR, GRIB, HDF5, MPEG) or
that no photo library holds are not here, and their files are refused by name where that helps.

The plugin classes are called directly rather than through `PIL.Image.open`, for three reasons.
`Image.open` refuses by `Image.MAX_IMAGE_PIXELS`, a limit of the whole process that is half of
ours at best, and the only ways around it change it for the host program too. It tries every
format in turn and forgets the reasons, so a damaged JPEG ends as "cannot identify". And HEIF can
be read without registering it in the host's Pillow. Pillow still applies its own limit to the
parts inside a file (a TIFF tile, an icon's PNG, a WebP canvas).
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import IO, cast

from PIL import ImageFile, _imaging

from searchlib.images import isomedia

# Enough for the `ftyp` box of HEIF and AVIF, with its list of compatible brands.
HEAD_BYTES = 512

_CLASSES = {
    # An MPO is a JPEG with more pictures behind it, and the first one is the photograph.
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "HEIF": ("pillow_heif", "HeifImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "DIB": ("PIL.BmpImagePlugin", "DibImageFile"),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "TGA": ("PIL.TgaImagePlugin", "TgaImageFile"),
    "ICO": ("PIL.IcoImagePlugin", "IcoImageFile"),
    "PSD": ("PIL.PsdImagePlugin", "PsdImageFile"),
    "QOI": ("PIL.QoiImagePlugin", "QoiImageFile"),
    "PCX": ("PIL.PcxImagePlugin", "PcxImageFile"),
    "SGI": ("PIL.SgiImagePlugin", "SgiImageFile"),
    "DDS": ("PIL.DdsImagePlugin", "DdsImageFile"),
}

_MAGIC = (
    # Camera raw files that are told from a TIFF by their first bytes; they have no class here.
    (b"II*\0\x10\0\0\0CR\2\0", "RAW"),  # Canon CR2
    (b"II\x1a\0\0\0HEAPCCDR", "RAW"),  # Canon CRW
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"IIRO", "RAW"),  # Olympus, three kinds
    (b"IIRS", "RAW"),
    (b"MMOR", "RAW"),
    (b"IIU\0", "RAW"),  # Panasonic
    (b"FOVb", "RAW"),  # Sigma
    (b"\0MRM", "RAW"),  # Minolta
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\x28\0\0\0", "DIB"),  # a bitmap without the file header
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"8BPS", "PSD"),
    (b"qoif", "QOI"),
    (b"\0\0\1\0", "ICO"),
    (b"\x01\xda", "SGI"),
    (b"DDS ", "DDS"),
)
_PPM = re.compile(rb"P[1-6f](\s*#|\s+\d)")
# Two letters are not much: the size of the header that follows is a small number of four bytes.
_BMP = re.compile(rb"BM.{13}\0\0\0", re.DOTALL)

# What a photo library holds besides pictures, often under a picture's extension.
_STRANGERS = (
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL picture, a format that is not supported"),
    (re.compile(rb"%PDF-"), "a PDF document, not a picture"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "a PostScript document, not a picture"),
    (
        re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg|<svg)", re.I | re.S),
        "an SVG drawing, a format that is not supported",
    ),
    (re.compile(rb"\s*<(!doctype html|html)", re.I), "a web page, not a picture"),
    (re.compile(rb"....ftyp", re.S), "a video, not a picture"),
    (re.compile(rb"\x1a\x45\xdf\xa3|RIFF....AVI ", re.S), "a video, not a picture"),
    (re.compile(rb"\0\x05\x16\x07"), "a macOS resource file, not a picture"),
)


def sniff(head: bytes) -> str | None:
    """The name of the format that these first bytes announce, or None where none is known.

    Args:
        head: the first `HEAD_BYTES` of the file, or all of a shorter one.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return isomedia.picture_format(head)
    if _BMP.match(head):
        return "BMP"
    if _PPM.match(head):
        return "PPM"
    if len(head) >= 2 and head[0] == 10 and head[1] in (0, 2, 3, 5):
        return "PCX"
    return "TGA" if _looks_like_targa(head) else None


def stranger(head: bytes) -> str:
    """Why a file that `sniff` does not know is no picture, in words."""
    for pattern, words in _STRANGERS:
        if pattern.match(head):
            return words
    return "not an image: no decoder knows its first bytes"


def open_format(name: str, file: IO[bytes]) -> ImageFile.ImageFile:
    """Read the header of a picture in the named format; no pixel is decoded yet.

    Raises:
        Exception: whatever the plugin raises; Pillow documents no closed set.
    """
    if name == "TIFF":
        _silence_libtiff()
    module, attribute = _CLASSES[name]
    plugin = getattr(import_module(module), attribute)
    file.seek(0)
    # No file name is passed: with one, Pillow maps uncompressed files into memory, and a mapped
    # file that another program cuts short ends the whole process with SIGBUS.
    return cast(ImageFile.ImageFile, plugin(file))


def missing_bytes(name: str, file: IO[bytes]) -> int:
    """How many bytes at least are missing at the end, for the formats whose decoder does not tell.

    Truncated files of the other formats fail to decode, and give 0 here.
    """
    return isomedia.missing_bytes(file) if name in ("HEIF", "AVIF") else 0


@cache
def _silence_libtiff() -> None:
    """Stop libtiff from writing about each damaged tag to stderr.

    Its error handler belongs to the process, and Pillow neither sets it nor offers a way to. The
    errors themselves still reach us through the decoder's result. Where libtiff is linked so that
    its symbols are hidden, it stays as it was.
    """
    import ctypes

    with suppress(OSError, AttributeError, TypeError):
        # Looking a symbol up in an extension searches the libraries it is linked with.
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _looks_like_targa(head: bytes) -> bool:
    """Targa has no magic number; its header of 18 bytes has few legal values, none of them text."""
    return (
        len(head) >= 18
        and head[1] in (0, 1)
        and head[2] in (1, 2, 3, 9, 10, 11)
        and head[16] in (8, 16, 24, 32)
        and head[17] & 0xC0 == 0
    )
