"""Downloading a model: resumed where it broke off, checked before it counts, once for all."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from searchlib.encoder.hub import authorization, mirrored
from searchlib.encoder.partial import Files, Part, checksum
from searchlib.errors import (
    ChecksumError,
    DownloadError,
    DownloadInterruptedError,
    OfflineError,
    WebError,
)
from searchlib.web import Answer, Guard, shown, size_words, status_words, stream

_GUARD = Guard(insecure_localhost=True)

# Read by `huggingface_hub` in the same way.
_OFFLINE = ("SEARCHLIB_OFFLINE", "HF_HUB_OFFLINE")
_TRUE = {"1", "true", "yes", "on"}

# These pass; other statuses stay.
_PASSING = {429, 500, 502, 503, 504}
# An attempt that gets further than any before by this much does not count as failed.
_PROGRESS_BYTES = 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_SMALLEST_STEP = 0.001

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that is whole and checked.

    Attributes:
        path: where it lies.
        sha256: 64 hexadecimal digits, lower case.
        bytes: its length.
    """

    path: Path
    sha256: str
    bytes: int


def download(
    source: str | os.PathLike[str],
    target: Path,
    *,
    sha256: str | None,
    size: int | None,
    max_bytes: int,
    on_progress: Callable[[float], None] | None = None,
    offline: bool = False,
    timeout: float = 30.0,
    tries: int = 5,
    pause: float = 0.5,
) -> Downloaded:
    """Bring a model's file to `target`, unless it is there already.

    A file that is there counts if it has the pinned length and SHA-256, or without a pin those
    that were recorded when it was downloaded from the same URL. Several processes and threads may
    ask at once: one downloads, the others wait and find the file. For the files beside the target
    see `searchlib.encoder.partial`.

    Args:
        source: an https URL (http from this machine only), a path or a `file:` URI. Local files
            are copied; without a pin, what such a file holds now is taken.
        target: the file to make; its folder is made with it.
        sha256: the sum that it must have. None: the first download from a URL records its sum
            beside the target, and later ones must match it.
        size: the length that it must have, or None.
        max_bytes: refuse what is longer.
        on_progress: called with the part that is done, from 0 to 1, rising, at the end with 1.0.
            In between it stays 0 where the server does not tell the length.
        offline: refuse to use the network, as SEARCHLIB_OFFLINE=1 and HF_HUB_OFFLINE=1 do.
        timeout: seconds without a byte after which a connection counts as broken.
        tries: attempts in a row that bring next to nothing before it gives up.
        pause: seconds before the second of them; twice as long before each further one.

    Raises:
        OfflineError: it is not there, and the network is switched off.
        DownloadInterruptedError: it broke off; the next call goes on from there.
        ChecksumError: what came has another length or SHA-256; nothing of it is kept.
        DownloadError: no network, no such file, no space, a folder that cannot be written.
    """
    job = _Job(source, Path(target), sha256, size, max_bytes, _Progress(on_progress))
    # Before the lock as well: a folder that cannot be written may hold the file.
    there = job.existing()
    if there is None:
        with job.locked():
            there = job.existing()
            if there is None and job.local is not None:
                job.progress(0, None)
                there = job.copy(job.local)
            elif there is None:
                if offline or any(os.environ.get(name, "").lower() in _TRUE for name in _OFFLINE):
                    raise OfflineError(
                        f"{job.name}: downloads are switched off; switch them on, or name a copy "
                        "of the file on this machine as the source"
                    )
                job.progress(0, None)
                there = job.fetch(timeout=timeout, tries=tries, pause=pause)
    job.progress(1, 1)
    return there


class _Progress:
    """Calls back with a fraction that only rises."""

    def __init__(self, call: Callable[[float], None] | None) -> None:
        self._call = call
        self._last = -1.0

    def __call__(self, done: int, total: int | None) -> None:
        fraction = done / total if total else 0.0
        step = 0.0 if fraction == 1 else _SMALLEST_STEP
        if self._call is not None and fraction > self._last + step:
            self._last = fraction
            self._call(fraction)


