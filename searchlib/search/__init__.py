"""A question to matches: the live index, the query's vector, the ranking."""

from searchlib.search.live_index import LiveIndex
from searchlib.search.match import Match
from searchlib.search.query import nearest, query_vector

__all__ = ["LiveIndex", "Match", "nearest", "query_vector"]
