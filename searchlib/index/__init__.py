"""Vectors -> neighbours: indexes of unit vectors and their checkpoints.

This room knows vectors and ids and nothing else: not the catalog, not the encoder, not pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchlib.lazily import lazily

if TYPE_CHECKING:
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
    from searchlib.index.tuning import tune

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

# Imported when first asked for: a query should not wait for what it does not use.
_HOMES = {
    "BaseFacts": "searchlib.index.base",
    "FaissIndex": "searchlib.index.faiss_index",
    "Neighbours": "searchlib.index.protocol",
    "NumpyIndex": "searchlib.index.numpy_index",
    "Pairs": "searchlib.index.pairs",
    "Recipe": "searchlib.index.recipes",
    "Saved": "searchlib.index.checkpoint",
    "Subset": "searchlib.index.protocol",
    "Tuning": "searchlib.index.accelerator",
    "VectorIndex": "searchlib.index.protocol",
    "check_ids": "searchlib.index.checks",
    "check_vectors": "searchlib.index.checks",
    "load_recipe": "searchlib.index.recipes",
    "neighbours": "searchlib.index.pairs",
    "read_checkpoint": "searchlib.index.checkpoint",
    "read_saved": "searchlib.index.checkpoint",
    "recipe_names": "searchlib.index.recipes",
    "remove_stale_temporaries": "searchlib.index.sealed",
    "remove_unused": "searchlib.index.checkpoint",
    "self_join": "searchlib.index.pairs",
    "stream_checkpoint": "searchlib.index.checkpoint",
    "tune": "searchlib.index.tuning",
    "write_checkpoint": "searchlib.index.checkpoint",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
