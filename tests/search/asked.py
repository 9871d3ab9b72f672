"""A question by a vector alone, which needs no encoder."""

import numpy as np

from searchlib.catalog import Catalog, ModelRecord
from searchlib.encoder import ImageEncoder
from searchlib.search import Answerer, Embedder, LiveIndex, Question, Results, Term
from searchlib.search.served_index import ServedIndex


def answerer(catalog: Catalog, model: ModelRecord, index: LiveIndex | ServedIndex) -> Answerer:
    """Answers with an index; images and texts cannot be asked."""
    return Answerer(catalog, model, index, Embedder(catalog, ImageEncoder(), model))


def nearest(
    vector: np.ndarray,
    catalog: Catalog,
    model: ModelRecord,
    index: LiveIndex | ServedIndex,
    k: int,
) -> Results:
    """The `k` images nearest to a vector."""
    return answerer(catalog, model, index).answer(Question((Term(vector=vector),), k=k))
