"""What a search gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

from searchlib.catalog import ImageRecord
from searchlib.search.question import Threshold

TermKind = Literal["image", "stored", "vector", "text"]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one term of the question adds to the score of a match.

    Attributes:
        term: its label.
        kind: what it is.
        weight: of the term.
        cosine: of the match's vector and the term's, -1 to 1.
        share: what it adds; the shares of all terms add up to the score.
    """

    term: str
    kind: TermKind
    weight: float
    cosine: float
    share: float


@dataclass(frozen=True, slots=True)
class Match:
    """An image that is like the query.

    Attributes:
        path: where it lies; the first of `image.paths` that meets the conditions on files.
        score: the cosine of its vector and the query's, -1 to 1, to six decimals; 1 is the same
            picture.
        image: what is known of it.
        stack: other files of the same shot: the camera's raw file, the film of a live photo.
        rank: its place among all matches of the question, from 1 on.
        percentile: of 100 pairs of pictures of this library that were put together at random, how
            many are less alike; None in a library that is too small to tell.
        terms: what each term of the question adds to the score.
        thumbnail: a small picture of it, where the library keeps one.
        alike: paths of pictures that are nearly identical and were collapsed into this match.
    """

    path: str
    score: float
    image: ImageRecord
    stack: tuple[str, ...] = ()
    rank: int = 0
    percentile: float | None = None
    terms: tuple[Contribution, ...] = ()
    thumbnail: Path | None = None
    alike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a search went, in seconds.

    Attributes:
        decode: reading, fetching and decoding the pictures of the question.
        encode: embedding them and the texts.
        search: conditions, index and ranking.
        fetch: what is known of the matches.
        total: all of it.
    """

    decode: float = 0.0
    encode: float = 0.0
    search: float = 0.0
    fetch: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Results(Sequence[Match]):
    """The answer to a search: its matches, best first, and how they came about.

    Of equal scores the image that was added first comes first.

    Attributes:
        matches: the matches.
        model: the name of the model that was searched with; None in an empty library.
        cursor: goes on behind the last match, for `search(cursor=...)`; None where there are no
            more. Images that are added meanwhile are not among what follows, so that no match
            comes twice.
        threshold: how similar the matches had to be, as it was asked for.
        least: the cosine that this meant; None without a threshold.
        exact: whether every vector that meets the conditions was compared.
        timings: where the time went; two answers that differ in this alone are equal.
    """

    matches: tuple[Match, ...]
    model: str | None = None
    cursor: str | None = None
    threshold: Threshold | None = None
    least: float | None = None
    exact: bool = True
    timings: Timings = field(default=Timings(), compare=False)

    def __len__(self) -> int:
        return len(self.matches)

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)

    @overload
    def __getitem__(self, at: int) -> Match: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Match, ...]: ...
    def __getitem__(self, at: int | slice) -> Match | tuple[Match, ...]:
        return self.matches[at]
