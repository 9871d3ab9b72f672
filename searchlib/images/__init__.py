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

from searchlib.images.decode import DEFAULT_MAX_PIXELS, LoadedImage, MinSide
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
    "thumbnail_path",
    "write_thumbnail",
]
