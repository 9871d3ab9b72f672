"""Conditions as people write them: "taken:2024 and not camera:canon"."""

from searchlib.search.where.format import format_where
from searchlib.search.where.parse import parse_where

__all__ = ["format_where", "parse_where"]
