"""The files of a download, and the order in which they appear.

    model.pte             the whole file; it appears by a rename, after its check
    model.pte.json        its URL, SHA-256 and length, written just before
    model.pte.part        what came so far
    model.pte.part.json   what it is a part of: URL, ETag or date, length
    model.pte.lock        held while one downloads; empty, stays, and means nothing by itself

The rename is the commit point. A process that is killed at any moment leaves nothing, a part that
the next one goes on from, or the whole file; at worst a `.part.json` without a part stays beside
it, which means nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """What the `.part` file is a part of.

    Attributes:
        url: where it comes from, before any mirror.
        validator: for `If-Range`: a strong ETag or a date; None where the server gave neither.
        length: of the whole file in bytes; None where the server did not say.
    """

    url: str
    validator: str | None
    length: int | None


class Files:
    """The files beside a target."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.lock = target.with_name(f"{target.name}.lock")
        self.record = target.with_name(f"{target.name}.json")
        self._facts = target.with_name(f"{target.name}.part.json")

    def recorded(self, url: str) -> str | None:
        """The SHA-256 that was recorded of an earlier download of this URL."""
        record = _read_json(self.record)
        found = record.get("sha256")
        return found if record.get("url") == url and isinstance(found, str) else None

    def came(self) -> int:
        """The bytes of the part."""
        with suppress(FileNotFoundError):
            return self.part.stat().st_size
        return 0

    def usable(self, url: str, *, sum_known: bool) -> Part | None:
        """What the part is of, where a download can go on from it; otherwise it is dropped.

        Args:
            sum_known: whether the whole will be checked by its SHA-256. If not, only a validator
                tells whether the two pieces are of one version.
        """
        said = _read_json(self._facts)
        validator, length = said.get("validator"), said.get("length")
        part = Part(
            url,
            validator if isinstance(validator, str) else None,
            length if isinstance(length, int) else None,
        )
        came = self.came()
        fits = came > 0 and (part.length is None or came <= part.length)
        if fits and said.get("url") == url and (part.validator is not None or sum_known):
            return part
        self.drop()
        return None

    def begin(self, part: Part) -> None:
        """Make an empty part."""
        # In this order: the facts of an older part must never stand beside a new one.
        self._facts.unlink(missing_ok=True)
        self.part.open("wb").close()
        _write_json(self._facts, asdict(part))

    def drop(self) -> None:
        """Remove the part."""
        self._facts.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def commit(self, url: str, sha256: str, length: int) -> None:
        """Record the part, which was checked, and make it the target."""
        with self.part.open("rb+") as part:
            os.fsync(part.fileno())
        _write_json(self.record, {"url": url, "sha256": sha256, "bytes": length})
        self.part.replace(self.target)
        self._facts.unlink(missing_ok=True)
        _sync_folder(self.target.parent)


def checksum(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file in hexadecimal, and its length in bytes."""
    hasher = hashlib.sha256()
    length = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
            length += len(chunk)
    return hasher.hexdigest(), length


def _read_json(path: Path) -> Mapping[str, object]:
    """An object of JSON; empty where there is none, or one that is damaged."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
