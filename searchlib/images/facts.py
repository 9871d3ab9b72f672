"""What a picture says of itself: its format and size, and when, where and by what it was taken.

Times and places come from EXIF (CIPA DC-008), whose writers are careless and whose bytes are
often damaged by editors. A fact that cannot be read is None; it never makes the picture fail.
(libavif itself refuses an AVIF whose EXIF does not begin as EXIF.)
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from PIL import ExifTags, Image

logger = logging.getLogger(__name__)

_DATE = re.compile(r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})[ T]+(\d{1,2}):(\d{1,2}):(\d{1,2})")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")

# Formats whose further frames are an animation; in TIFF and HEIF they are other pictures.
_ANIMATED_FORMATS = {"GIF", "PNG", "WEBP", "AVIF"}

_ON_ITS_SIDE = {5, 6, 7, 8}

# A damaged length can turn the rest of the file into the name of a camera.
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of a picture besides its pixels.

    Attributes:
        format: Pillow's name of the format ("JPEG", "PNG", "HEIF", ...), or "RAW" for a camera
            raw file; None for an array or the like.
        width: pixels of the whole upright picture, whatever size was decoded; of a camera raw
            file, those of its sensor.
        height: the same.
        taken_at: EXIF DateTimeOriginal with its fraction of a second. Naive (the camera's own
            clock) unless the file gives OffsetTimeOriginal.
        camera_make: EXIF Make.
        camera_model: EXIF Model.
        latitude: degrees north, -90 to 90. None unless longitude is known too.
        longitude: degrees east, -180 to 180.
        animated: the file holds a moving picture, of which the first frame was decoded.
    """

    format: str | None
    width: int
    height: int
    taken_at: datetime | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    animated: bool = False


def read_exif(image: Image.Image, label: str) -> Image.Exif:
    """The EXIF of an opened picture; empty where it has none or a broken one.

    Args:
        image: the picture. Of a PNG that is not decoded yet this decodes the pixels, because
            the chunk may stand behind them.
        label: the picture in words, for the log.
    """
    try:
        return image.getexif()
    except Exception as error:  # Pillow raises SyntaxError, struct.error, ValueError and more
        logger.debug("%s: its EXIF cannot be read: %r", label, error)
        return Image.Exif()


def orientation(exif: Image.Exif) -> int:
    """EXIF Orientation, 1 to 8; 1 (upright) where it is missing or nonsense."""
    value = exif.get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Width and height after a picture of this EXIF orientation is turned upright, or back."""
    return (size[1], size[0]) if turn in _ON_ITS_SIDE else size


def read_facts(
    image: Image.Image, exif: Image.Exif, *, size: tuple[int, int], label: str
) -> ImageFacts:
    """The facts of a decoded picture.

    Args:
        image: the picture as Pillow opened it.
        exif: its EXIF, from `read_exif`.
        size: width and height of the whole upright picture.
        label: the picture in words, for the log.
    """
    photo = _directory(exif, ExifTags.IFD.Exif, label)
    place = _directory(exif, ExifTags.IFD.GPSInfo, label)
    latitude = _degrees(place, ExifTags.GPS.GPSLatitude, positive="N", negative="S", limit=90)
    longitude = _degrees(place, ExifTags.GPS.GPSLongitude, positive="E", negative="W", limit=180)
    if latitude is None or longitude is None:
        latitude = longitude = None
    return ImageFacts(
        format=image.format,
        width=size[0],
        height=size[1],
        taken_at=_taken_at(photo, label),
        camera_make=_name(exif.get(ExifTags.Base.Make)),
        camera_model=_name(exif.get(ExifTags.Base.Model)),
        latitude=latitude,
        longitude=longitude,
        animated=image.format in _ANIMATED_FORMATS and _is_animated(image, label),
    )


def _directory(exif: Image.Exif, tag: int, label: str) -> dict[int, object]:
    try:
        return dict(exif.get_ifd(tag))
    except Exception as error:  # as in read_exif
        logger.debug("%s: its EXIF directory %#x cannot be read: %r", label, tag, error)
        return {}


def _is_animated(image: Image.Image, label: str) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception as error:  # GIF parses the second frame to answer, and it may be damaged
        logger.debug("%s: its second frame cannot be read: %r", label, error)
        return False


def _text(value: object) -> str:
    """An EXIF string, which may come as bytes and ends at its first NUL."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.split("\0", 1)[0].strip() if isinstance(value, str) else ""


def _name(value: object) -> str | None:
    name = " ".join("".join(c if c.isprintable() else " " for c in _text(value)).split())
    return name if 0 < len(name) <= _LONGEST_NAME else None


def _taken_at(photo: dict[int, object], label: str) -> datetime | None:
    written = _text(photo.get(ExifTags.Base.DateTimeOriginal))
    match = _DATE.match(written)
    if match is None:
        if written:
            logger.debug("%s: its EXIF date is not a date: %.40r", label, written)
        return None
    fraction = re.match(r"\d*", _text(photo.get(ExifTags.Base.SubsecTimeOriginal)))
    digits = fraction[0] if fraction else ""
    try:
        year, month, day, hour, minute, second = (int(part) for part in match.groups())
        moment = datetime(year, month, day, hour, minute, second, int(digits.ljust(6, "0")[:6]))
    except ValueError as error:  # a clock that was never set writes zeros
        logger.debug("%s: its EXIF date %r is impossible: %s", label, written, error)
        return None
    return moment.replace(tzinfo=_zone(_text(photo.get(ExifTags.Base.OffsetTimeOriginal))))


def _zone(offset: str) -> timezone | None:
    if offset == "Z":
        return UTC
    match = _OFFSET.fullmatch(offset)
    if match is None:
        return None
    sign, hours, minutes = match[1], int(match[2]), int(match[3])
    if hours > 14 or minutes > 59:  # UTC+14 is the farthest that exists
        return None
    distance = timedelta(hours=hours, minutes=minutes)
    return timezone(-distance if sign == "-" else distance)


def _degrees(
    place: dict[int, object], tag: int, *, positive: str, negative: str, limit: int
) -> float | None:
    """Degrees, minutes and seconds as one signed number.

    The tag before each coordinate holds its hemisphere. Without it the sign is unknown and the
    place would be wrong by half the world, so there is none.
    """
    hemisphere = _text(place.get(tag - 1)).upper()
    parts = place.get(tag)
    if hemisphere not in (positive, negative) or not isinstance(parts, (tuple, list)):
        return None
    numbers = [_number(part) for part in parts[:3]]
    if len(numbers) < 2 or numbers[0] is None or numbers[1] is None:
        return None
    # Devices that write minutes with decimals leave the seconds out, or as 0/0.
    seconds = numbers[2] if len(numbers) == 3 and numbers[2] is not None else 0.0
    if numbers[0] < 0 or numbers[1] < 0 or seconds < 0:
        return None
    degrees = numbers[0] + numbers[1] / 60 + seconds / 3600
    if degrees > limit:
        return None
    return -degrees if hemisphere == negative else degrees


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # it raises for what it cannot take
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None
