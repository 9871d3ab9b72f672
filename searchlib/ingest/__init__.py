"""Folders to catalog: walk, compare, read, embed, commit."""

from searchlib.ingest.ignore import IGNORE_FILE
from searchlib.ingest.pipeline import ingest
from searchlib.ingest.reembed import ModelChange, change_model
from searchlib.ingest.report import Progress, Report, Skipped

__all__ = [
    "IGNORE_FILE",
    "ModelChange",
    "Progress",
    "Report",
    "Skipped",
    "change_model",
    "ingest",
]
