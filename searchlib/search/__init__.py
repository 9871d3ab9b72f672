"""A question to matches: the live index, the query's vector, the ranking."""

from searchlib.search.choice import (
    MILVUS,
    IndexChoice,
    read_choice,
    recall_of,
    recipe_figures,
    recipe_for,
    write_choice,
)
from searchlib.search.inspection import (
    IndexCheck,
    IndexStatus,
    IndexTuning,
    index_status,
    measure,
    verify,
)
from searchlib.search.live_index import LiveIndex
from searchlib.search.match import Match
from searchlib.search.query import nearest, query_vector

__all__ = [
    "MILVUS",
    "IndexCheck",
    "IndexChoice",
    "IndexStatus",
    "IndexTuning",
    "LiveIndex",
    "Match",
    "index_status",
    "measure",
    "nearest",
    "query_vector",
    "read_choice",
    "recall_of",
    "recipe_figures",
    "recipe_for",
    "verify",
    "write_choice",
]
