"""Vectors in and out: files that another program wrote, or is to read.

The formats are a stable interface; see `searchlib.exchange.formats`.
"""

from searchlib.exchange.exporter import export_vectors
from searchlib.exchange.importer import import_vectors
from searchlib.exchange.model import Target
from searchlib.exchange.report import (
    Drift,
    DriftRow,
    ExportReport,
    ImportReport,
    UnmatchedRow,
    VectorProgress,
)

__all__ = [
    "Drift",
    "DriftRow",
    "ExportReport",
    "ImportReport",
    "Target",
    "UnmatchedRow",
    "VectorProgress",
    "export_vectors",
    "import_vectors",
]