class _Job:
    """One call of `download`."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        target: Path,
        sha256: str | None,
        size: int | None,
        max_bytes: int,
        progress: _Progress,
    ) -> None:
        self.progress = progress
        self.local = _local(source)
        self._url = os.fspath(source)
        if self.local is None:
            self.name, self._known_as = shown(self._url), _without_login(self._url)
        else:
            self.name = self._known_as = str(self.local)
        self._files = Files(target)
        self._pin = sha256.lower() if sha256 is not None else None
        self._size = size
        self._max_bytes = max_bytes

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the target; errors of the disk become ours."""
        from filelock import FileLock

        try:
            self._files.target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._files.lock):
                yield
        except OSError as error:
            raise self._disk_error(error) from error

    def existing(self) -> Downloaded | None:
        """The file at the target, where it is the one that is asked for."""
        target = self._files.target
        try:
            if not target.is_file():
                return None
            wanted = self._pin
            if wanted is None and self.local is not None:
                wanted = checksum(self.local)[0] if self.local.is_file() else None
            elif wanted is None:
                wanted = self._files.recorded(self._known_as)
            if wanted is None:
                return None
            found, length = checksum(target)
        except OSError as error:
            raise DownloadError(f"{target}: cannot be read: {error.strerror or error}") from error
        if found != wanted or (self._size is not None and length != self._size):
            return None
        return Downloaded(target, found, length)

    def copy(self, source: Path) -> Downloaded:
        """Copy a local file, and check the copy."""
        if not source.is_file():
            raise DownloadError(f"{self.name}: no such file; check the path")
        try:
            original = source.open("rb")
        except OSError as error:
            raise DownloadError(f"{self.name}: cannot be read: {error.strerror}") from error
        with original:
            total = os.fstat(original.fileno()).st_size
            self._require_length(total)
            self._require_space(total)
            self._files.drop()
            with self._files.part.open("wb") as part:
                while chunk := original.read(_CHUNK_BYTES):
                    self._require_at_most(part.tell() + len(chunk), total)
                    part.write(chunk)
                    self._report(part.tell(), total)
        return self._commit(self._pin)

    def fetch(self, *, timeout: float, tries: int, pause: float) -> Downloaded:
        """Download, again where it breaks off, and check what came."""
        wanted = self._pin or self._files.recorded(self._known_as)
        furthest = self._files.came()
        failed = restarts = 0
        while True:
            part = self._files.usable(self._known_as, sum_known=wanted is not None)
            try:
                self._attempt(part, timeout)
                return self._commit(wanted)
            except ChecksumError as error:
                # A part may be damaged by a loss of power, or be joined of two versions.
                restarts += 1
                if part is None or restarts > tries:
                    raise
                self._files.drop()
                _log.info("starting over: %s", error)
            except WebError as error:
                came = self._files.came()
                if came >= furthest + _PROGRESS_BYTES:
                    furthest, failed = came, 0
                failed += 1
                passing = error.interrupted or error.status in _PASSING
                if not passing and (error.status is not None or came == 0):
                    raise self._refused(error) from error
                if failed >= tries:
                    raise self._gave_up(error, came) from error
                _log.info("%s: %s; trying again", self.name, error.reason)
                time.sleep(pause * 2 ** (failed - 1))

    def _attempt(self, part: Part | None, timeout: float) -> None:
        """One request: go on with the part, or begin it anew, up to its end."""
        url = mirrored(self._url)
        headers = authorization(url)
        offset = 0
        if part is not None:
            offset = self._files.came()
            if offset == part.length:
                return
            headers["Range"] = f"bytes={offset}-"
            if part.validator is not None:
                headers["If-Range"] = part.validator
        with stream(url, headers=headers, timeout=timeout, guard=_GUARD) as answer:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise DownloadError(f"{self.name}: the server compressed it, which was not asked")
            if part is not None and answer.status in (206, 416):
                part = self._continued(answer, part, offset)
            elif answer.status == 200:
                offset = 0
                part = Part(self._known_as, _validator(answer), answer.length)
                self._require_length(answer.length)
                self._files.begin(part)
            else:
                words = f"the server answered {status_words(answer.status)}"
                raise WebError(shown(url), words, status=answer.status)
            self._receive(answer, part.length, offset)

    def _continued(self, answer: Answer, part: Part, offset: int) -> Part:
        """The part that this answer goes on with.

        Raises:
            ChecksumError: it is another piece than was asked for, or one of another version.
        """
        said = re.fullmatch(
            r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)",
            answer.headers.get("content-range", "").strip(),
        )
        if answer.status != 206 or said is None or int(said[1]) != offset:
            raise ChecksumError(f"{self.name}: the server gave another piece than was asked for")
        length = part.length if said[2] == "*" else int(said[2])
        if part.length not in (None, length) or _validator(answer) not in (None, part.validator):
            raise ChecksumError(f"{self.name}: the file was changed meanwhile; try again later")
        return Part(part.url, part.validator, length)

    def _receive(self, answer: Answer, length: int | None, offset: int) -> None:
        """Write the body behind the `offset` bytes of the part that are there."""
        self._require_length(length)
        total = length if length is not None else self._size
        if total is not None:
            self._require_space(total - offset)
        done = offset
        # Unbuffered, so that what came before the connection broke is on the disk, not lost in
        # a buffer that cannot be written to a full one.
        with self._files.part.open("r+b", buffering=0) as part:
            part.truncate(offset)
            part.seek(offset)
            for chunk in answer.chunks():
                self._require_at_most(done + len(chunk), total)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[part.write(rest) :]
                done += len(chunk)
                self._report(done, total)
        if length is not None and done < length:
            raise WebError(self.name, "fewer bytes came than were announced", interrupted=True)

    def _commit(self, wanted: str | None) -> Downloaded:
        """Check the part and make it the target."""
        found, length = checksum(self._files.part)
        self._require_length(length)
        if wanted is not None and found != wanted:
            self._files.drop()
            accept = "give the new sum" if self._pin else f"delete {self._files.record}"
            raise ChecksumError(
                f"{self.name}: its SHA-256 is {found} and should be {wanted}; nothing was kept. "
                f"Try again; if it stays so, the file was replaced: {accept} if you trust it"
            )
        if self._files.target.exists():
            _log.warning("%s was damaged, or another file; it is replaced", self._files.target)
        self._files.commit(self._known_as, found, length)
        return Downloaded(self._files.target, found, length)

    def _report(self, done: int, total: int | None) -> None:
        # 1 is said when the file is checked and in its place.
        if total is not None and done < total:
            self.progress(done, total)

    def _require_length(self, length: int | None) -> None:
        if length is None:
            return
        if self._size is not None and length != self._size:
            self._files.drop()
            raise ChecksumError(
                f"{self.name}: it has {length} bytes and should have {self._size}; nothing was "
                "kept. Check the URL; the file may have been replaced"
            )
        self._require_at_most(length, None)

    def _require_at_most(self, length: int, total: int | None) -> None:
        if total is not None and length > total:
            self._files.drop()
            raise ChecksumError(
                f"{self.name}: more came than the {total} bytes that it should have; nothing was "
                "kept. Check the URL; the file may have been replaced"
            )
        if length > self._max_bytes:
            self._files.drop()
            raise DownloadError(
                f"{self.name}: it is larger than {size_words(self._max_bytes)}, the most that is "
                "downloaded; check the URL"
            )

    def _require_space(self, count: int) -> None:
        folder = self._files.target.parent
        free = shutil.disk_usage(folder).free
        if count > free:
            raise DownloadError(
                f"{folder}: no space left for {self.name}: {size_words(count)} are needed and "
                f"{size_words(free)} are free; free some space and try again"
            )

    def _disk_error(self, error: OSError) -> DownloadError:
        target = self._files.target
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DownloadError(
                f"{target.parent}: no space left on this disk for {self.name}; free some space "
                "and try again, it goes on from there"
            )
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            return DownloadError(f"{target.parent}: cannot be a folder: a file is in its place")
        return DownloadError(f"{target}: cannot be written: {error.strerror or error}")

    def _refused(self, error: WebError) -> DownloadError:
        advice = ""
        if error.status in (401, 403):
            advice = "; access is denied: for Hugging Face set HF_TOKEN to a token"
        elif error.status in (404, 410):
            advice = "; check the name and the version in the URL"
        return DownloadError(f"{error.url}: {error.reason}{advice}")

    def _gave_up(self, error: WebError, came: int) -> DownloadError:
        if came == 0:
            kind = DownloadInterruptedError if error.interrupted else DownloadError
            return kind(f"{error.url}: {error.reason}; try again later")
        return DownloadInterruptedError(
            f"{error.url}: {error.reason}; {size_words(came)} are kept, and the next try goes on "
            "from there"
        )


def _validator(answer: Answer) -> str | None:
    """What `If-Range` may hold (RFC 9110, 13.1.5): a strong ETag, else the date of the change."""
    etag = answer.headers.get("etag", "").strip()
    if etag.startswith('"'):
        return etag
    return answer.headers.get("last-modified", "").strip() or None


def _local(source: str | os.PathLike[str]) -> Path | None:
    """The path of a source on this machine; None for a URL."""
    if not isinstance(source, str):
        return Path(source)
    scheme = re.match(r"([a-z][a-z0-9+.-]*):(//)?", source, re.IGNORECASE)
    if scheme is not None and scheme[1].lower() == "file":
        try:
            parts = urlsplit(source)
        except ValueError as error:
            raise DownloadError(f"{shown(source)}: is not a URI: {error}") from error
        if parts.netloc.lower() not in ("", "localhost"):
            raise DownloadError(f"{shown(source)}: is on another machine; pass a local path")
        return Path(unquote(parts.path))
    return None if scheme is not None and scheme[2] else Path(source)


def _without_login(url: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    return url
