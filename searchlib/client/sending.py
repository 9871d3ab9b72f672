"""Questions as they are sent: pictures as files, conditions and thresholds as text."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchlib.errors import InputError, SourceError
from searchlib.images import NamedBytes, Source, printable, resolve
from searchlib.search import Threshold

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition

_OPAQUE = "application/octet-stream"


def encoded(source: Source) -> NamedBytes:
    """A picture of any kind as the bytes of a file; pixels become a PNG.

    Raises:
        SourceError, DecodeError: it cannot be read or fetched.
    """
    if isinstance(source, np.ndarray):
        return _png(_pixels(source), "<array>")
    if isinstance(source, Image.Image):
        return _png(source, "<image>")
    if isinstance(source, bytes):
        return NamedBytes("<bytes>", source)
    settled = resolve(source)
    if isinstance(settled, NamedBytes):
        return settled
    if not isinstance(settled, (str, os.PathLike)):
        raise SourceError(f"<{type(source).__name__}>", "is not a picture")
    path = os.fspath(settled)
    if isinstance(settled, str) and path[:5].lower() == "file:":
        path = url2pathname(urlsplit(path).path)
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            raise SourceError(printable(path), "no such file")
        return NamedBytes(path, Path(path).read_bytes())
    except OSError as error:
        raise SourceError(printable(path), f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise SourceError(printable(path), f"is not a path: {error}") from error


def _png(image: Image.Image, label: str) -> NamedBytes:
    written = io.BytesIO()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    image.save(written, "PNG", compress_level=1, exif=image.getexif().tobytes())
    return NamedBytes(label, written.getvalue())


def _pixels(array: NDArray[Any]) -> Image.Image:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or 0 in array.shape:
        raise SourceError(
            "<array>",
            f"has shape {array.shape} and dtype {array.dtype}; pass uint8 of height x width x 3 "
            "(RGB), height x width x 4 (RGBA) or height x width (grey)",
        )
    return Image.fromarray(np.ascontiguousarray(array))


def as_file(picture: NamedBytes) -> tuple[str, tuple[str, bytes, str]]:
    """A picture as httpx2 puts it into a form."""
    name = os.path.basename(picture.label)  # noqa: PTH119 - it need not be a path
    return "image", (printable(name) or "picture", picture.content, _OPAQUE)


def is_url(source: Source) -> bool:
    """Whether a source is the URL of a picture."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def in_words(where: str | Condition | None) -> str | None:
    """Conditions as a text; None where there are none."""
    if where is None or isinstance(where, str):
        return where or None
    from searchlib.search.where import format_where

    return format_where(where)


def similarity(threshold: Threshold | None) -> float | str | None:
    """A threshold as `min_similarity` is written."""
    if threshold is None or threshold.kind == "cosine":
        return None if threshold is None else threshold.value
    if not math.isfinite(threshold.value):
        raise InputError(f"the threshold is {threshold.value}; a percentile is from 0 to 100")
    return f"{threshold.value:.6f}".rstrip("0").rstrip(".") + "%"
