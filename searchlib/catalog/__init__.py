"""What is known of every file: the database, its records and its change log."""

from searchlib.catalog.catalog import Catalog
from searchlib.catalog.foreign import KnownImage, StoredBlock, StoredVectors
from searchlib.catalog.labels import Labels
from searchlib.catalog.records import (
    UNKNOWN_STAT,
    Counts,
    EventSource,
    Facts,
    Failure,
    FolderRecord,
    Heartbeat,
    ImageRecord,
    KnownFile,
    ModelRecord,
    ModelVectors,
    NewContent,
    Outcome,
    Purged,
    ReadFile,
    SkippedFile,
    Stat,
    Unembedded,
)
from searchlib.catalog.selection import Selection
from searchlib.catalog.vectors import Changes

__all__ = [
    "UNKNOWN_STAT",
    "Catalog",
    "Changes",
    "Counts",
    "EventSource",
    "Facts",
    "Failure",
    "FolderRecord",
    "Heartbeat",
    "ImageRecord",
    "KnownFile",
    "KnownImage",
    "Labels",
    "ModelRecord",
    "ModelVectors",
    "NewContent",
    "Outcome",
    "Purged",
    "ReadFile",
    "Selection",
    "SkippedFile",
    "Stat",
    "StoredBlock",
    "StoredVectors",
    "Unembedded",
]
