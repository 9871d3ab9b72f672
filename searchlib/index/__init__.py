"""Vectors -> neighbours: indexes of unit vectors and their checkpoints.

This room knows vectors and ids and nothing else: not the catalog, not the encoder, not pictures.
"""

from __future__ import annotations

from searchlib.index.checkpoint import (
    checkpoint_seq,
    read_checkpoint,
    remove_stale_temporaries,
    stream_checkpoint,
    write_checkpoint,
)
from searchlib.index.checks import check_ids, check_vectors
from searchlib.index.flat_index import FlatIndex
from searchlib.index.numpy_index import NumpyIndex
from searchlib.index.protocol import Neighbours, VectorIndex
from searchlib.index.recipes import Recipe, load_recipe

__all__ = [
    "FlatIndex",
    "Neighbours",
    "NumpyIndex",
    "Recipe",
    "VectorIndex",
    "check_ids",
    "check_vectors",
    "checkpoint_seq",
    "load_recipe",
    "read_checkpoint",
    "remove_stale_temporaries",
    "stream_checkpoint",
    "write_checkpoint",
]
