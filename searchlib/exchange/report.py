"""What an import or export says while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MOST_LISTED = 1000
"""How many rows a report lists of each kind; it counts them all."""


@dataclass(frozen=True, slots=True)
class VectorProgress:
    """How far it has come.

    Attributes:
        stage: "checking" and then "importing", or "exporting".
        done: rows dealt with.
        total: rows in all; None where the file does not say.
        skipped: how many of these were unmatched.
    """

    stage: Literal["checking", "importing", "exporting"]
    done: int
    total: int | None
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Attributes:
        files: written: one, or an npy file and its JSON lines.
        model, identity, dimension: of the vectors.
        count: vectors written.
        left_out: vectors whose image has no file in place.
        bytes: of the files.
        seconds: that it took.
    """

    files: tuple[Path, ...]
    model: str
    identity: str
    dimension: int
    count: int
    left_out: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class UnmatchedRow:
    """A row whose image is neither known nor readable.

    Attributes:
        row: its number in the file, from 1.
        name: its path, or its digest where it has none.
        reason: in words.
    """

    row: int
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class DriftRow:
    """A row whose vector is not like the encoder's own of the same image.

    Attributes:
        row: its number in the file, from 1.
        name: its path, or its digest where it has none.
        cosine: of both vectors.
    """

    row: int
    name: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How far imported vectors are from the library's of the same images, as cosines.

    Attributes:
        count: images compared.
        verified: of these, how many the encoder embedded now for the purpose.
        mean, min, p5: of the cosines; p5 is what 5 of 100 are below. 1 means that they agree.
        warn_below: the cosine below which a row is listed.
        below: how many are.
        rows: the first of these, at most MOST_LISTED.
    """

    count: int
    verified: int
    mean: float
    min: float
    p5: float
    warn_below: float
    below: int
    rows: tuple[DriftRow, ...]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the rows of a file; each is stored, kept or unmatched.

    Attributes:
        file: that was imported.
        model, identity: of the vectors.
        rows: in the file.
        stored: vectors that the library took over.
        added: of these, for images that it did not have at all.
        kept: rows whose image has a vector, which was kept.
        unmatched: rows whose image is neither known nor readable.
        unmatched_rows: the first of these, at most MOST_LISTED.
        drift: None where no image could be compared.
        seconds: that it took.
    """

    file: Path
    model: str
    identity: str
    rows: int
    stored: int
    added: int
    kept: int
    unmatched: int
    unmatched_rows: tuple[UnmatchedRow, ...]
    drift: Drift | None
    seconds: float
