"""Encoded bytes or a Pillow image to upright RGB pixels and facts.

The order of the steps: open the header, check the size, decode (a JPEG at a smaller scale where
that is enough), eight bits a channel, make smaller, colours to sRGB, turn upright. Of a camera
raw file the preview is decoded, or LibRaw does these steps.
"""

from __future__ import annotations

import errno
import logging
import re
from dataclasses import dataclass, replace
from typing import IO

from PIL import Image

from searchlib.errors import DecodeError, ImageError, InputError, SourceError, TooLargeError
from searchlib.images import tiff
from searchlib.images.colour import to_rgb
from searchlib.images.facts import ImageFacts, orientation, read_exif, read_facts, turned
from searchlib.images.formats import HEAD_BYTES, missing_bytes, open_format, sniff, stranger
from searchlib.images.names import is_raw_name, printable
from searchlib.images.quiet import quiet
from searchlib.images.raw import RawFile, open_raw

logger = logging.getLogger(__name__)

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

# What a camera raw file may look like: TIFF is the frame of most of them, Targa and PCX have next
# to no mark of their own.
_RAW_LOOKS_LIKE = {None, "TIFF", "TGA", "PCX"}
_TIFF_NAMES = (".tif", ".tiff")

# What Pillow raises itself has no errno, and a nonsensical offset in the file gives the others.
_NO_FAULT_OF_THE_DISK = {None, errno.EINVAL, errno.EOVERFLOW}

_LONGEST_REASON = 200

# As Pillow's own decoders and libheif say it.
_WANT_OF_MEMORY = re.compile(r"\bout of memory\b|Allocating \d+ bytes failed", re.IGNORECASE)


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
        label: the picture in words, for errors and the log. Its extension tells a camera raw
            file from a TIFF.
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
            name = _format(head, file, label)
            if name == "RAW":
                with open_raw(file, label=label) as raw:
                    return _finish_raw(raw, label, digest, least=least, max_pixels=max_pixels)
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
                image.draft(None, turned(least, turn))
            image.load()
            # A whole picture of 12 megapixels takes 8 ms to copy, a tenth of all that it takes.
            own = name == "JPEG"
            return _finish(
                image, label, digest, least=least, full=full, max_pixels=max_pixels, own=own
            )
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


def _format(head: bytes, file: IO[bytes], label: str) -> str | None:
    """The name of the format by the first bytes, and by the extension where they do not tell."""
    name = sniff(head)
    # The query of a URL is not shown in its label.
    if name in _RAW_LOOKS_LIKE and is_raw_name(label.removesuffix("?...")):
        return "RAW"
    # A program that copies all tags to a TIFF copies the mark of a DNG too.
    if name == "TIFF" and not label.lower().endswith(_TIFF_NAMES) and tiff.is_dng(file):
        return "RAW"
    return name


def _finish(
    image: Image.Image,
    label: str,
    digest: bytes | None,
    *,
    least: tuple[int, int] | None,
    full: tuple[int, int] | None,
    max_pixels: int,
    own: bool = False,
) -> LoadedImage:
    """From decoded pixels to the result.

    Args:
        full: the size of the whole picture where `image` was decoded at a smaller scale.
        own: whether `image` itself may be handed out, for nobody else holds it.
    """
    # The picture inside an icon or a HEIF may be larger than the header said.
    _check_size(image.size, max_pixels, label)
    # Only now: Pillow has turned a TIFF upright and dropped its tag while decoding, and finds
    # the EXIF that stands behind the pixels of a PNG.
    exif = read_exif(image, label)
    turn = orientation(exif)
    size = turned(full or image.size, turn)
    pixels = _upright(image, label, turn=turn, least=None if full else least)
    facts = read_facts(image, exif, size=size, label=label)
    return LoadedImage(_bare(pixels, image, exif, own=own), facts, digest)


def _bare(pixels: Image.Image, image: Image.Image, exif: Image.Exif, *, own: bool) -> Image.Image:
    """Pixels without what the file says of them, that are no one else's.

    The EXIF would turn them a second time in the hands of whoever honours it.
    """
    if pixels is image:
        if own:
            image.info.clear()
            exif.clear()
            own = len(read_exif(image, "")) == 0
        if not own:
            pixels = image.copy()
    pixels.info.clear()
    return pixels


def _finish_raw(
    raw: RawFile,
    label: str,
    digest: bytes | None,
    *,
    least: tuple[int, int] | None,
    max_pixels: int,
) -> LoadedImage:
    """From an opened raw file to the result: its preview where that is large enough.

    Developing gives half of the sensor's sides, so a preview of so many pixels is enough for all.
    """
    _check_size(raw.size, max_pixels, label)
    enough = (-(-raw.size[0] // 2), -(-raw.size[1] // 2))
    if least is not None:
        enough = (min(enough[0], least[0]), min(enough[1], least[1]))
    preview = raw.preview()
    exif, pixels = raw.exif, None
    if preview is not None:
        # LibRaw makes up a poor EXIF for a preview without, so the raw file's own tags come first.
        exif = exif if len(exif) else read_exif(preview, label)
        pixels = _preview_pixels(raw, preview, label, enough, least=least, max_pixels=max_pixels)
    if pixels is None:
        pixels = _upright(raw.develop(), label, turn=1, least=least)
    pixels.info.clear()
    facts = read_facts(pixels, exif, size=raw.size, label=label)
    return LoadedImage(pixels, replace(facts, format="RAW"), digest)


def _preview_pixels(
    raw: RawFile,
    preview: Image.Image,
    label: str,
    enough: tuple[int, int],
    *,
    least: tuple[int, int] | None,
    max_pixels: int,
) -> Image.Image | None:
    """The pixels of a preview; None where it is smaller than `enough`, or damaged."""
    turn = raw.preview_turn(preview)
    size = turned(preview.size, turn)
    if size[0] < enough[0] or size[1] < enough[1] or size[0] * size[1] > max_pixels:
        return None
    try:
        drafted = least is not None and preview.format == "JPEG"
        if least is not None and drafted:
            preview.draft(None, turned(least, turn))
        preview.load()
        return _upright(preview, label, turn=turn, least=None if drafted else least)
    except MemoryError:
        raise
    except Exception as error:  # the sensor's data may be whole
        logger.debug("%s: its preview cannot be decoded: %s", label, error)
        return None


def _upright(
    image: Image.Image, label: str, *, turn: int, least: tuple[int, int] | None
) -> Image.Image:
    """Decoded pixels of any mode as RGB, upright, and smaller where `least` allows for it."""
    factor = 1 if least is None else _reduction(image.size, turned(least, turn))
    profile = image.info.get("icc_profile")
    pixels = to_rgb(image, factor=factor, profile=profile, label=label)
    if turn in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[turn])
    return pixels


def _least(min_side: MinSide | None, max_pixels: int) -> tuple[int, int] | None:
    least = (min_side, min_side) if isinstance(min_side, int) else min_side
    if least is not None and (len(least) != 2 or min(least) < 1):
        raise InputError(f"min_side is {min_side!r}; it must be 1 or more, or two such numbers")
    if max_pixels < 1:
        raise InputError(f"max_pixels is {max_pixels!r}; it must be 1 or more")
    return least


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
    if isinstance(error, MemoryError) or _WANT_OF_MEMORY.search(words):
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
