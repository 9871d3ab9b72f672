"""Encoded bytes or a Pillow image to upright RGB pixels and facts.

The order of the steps: open the header, check the size, decode (a JPEG at a smaller scale where
that is enough), eight bits a channel, make smaller, colours to sRGB, turn upright.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import IO

from PIL import Image

from searchlib.errors import DecodeError, ImageError, InputError, SourceError, TooLargeError
from searchlib.images.colour import to_rgb
from searchlib.images.facts import ImageFacts, orientation, read_exif, read_facts
from searchlib.images.formats import HEAD_BYTES, missing_bytes, open_format, sniff, stranger
from searchlib.images.names import printable
from searchlib.images.quiet import quiet

DEFAULT_MAX_PIXELS = 500_000_000
"""The largest picture that is decoded, in pixels; at four bytes each it takes 2 GB of memory."""

MinSide = int | tuple[int, int]

# What to do to see a picture of each EXIF orientation upright (CIPA DC-008, 4.6.5).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = {5, 6, 7, 8}

# What Pillow raises itself has no errno, and a nonsensical offset in the file gives the others.
_NO_FAULT_OF_THE_DISK = {None, errno.EINVAL, errno.EOVERFLOW}

_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A decoded picture.

    Attributes:
        pixels: mode RGB, upright, in sRGB; the caller's own, to keep or to change.
        facts: what the picture says of itself.
        digest: BLAKE3 of the encoded bytes, 32 bytes; None for raw pixels.
    """

    pixels: Image.Image
    facts: ImageFacts
    digest: bytes | None


def decode(
    file: IO[bytes],
    *,
    label: str,
    digest: bytes | None,
    min_side: MinSide | None,
    max_pixels: int,
) -> LoadedImage:
    """Decode one picture, the first frame where there are several.

    Args:
        file: the encoded bytes, seekable; left open.
        label: the picture in words, for errors and the log.
        digest: handed on to the result.
        min_side: as for `load`.
        max_pixels: as for `load`.

    Raises:
        DecodeError: the bytes are not a picture that can be decoded.
        TooLargeError: it has more than `max_pixels`; nothing was decoded.
        SourceError: the file could not be read to its end.
        InputError: `min_side` or `max_pixels` is below 1.
    """
    least = _least(min_side, max_pixels)
    name = None
    try:
        with quiet():
            file.seek(0)
            head = file.read(HEAD_BYTES)
            if not head:
                raise DecodeError(label, "the file is empty")
            name = sniff(head)
            if name is None:
                raise DecodeError(label, stranger(head))
            if (missing := missing_bytes(name, file)) > 0:
                raise DecodeError(label, f"the file is truncated ({missing} bytes missing)")
            image = open_format(name, file)
            _check_size(image.size, max_pixels, label)
            full = None
            if name == "JPEG" and least is not None:
                full = image.size
                turn = orientation(read_exif(image, label))
                # libjpeg leaves out the detail that a picture of 1/2, 1/4 or 1/8 a side does not
                # show. Pillow takes the smallest of them that is not below the size it is given.
                image.draft(None, _turned(least, turn))
            image.load()
            return _finish(image, label, digest, least=least, full=full, max_pixels=max_pixels)
    except ImageError:
        raise
    except Exception as error:  # the plugins raise anything, up to RecursionError
        raise _refusal(label, name, error) from error


def convert(
    image: Image.Image, *, label: str, min_side: MinSide | None, max_pixels: int
) -> LoadedImage:
    """The same for an image that Pillow holds already, which stays the host's and unchanged.

    Raises:
        DecodeError, TooLargeError, SourceError, InputError: as `decode`.
    """
    least = _least(min_side, max_pixels)
    try:
        with quiet():
            if 0 in image.size:
                raise DecodeError(label, "it has no pixels")
            _check_size(image.size, max_pixels, label)
            image.load()
            return _finish(image, label, None, least=least, full=None, max_pixels=max_pixels)
    except ImageError:
        raise
    except Exception as error:  # it may be a file, which is decoded only here
        raise _refusal(label, image.format, error) from error


