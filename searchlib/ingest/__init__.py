"""Folders to catalog: walk, compare, read, embed, commit; once, or for as long as they change."""

from searchlib.ingest.absent import is_below
from searchlib.ingest.adding import Adding
from searchlib.ingest.holder import is_watched
from searchlib.ingest.ignore import IGNORE_FILE, check_rules
from searchlib.ingest.intake import Handling
from searchlib.ingest.pipeline import GRACE_DAYS, ingest, purge
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
