"""What is known of every file: the database, its records and its change log."""

from searchlib.catalog.catalog import Catalog
from searchlib.catalog.foreign import KnownImage, StoredBlock, StoredVectors
from searchlib.catalog.records import (
    Counts,
    Facts,
    ImageRecord,
    KnownFile,
    ModelRecord,
    ModelVectors,
    NewContent,
    Outcome,
    ReadFile,
    SkippedFile,
    Stat,
    Unembedded,
)
from searchlib.catalog.vectors import Changes

__all__ = [
    "Catalog",
    "Changes",
    "Counts",
    "Facts",
    "ImageRecord",
    "KnownFile",
    "KnownImage",
    "ModelRecord",
    "ModelVectors",
    "NewContent",
    "Outcome",
    "ReadFile",
    "SkippedFile",
    "Stat",
    "StoredBlock",
    "StoredVectors",
    "Unembedded",
]
