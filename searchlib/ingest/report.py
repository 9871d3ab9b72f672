"""What an ingest says while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from searchlib.catalog import Outcome


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was passed over.

    Attributes:
        path: as found; it need not be valid text.
        reason: in words, without the path.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file; it is committed by the time that anybody is told.

    Attributes:
        path: absolute; it need not be valid text.
        outcome: "added" for a new image, "copy" for bytes that the library has, "moved", "changed",
            "embedded" for a known image that had no vector of the model in use, "unchanged" for a
            file that was only touched, or "skipped".
        reason: why it was skipped.
    """

    path: str
    outcome: Outcome | Literal["skipped"]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest has come.

    Attributes:
        stage: "listing" while the folders are read, then "embedding".
        done: files found so far, or files dealt with.
        total: files to deal with; None while listing.
        skipped: how many of these were passed over.
    """

    stage: Literal["listing", "embedding"]
    done: int
    total: int | None
    skipped: int = 0


@dataclass(slots=True)
class Report:
    """What became of the files.

    Attributes:
        added: images that the library did not have.
        copies: files with the bytes of an image that the library has, at another place.
        moved: files that lay elsewhere before.
        changed: known files with new content.
        embedded: known files whose image had no vector of the model in use.
        unchanged: known files that were not touched, or only touched.
        missing: known files that are gone; their vectors are kept for a grace time at least.
        offline: known files on a drive that is not mounted; they are kept as they are.
        skipped: with reasons, in the order in which they were met.
        purged: files that were missing for longer than the grace time and are given up; only
            watching does that.
        cancelled: whether it was stopped before its end.
        seconds: from the first folder to the last commit.
    """

    added: int = 0
    copies: int = 0
    moved: int = 0
    changed: int = 0
    embedded: int = 0
    unchanged: int = 0
    missing: int = 0
    offline: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    purged: int = 0
    cancelled: bool = False
    seconds: float = 0.0

    @property
    def found(self) -> int:
        """How many files were looked at."""
        return (
            self.added
            + self.copies
            + self.moved
            + self.changed
            + self.embedded
            + self.unchanged
            + len(self.skipped)
        )

    def count(self, result: FileResult) -> None:
        """Count one file in."""
        match result.outcome:
            case "added":
                self.added += 1
            case "copy":
                self.copies += 1
            case "moved":
                self.moved += 1
            case "changed":
                self.changed += 1
            case "embedded":
                self.embedded += 1
            case "unchanged":
                self.unchanged += 1
            case "skipped":
                self.skip(result.path, result.reason or "")

    def skip(self, path: str, reason: str) -> None:
        """Count a file or folder in that was passed over."""
        self.skipped.append(Skipped(path, reason))
