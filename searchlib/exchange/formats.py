"""Files of vectors: three formats with one meaning. This is a stable interface (version 1).

Each row is one image: its vector, and by what it is known, which is its digest, its paths, or both.

    digest   the BLAKE3 of the image's file, 64 hex digits
    path     where the file lies, or `paths`, a list of such; below a root folder unless absolute
    uri      the same as a URI; of these only `file:` can be found on a machine's disk
    vector   `dimension` numbers, finite, of length 1 (to 0.001)

The header says which model made the vectors; whoever writes a file should give at least `identity`:

    searchlib   always "vectors"
    version     1
    model       the model's name, for people
    identity    the model identity, 64 hex digits: vectors of one identity can be compared
    dimension   of the vectors
    count       how many rows follow

All but the first two may be left out; what is there is held against the rows. Fields that are not
named here are passed over.

`NAME.npy` with `NAME.jsonl`
    The vectors as a NumPy array, float32 [count, dimension] in C order. Beside it JSON lines: the
    header if there is one, then a line for each row of the array, in its order, with `digest`,
    `path`, `paths` or `uri`. The header may also hold `vectors_blake3`, the BLAKE3 of the array's
    bytes (without the npy header): it ties the two files together. Ours always has it.

`NAME.parquet`
    Columns `digest` (string), `path` (string or list of strings) and `vector` (list or fixed-size
    list of float or double). `digest` or `path` may be missing or null. The header's fields are in
    the key/value metadata of the file, as text. Needs the extra `parquet`.

`NAME.jsonl`
    JSON lines alone: the header if there is one, then an object for each row as beside an npy file,
    and with `vector`, a list of numbers.

Text is UTF-8. A path whose bytes are no valid text is written in JSON with a lone surrogate escape
for each such byte (0xE9 as ``\\udce9``, PEP 383), and in Parquet, which has no such escapes, as a
`file:` URI. A path that begins as a URI is taken for one in every format.

The files of one export appear at once: they are written under other names, synchronised to the disk
and renamed. Of a pair the npy file comes first, and a reader that finds it beside the JSON lines of
an earlier export sees by `vectors_blake3` that they do not belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from searchlib.errors import VectorFileError
from searchlib.exchange.jsonl import JsonLines, write_jsonl
from searchlib.exchange.npy import NpyPair, write_npy
from searchlib.exchange.parquet import ParquetVectors, write_parquet
from searchlib.exchange.rows import Block, Header, OutBlock


class VectorFile(Protocol):
    """A file of vectors that was opened."""

    @property
    def header(self) -> Header:
        """What it says of itself; empty where it has no header."""

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files that it is made of."""

    def blocks(self, dimension: int) -> Iterator[Block]:
        """All rows, in blocks; each call reads from the start.

        Raises:
            VectorFileError: a row cannot be read, or has another dimension.
        """


def open_vectors(path: Path) -> VectorFile:
    """Open a file of vectors; its name's end tells the format.

    Raises:
        VectorFileError: no such file or format, or a header that is none.
    """
    match path.suffix.lower():
        case ".npy":
            return NpyPair(path)
        case ".parquet":
            return ParquetVectors(path)
        case ".jsonl":
            return JsonLines(path)
    raise _unknown(path)


def write_vectors(path: Path, header: Header, blocks: Iterable[OutBlock]) -> tuple[Path, ...]:
    """Write a file of vectors whole, in place of the one before, or not at all.

    Args:
        path: its end tells the format.
        header: with every field but `vectors_blake3`.
        blocks: `header.count` rows in all.

    Returns:
        The files written.

    Raises:
        VectorFileError: it cannot be written; what was there stays.
    """
    match path.suffix.lower():
        case ".npy":
            return write_npy(path, header, blocks)
        case ".parquet":
            return write_parquet(path, header, blocks)
        case ".jsonl":
            return write_jsonl(path, header, blocks)
    raise _unknown(path)


def _unknown(path: Path) -> VectorFileError:
    return VectorFileError(
        f"{path}: the name tells the format, and this is none; use .npy, .parquet or .jsonl"
    )
