"""A question to matches: the live index, the query's vector, the ranking."""

from searchlib.search.choice import IndexChoice, read_choice, recipe_for, write_choice
from searchlib.search.inspection import IndexCheck, IndexTuning, measure, verify
from searchlib.search.live_index import LiveIndex
from searchlib.search.match import Match
from searchlib.search.query import nearest, query_vector

__all__ = [
    "IndexCheck",
    "IndexChoice",
    "IndexTuning",
    "LiveIndex",
    "Match",
    "measure",
    "nearest",
    "query_vector",
    "read_choice",
    "recipe_for",
    "verify",
    "write_choice",
]
