"""An old library at the newest revision: nothing of it is lost, and it is like a new one."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine

from searchlib.catalog import Catalog, FolderRecord, Stat
from searchlib.catalog.database import Database
from searchlib.catalog.migrate import config
from searchlib.catalog.schema import REVISION

ODD = b"/photos/caf\xe9\n\xff.jpg"
PRESENT = [b"/photos/a.jpg", ODD, b"/named.jpg"]
MISSING = [b"/photos/gone.jpg", b"/photos/gone\xfe.jpg"]
SKIPPED = [b"/photos/torn.jpg", b"/photos/was-a-picture.jpg"]
IDENTITY = "c" * 64


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a library as the first revision left it."""
    folder = tmp_path / "library"
    folder.mkdir()
    engine = create_engine(f"sqlite:///{folder}/catalog.db")
    with engine.begin() as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, "0001")
    engine.dispose()
    with closing(sqlite3.connect(folder / "catalog.db")) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("INSERT INTO folder (path, added_at) VALUES (?, 5.5)", (b"/photos",))
        db.execute(
            "INSERT INTO model (identity, name, dimension, in_use, added_at) "
            "VALUES (?, 'test', 2, 1, 1.0)",
            (IDENTITY,),
        )
        for id in range(1, 6):
            db.execute(
                "INSERT INTO image (digest, bytes, format, width, height, latitude, added_at) "
                "VALUES (?, 10, 'JPEG', 4, 3, 1.25, 2.0)",
                (bytes([id]) * 32,),
            )
            db.execute("INSERT INTO embedding VALUES (?, 1, ?)", (id, bytes([0, 0, 0, 0x3C])))
            db.execute("INSERT INTO change (model_id, image_id) VALUES (1, ?)", (id,))
        rows = [
            *((path, "present", n, None) for n, path in enumerate(PRESENT, 1)),
            *((path, "missing", n, None) for n, path in enumerate(MISSING, 4)),
            (SKIPPED[0], "skipped", None, "the file is empty"),
            (SKIPPED[1], "skipped", 1, "is torn"),
        ]
        for n, (path, state, image, reason) in enumerate(rows):
            db.execute(
                "INSERT INTO file (folder_id, image_id, path, size, mtime_ns, inode, state, reason,"
                " checked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    1 if path.startswith(b"/photos") else None,
                    *(image, path, 100 + n, -n, 2**63 - 1 - n, state, reason, 1000.5 + n),
                ),
            )
        db.commit()
    return folder


@pytest.fixture
def upgraded(old: Path) -> Iterator[Catalog]:
    catalog = Catalog(old, create=False)
    yield catalog
    catalog.close()


