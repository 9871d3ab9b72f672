"""What the catalog takes and gives: frozen records, no rows and no sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

State = Literal["present", "missing", "skipped"]


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells that a file was not touched.

    Attributes:
        size: bytes.
        mtime_ns: time of the last change, nanoseconds since 1970.
        inode: the file system's number for the file, as a signed 64-bit number.
    """

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as the catalog knows it.

    Attributes:
        id: in the catalog.
        stat: as it was when the file was last read.
        state: where it is, was, or that it could not be used.
        reason: why not.
        embedded: whether its image has a vector of the model asked for.
    """

    id: int
    stat: Stat
    state: State
    reason: str | None
    embedded: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an image's content.

    Attributes:
        bytes: the length of the file.
        format: as Pillow names it ("JPEG", "PNG", ...).
        width, height: in pixels, upright.
        taken_at: ISO 8601, with an offset only where the camera wrote one.
        camera_make, camera_model: as the camera wrote them.
        latitude, longitude: degrees, north and east positive.
    """

    bytes: int
    format: str | None
    width: int
    height: int
    taken_at: str | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class NewContent:
    """Bytes that the catalog did not have.

    Attributes:
        facts: of the image.
        vector: float32 [dimension], of length 1.
    """

    facts: Facts
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that is a picture.

    Attributes:
        path: absolute.
        stat: as it was when the bytes were read.
        digest: 32 bytes, the BLAKE3 of the file.
        folder: the added folder that it was found in.
        content: None where the digest is known with a vector of the model in use.
    """

    path: str
    stat: Stat
    digest: bytes
    folder: str | None
    content: NewContent | None


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that cannot be used, and why."""

    path: str
    stat: Stat
    folder: str | None
    reason: str


Outcome = Literal["added", "copy", "moved", "changed", "embedded", "unchanged"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of the library.

    Attributes:
        id: stable for the life of the library.
        digest: the BLAKE3 of its bytes, 64 hex digits.
        facts: see Facts.
        paths: where it lies, in alphabetical order; empty where every copy is gone.
    """

    id: int
    digest: str
    facts: Facts
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model that the catalog knows.

    Attributes:
        id: in the catalog.
        identity: 64 hex digits.
        name: of its card.
        dimension: of its vectors.
    """

    id: int
    identity: str
    name: str
    dimension: int


@dataclass(frozen=True, slots=True)
class ModelVectors:
    """A model that has vectors in the library.

    Attributes:
        name: of its card.
        identity: 64 hex digits.
        vectors: how many.
        in_use: whether images are searched and added with it.
    """

    name: str
    identity: str
    vectors: int
    in_use: bool


@dataclass(frozen=True, slots=True)
class Unembedded:
    """An image that has no vector of a model.

    Attributes:
        id: in the catalog.
        digest: 32 bytes, the BLAKE3 of its bytes.
        paths: where it lies; at least one.
    """

    id: int
    digest: bytes
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in the catalog, counted.

    Attributes:
        images: with at least one file present.
        files_present, files_missing, files_skipped: by state.
        folders: added as a whole.
        vectors: of the model in use.
        seq: the last change of the vector set, 0 where there was none.
        last_change: when a file was last read or found missing, or None.
        models: that have vectors, the one in use first.
    """

    images: int
    files_present: int
    files_missing: int
    files_skipped: int
    folders: int
    vectors: int
    seq: int
    last_change: float | None
    models: tuple[ModelVectors, ...]
