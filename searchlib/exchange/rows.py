"""What a file of vectors is made of: a header, and rows that name an image each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import VectorFileError
from searchlib.images import printable

VERSION = 1
BLOCK_ROWS = 256
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file of vectors says of itself; None for what it does not say.

    Attributes:
        model: the model's name.
        identity: the model identity, 64 hex digits.
        dimension: of the vectors.
        count: of the rows.
        vectors_blake3: of an npy file's array, 64 hex digits.
    """

    model: str | None = None
    identity: str | None = None
    dimension: int | None = None
    count: int | None = None
    vectors_blake3: str | None = None

    def fields(self) -> dict[str, str | int]:
        """As it is written, in the order in which a person reads it."""
        all_fields: dict[str, str | int | None] = {
            "searchlib": "vectors",
            "version": VERSION,
            "model": self.model,
            "identity": self.identity,
            "dimension": self.dimension,
            "count": self.count,
            "vectors_blake3": self.vectors_blake3,
        }
        return {name: value for name, value in all_fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Key:
    """By what a row's image is known: at least one of the two.

    Attributes:
        digest: 32 bytes.
        paths: as the file has them; URIs among them.
    """

    digest: bytes | None
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """What a person knows the row by: its first path, else its digest."""
        if self.paths:
            return self.paths[0]
        return "" if self.digest is None else self.digest.hex()


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows as they were read.

    Attributes:
        first: the number of the first row; the file's first row has 1.
        keys: of each row.
        vectors: float32 [n, dimension], not checked.
    """

    first: int
    keys: list[Key]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutBlock:
    """Some rows to be written.

    Attributes:
        digests: 64 hex digits each.
        paths: of each row; may be empty.
        vectors: float32 [n, dimension], of length 1.
    """

    digests: list[str]
    paths: list[tuple[str, ...]]
    vectors: NDArray[np.float32]


def parse_header(fields: Mapping[str, Any], path: Path) -> Header:
    """A header from its fields; numbers may be text.

    Raises:
        VectorFileError: a field is not what it must be, or a newer searchlib wrote it.
    """

    def wrong(name: str, expected: str) -> VectorFileError:
        return VectorFileError(
            f"{path}: in its header {name} is {printable(repr(fields.get(name)))}; "
            f"it must be {expected}"
        )

    def number(name: str) -> int | None:
        value = fields.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        if value is not None and (type(value) is not int or value < 0):
            raise wrong(name, "a whole number")
        return value

    def hexadecimal(name: str) -> str | None:
        value = fields.get(name)
        if value is not None and not (isinstance(value, str) and _HEX.fullmatch(value)):
            raise wrong(name, "64 hex digits")
        return None if value is None else value.lower()

    if fields.get("searchlib") != "vectors":
        raise wrong("searchlib", '"vectors"')
    version = number("version")
    if version is not None and version > VERSION:
        raise VectorFileError(
            f"{path}: this is version {version} of the format and only {VERSION} is known here; "
            "upgrade searchlib"
        )
    if version != VERSION:
        raise wrong("version", str(VERSION))
    model = fields.get("model")
    if model is not None and not (isinstance(model, str) and model.strip()):
        raise wrong("model", "a name")
    return Header(
        model=model,
        identity=hexadecimal("identity"),
        dimension=number("dimension"),
        count=number("count"),
        vectors_blake3=hexadecimal("vectors_blake3"),
    )


def make_key(digest: Any, paths: list[Any], where: str) -> Key:
    """A key from what a row has, None for what it has not.

    Args:
        digest: 64 hex digits.
        paths: paths and URIs.
        where: file and row, for errors.

    Raises:
        VectorFileError: one of these is something else, or there is none.
    """
    if digest is not None and not (isinstance(digest, str) and _HEX.fullmatch(digest)):
        raise VectorFileError(
            f"{where}: its digest is {printable(repr(digest)[:80])}; it must be the 64 hex digits "
            "of the file's BLAKE3, or be left out where there is a path"
        )
    for path in paths:
        if not isinstance(path, str) or not path:
            raise VectorFileError(
                f"{where}: a path is {printable(repr(path)[:80])}; it must be a text"
            )
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            raise VectorFileError(
                f"{where}: the path {printable(path)} has a lone surrogate that stands for no byte "
                "of a name; write such bytes as \\udc80 to \\udcff"
            ) from error
    if digest is None and not paths:
        raise VectorFileError(
            f"{where}: it does not say which image it is; give it a digest, a path or a uri"
        )
    return Key(None if digest is None else bytes.fromhex(digest), tuple(paths))


def local_path(text: str, root: Path) -> str | None:
    """The absolute path on this machine that a row's path or URI means, None where it is none."""
    if _URI.match(text):
        try:
            parts = urlsplit(text)
        except ValueError:
            return None
        elsewhere = parts.netloc.lower() not in ("", "localhost")
        if parts.scheme.lower() != "file" or elsewhere or parts.query or parts.fragment:
            return None
        text = os.fsdecode(unquote_to_bytes(os.fsencode(parts.path)))
    if "\0" in text or not text:
        return None
    # Links stay as they are, as in `add`: the catalog knows files by the names people use.
    return os.path.abspath(root / text)  # noqa: PTH100 - a Path follows them


def file_uri(path: str) -> str:
    """The `file:` URI (RFC 8089) of an absolute path, whatever its bytes are."""
    return "file://" + quote(os.fsencode(path))
