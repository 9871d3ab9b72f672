"""Encoded bytes to upright RGB pixels and facts.

    load(source)        any kind of source, in one step
    resolve(source)     fetch or decode what is a URL or text, once
    open_file(path)     read and hash once, then decode or not
    fingerprint(path)   hash only
    is_image_name, printable   file names
    stack_key, leader   which files are one shot
    write_thumbnail(folder, digest, pixels)   small pictures beside the library

Everything that makes one picture unusable is a `searchlib.errors.ImageError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchlib.lazily import lazily

if TYPE_CHECKING:
    from searchlib.images.decode import LoadedImage, MinSide
    from searchlib.images.facts import ImageFacts
    from searchlib.images.files import Fingerprint, OpenedFile, fingerprint, open_file
    from searchlib.images.names import (
        IMAGE_EXTENSIONS,
        RAW_EXTENSIONS,
        is_image_name,
        printable,
        reads_raw,
    )
    from searchlib.images.remote import OWN_POLICY, SERVER_POLICY, FetchPolicy
    from searchlib.images.source import NamedBytes, Source, digest, load, resolve
    from searchlib.images.stacks import kind_of, leader, live_video, stack_key
    from searchlib.images.thumbnails import (
        remove_stale_temporaries,
        remove_thumbnail,
        thumbnail_bytes,
        thumbnail_path,
        write_thumbnail,
    )

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "OWN_POLICY",
    "RAW_EXTENSIONS",
    "SERVER_POLICY",
    "FetchPolicy",
    "Fingerprint",
    "ImageFacts",
    "LoadedImage",
    "MinSide",
    "NamedBytes",
    "OpenedFile",
    "Source",
    "digest",
    "fingerprint",
    "is_image_name",
    "kind_of",
    "leader",
    "live_video",
    "load",
    "open_file",
    "printable",
    "reads_raw",
    "remove_stale_temporaries",
    "remove_thumbnail",
    "resolve",
    "stack_key",
    "thumbnail_bytes",
    "thumbnail_path",
    "write_thumbnail",
]

DEFAULT_MAX_PIXELS = 500_000_000
"""The largest picture that is decoded, in pixels; at four bytes each it takes 2 GB of memory."""

# Imported when first asked for: a query should not wait for what it does not use.
_HOMES = {
    "FetchPolicy": "searchlib.images.remote",
    "Fingerprint": "searchlib.images.files",
    "IMAGE_EXTENSIONS": "searchlib.images.names",
    "ImageFacts": "searchlib.images.facts",
    "LoadedImage": "searchlib.images.decode",
    "MinSide": "searchlib.images.decode",
    "NamedBytes": "searchlib.images.source",
    "OWN_POLICY": "searchlib.images.remote",
    "OpenedFile": "searchlib.images.files",
    "RAW_EXTENSIONS": "searchlib.images.names",
    "SERVER_POLICY": "searchlib.images.remote",
    "Source": "searchlib.images.source",
    "digest": "searchlib.images.source",
    "fingerprint": "searchlib.images.files",
    "is_image_name": "searchlib.images.names",
    "kind_of": "searchlib.images.stacks",
    "leader": "searchlib.images.stacks",
    "live_video": "searchlib.images.stacks",
    "load": "searchlib.images.source",
    "open_file": "searchlib.images.files",
    "printable": "searchlib.images.names",
    "reads_raw": "searchlib.images.names",
    "remove_stale_temporaries": "searchlib.images.thumbnails",
    "remove_thumbnail": "searchlib.images.thumbnails",
    "resolve": "searchlib.images.source",
    "stack_key": "searchlib.images.stacks",
    "thumbnail_bytes": "searchlib.images.thumbnails",
    "thumbnail_path": "searchlib.images.thumbnails",
    "write_thumbnail": "searchlib.images.thumbnails",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
