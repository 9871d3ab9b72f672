"""What the catalog takes and gives: frozen records, no rows and no sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

State = Literal["present", "missing", "offline", "skipped"]
FailureKind = Literal["content", "access", "crash"]
EventSource = Literal["auto", "yes", "no"]


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells that a file was not touched.

    Attributes:
        size: bytes.
        mtime_ns: time of the last change, nanoseconds since 1970.
        inode: the file system's number for the file, as a signed 64-bit number.
        device: the number of the file system, the same; None where it was not kept.
    """

    size: int
    mtime_ns: int
    inode: int
    device: int | None = None

    def is_untouched(self, before: Stat) -> bool:
        """Whether nothing happened to a file since `before`.

        A file system that was mounted anew may have another number, and some then number their
        files anew as well; there the size and the time have to do.
        """
        same = (self.size, self.mtime_ns) == (before.size, before.mtime_ns)
        renumbered = None not in (self.device, before.device) and self.device != before.device
        return same and (renumbered or self.inode == before.inode)


UNKNOWN_STAT = Stat(-1, 0, 0)
"""Of a file that could not even be asked; no file has this one."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as the catalog knows it.

    Attributes:
        id: in the catalog.
        path: absolute.
        stat: as it was when the file was last read.
        state: where it is, was, or that it could not be used.
        folder_id: of the added folder that it was found in.
        embedded: whether its image has a vector of the model asked for.
        video: the moving part of a live photo.
        failure: what kind, while the last try failed.
        reason: why, in words.
        next_try: when it is tried again, in seconds since 1970; None if not by itself.
    """

    id: int
    path: str
    stat: Stat
    state: State
    folder_id: int | None
    embedded: bool
    video: str | None = None
    failure: FailureKind | None = None
    reason: str | None = None
    next_try: float | None = None

    @property
    def is_given_up(self) -> bool:
        """Whether it is missing, and nothing is left to be forgotten with that."""
        return self.state == "missing" and self.failure is None

    @property
    def is_done(self) -> bool:
        """Whether nothing has to be done while the file stays as it is."""
        return self.state == "present" and self.embedded and self.failure is None


@dataclass(frozen=True, slots=True)
class Failure:
    """A file whose last try failed.

    Attributes:
        path: absolute.
        kind: "content" where only other bytes can help, "access" where the disk refused, "crash"
            where decoding it ended the process.
        reason: in words, without the path.
        attempts: how many tries failed one after the other.
        last_try: seconds since 1970.
        next_try: the same; None where it is tried again only if it changes or is asked for.
    """

    path: str
    kind: FailureKind
    reason: str
    attempts: int
    last_try: float
    next_try: float | None


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """A folder that was added as a whole, and how.

    Attributes:
        path: absolute.
        recursive: whether folders below count too.
        follow_links: whether links to folders are followed.
        include: patterns as in a `.gitignore`; where there are any, only what they name counts.
        exclude: patterns of what is left out.
        marker: the name of a file that lies in it whenever its drive is mounted.
        events: whether changes are told by the system ("yes"), looked for ("no"), or either as the
            file system allows ("auto").
        watched: whether `watch` takes care of it.
        id: in the catalog; 0 before it is there.
    """

    path: str
    recursive: bool = True
    follow_links: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    marker: str | None = None
    events: EventSource = "auto"
    watched: bool = False
    id: int = 0


@dataclass(frozen=True, slots=True)
class Purged:
    """What was given up.

    Attributes:
        files: places of which the catalog knows nothing any more.
        digests: of the images that went with them, 32 bytes each.
    """

    files: int
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the process that watches says of itself; times are seconds since 1970.

    Attributes:
        pid, host: of the process.
        started_at, beat_at: when it began, and when it wrote this.
        stage: what it does, in words.
        queued: paths that something happened to and that are not dealt with, and files to be read.
        settling: of these, how many are looked at until they stand still.
        done, failed: files dealt with since it began.
        per_second: files dealt with in the last minute, by second.
        lag: how many seconds ago the oldest path in the queue was noted.
        last_event_at: when the system last told of a change.
        scanned_at: when all folders were last compared with the catalog.
    """

    pid: int
    host: str
    started_at: float
    beat_at: float
    stage: str
    queued: int
    settling: int
    done: int
    failed: int
    per_second: float
    lag: float
    last_event_at: float | None
    scanned_at: float | None


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
        video: the moving part of a live photo.
    """

    path: str
    stat: Stat
    digest: bytes
    folder: str | None
    content: NewContent | None
    video: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that cannot be used, and why; for `failure` see Failure.kind."""

    path: str
    stat: Stat
    folder: str | None
    reason: str
    failure: FailureKind = "content"


Outcome = Literal["added", "copy", "moved", "changed", "embedded", "unchanged"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of the library.

    Attributes:
        id: stable for the life of the library.
        digest: the BLAKE3 of its bytes, 64 hex digits.
        facts: see Facts.
        paths: where it lies, in alphabetical order; empty where every copy is gone.
        videos: the moving parts of the live photos among these.
        tags: that people put on it, in alphabetical order.
        properties: values of people's own and the keys that they stand under, by key.
        added_at: when it came into the library, in seconds since 1970.
    """

    id: int
    digest: str
    facts: Facts
    paths: tuple[str, ...]
    videos: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    added_at: float = 0.0


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
        files_present, files_missing, files_offline, files_skipped: by state.
        files_failed: whose last try failed, whatever their state.
        folders: added as a whole.
        dirty: paths that something happened to and nobody looked at yet.
        vectors: of the model in use.
        seq: the last change of the vector set, 0 where there was none.
        last_change: when a file was last read or found missing, or None.
        models: that have vectors, the one in use first.
    """

    images: int
    files_present: int
    files_missing: int
    files_offline: int
    files_skipped: int
    files_failed: int
    folders: int
    dirty: int
    vectors: int
    seq: int
    last_change: float | None
    models: tuple[ModelVectors, ...]
