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


def prepare(image: Image.Image, spec: Preprocessing) -> NDArray[np.float32]:
    """Resize a picture and lay it out as a model takes it.

    Args:
        image: upright, mode RGB, any size.
        spec: the model's preprocessing.

    Returns:
        float32 [3, height, width], C-contiguous: (value / 255 - mean) / std.
    """
    resized = image.resize(
        (spec.width, spec.height), _FILTERS[spec.interpolation], box=_source_box(image.size, spec)
    )
    planes = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)
    pixels = np.ascontiguousarray(planes)
    pixels /= 255
    if spec.mean != (0, 0, 0) or spec.std != (1, 1, 1):
        pixels -= np.array(spec.mean, np.float32)[:, None, None]
        pixels /= np.array(spec.std, np.float32)[:, None, None]
    return pixels


def _source_box(size: tuple[int, int], spec: Preprocessing) -> tuple[float, float, float, float]:
    width, height = size
    if spec.resize == "squash":
        return 0, 0, width, height
    scale = min(width / spec.width, height / spec.height)
    # Clamped, because rounding can put an edge just outside the picture.
    left = max(0.0, (width - scale * spec.width) / 2)
    top = max(0.0, (height - scale * spec.height) / 2)
    return left, top, width - left, height - top
