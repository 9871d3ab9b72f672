"""Folders to catalog: walk, compare, read, embed, commit."""

from searchlib.ingest.ignore import IGNORE_FILE
from searchlib.ingest.pipeline import ingest
from searchlib.ingest.report import Progress, Report, Skipped

__all__ = ["IGNORE_FILE", "Progress", "Report", "Skipped", "ingest"]
