"""Sealed files: what the files of an index have in common.

Disk layout, all numbers little-endian:

    page 0, 4096 bytes      the header
        0     8   magic                 b"SLINDEX\\0"
        8     4   format version        2
        12    4   kind                  `Kind`
        16    8   body length
        24    32  digest                BLAKE3 of the body, or of what the kind says
        56    4   length of the facts
        60    ..  facts                 a JSON object in UTF-8 that each kind describes; zeros
        4064  32  BLAKE3 of the bytes 0 to 4063
    from byte 4096 to the end of the file the body

A file is written under a temporary name in the same folder, synchronised to the disk, and renamed;
then the folder is synchronised. Whoever opens the path finds the old file or the new one, and
whoever has the old one open keeps it. A writer that dies leaves a temporary file;
`remove_stale_temporaries` sweeps those.
"""

from __future__ import annotations

import contextlib
import enum
import json
import mmap
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from searchlib.errors import CheckpointError

MAGIC = b"SLINDEX\0"
VERSION = 2
PAGE = 4096
STALE_AFTER = 3600.0
"""Seconds after which a temporary file is taken for abandoned although its writer seems to live:
the number of a dead process may belong to another by now."""

_FIELDS = struct.Struct("<8sIIQ32sI")
_SEAL = PAGE - 32
_TEMPORARY = re.compile(r"\..+\.(\d{1,10})\.[0-9a-f]{16}\.checkpoint-tmp")


class Kind(enum.IntEnum):
    """What a sealed file holds."""

    CHECKPOINT = 1
    BASE = 2
    ACCELERATOR = 3


@dataclass(frozen=True, slots=True)
class Header:
    """The first page of a sealed file.

    Attributes:
        kind: what it holds.
        length: bytes of the body.
        digest: of the body, 32 bytes.
        facts: of the kind.
        seal: BLAKE3 of the page, 32 bytes; names this very file.
    """

    kind: Kind
    length: int
    digest: bytes
    facts: dict[str, Any]
    seal: bytes


def write_sealed(
    path: Path,
    kind: Kind,
    parts: Iterable[memoryview],
    facts: dict[str, Any],
    *,
    digest: Callable[[], bytes] | None = None,
) -> bytes:
    """Writes a sealed file in place of the one that is there.

    Args:
        path: of the file; its folder must exist.
        kind: what it holds.
        parts: of the body, one after the other.
        facts: what the header says of it.
        digest: gives the digest when all parts are written; that of the whole body if None.

    Returns:
        The seal of the header.

    Raises:
        OSError: it cannot be written, for want of space for example. What was there stays, and no
            temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.checkpoint-tmp")
    try:
        with temporary.open("xb") as file:
            file.write(bytes(PAGE))
            length, hashed = 0, blake3()
            for part in parts:
                if digest is None:
                    hashed.update(part)
                file.write(part)
                length += len(part)
            page = _page(kind, length, digest() if digest else hashed.digest(), facts)
            file.seek(0)
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _synchronise_folder(path.parent)
    return page[_SEAL:]


def read_header(path: Path, kind: Kind) -> Header:
    """The header of a sealed file; its body is not looked at.

    Raises:
        CheckpointError: it is missing, cannot be read, is damaged or of another kind or format.
    """
    try:
        _require_file(path)
        with path.open("rb") as file:
            page = file.read(PAGE)
    except OSError as error:
        raise refused(path, f"it cannot be read ({error.strerror or error})") from error
    return _header(path, page, kind)


def map_sealed(path: Path, kind: Kind) -> tuple[Header, mmap.mmap]:
    """The header of a sealed file and all its bytes, mapped; the body is not verified.

    The file may be replaced or deleted meanwhile.

    Raises:
        CheckpointError: it is missing, cannot be read, is cut, damaged in its header, or of another
            kind or format.
    """
    try:
        _require_file(path)
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise refused(path, "it is empty") from None
    except OSError as error:
        raise refused(path, f"it cannot be read ({error.strerror or error})") from error
    header = _header(path, pages[:PAGE], kind)
    if len(pages) != PAGE + header.length:
        raise refused(path, f"it has {len(pages)} bytes instead of {PAGE + header.length}")
    return header, pages


def verify_body(path: Path, header: Header, pages: mmap.mmap) -> None:
    """Compares the body of a mapped file with its digest.

    Raises:
        CheckpointError: it is damaged.
    """
    # Threads that have little to do cost more than they bring.
    threads = blake3.AUTO if header.length > 1 << 20 else 1
    if blake3(memoryview(pages)[PAGE:], max_threads=threads).digest() != header.digest:
        raise refused(path, "its body is damaged")


def bytes_of(*arrays: npt.NDArray[Any]) -> Iterable[memoryview]:
    """The memory of arrays, those without a byte left out."""
    return (
        np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for array in arrays
        if array.size
    )


def refused(path: Path, reason: str) -> CheckpointError:
    """The error for a file that cannot be used."""
    return CheckpointError(
        f"{path}: this file of the index cannot be used, {reason}; build the index again"
    )


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Removes the temporary files of writers that are gone, and returns their paths.

    One is stale where its process is not there any more, or after `STALE_AFTER` seconds. Files that
    cannot be removed are left for the next time.

    Raises:
        OSError: the folder cannot be listed.
    """
    gone = []
    for path in sorted(folder.iterdir()):
        name = _TEMPORARY.fullmatch(path.name)
        if not name:
            continue
        with contextlib.suppress(OSError):
            facts = path.lstat()
            old = time.time() - facts.st_mtime > STALE_AFTER
            if stat.S_ISREG(facts.st_mode) and (old or not _lives(int(name[1]))):
                path.unlink()
                gone.append(path)
    return gone


def _require_file(path: Path) -> None:
    # Opening a pipe waits until somebody writes to it.
    if not stat.S_ISREG(path.stat().st_mode):
        raise refused(path, "it is not a file")


def _page(kind: Kind, length: int, digest: bytes, facts: dict[str, Any]) -> bytes:
    text = json.dumps(facts, separators=(",", ":")).encode()
    fields = _FIELDS.pack(MAGIC, VERSION, kind, length, digest, len(text)) + text
    if len(fields) > _SEAL:
        raise ValueError(f"the facts of a sealed file take {len(text)} bytes")
    page = fields.ljust(_SEAL, b"\0")
    return page + blake3(page).digest()


def _header(path: Path, page: bytes, kind: Kind) -> Header:
    if len(page) < PAGE:
        raise refused(path, f"it has only {len(page)} bytes")
    magic, version, found, length, digest, text = _FIELDS.unpack_from(page)
    # Before the checksum: another version may lay out and seal its header in another way.
    if magic != MAGIC:
        raise refused(path, "it is of another program")
    if version != VERSION:
        raise refused(path, f"it has format {version} and this version reads {VERSION}")
    if blake3(page[:_SEAL]).digest() != page[_SEAL:]:
        raise refused(path, "its header is damaged")
    if found != kind:
        raise refused(path, f"it is of kind {found} instead of {int(kind)}")
    start = _FIELDS.size
    return Header(kind, length, digest, json.loads(page[start : start + text]), page[_SEAL:])


def _synchronise_folder(folder: Path) -> None:
    # Some file systems cannot do this. The file is in place all the same, and where a power cut
    # undoes the rename, the one before is there.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
