"""A question to matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, ModelRecord
from searchlib.encoder import ImageEncoder
from searchlib.errors import InputError
from searchlib.images import (
    DEFAULT_MAX_PIXELS,
    OWN_POLICY,
    FetchPolicy,
    Source,
    digest,
    load,
    resolve,
)
from searchlib.search.live_index import LiveIndex
from searchlib.search.match import Match
from searchlib.search.stacks import collapse

if TYPE_CHECKING:
    from searchlib.search.served_index import ServedIndex

# Fetched beyond k, so that a few missing images do not cost a second search.
_SPARE = 16


def query_vector(
    source: Source,
    catalog: Catalog,
    encoder: ImageEncoder,
    model: ModelRecord,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    policy: FetchPolicy = OWN_POLICY,
) -> NDArray[np.float32]:
    """The vector of a query image: the stored one where these bytes are in the library.

    Args:
        source: of the image.
        catalog: of the library.
        encoder, model: in use.
        max_pixels: refuse an image with more.
        policy: what may be fetched where the image is a URL.

    Returns:
        float32 [dimension], of length 1.

    Raises:
        ImageError, EncoderError: the image cannot be decoded or embedded.
    """
    source = resolve(source, policy=policy)  # a URL is fetched once, for both of what follows
    known = digest(source)
    stored = None if known is None else catalog.vector(known, model)
    if stored is not None:
        return stored
    image = load(source, min_side=encoder.min_side, max_pixels=max_pixels)
    return encoder.embed(image.pixels)


def nearest(
    vector: NDArray[np.float32], catalog: Catalog, index: LiveIndex | ServedIndex, k: int
) -> list[Match]:
    """The `k` images nearest to a vector, best first; of equal ones the older first.

    Images of which every copy is missing are left out, and the files of one shot are one match.

    Raises:
        InputError: `k` is below 1.
    """
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 image")
    fetch = k + _SPARE
    while True:
        found = index.search(vector[None], fetch)
        ids = found.ids[0].tolist()
        images = catalog.images(ids)
        shots = collapse(
            Match(images[id].paths[0], min(1.0, float(score)), images[id])
            for id, score in zip(ids, found.scores[0], strict=True)
            if id in images
        )
        if len(shots) >= k or len(ids) < fetch:
            return shots[:k]
        fetch *= 4
