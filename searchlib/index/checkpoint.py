"""Checkpoints: a `FlatIndex` in one file, which is whole or refused.

Disk layout, all numbers little-endian:

    page 0, 4096 bytes                     the header
        0     8   magic                    b"SLINDEX\\0"
        8     4   format version           1
        12    4   header length            4096
        16    32  model identity           the 32 bytes that its 64 hex characters spell
        48    64  recipe name              UTF-8, filled up with zeros
        112   32  recipe fingerprint       `Recipe.fingerprint`
        144   4   dimension
        148   4   zero
        152   8   count                    how many vectors
        160   8   seq                      number of the last change in it
        168   8   body offset              4096
        176   8   body length              count * (8 + 2 * dimension)
        184   32  BLAKE3 of the body
        216   ..  zeros
        4064  32  BLAKE3 of the bytes 0 to 4063
    from byte 4096 to the end of the file  the body
        ids       int64[count]
        codes     float16[count, dimension]

The commit point is the rename. A checkpoint is written to a temporary file in the same folder,
synchronised to the disk, and renamed over the one before; then the folder is synchronised. Whoever
opens the path finds the old one or the new one, and whoever has the old one open keeps it. A writer
that dies leaves the old checkpoint and a temporary file; `remove_stale_temporaries` sweeps those.

Every byte is under one of the two checksums, so a file that is torn, flipped, cut, too long, or of
another model, recipe or format is refused with `CheckpointError`. A checkpoint is a cache: who gets
that error builds the index again from the catalog.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from searchlib.errors import CheckpointError, InputError
from searchlib.index.flat_index import FlatIndex
from searchlib.index.recipes import Recipe

MAGIC = b"SLINDEX\0"
VERSION = 1
HEADER_LENGTH = 4096
STALE_AFTER = 3600.0
"""Seconds after which a temporary file is taken for abandoned although its writer seems to live:
the number of a dead process may belong to another by now."""

_FIELDS = struct.Struct("<8sII32s64s32sIIQQQQ32s")
_DIGEST_LENGTH = 32
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = re.compile(r"\..+\.(\d{1,10})\.[0-9a-f]{16}\.checkpoint-tmp")


def write_checkpoint(
    path: Path, index: FlatIndex, *, identity: str, recipe: Recipe, seq: int
) -> None:
    """Writes the index as it is at this moment, in place of the checkpoint before.

    Searches and changes go on meanwhile. Read `seq` before the call and see that all changes up to
    it are in the index; later ones may be in it too where replaying them does no harm.

    Args:
        path: the checkpoint's file; its folder must exist.
        index: what to write.
        identity: the model's identity, 64 hex characters in lower case.
        recipe: how the index is built.
        seq: number of the last change that is certainly in the index, from 0.

    Raises:
        InputError: an identity or seq of another form.
        OSError: it cannot be written, for want of space for example. The checkpoint before stays
            as it was and no temporary file is left.
    """
    segments = index.segments()
    ids = [segment.ids for segment in segments]
    codes = [segment.codes for segment in segments]
    count = sum(len(each) for each in ids)
    head = _head(identity, recipe, index.dimension)
    _write(path, head, count, seq, _bytes_of([*ids, *codes]))


def stream_checkpoint(
    path: Path,
    ids: npt.NDArray[np.int64],
    blocks: Iterable[npt.NDArray[np.float16]],
    *,
    identity: str,
    recipe: Recipe,
    dimension: int,
    seq: int,
) -> None:
    """Writes a checkpoint of vectors that never are in memory all together.

    Args:
        path: the checkpoint's file; its folder must exist.
        ids: int64 [n], all different.
        blocks: of their vectors in the same order, float16 [m, dimension] each, n in all.
        identity: the model's identity, 64 hex characters in lower case.
        recipe: how the index is built.
        dimension: how many numbers a vector has.
        seq: number of the last change that is in the vectors, from 0.

    Raises:
        InputError: an identity or seq of another form.
        OSError: as `write_checkpoint`.
    """
    head = _head(identity, recipe, dimension)
    parts = chain(_bytes_of([ids]), (part for block in blocks for part in _bytes_of([block])))
    _write(path, head, len(ids), seq, parts)


def checkpoint_seq(path: Path, *, identity: str, recipe: Recipe, dimension: int) -> int | None:
    """The number of the last change in a checkpoint by its header; None where it is unusable.

    Only the header is read: the body may be damaged all the same.
    """
    try:
        with path.open("rb") as file:
            page = file.read(HEADER_LENGTH)
    except OSError:
        return None
    seal = HEADER_LENGTH - _DIGEST_LENGTH
    if len(page) < HEADER_LENGTH or blake3(page[:seal]).digest() != page[seal:]:
        return None
    *head, _, _, seq, _, _, _ = _FIELDS.unpack_from(page)
    return int(seq) if tuple(head) == _head(identity, recipe, dimension) else None


def _write(
    path: Path, head: tuple[Any, ...], count: int, seq: int, parts: Iterable[memoryview]
) -> None:
    if not 0 <= seq < 1 << 63:
        raise InputError(f"seq is {seq}; give a number from 0 to 2**63 - 1")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.checkpoint-tmp")
    try:
        with temporary.open("xb") as file:
            file.write(bytes(HEADER_LENGTH))
            length, digest = 0, blake3()
            for part in parts:
                digest.update(part)
                file.write(part)
                length += len(part)
            file.seek(0)
            file.write(
                _sealed(_FIELDS.pack(*head, 0, count, seq, HEADER_LENGTH, length, digest.digest()))
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _synchronise_folder(path.parent)


def read_checkpoint(
    path: Path, *, identity: str, recipe: Recipe, dimension: int
) -> tuple[FlatIndex, int]:
    """Opens a checkpoint and verifies all of it.

    The file is mapped and not read into memory of its own; the index copies what it changes. It may
    be replaced or deleted meanwhile.

    Args:
        path: the checkpoint's file.
        identity: the model's identity, 64 hex characters in lower case.
        recipe: how the index must be built.
        dimension: how many numbers a vector must have.

    Returns:
        The index, and the number of the last change in it.

    Raises:
        CheckpointError: it is missing, cannot be read, is damaged, or is another's.
        InputError: an identity of another form.
    """
    expected = _head(identity, recipe, dimension)
    pages = _mapped(path)
    seal = HEADER_LENGTH - _DIGEST_LENGTH
    *head, zero, count, seq, offset, length, digest = _FIELDS.unpack_from(pages)
    # Before the checksum: another version may lay out and seal its header in another way.
    if head[0] != MAGIC:
        raise _refused(path, "it is not a checkpoint")
    if head[1] != VERSION:
        raise _refused(path, f"it has format {head[1]} and this version reads {VERSION}")
    if blake3(pages[:seal]).digest() != pages[seal:HEADER_LENGTH]:
        raise _refused(path, "its header is damaged")
    for found, wanted, what in zip(head, expected, _HEAD, strict=True):
        if found != wanted:
            raise _refused(path, f"it is of another {what}")
    if zero or offset != HEADER_LENGTH or length != count * (8 + 2 * dimension):
        raise _refused(path, "its header contradicts itself")
    if len(pages) != offset + length:
        raise _refused(path, f"it has {len(pages)} bytes instead of {offset + length}")
    # Threads that have little to do cost more than they bring.
    threads = blake3.AUTO if length > 1 << 20 else 1
    if blake3(memoryview(pages)[offset:], max_threads=threads).digest() != digest:
        raise _refused(path, "its body is damaged")
    ids = np.frombuffer(pages, np.int64, count, offset)
    codes = np.frombuffer(pages, np.float16, count * dimension, offset + 8 * count)
    return FlatIndex.over(ids, codes.reshape(count, dimension)), seq


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Removes the temporary files of checkpoint writers that are gone, and returns their paths.

    One is stale where its process is not there any more, or after `STALE_AFTER` seconds. Files that
    cannot be removed are left for the next time.

    Raises:
        OSError: the folder cannot be listed.
    """
    removed = []
    for path in sorted(folder.iterdir()):
        name = _TEMPORARY.fullmatch(path.name)
        if not name:
            continue
        with contextlib.suppress(OSError):
            facts = path.lstat()
            old = time.time() - facts.st_mtime > STALE_AFTER
            if stat.S_ISREG(facts.st_mode) and (old or not _lives(int(name[1]))):
                path.unlink()
                removed.append(path)
    return removed


