"""A question to its answer: terms, candidates, ranking, the part that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from searchlib.catalog import Catalog, ModelRecord
from searchlib.errors import InputError
from searchlib.images import thumbnail_path
from searchlib.search.background import Background, Backgrounds
from searchlib.search.cursor import Cursor, decode_cursor, fingerprint
from searchlib.search.embedding import Embedder, Terms
from searchlib.search.filtering import Filter
from searchlib.search.live_index import LiveIndex
from searchlib.search.match import Match, Results
from searchlib.search.question import Question, Threshold
from searchlib.search.ranking import Scored, contributions, score, shots
from searchlib.search.stopwatch import Stopwatch

if TYPE_CHECKING:
    from searchlib.search.served_index import ServedIndex

# Fetched beyond what is asked for, so that a few missing images do not cost a second search.
_SPARE = 16
_LITTLE_SPARE = 2
_WIDEN = 4
# To the first search for all above a threshold.
_FIRST = 256
_PERCENT_DECIMALS = 4
_NO_LIMIT = 1 << 63


@dataclass(frozen=True, slots=True)
class _Limits:
    """How similar a match must be.

    Attributes:
        background: that percentiles are taken from; None where there is none.
        least: the cosine; None for no limit.
    """

    background: Background | None
    least: float | None


class Answerer:
    """Answers questions on one library with one model; may be used from many threads.

    Args:
        catalog: of the library.
        model: in use.
        index: of its vectors.
        embedder: makes vectors of terms.
        thumbnails: their folder, which need not be there; None for none.
    """

    def __init__(
        self,
        catalog: Catalog,
        model: ModelRecord,
        index: LiveIndex | ServedIndex,
        embedder: Embedder,
        *,
        thumbnails: Path | None = None,
    ) -> None:
        self._catalog = catalog
        self._model = model
        self._index = index
        self._embedder = embedder
        self._thumbnails = thumbnails
        self._filter = Filter(catalog)
        self.backgrounds = Backgrounds(catalog, model, index)

    def answer(self, question: Question) -> Results:
        """The images that a question is about, best first.

        Raises:
            InputError: the question cannot be answered as it was asked; says why.
            CursorError: its cursor is of another question, or none at all.
            NotFoundError: a stored image that it names is not there.
            TextUnsupportedError: words, and a model that knows only pictures.
            ImageError, EncoderError: an image or a text of it cannot be embedded.
            LibraryError, IndexServiceError: the library or its index cannot be used.
        """
        check(question)
        watch = Stopwatch()
        terms = self._embedder.terms(question.terms, watch)
        with watch.step("search"):
            asked = fingerprint(
                terms.vector, question.where, question.threshold, question.collapse, self._model
            )
            start = None
            if question.cursor is not None:
                start = decode_cursor(question.cursor, asked=asked)
            limits = self._limits(question.threshold, terms)
        found, scored, more = self._ranked(question, terms, limits, start, watch)
        first = question.offset if start is None else start.rank
        with watch.step("fetch"):
            matches = tuple(
                self._told(match, rank, scored, terms, limits.background)
                for rank, match in enumerate(found, first + 1)
            )
        cursor = None
        if more and matches:
            last = matches[-1]
            newest = self._newest() if start is None else start.newest
            cursor = Cursor(asked, newest, last.score, last.image.id, last.rank).encode()
        return Results(
            matches=matches,
            model=self._model.name,
            cursor=cursor,
            threshold=question.threshold,
            least=None if question.threshold is None else limits.least,
            exact=question.exact or self._index.is_exact,
            timings=watch.timings(),
        )

    def _newest(self) -> int:
        """The highest image id of the library."""
        newest = self._catalog.selection.page(None, after=None, limit=1)
        return newest[0] if newest else 0

    def _limits(self, threshold: Threshold | None, terms: Terms) -> _Limits:
        single = len(terms.kinds) == 1 and terms.kinds[0] != "text"
        background = (
            self.backgrounds.pairs() if single else self.backgrounds.of_question(terms.vector)
        )
        if threshold is None or threshold.kind == "cosine":
            return _Limits(background, None if threshold is None else threshold.value)
        if background is None:
            raise InputError(
                "the library is too small to know percentiles; give the threshold as a cosine, "
                "such as 0.8"
            )
        return _Limits(background, background.cosine(threshold.value))

    def _ranked(
        self,
        question: Question,
        terms: Terms,
        limits: _Limits,
        start: Cursor | None,
        watch: Stopwatch,
    ) -> tuple[list[Match], Scored, bool]:
        """The matches that are to be shown, the scores of all images that were looked at, and
        whether there are more matches behind them.
        """
        before = question.offset if start is None else start.rank
        # What meets a condition has a file in place; the files of one shot are one match even so.
        spare = len(terms.stored) + (_SPARE if question.where is None else _LITTLE_SPARE)
        count = _FIRST if question.k is None else before + question.k + spare
        shown = None
        if question.where is not None:
            shown = self._catalog.selection.path_test(question.where)
        while True:
            with watch.step("search"):
                near = self._filter.nearest(
                    terms.vector, self._index, count, where=question.where, exact=question.exact
                )
                newest = _NO_LIMIT if start is None else start.newest
                kept = [id for id in near.ids.tolist() if id <= newest and id not in terms.stored]
                scored = score(self._catalog, self._model, kept, terms)
                passed = self._passed(scored, limits.least)
            with watch.step("fetch"):
                found = shots(passed, self._catalog, shown=shown, alike=question.collapse)
            rest = found[_behind(found, start) if start is not None else question.offset :]
            # All that come later are below what was asked for.
            complete = near.complete or len(passed.ids) < len(scored.ids)
            if complete or (question.k is not None and len(rest) > question.k):
                limit = len(rest) if question.k is None else question.k
                return rest[:limit], scored, len(rest) > limit
            count = max(count, len(near.ids)) * _WIDEN

    @staticmethod
    def _passed(scored: Scored, least: float | None) -> Scored:
        if least is None:
            return scored
        n = int(np.searchsorted(-scored.scores, -least, side="right"))
        return Scored(scored.ids[:n], scored.scores[:n], scored.cosines[:n], scored.vectors[:n])

    def _told(
        self, match: Match, rank: int, scored: Scored, terms: Terms, background: Background | None
    ) -> Match:
        percentile = None
        if background is not None:
            percentile = round(background.percentile(match.score), _PERCENT_DECIMALS)
        thumbnail = None
        if self._thumbnails is not None:
            path = thumbnail_path(self._thumbnails, bytes.fromhex(match.image.digest))
            thumbnail = path if path.is_file() else None
        return replace(
            match,
            rank=rank,
            percentile=percentile,
            terms=contributions(match, scored, terms),
            thumbnail=thumbnail,
        )


def check(question: Question) -> None:
    """Refuse what cannot be answered.

    Raises:
        InputError: says what.
    """
    if not question.terms:
        raise InputError("the question is empty; give an image, an id, a vector or words")
    if question.k is None and question.threshold is None:
        raise InputError("how many matches is not said; give k or a threshold")
    if question.k is not None and question.k < 1:
        raise InputError(f"k is {question.k}; ask for at least 1 image")
    if question.offset < 0:
        raise InputError(f"the offset is {question.offset}; it is at least 0")
    if question.offset and question.cursor is not None:
        raise InputError("an offset and a cursor exclude each other")
    if question.threshold is not None:
        value, kind = question.threshold.value, question.threshold.kind
        low, high = (-1.0, 1.0) if kind == "cosine" else (0.0, 100.0)
        if not low <= value <= high:
            raise InputError(f"the threshold is {value:g}; a {kind} is from {low:g} to {high:g}")


def _behind(matches: list[Match], start: Cursor) -> int:
    """How many matches come before the end of an earlier answer, and at it."""
    for place, match in enumerate(matches):
        if match.image.id == start.id:
            return place + 1
    # It was taken out of the library meanwhile.
    end = (-start.score, start.id)
    return sum((-match.score, match.image.id) <= end for match in matches)
