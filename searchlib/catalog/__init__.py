"""What is known of every file: the database, its records and its change log."""

from searchlib.catalog.catalog import Catalog
from searchlib.catalog.records import (
    Counts,
    Facts,
    ImageRecord,
    KnownFile,
    ModelRecord,
    NewContent,
    Outcome,
    ReadFile,
    SkippedFile,
    Stat,
)
from searchlib.catalog.vectors import Changes

__all__ = [
    "Catalog",
    "Changes",
    "Counts",
    "Facts",
    "ImageRecord",
    "KnownFile",
    "ModelRecord",
    "NewContent",
    "Outcome",
    "ReadFile",
    "SkippedFile",
    "Stat",
]
