"""Camera raw files, by LibRaw through the optional package rawpy (`pip install searchlib[raw]`).

Nearly every raw file holds a finished JPEG beside the sensor's data: the picture as the camera
showed it. It is what the photographer knows, and decodes in a fraction of the time that
developing the sensor's data takes, so it comes first where it is large enough.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from PIL import ExifTags, Image

from searchlib.errors import DecodeError, ImageError, TooLargeError
from searchlib.images import isomedia, tiff
from searchlib.images.facts import orientation, read_exif, turned
from searchlib.images.formats import open_format
from searchlib.images.quiet import mute_c

if TYPE_CHECKING:
    import numpy as np
    import rawpy

logger = logging.getLogger(__name__)

# LibRaw counts turns as dcraw did; these are the EXIF orientations of its 0 to 7.
_ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)

# TIFF in all but the third and fourth byte: of Olympus and of Panasonic.
_TIFF_LIKE = {b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"}

# Where Canon's CR3 keeps its EXIF, which is near its front.
_CR3_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw file whose header was read. It is of use inside of `open_raw` only.

    Attributes:
        size: width and height of the upright picture, in pixels of the sensor.
        turn: the EXIF orientation of the sensor's data.
        exif: what the raw file says outside of its preview; often nothing.
    """

    size: tuple[int, int]
    turn: int
    exif: Image.Exif
    _libraw: rawpy.RawPy
    _label: str

    def preview(self) -> Image.Image | None:
        """The largest preview as it is stored; a JPEG is not decoded yet. None where it has none.

        LibRaw puts an EXIF with the orientation before a JPEG that comes without.
        """
        import rawpy

        try:
            with mute_c():
                preview = self._libraw.extract_thumb()
            if isinstance(preview.data, bytes):
                return open_format("JPEG", io.BytesIO(preview.data))
            return _image(preview.data)
        except rawpy.LibRawUnsufficientMemoryError as error:
            raise _refusal(self._label, error) from error
        except Exception as error:  # LibRaw's, and whatever Pillow raises for a broken header
            logger.debug("%s: its preview cannot be used: %s", self._label, _words(error))
            return None

    def preview_turn(self, preview: Image.Image) -> int:
        """The EXIF orientation of a preview: its own or else the sensor's.

        Some programs store the preview upright and leave the orientation as it was. A picture
        that would come out standing where the sensor's lies is not turned.
        """
        exif = read_exif(preview, self._label)
        own = orientation(exif) if ExifTags.Base.Orientation in exif else self.turn
        for turn in (own, self.turn, 1):
            if _lies(turned(preview.size, turn)) == _lies(self.size):
                return turn
        return own

    def develop(self) -> Image.Image:
        """The sensor's data as an upright picture in sRGB; half the sides where it is a mosaic.

        Two by two sensor pixels, one of each colour and a second green, make one: nothing has to
        be guessed from the neighbours, which takes the most of the time.

        Raises:
            ImageError: LibRaw cannot decode it.
        """
        import rawpy

        try:
            with mute_c():
                pixels = self._libraw.postprocess(
                    half_size=True,
                    use_camera_wb=True,
                    no_auto_bright=False,
                    output_color=rawpy.ColorSpace.sRGB,
                    output_bps=8,
                    gamma=(2.4, 12.92),  # of sRGB; LibRaw's default is that of television
                )
        except rawpy.LibRawError as error:
            raise _refusal(self._label, error) from error
        return _image(pixels)


