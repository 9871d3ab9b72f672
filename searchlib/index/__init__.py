"""Vectors -> neighbours: indexes of unit vectors and their checkpoints.

This room knows vectors and ids and nothing else: not the catalog, not the encoder, not pictures.
"""

from __future__ import annotations

from searchlib.index.accelerator import Tuning
from searchlib.index.base import BaseFacts
from searchlib.index.checkpoint import (
    Saved,
    read_checkpoint,
    read_saved,
    remove_unused,
    stream_checkpoint,
    write_checkpoint,
)
from searchlib.index.checks import check_ids, check_vectors
from searchlib.index.faiss_index import FaissIndex
from searchlib.index.numpy_index import NumpyIndex
from searchlib.index.pairs import Pairs, neighbours, self_join
from searchlib.index.protocol import Neighbours, Subset, VectorIndex
from searchlib.index.recipes import Recipe, load_recipe, recipe_names
from searchlib.index.sealed import remove_stale_temporaries
from searchlib.index.tune import tune

__all__ = [
    "BaseFacts",
    "FaissIndex",
    "Neighbours",
    "NumpyIndex",
    "Pairs",
    "Recipe",
    "Saved",
    "Subset",
    "Tuning",
    "VectorIndex",
    "check_ids",
    "check_vectors",
    "load_recipe",
    "neighbours",
    "read_checkpoint",
    "read_saved",
    "recipe_names",
    "remove_stale_temporaries",
    "remove_unused",
    "self_join",
    "stream_checkpoint",
    "tune",
    "write_checkpoint",
]
