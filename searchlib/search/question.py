"""What is asked: terms, what the answer is limited to, and how much of it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition
    from searchlib.images import Source


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One thing that the matches should be like, or unlike; exactly one of the four is given.

    Attributes:
        image: a picture, see `searchlib.images.Source`.
        stored: the id of an image of the library.
        vector: float [dimension] of the library's model; brought to length 1.
        text: words, where the model has a text side.
        weight: how much it counts beside the others; below 0 for what they should be unlike. Not 0.
        label: the term in words for whoever reads the answer; made from what is given if empty.
    """

    image: Source | None = None
    stored: int | None = None
    vector: NDArray[np.floating] | Sequence[float] | None = None
    text: str | None = None
    weight: float = 1.0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Threshold:
    """How similar a match must be at least.

    Attributes:
        value: a cosine from -1 to 1, or a percentile from 0 to 100.
        kind: which of the two.
    """

    value: float
    kind: Literal["cosine", "percentile"] = "cosine"


@dataclass(frozen=True, slots=True)
class Question:
    """All that is asked in one search.

    Attributes:
        terms: at least one, and not all of them below 0.
        where: conditions that each match meets; None for any image.
        k: how many matches at most; None for all that reach the threshold, which must be given.
        threshold: leaves out what is less similar; None for no limit.
        offset: leaves out so many of the best.
        cursor: goes on behind an earlier answer: its `Results.cursor`. Not with an offset.
        collapse: show pictures that are nearly identical as one match, with the others in
            `Match.alike`.
        exact: compare with every vector, also where the index knows a faster way.
    """

    terms: tuple[Term, ...]
    where: Condition | None = None
    k: int | None = 10
    threshold: Threshold | None = None
    offset: int = 0
    cursor: str | None = None
    collapse: bool = False
    exact: bool = False
