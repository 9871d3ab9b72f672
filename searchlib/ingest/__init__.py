"""Folders to catalog: walk, compare, read, embed, commit; once, or for as long as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchlib.lazily import lazily

if TYPE_CHECKING:
    from searchlib.ingest.absent import is_below
    from searchlib.ingest.adding import Adding
    from searchlib.ingest.holder import is_watched
    from searchlib.ingest.ignore import IGNORE_FILE, check_rules
    from searchlib.ingest.intake import Handling
    from searchlib.ingest.pipeline import ingest, purge
    from searchlib.ingest.place import absolute, processors
    from searchlib.ingest.reembed import ModelChange, change_model
    from searchlib.ingest.report import FileResult, Progress, Report, Skipped
    from searchlib.ingest.vitals import WatchEvent

__all__ = [
    "GRACE_DAYS",
    "IGNORE_FILE",
    "Adding",
    "FileResult",
    "Handling",
    "ModelChange",
    "Progress",
    "Report",
    "Skipped",
    "WatchEvent",
    "absolute",
    "change_model",
    "check_rules",
    "ingest",
    "is_below",
    "is_watched",
    "processors",
    "purge",
]

GRACE_DAYS = 30.0
"""For how long what is missing is kept."""

# Imported when first asked for: a query should not wait for what it does not use.
_HOMES = {
    "Adding": "searchlib.ingest.adding",
    "FileResult": "searchlib.ingest.report",
    "Handling": "searchlib.ingest.intake",
    "IGNORE_FILE": "searchlib.ingest.ignore",
    "ModelChange": "searchlib.ingest.reembed",
    "Progress": "searchlib.ingest.report",
    "Report": "searchlib.ingest.report",
    "Skipped": "searchlib.ingest.report",
    "WatchEvent": "searchlib.ingest.vitals",
    "absolute": "searchlib.ingest.place",
    "change_model": "searchlib.ingest.reembed",
    "check_rules": "searchlib.ingest.ignore",
    "ingest": "searchlib.ingest.pipeline",
    "is_below": "searchlib.ingest.absent",
    "is_watched": "searchlib.ingest.holder",
    "processors": "searchlib.ingest.place",
    "purge": "searchlib.ingest.pipeline",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
