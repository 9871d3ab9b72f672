"""Selection: which images meet a condition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, String, cast, exists, func, select

from searchlib.catalog.chunks import chunks
from searchlib.catalog.database import Database
from searchlib.catalog.schema import File, Image, table

if TYPE_CHECKING:
    from searchlib.catalog.conditions import Condition

_IMAGE, _FILE = table(Image), table(File)
_ALL = select(_FILE.c.image_id.label("id")).where(_FILE.c.state == "present").distinct()
# So many parts of a condition are asked whether they are rare.
_LOOKS = 4
_IS_PRESENT = exists().where(_FILE.c.image_id == _IMAGE.c.id, _FILE.c.state == "present")


class Selection:
    """Asks a catalog for images with a file in place; may be used from many threads.

    All raise InputError for a condition that is too large or nested too deeply for a database, and
    for a pattern in it that cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def ids(self, condition: Condition | None) -> NDArray[np.int64]:
        """The ids of all images that meet a condition, int64 [n], rising; of all without one."""
        with self._database.reading() as connection:
            query = _ALL if condition is None else self._query(condition, connection)
            # In one text: rows of many would take several times as long as all else.
            id = cast(query.subquery().c.id, String)
            text = connection.execute(select(func.aggregate_strings(id, ","))).scalar()
        found = np.fromstring(text or "", dtype=np.int64, sep=",")
        found.sort()
        return found

    def among(self, ids: Collection[int], condition: Condition | None) -> set[int]:
        """Those of some images that meet a condition."""
        found: set[int] = set()
        with self._database.reading() as connection:
            query = self._query(condition, None)
            for some in chunks(ids):
                here = query.where(_IMAGE.c.id.in_(some))
                found.update(id for (id,) in connection.execute(here).all())
        return found

    def is_rare(self, condition: Condition, most: int) -> bool:
        """Whether no more than `most` images meet a condition, as far as an index tells quickly.

        False says nothing.
        """
        from searchlib.catalog.conditions import And
        from searchlib.catalog.conditions_sql import require_answerable, rows_of_index

        require_answerable(condition)
        parts = condition.parts if isinstance(condition, And) else (condition,)
        with self._database.reading() as connection:
            for part in parts[:_LOOKS]:
                rows = rows_of_index(part, sqlite=self._database.is_sqlite)
                if rows is not None:
                    some = select(func.count()).select_from(rows.limit(most + 1).subquery())
                    if connection.execute(some).scalar_one() <= most:
                        return True
        return False

    def page(
        self,
        condition: Condition | None,
        *,
        after: int | None = None,
        limit: int,
        newest_first: bool = True,
    ) -> list[int]:
        """The next ids of images that meet a condition, in the order in which they were added.

        Args:
            condition: all images without one.
            after: the last id of the page before.
            limit: so many at most.
            newest_first: whether the order is that of falling ids.
        """
        if limit < 1:
            return []
        id = _IMAGE.c.id
        with self._database.reading() as connection:
            query = self._query(condition, connection)
            if after is not None:
                query = query.where(id < after if newest_first else id > after)
            query = query.order_by(id.desc() if newest_first else id).limit(limit)
            return [id for (id,) in connection.execute(query).all()]

    def count(self, condition: Condition | None) -> int:
        """How many images meet a condition; how many there are without one."""
        with self._database.reading() as connection:
            query = _ALL if condition is None else self._query(condition, connection)
            count = select(func.count()).select_from(query.subquery())
            return int(connection.execute(count).scalar_one())

    def version(self) -> Hashable:
        """Differs from before whenever anything was written since, in this process or another."""
        return self._database.version()

    def find(self, paths: Collection[str]) -> dict[str, int]:
        """The images whose files lie at some absolute paths: the ids by path."""
        columns = select(_FILE.c.path, _FILE.c.image_id).where(_FILE.c.state == "present")
        found: dict[str, int] = {}
        with self._database.reading() as connection:
            for some in chunks(paths):
                found.update(connection.execute(columns.where(_FILE.c.path.in_(some))).all())
        return found

    def path_test(self, condition: Condition | None) -> Callable[[str], bool] | None:
        """Tells the paths that a condition means from others of an image that meets it.

        Where two files of an image meet one part each, there may be no path that is meant.

        Returns:
            Tells of an absolute path whether the condition can hold for an image that has no other
            file; None where no part of the condition is about paths.
        """
        if condition is None:
            return None
        from searchlib.catalog.condition_paths import path_test

        return path_test(condition)

    def _query(self, condition: Condition | None, connection: Connection | None) -> Select[Any]:
        """The ids of the images that meet a condition; without a connection, for few images."""
        query: Select[Any] = select(_IMAGE.c.id)
        if condition is None:
            return query.where(_IS_PRESENT)
        # All that knows conditions is loaded with the first one.
        from searchlib.catalog.condition_paths import wide_folders
        from searchlib.catalog.conditions_sql import criterion, needs_file, require_answerable

        require_answerable(condition)
        sqlite = self._database.is_sqlite
        few = connection is None
        wide: frozenset[str] = frozenset()
        if connection is not None and sqlite:
            wide = wide_folders(condition, connection)
        query = query.where(criterion(condition, sqlite=sqlite, few=few, wide=wide))
        return query if needs_file(condition) else query.where(_IS_PRESENT)
