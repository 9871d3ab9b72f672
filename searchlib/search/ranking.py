"""Candidates to matches: exact scores, the files of one shot together, what is too far left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from searchlib.catalog import Catalog, ModelRecord
from searchlib.search.embedding import Terms
from searchlib.search.match import Contribution, Match
from searchlib.search.stacks import collapse

NEARLY_IDENTICAL = 0.98
"""The cosine from which on two pictures are shown as one where that is asked for: what saving a
picture again or in another size leaves of it, but for the worst quality."""

DECIMALS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Images with their scores, best first and equal ones in the order of their ids.

    Attributes:
        ids: int64 [n].
        scores: cosines with the question, rounded, float64 [n].
        cosines: with each of its terms, float64 [n, t].
        vectors: of the images, float64 [n, dimension].
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    cosines: NDArray[np.float64]
    vectors: NDArray[np.float64]


def score(catalog: Catalog, model: ModelRecord, ids: Iterable[int], terms: Terms) -> Scored:
    """The scores of some images by their stored vectors; those that have none are left out.

    An index computes in the precision that its speed needs, and may be another one at the next
    page. These scores are the same wherever and whenever they are computed.
    """
    found, stored = catalog.vectors(model, ids)
    vectors = stored.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.clip(vectors @ terms.vectors.T, -1.0, 1.0)
    scores = np.round(np.clip(terms.shares(cosines).sum(axis=1), -1.0, 1.0), DECIMALS)
    order = np.lexsort((found, -scores))
    return Scored(found[order], scores[order], cosines[order], vectors[order])


def shots(
    scored: Scored, catalog: Catalog, *, shown: Callable[[str], bool] | None, alike: bool
) -> list[Match]:
    """One match for each shot, best first, without what each term adds.

    Images of which every file is gone are left out.

    Args:
        scored: the images.
        catalog: of the library.
        shown: whether a path may stand for its image; where none of its paths may, the first does.
        alike: put pictures that are nearly identical into one match as well.
    """
    images = catalog.images(scored.ids.tolist())
    matches = []
    for id, found in zip(scored.ids.tolist(), scored.scores.tolist(), strict=True):
        image = images.get(id)
        if image is None:
            continue
        paths = image.paths if shown is None else [*filter(shown, image.paths), *image.paths]
        matches.append(Match(paths[0], found, image))
    together = collapse(matches)
    return _without_alike(together, scored) if alike else together


def _without_alike(matches: list[Match], scored: Scored) -> list[Match]:
    rows = {id: row for row, id in enumerate(scored.ids.tolist())}
    kept: list[Match] = []
    others: list[list[str]] = []
    shown = np.empty((len(matches), scored.vectors.shape[1]))
    for match in matches:
        vector = scored.vectors[rows[match.image.id]]
        cosines = shown[: len(kept)] @ vector
        if len(kept) and cosines.max() >= NEARLY_IDENTICAL:
            others[int(cosines.argmax())].append(match.path)
            continue
        shown[len(kept)] = vector
        kept.append(match)
        others.append([])
    return [replace(match, alike=tuple(paths)) for match, paths in zip(kept, others, strict=True)]


def contributions(match: Match, scored: Scored, terms: Terms) -> tuple[Contribution, ...]:
    """What each term adds to the score of a match, which is that of the best file of its shot."""
    best = int(np.flatnonzero(scored.scores == match.score)[0])
    (own,) = np.flatnonzero(scored.ids == match.image.id)
    row = int(own) if scored.scores[own] == match.score else best
    cosines = scored.cosines[row]
    return tuple(
        Contribution(label, kind, weight, round(cosine, DECIMALS), round(share, DECIMALS))
        for label, kind, weight, cosine, share in zip(
            terms.labels,
            terms.kinds,
            terms.weights.tolist(),
            cosines.tolist(),
            terms.shares(cosines).tolist(),
            strict=True,
        )
    )
