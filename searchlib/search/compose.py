"""The arguments of a call as a question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InputError
from searchlib.search.question import Question, Term, Threshold

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition
    from searchlib.images import Source

Asked: TypeAlias = "Source | int | NDArray[np.floating] | Term"
"""One thing to search for: a picture, the id of a stored image, a vector, or a term."""

_PERCENTILE = re.compile(r"\s*p?(\d+(?:\.\d+)?)\s*(%?)\s*", re.IGNORECASE)


def compose(
    query: Asked | Sequence[Asked] | None = None,
    *,
    text: str | Sequence[str] | None = None,
    like: Asked | Sequence[Asked] | None = None,
    unlike: Asked | Sequence[Asked] | None = None,
    where: str | Condition | None = None,
    k: int | None = 10,
    min_similarity: float | str | Threshold | None = None,
    offset: int = 0,
    cursor: str | None = None,
    collapse: bool = False,
    exact: bool = False,
) -> Question:
    """The question of these arguments: see `Library.search`.

    Raises:
        InputError: an argument that means nothing.
        WhereError: conditions that cannot be understood.
    """
    texts = [text] if isinstance(text, str) else list(text or ())
    terms = [
        *(term_of(asked) for asked in _several(query)),
        *(Term(text=words) for words in texts),
        *(term_of(asked) for asked in _several(like)),
        *(_turned(term_of(asked)) for asked in _several(unlike)),
    ]
    return Question(
        terms=tuple(terms),
        where=condition_of(where),
        k=k,
        threshold=threshold_of(min_similarity),
        offset=offset,
        cursor=cursor,
        collapse=collapse,
        exact=exact,
    )


def term_of(asked: Asked) -> Term:
    """The term of one thing to search for: whole numbers are ids, rows of numbers are vectors."""
    if isinstance(asked, Term):
        return asked
    if isinstance(asked, bool):
        raise InputError("True and False are no images")
    if isinstance(asked, (int, np.integer)):
        return Term(stored=int(asked))
    if isinstance(asked, np.ndarray) and asked.ndim == 1:
        return Term(vector=asked)
    return Term(image=asked)


def condition_of(where: str | Condition | None) -> Condition | None:
    """Conditions as they are, or in words; None where there are none.

    Raises:
        WhereError: words that cannot be understood.
    """
    if not isinstance(where, str):
        return where
    # A question without conditions should not pay for their grammar.
    from searchlib.search.where import parse_where

    return parse_where(where) if where.strip() else None


def threshold_of(given: float | str | Threshold | None) -> Threshold | None:
    """A threshold in numbers or in words: 0.8 is a cosine, "99.9%" or "p99.9" a percentile.

    Raises:
        InputError: it is neither.
    """
    if given is None or isinstance(given, Threshold):
        return given
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return Threshold(float(given))
    words = str(given)
    found = _PERCENTILE.fullmatch(words)
    if found is not None and (found[2] or words.strip()[:1] in "pP"):
        return Threshold(float(found[1]), "percentile")
    try:
        return Threshold(float(words))
    except ValueError:
        raise InputError(
            f"{words!r} is no similarity; give a cosine such as 0.8, or a percentile such as 99%"
        ) from None


def _several(given: Asked | Sequence[Asked] | None) -> Iterable[Asked]:
    if given is None:
        return ()
    return given if isinstance(given, (list, tuple)) else (given,)


def _turned(term: Term) -> Term:
    return replace(term, weight=-term.weight)
