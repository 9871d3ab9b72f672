"""A question to matches: its terms and conditions, the live index, the ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING

# At once, for the module of this name would else take the place of the function.
from searchlib.lazily import lazily
from searchlib.search.compose import Asked, compose, condition_of, threshold_of

if TYPE_CHECKING:
    from searchlib.search.answer import Answerer, check
    from searchlib.search.background import Background
    from searchlib.search.choice import (
        MILVUS,
        IndexChoice,
        read_choice,
        recall_of,
        recipe_figures,
        recipe_for,
        write_choice,
    )
    from searchlib.search.embedding import Embedder
    from searchlib.search.inspection import (
        IndexCheck,
        IndexStatus,
        IndexTuning,
        index_status,
        measure,
        verify,
    )
    from searchlib.search.live_index import LiveIndex
    from searchlib.search.match import Contribution, Match, Results, Timings
    from searchlib.search.question import Question, Term, Threshold
    from searchlib.search.stopwatch import Stopwatch

__all__ = [
    "MILVUS",
    "Answerer",
    "Asked",
    "Background",
    "Contribution",
    "Embedder",
    "IndexCheck",
    "IndexChoice",
    "IndexStatus",
    "IndexTuning",
    "LiveIndex",
    "Match",
    "Question",
    "Results",
    "Stopwatch",
    "Term",
    "Threshold",
    "Timings",
    "check",
    "compose",
    "condition_of",
    "index_status",
    "measure",
    "read_choice",
    "recall_of",
    "recipe_figures",
    "recipe_for",
    "threshold_of",
    "verify",
    "write_choice",
]

# Imported when first asked for: a query should not wait for what it does not use.
_HOMES = {
    "Answerer": "searchlib.search.answer",
    "Background": "searchlib.search.background",
    "Contribution": "searchlib.search.match",
    "Embedder": "searchlib.search.embedding",
    "IndexCheck": "searchlib.search.inspection",
    "IndexChoice": "searchlib.search.choice",
    "IndexStatus": "searchlib.search.inspection",
    "IndexTuning": "searchlib.search.inspection",
    "LiveIndex": "searchlib.search.live_index",
    "MILVUS": "searchlib.search.choice",
    "Match": "searchlib.search.match",
    "Question": "searchlib.search.question",
    "Results": "searchlib.search.match",
    "Stopwatch": "searchlib.search.stopwatch",
    "Term": "searchlib.search.question",
    "Threshold": "searchlib.search.question",
    "Timings": "searchlib.search.match",
    "check": "searchlib.search.answer",
    "index_status": "searchlib.search.inspection",
    "measure": "searchlib.search.inspection",
    "read_choice": "searchlib.search.choice",
    "recall_of": "searchlib.search.choice",
    "recipe_figures": "searchlib.search.choice",
    "recipe_for": "searchlib.search.choice",
    "verify": "searchlib.search.inspection",
    "write_choice": "searchlib.search.choice",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
