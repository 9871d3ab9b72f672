"""Recall: what the index finds of the ten nearest, against a comparison with every stored vector.

    python -m benchmarks.recall LIBRARY FOLDER

Prints JSON: recall@10 for each picture of the folder. A match whose score equals that of the tenth
nearest counts as found whichever of the equals it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog
from searchlib.encoder import ImageEncoder
from searchlib.images import load
from searchlib.search import LiveIndex

K = 10
_ROWS = 50_000
_SAME_SCORE = 1e-6


def main() -> None:
    """Measure."""
    library, folder = map(Path, sys.argv[1:])
    encoder = ImageEncoder()
    queries = np.stack(
        [
            encoder.embed(load(path, min_side=encoder.min_side).pixels)
            for path in sorted(folder.iterdir())
        ]
    )
    catalog = Catalog(library, create=False)
    model = catalog.model()
    if model is None:
        raise SystemExit(f"{library}: this library is empty")
    found = LiveIndex(catalog, model, library).search(queries, K)
    _, ids, vectors = catalog.all_vectors(model)
    catalog.close()
    scores = _scores(queries, vectors)
    recall = []
    for row, given in zip(scores, found.ids, strict=True):
        tenth = np.partition(row, -K)[-K]
        # Ids rise, so the place of an id is found by bisection; it must be there.
        places = np.searchsorted(ids, given)
        if not np.array_equal(ids[places], given):
            raise SystemExit(f"{library}: the index gives ids that the catalog has not")
        recall.append(float((row[places] >= tenth - _SAME_SCORE).mean()))
    print(json.dumps({"vectors": len(ids), "recall": recall}))


def _scores(queries: NDArray[np.float32], vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Cosines of every query and every vector, float32 [queries, vectors]."""
    scores = np.empty((len(queries), len(vectors)), np.float32)
    for first in range(0, len(vectors), _ROWS):
        some = vectors[first : first + _ROWS].astype(np.float32)
        scores[:, first : first + _ROWS] = queries @ some.T
    return scores


if __name__ == "__main__":
    main()