def rows(path: Path, columns: str, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()


OLD_COLUMNS = {
    "file": "id, folder_id, image_id, path, size, mtime_ns, inode, state, reason, checked_at",
    "image": "*",
    "folder": "id, path, added_at",
    "model": "*",
    "embedding": "*",
    "change": "*",
}


def test_every_row_is_kept_as_it_was(old: Path) -> None:
    path = old / "catalog.db"
    before = {table: rows(path, columns, table) for table, columns in OLD_COLUMNS.items()}
    assert len(before["file"]) == 7
    Database(old, create=False).close()
    after = {table: rows(path, columns, table) for table, columns in OLD_COLUMNS.items()}
    assert after == before
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_copy_of_before_is_the_old_library_whole(old: Path) -> None:
    path = old / "catalog.db"
    with closing(sqlite3.connect(path)) as db:
        before = list(db.iterdump())
    Database(old, create=False).close()
    copy = old / f"catalog.db.before-{REVISION}"
    with closing(sqlite3.connect(copy)) as db:
        assert list(db.iterdump()) == before
    # What is up to date needs no copy.
    copy.unlink()
    Database(old, create=False).close()
    assert not copy.exists()


def test_present_files_are_known_as_they_were(upgraded: Catalog) -> None:
    model = upgraded.model()
    assert model is not None
    known = upgraded.places.known("/", model)
    for n, path in enumerate(PRESENT):
        file = known[os.fsdecode(path)]
        assert file.stat == Stat(100 + n, -n, 2**63 - 1 - n, None)
        assert (file.state, file.embedded, file.failure, file.video) == (
            "present",
            True,
            None,
            None,
        )
    image = upgraded.images([2])[2]
    assert (image.paths, image.facts.latitude) == ((os.fsdecode(ODD),), 1.25)
    assert upgraded.folders.all() == [FolderRecord("/photos", id=1)]


def test_missing_files_are_missing_since_they_were_looked_for(upgraded: Catalog) -> None:
    with upgraded.database.reading() as connection:
        found = connection.exec_driver_sql(
            "SELECT path, state, missing_since FROM file WHERE missing_since IS NOT NULL"
        ).all()
    assert found == [(path, "missing", 1003.5 + n) for n, path in enumerate(MISSING)]
    # The grace time counts from then on.
    assert upgraded.places.purge(missing_before=1004.0).files == 1
    assert upgraded.places.purge(missing_before=1005.0).files == 1


def test_skipped_files_are_failures_of_content(upgraded: Catalog) -> None:
    failures = upgraded.places.failures()
    assert [(f.path, f.kind, f.reason, f.attempts, f.last_try, f.next_try) for f in failures] == [
        (os.fsdecode(SKIPPED[0]), "content", "the file is empty", 1, 1005.5, None),
        (os.fsdecode(SKIPPED[1]), "content", "is torn", 1, 1006.5, None),
    ]


def test_the_list_and_the_heartbeat_begin_empty_and_can_be_used(upgraded: Catalog) -> None:
    assert upgraded.dirty.size() == (0, None)
    assert upgraded.pulse.last() is None
    upgraded.dirty.note(["/a"])
    assert upgraded.dirty.after(0, limit=1) == [(1, "/a")]


def test_the_tables_indexes_and_checks_are_those_of_a_new_library(
    old: Path, tmp_path: Path
) -> None:
    Database(old, create=False).close()
    Database(tmp_path / "new", create=True).close()

    def schema(folder: Path) -> dict[str, list[str]]:
        with closing(sqlite3.connect(folder / "catalog.db")) as db:
            found = db.execute("SELECT name, sql FROM sqlite_master").fetchall()
        # A table that was made anew may name its constraints in another order.
        return {name: sorted(re.split(r",? *\n\t?", sql or "")) for name, sql in found}

    assert schema(old) == schema(tmp_path / "new")


CHECKED = [
    "INSERT INTO file (path, size, mtime_ns, inode, state, checked_at) "
    "VALUES (x'2f62', 1, 1, 1, 'present', 0)",
    "INSERT INTO file (path, size, mtime_ns, inode, state, checked_at) "
    "VALUES (x'2f62', 1, 1, 1, 'skipped', 0)",
    "INSERT INTO file (path, size, mtime_ns, inode, state, checked_at, failure) "
    "VALUES (x'2f62', 1, 1, 1, 'skipped', 0, 'content')",
    "UPDATE file SET state = 'lost'",
    "UPDATE file SET failure = 'other', reason = 'x'",
    "UPDATE file SET image_id = NULL WHERE state = 'present'",
    "UPDATE file SET path = x'2f61'",
    "UPDATE file SET image_id = 99",
    "UPDATE file SET folder_id = 99",
    "UPDATE folder SET events = 'perhaps'",
]


@pytest.mark.parametrize("kind", ["old", "new"])
def test_what_makes_no_sense_is_refused(old: Path, tmp_path: Path, kind: str) -> None:
    folder = old if kind == "old" else tmp_path / "new"
    Database(folder, create=True).close()
    with closing(sqlite3.connect(folder / "catalog.db")) as db:
        db.execute("PRAGMA foreign_keys = ON")
        if kind == "new":
            db.execute("INSERT INTO folder (path, added_at) VALUES (x'2f', 0)")
            db.execute(
                "INSERT INTO image (digest, bytes, width, height, added_at) "
                "VALUES (x'00', 1, 1, 1, 0)"
            )
            for name in (b"/x", b"/y"):
                db.execute(
                    "INSERT INTO file (image_id, path, size, mtime_ns, inode, state, checked_at) "
                    "VALUES (1, ?, 1, 1, 1, 'present', 0)",
                    (name,),
                )
        for statement in CHECKED:
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(statement)
