"""Small pictures of images, made when they are asked for where the library keeps none."""

from __future__ import annotations

from searchlib.catalog import ImageRecord
from searchlib.errors import ImageError, ImageGoneError
from searchlib.images import open_file, printable, thumbnail_bytes, write_thumbnail
from searchlib.images.thumbnails import SIDE
from searchlib.library import Library
from searchlib.upkeep import THUMBNAILS


def thumbnail(library: Library, image: ImageRecord) -> bytes:
    """A WebP of up to 256 pixels on the longer side.

    Raises:
        ImageGoneError: there is none, and no file of the image is what the library read.
    """
    kept = library.thumbnail(image.digest)
    if kept is not None:
        try:
            return kept.read_bytes()
        except OSError:
            pass  # it is a cache
    for path in image.paths:
        try:
            with open_file(path) as opened:
                # The bytes say whether it is that file, whatever lies at the path by now.
                if opened.digest.hex() != image.digest:
                    continue
                pixels = opened.load(min_side=SIDE, max_pixels=library.max_query_pixels).pixels
        except ImageError:
            continue
        folder = library.folder / THUMBNAILS
        if folder.is_dir():
            write_thumbnail(folder, bytes.fromhex(image.digest), pixels)
        return thumbnail_bytes(pixels)
    raise ImageGoneError(
        f"{printable(image.paths[0])}: is gone, or not the file any more that the library read; "
        "it is looked at again by `searchlib add` or `searchlib watch`"
    )
