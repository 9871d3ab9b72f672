"""What conditions say of the places of files, beyond the SQL that they become."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from sqlalchemy import Connection, func, select

from searchlib.catalog import globs
from searchlib.catalog.conditions import And, Below, Condition, Glob, Name, Not, Or
from searchlib.catalog.conditions_sql import below, require_answerable
from searchlib.catalog.schema import File, table

_FILE = table(File)
# A row by way of an index of SQLite takes as long as so many in their order.
_WIDE = 16


def path_test(condition: Condition) -> Callable[[str], bool] | None:
    """Tells the paths that a condition means from others: see `Selection.path_test`.

    Raises:
        InputError: the condition is too large, or nested too deeply.
    """
    require_answerable(condition)
    if not any(isinstance(part, Below | Glob | Name) for part in _terms(condition)):
        return None
    return lambda path: _holds(condition, path) is not False


def wide_folders(condition: Condition, connection: Connection) -> frozenset[str]:
    """Those of the folders in a condition that many of all files lie below.

    SQLite cannot tell from its index, and would look up the row of each.
    """
    folders = {part.folder for part in _terms(condition) if isinstance(part, Below)}
    if not folders:
        return frozenset()
    newest = connection.execute(select(func.max(_FILE.c.id))).scalar() or 0
    some = newest // _WIDE
    wide = set()
    for folder in folders:
        here = select(_FILE.c.path).where(below(folder)).limit(some + 1).subquery()
        if connection.execute(select(func.count()).select_from(here)).scalar_one() > some:
            wide.add(folder)
    return frozenset(wide)


def _terms(condition: Condition) -> Iterator[Condition]:
    waiting = [condition]
    while waiting:
        part = waiting.pop()
        match part:
            case And(parts) | Or(parts):
                waiting += parts
            case Not(inner):
                waiting.append(inner)
            case _:
                yield part


def _holds(condition: Condition, path: str) -> bool | None:
    """Whether a condition holds for a path; None where that depends on something else."""
    match condition:
        case And(parts):
            found = {_holds(part, path) for part in parts}
            return False if False in found else None if None in found else True
        case Or(parts):
            found = {_holds(part, path) for part in parts}
            return True if True in found else None if None in found else False
        case Not(part):
            inner = _holds(part, path)
            return None if inner is None else not inner
        case Below(folder):
            return path.startswith(folder.rstrip(os.sep) + os.sep)
        case Glob(pattern):
            return globs.folder_pattern(pattern).matches(path)
        case Name(pattern):
            return globs.name_pattern(pattern).matches(path)
        case _:
            return None
