"""Any of Pillow's modes to RGB as a screen would show it: on white, in sRGB, eight bits."""

from __future__ import annotations

import io
import logging
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, cast

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from PIL import ImageCms

logger = logging.getLogger(__name__)

_GREY_16 = {"I;16", "I;16L", "I;16B", "I;16N"}
_GREY_32 = {"I", "F"}
_WITH_ALPHA = {"RGBA", "RGBa", "LA", "La", "PA"}
_WITH_COLOUR_KEY = {"1", "L", "P", "RGB"}

# Levels of 255 that a profile may differ from sRGB and still be taken for it.
_SAME_COLOUR = 2

# A picture is worked on in strips of about this many pixels, so that the steps between its mode
# and RGB take tens of megabytes and not several times the memory of the largest picture.
_STRIP_PIXELS = 1 << 24


def to_rgb(image: Image.Image, *, factor: int, profile: bytes | None, label: str) -> Image.Image:
    """A decoded picture as RGB, `factor` times smaller a side (rounded up).

    Transparent parts show white. Grey of 16 and 32 bits is brought into range, see `_range`.
    Colours are brought from the ICC profile to sRGB; a profile that is missing, broken or made
    for another mode is ignored, which takes RGB and grey for sRGB, and CMYK by Pillow's rule of
    thumb. An RGB picture to which nothing is to be done is returned itself.

    Args:
        image: any mode. Its `info["transparency"]` is honoured.
        factor: 1 or more; the mean of so many pixels a side becomes one.
        profile: the bytes of the embedded ICC profile.
        label: the picture in words, for the log.

    Raises:
        Exception: whatever Pillow raises for a mode that it cannot convert.
    """
    span = _range(image)
    width, height = image.size
    rows = max(_STRIP_PIXELS // width // factor, 1) * factor
    if rows >= height:
        return _strip_to_rgb(image, span, factor, profile, label)
    whole = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        whole.paste(_strip_to_rgb(strip, span, factor, profile, label), (0, top // factor))
    return whole


def _strip_to_rgb(
    image: Image.Image,
    span: tuple[float, float] | None,
    factor: int,
    profile: bytes | None,
    label: str,
) -> Image.Image:
    image = _to_eight_bit(image, span)
    if factor > 1:
        # Before the colours: they are the slow part, and come out the same.
        image = image.reduce(factor)
    return _to_srgb(image, profile, label)


def _to_eight_bit(image: Image.Image, span: tuple[float, float] | None) -> Image.Image:
    """Mode RGB, L or CMYK, without transparency."""
    mode = image.mode
    transparency = image.info.get("transparency")
    if span is not None:
        return _grey(image, span, transparency)
    palette_alpha = mode == "P" and image.palette is not None and image.palette.mode == "RGBA"
    colour_key = transparency is not None and mode in _WITH_COLOUR_KEY
    if mode in _WITH_ALPHA or palette_alpha or colour_key:
        return _on_white(image)
    if mode == "LAB":
        return _applied(image, _transform(None, "LAB"))
    if mode in ("RGB", "L", "CMYK"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=alpha)
    return white


def _range(image: Image.Image) -> tuple[float, float] | None:
    """Which levels of a grey picture of more than 8 bits are black and white; None for others.

    16 bits: 0 and 65535, but 4095 for TIFFs of 12 bits, whose values Pillow leaves as they are.
    32-bit integers: the same as 16 bits, for that is what they mostly hold. Floats: 0, and the
    first of 1, 255 and 65535 that no value exceeds. Where a value lies outside of that, the
    least value is black and the greatest white.
    """
    if image.mode in _GREY_16:
        bits = getattr(image, "tag_v2", {}).get(258)  # BitsPerSample
        return (0, 4095) if bits in (12, (12,)) else (0, 65535)
    if image.mode not in _GREY_32:
        return None
    import numpy as np

    levels = np.asarray(image)
    low, high = np.inf, -np.inf
    for rows in _chunks(levels):
        known = rows[np.isfinite(rows)]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    whites = (65535,) if image.mode == "I" else (1, 255, 65535)
    fitting = [white for white in whites if low >= 0 and high <= white]
    return (0, fitting[0]) if fitting else (low, high)


def _grey(image: Image.Image, span: tuple[float, float], transparency: object) -> Image.Image:
    """Mode L; NaN and infinities are black."""
    import numpy as np

    black, white = span
    scale = 255 / (white - black) if white > black else 0.0
    levels = np.asarray(image)
    grey = np.empty(levels.shape, np.uint8)
    if levels.dtype.itemsize == 2:
        table = np.minimum(np.rint(np.arange(65536) * scale), 255).astype(np.uint8)
        np.take(table, levels, out=grey)
    else:
        for rows, out in zip(_chunks(levels), _chunks(grey), strict=True):
            finite = np.where(np.isfinite(rows), rows, black).astype(np.float64)
            out[:] = np.rint(np.clip((finite - black) * scale, 0, 255))
    if isinstance(transparency, int):
        grey[levels == transparency] = 255
    return Image.fromarray(grey)


def _chunks(levels: np.ndarray) -> list[np.ndarray]:
    """Views of a few rows each, so that what is computed on the way stays small."""
    rows = max((1 << 20) // max(levels.shape[1], 1), 1)
    return [levels[top : top + rows] for top in range(0, len(levels), rows)]


def _to_srgb(image: Image.Image, profile: bytes | None, label: str) -> Image.Image:
    if profile:
        try:
            image = _applied(image, _transform(profile, image.mode))
        except Exception as error:  # PyCMSError, OSError or ValueError, by the kind of damage
            logger.debug("%s: its colour profile cannot be used: %s", label, error)
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=32)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None where it would change nothing to speak of.

    A library has thousands of pictures and a handful of profiles, hence the cache. Transforms are
    used from many threads at once, which LittleCMS allows.

    Args:
        profile: ICC bytes; None for the CIE L*a*b* space itself.

    Raises:
        Exception: whatever ImageCms raises for a broken profile or one for another mode.
    """
    from PIL import ImageCms

    source = (
        ImageCms.createProfile("LAB")
        if profile is None
        else ImageCms.ImageCmsProfile(io.BytesIO(profile))
    )
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return None if _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the profile is sRGB, or near enough.

    There are dozens of sRGB profiles under as many names, so it is the colours that are compared:
    those of a lattice through the cube, or of all greys.
    """
    if mode == "RGB":
        levels = range(0, 256, 51)
        colours = bytes(level for rgb in product(levels, repeat=3) for level in rgb)
    elif mode == "L":
        colours = bytes(range(256))
    else:
        return False
    probe = Image.frombytes(mode, (len(colours) // len(mode), 1), colours)
    before, after = probe.convert("RGB").tobytes(), _applied(probe, transform).tobytes()
    return all(abs(a - b) <= _SAME_COLOUR for a, b in zip(before, after, strict=True))


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    if transform is None:
        return image
    from PIL import ImageCms

    # It returns None only for a transform in place.
    return cast(Image.Image, ImageCms.applyTransform(image, transform))