_HEAD = (
    "kind",
    "format",
    "header length",
    "model",
    "recipe",
    "recipe",
    "dimension",
)


def _head(identity: str, recipe: Recipe, dimension: int) -> tuple[Any, ...]:
    """The header's first fields, which tell a reader whether a checkpoint is the one it wants."""
    if not _IDENTITY.fullmatch(identity):
        raise InputError(f"model identity {identity!r} is not 64 hex characters in lower case")
    return (
        MAGIC,
        VERSION,
        HEADER_LENGTH,
        bytes.fromhex(identity),
        recipe.name.encode().ljust(64, b"\0"),
        recipe.fingerprint,
        dimension,
    )


def _sealed(fields: bytes) -> bytes:
    page = fields.ljust(HEADER_LENGTH - _DIGEST_LENGTH, b"\0")
    return page + blake3(page).digest()


def _bytes_of(arrays: Iterable[npt.NDArray[Any]]) -> Iterable[memoryview]:
    return (array.reshape(-1).view(np.uint8).data for array in arrays if array.size)


def _mapped(path: Path) -> mmap.mmap:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refused(path, "it is not a file")
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise _refused(path, "it is empty") from None
    except OSError as error:
        raise _refused(path, f"it cannot be read ({error.strerror or error})") from error
    if len(pages) < HEADER_LENGTH:
        raise _refused(path, f"it has only {len(pages)} bytes")
    return pages


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: this index checkpoint cannot be used, {reason}; build the index again"
    )


def _synchronise_folder(folder: Path) -> None:
    # Some file systems cannot do this. The checkpoint is in place all the same, and where a power
    # cut undoes the rename, the one before is there.
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
