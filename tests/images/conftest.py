"""Pictures for the tests of searchlib.images: photographs, generated files, the shared corpus."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A photograph, 512 x 512."""
    from skimage import data

    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="session")
def wide_photo() -> Image.Image:
    """A photograph that is not square, 600 x 400."""
    from skimage import data

    return Image.fromarray(data.coffee())


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encode a Pillow image: encode(image, "PNG", **options) -> bytes."""

    def encoded(image: Image.Image, name: str, **options: object) -> bytes:
        if name == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        return buffer.getvalue()

    return encoded