def _finish(
    image: Image.Image,
    label: str,
    digest: bytes | None,
    *,
    least: tuple[int, int] | None,
    full: tuple[int, int] | None,
    max_pixels: int,
) -> LoadedImage:
    """From decoded pixels to the result.

    Args:
        full: the size of the whole picture where `image` was decoded at a smaller scale.
    """
    # The picture inside an icon or a HEIF may be larger than the header said.
    _check_size(image.size, max_pixels, label)
    # Only now: Pillow has turned a TIFF upright and dropped its tag while decoding, and finds
    # the EXIF that stands behind the pixels of a PNG.
    exif = read_exif(image, label)
    turn = orientation(exif)
    size = _turned(full or image.size, turn)
    factor = 1
    if least is not None and full is None:
        factor = _reduction(image.size, _turned(least, turn))
    profile = image.info.get("icc_profile")
    pixels = to_rgb(image, factor=factor, profile=profile, label=label)
    if turn in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[turn])
    if pixels is image:
        pixels = image.copy()
    # The EXIF would turn the pixels a second time in the hands of whoever honours it.
    pixels.info.clear()
    return LoadedImage(pixels, read_facts(image, exif, size=size, label=label), digest)


def _least(min_side: MinSide | None, max_pixels: int) -> tuple[int, int] | None:
    least = (min_side, min_side) if isinstance(min_side, int) else min_side
    if least is not None and (len(least) != 2 or min(least) < 1):
        raise InputError(f"min_side is {min_side!r}; it must be 1 or more, or two such numbers")
    if max_pixels < 1:
        raise InputError(f"max_pixels is {max_pixels!r}; it must be 1 or more")
    return least


def _turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return (size[1], size[0]) if turn in _ON_ITS_SIDE else size


def _reduction(size: tuple[int, int], least: tuple[int, int]) -> int:
    """The factor that `draft` would take, so that a JPEG and its PNG come out alike."""
    room = min(size[0] // least[0], size[1] // least[1])
    return next((factor for factor in (8, 4, 2) if room >= factor), 1)


def _check_size(size: tuple[int, int], max_pixels: int, label: str) -> None:
    width, height = size
    pixels = width * height
    if pixels <= max_pixels:
        return
    if max_pixels >= 1_000_000:
        many, limit = f"{_megapixels(pixels)} megapixels", _megapixels(max_pixels)
    else:
        many, limit = f"{pixels} pixels", str(max_pixels)
    raise TooLargeError(label, f"{width} x {height} is {many}, the limit is {limit}")


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.1f}".removesuffix(".0")


def _refusal(label: str, name: str | None, error: Exception) -> ImageError:
    """An exception of Pillow as ours, with its words made fit to print."""
    words = printable(" ".join(str(error).split()))[:_LONGEST_REASON]
    if isinstance(error, Image.DecompressionBombError):
        return TooLargeError(label, f"a part of it is too large to decode: {words}")
    if isinstance(error, MemoryError):
        refusal = DecodeError(label, "there is not enough memory to decode it")
        refusal.lasting = False
        return refusal
    if isinstance(error, OSError) and error.errno not in _NO_FAULT_OF_THE_DISK:
        return SourceError(label, f"cannot be read: {error.strerror}")
    if isinstance(error, EOFError) or "truncated" in words.lower():
        count = re.search(r" \(\d+ bytes not processed\)", words)
        return DecodeError(label, f"the file is truncated{count[0] if count else ''}")
    if not isinstance(error, (OSError, SyntaxError, ValueError)) or not words:
        words = f"{type(error).__name__} {words}".strip()
    return DecodeError(
        label, f"it is damaged, or an unsupported kind of {name or 'image'}: {words}"
    )
