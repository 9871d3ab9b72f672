"""How much a text of conditions may hold."""

LONGEST = 10_000
"""Characters."""
MOST_TERMS = 500
"""Values."""
MOST_NESTED = 8
"""Parentheses within one another. Each may hold an "or" of "and" of "not", and the parser of SQLite
has a stack of a hundred places for all of a statement."""
