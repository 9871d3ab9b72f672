"""Encoded bytes to upright RGB pixels and facts.

    load(source)        any kind of source, in one step
    resolve(source)     fetch or decode what is a URL or text, once
    open_file(path)     read and hash once, then decode or not
    fingerprint(path)   hash only
    is_image_name, printable   file names

Everything that makes one picture unusable is a `searchlib.errors.ImageError`.
"""

from searchlib.images.decode import DEFAULT_MAX_PIXELS, LoadedImage, MinSide
from searchlib.images.facts import ImageFacts
from searchlib.images.files import Fingerprint, OpenedFile, fingerprint, open_file
from searchlib.images.names import IMAGE_EXTENSIONS, is_image_name, printable
from searchlib.images.remote import OWN_POLICY, SERVER_POLICY, FetchPolicy
from searchlib.images.source import NamedBytes, Source, digest, load, resolve

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "OWN_POLICY",
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
    "load",
    "open_file",
    "printable",
    "resolve",
]