@contextmanager
def open_raw(file: IO[bytes], *, label: str) -> Iterator[RawFile]:
    """Read the header of a raw file; neither picture nor preview is decoded yet.

    Args:
        file: the whole file, seekable; it is read into memory.
        label: the file in words, for errors and the log.

    Raises:
        DecodeError: LibRaw does not know it, it is damaged or truncated, or rawpy is not there.
        TooLargeError: it is beyond what LibRaw decodes.
    """
    try:
        import rawpy
    except ImportError as error:
        logger.debug("%s: rawpy cannot be imported: %s", label, error)
        refusal = DecodeError(label, "a camera raw file; install searchlib[raw] to use it")
        refusal.lasting = False
        raise refusal from error
    if (missing := _missing_bytes(file)) > 0:
        raise DecodeError(label, f"the file is truncated ({missing} bytes missing)")
    file.seek(0)
    content = file.read()  # held until the end: LibRaw reads from these very bytes
    with rawpy.RawPy() as libraw:
        try:
            with mute_c():
                libraw.open_buffer(io.BytesIO(content))
        except rawpy.LibRawError as error:
            raise _refusal(label, error) from error
        sizes = libraw.sizes
        turn = _ORIENTATIONS[sizes.flip] if 0 <= sizes.flip < len(_ORIENTATIONS) else 1
        size = turned((sizes.width, sizes.height), turn)
        if 0 in size:
            raise DecodeError(label, "it has no pixels")
        yield RawFile(size, turn, _exif(content, label), libraw, label)


def _missing_bytes(file: IO[bytes]) -> int:
    file.seek(0)
    head = file.read(12)
    if head[4:8] == b"ftyp":
        return isomedia.missing_bytes(file)
    return tiff.missing_bytes(file) if head[:4] in _TIFF_LIKE else 0


def _image(pixels: np.ndarray) -> Image.Image:
    """A picture of its own from LibRaw's memory: height x width x 1 or 3, uint8."""
    height, width, colours = pixels.shape
    return Image.frombytes("L" if colours == 1 else "RGB", (width, height), pixels.tobytes())


def _lies(size: tuple[int, int]) -> bool:
    return size[0] >= size[1]


def _exif(content: bytes, label: str) -> Image.Exif:
    """The EXIF outside of the preview: the tags of the TIFF that it is, or the blocks of a CR3."""
    exif = Image.Exif()
    try:
        if content[:4] in _TIFF_LIKE:
            # Pillow takes no other head than that of TIFF.
            magic = b"*\0" if content[:2] == b"II" else b"\0*"
            exif.load(content if content[2:4] == magic else content[:2] + magic + content[4:])
        elif content[4:12] == b"ftypcrx ":
            head = content[:_CR3_HEAD_BYTES]
            exif = _cr3_block(head, b"CMT1")
            exif.get_ifd(ExifTags.IFD.Exif).update(_cr3_block(head, b"CMT2"))
            exif.get_ifd(ExifTags.IFD.GPSInfo).update(_cr3_block(head, b"CMT4"))
    except Exception as error:  # as in read_exif
        logger.debug("%s: its tags cannot be read: %r", label, error)
    return exif


def _cr3_block(head: bytes, name: bytes) -> Image.Exif:
    """One of the directories that a CR3 keeps in boxes of their own; each is a TIFF for itself."""
    exif = Image.Exif()
    at = head.find(name)
    if at >= 4:
        exif.load(head[at + 4 : at - 4 + int.from_bytes(head[at - 4 : at], "big")])
    return exif


def _refusal(label: str, error: rawpy.LibRawError) -> ImageError:
    """An exception of LibRaw as ours."""
    import rawpy

    if isinstance(error, rawpy.LibRawUnsufficientMemoryError):
        refusal = DecodeError(label, "there is not enough memory to decode it")
        refusal.lasting = False
        return refusal
    if isinstance(error, rawpy.LibRawTooBigError):
        return TooLargeError(label, "it is a camera raw file too large for LibRaw")
    if isinstance(error, rawpy.LibRawFileUnsupportedError):
        return DecodeError(label, "it is a damaged camera raw file, or of a camera LibRaw ignores")
    if isinstance(error, (rawpy.LibRawIOError, rawpy.LibRawDataError)):
        return DecodeError(label, f"it is a truncated or damaged camera raw file: {_words(error)}")
    return DecodeError(label, f"LibRaw cannot decode this camera raw file: {_words(error)}")


def _words(error: Exception) -> str:
    """What an exception says; LibRaw's hold bytes."""
    said = error.args[0] if error.args else ""
    return said.decode("ascii", "replace") if isinstance(said, bytes) else str(error)
