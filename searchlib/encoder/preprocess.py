"""From an upright RGB picture to the numbers that a model takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchlib.encoder.card import Preprocessing

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

# Beyond this, all but the middle of a long picture is left out before and not after the resize.
_LONG = 8


def prepare(image: Image.Image, spec: Preprocessing) -> NDArray[np.float32]:
    """Resize a picture and lay it out as a model takes it.

    Args:
        image: upright, mode RGB, any size.
        spec: the model's preprocessing.

    Returns:
        float32 [3, height, width], C-contiguous: (value / 255 - mean) / std, in the channel order
        of the model.
    """
    planes = np.asarray(_fit(image, spec), dtype=np.float32).transpose(2, 0, 1)
    pixels = np.ascontiguousarray(planes)
    pixels /= 255
    if spec.mean != (0, 0, 0) or spec.std != (1, 1, 1):
        pixels -= np.array(spec.mean, np.float32)[:, None, None]
        pixels /= np.array(spec.std, np.float32)[:, None, None]
    return pixels if spec.channels == "RGB" else np.ascontiguousarray(pixels[::-1])


def _fit(image: Image.Image, spec: Preprocessing) -> Image.Image:
    size = spec.width, spec.height
    if spec.resize == "crop":
        return _crop(image, spec)
    if spec.resize == "squash":
        return _resize(image, size, spec)
    scale = min(spec.width / image.width, spec.height / image.height)
    inner = tuple(max(1, round(side * scale)) for side in image.size)
    red, green, blue = (round(255 * value) for value in spec.padding)
    whole = Image.new("RGB", size, (red, green, blue))
    corner = (spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2
    whole.paste(_resize(image, (inner[0], inner[1]), spec), corner)
    return whole


def _crop(image: Image.Image, spec: Preprocessing) -> Image.Image:
    """The middle, to the pixel as transformers' CLIP image processor takes it."""
    scale = max(spec.width / image.width, spec.height / image.height)
    # Rounded first: 224 / 300 * 300 may fall just short of 224, and is then cut to 223.
    width, height = (int(round(side * scale, 6)) for side in image.size)
    left, top = (width - spec.width) // 2, (height - spec.height) // 2
    if max(width / spec.width, height / spec.height) > _LONG:
        unit = image.width / width, image.height / height
        image = image.crop(
            (
                int(left * unit[0]),
                int(top * unit[1]),
                max(1, round((left + spec.width) * unit[0])),
                max(1, round((top + spec.height) * unit[1])),
            )
        )
        return _resize(image, (spec.width, spec.height), spec)
    whole = _resize(image, (width, height), spec)
    return whole.crop((left, top, left + spec.width, top + spec.height))


def _resize(image: Image.Image, size: tuple[int, int], spec: Preprocessing) -> Image.Image:
    if spec.antialias:
        return image.resize(size, _FILTERS[spec.interpolation])
    # Pillow's resize always averages; its affine map takes each pixel from its four neighbours,
    # with the centres of the corner pixels where OpenCV has them.
    horizontal, vertical = image.width / size[0], image.height / size[1]
    return image.transform(
        size,
        Image.Transform.AFFINE,
        (horizontal, 0, 0, 0, vertical, 0),
        resample=_FILTERS[spec.interpolation],
    )
