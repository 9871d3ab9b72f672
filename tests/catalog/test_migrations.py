"""An old library at the newest revision: nothing of it is lost, and it is like a new one."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from searchlib.catalog import (
    Catalog,
    Facts,
    FolderRecord,
    NewContent,
    ReadFile,
    Stat,
    conditions,
)
from searchlib.catalog.database import Database
from searchlib.catalog.migrate import config
from searchlib.catalog.schema import REVISION
from searchlib.errors import LibraryError

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
    upgrade_to(folder, "0001")
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


def upgrade_to(folder: Path, revision: str) -> None:
    engine = create_engine(f"sqlite:///{folder}/catalog.db")
    with engine.begin() as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)
    engine.dispose()


@pytest.fixture
def second(old: Path) -> Path:
    """The folder of a library as the second revision left it, with what was new in it."""
    upgrade_to(old, "0002")
    with closing(sqlite3.connect(old / "catalog.db")) as db:
        db.execute("UPDATE folder SET watched = 1, include = '[\"*.jpg\"]', events = 'no'")
        db.execute(
            "UPDATE file SET device = 7, state = 'offline', video = ? WHERE id = 1", (b"/\xfe",)
        )
        db.execute("INSERT INTO dirty (path, noted_at) VALUES (?, 9.5), (?, 9.75)", (ODD, b"/b"))
        db.execute("DELETE FROM dirty WHERE mark = 2")
        db.execute(
            "INSERT INTO watcher VALUES (1, 2, 'h', 3, 4, 'idle', 5, 6, 7, 8, 9, 10, 11, 12)"
        )
        db.commit()
    return old


CAMERAS = [("Canon", "EOS 5D"), ("CANON", None), (None, "straße"), ("", None), (None, None)]


@pytest.fixture
def third(second: Path) -> Path:
    """The folder of a library as the third revision left it."""
    upgrade_to(second, "0003")
    with closing(sqlite3.connect(second / "catalog.db")) as db:
        db.execute("INSERT INTO setting VALUES ('recipe', 'inverted')")
        for id, camera in enumerate(CAMERAS, 1):
            db.execute(
                "UPDATE image SET camera_make = ?, camera_model = ?, taken_at = '2024-06-01T10:30' "
                "WHERE id = ?",
                (*camera, id),
            )
        db.commit()
    return second


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
    "image": "id, digest, bytes, format, width, height, taken_at, camera_make, camera_model, "
    "latitude, longitude, added_at",
    "folder": "id, path, added_at",
    "model": "*",
    "embedding": "*",
    "change": "*",
}
IMAGE = {"image": OLD_COLUMNS["image"]}


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


def test_every_row_of_the_second_revision_is_kept_as_it_was(second: Path) -> None:
    path = second / "catalog.db"
    columns = {**dict.fromkeys([*OLD_COLUMNS, "dirty", "watcher"], "*"), **IMAGE}
    before = {name: rows(path, columns[name], name) for name in columns}
    assert (len(before["dirty"]), len(before["watcher"])) == (1, 1)
    with closing(Catalog(second, create=False)) as catalog:
        assert {name: rows(path, columns[name], name) for name in columns} == before
        # A mark that was given once is not given again.
        catalog.dirty.note(["/c"])
        assert catalog.dirty.after(1, limit=9) == [(3, "/c")]
        assert catalog.setting("recipe") is None
        catalog.put_setting("recipe", "inverted")
    assert (second / f"catalog.db.before-{REVISION}").exists()


def test_a_library_of_the_third_revision_can_be_asked_for_what_was_in_it(third: Path) -> None:
    path = third / "catalog.db"
    columns = {**dict.fromkeys([*OLD_COLUMNS, "dirty", "watcher", "setting"], "*"), **IMAGE}
    before = {name: rows(path, columns[name], name) for name in columns}
    assert before["setting"] == [("recipe", "inverted")]
    # The copy that is made before is the whole of the old one.
    with closing(sqlite3.connect(path)) as db:
        dump = list(db.iterdump())
    with closing(Catalog(third, create=False)) as catalog:
        assert {name: rows(path, columns[name], name) for name in columns} == before
        with closing(sqlite3.connect(third / f"catalog.db.before-{REVISION}")) as db:
            assert list(db.iterdump()) == dump
        assert [camera for _, camera in rows(path, "id, camera", "image")] == [
            "canon eos 5d", "canon", "strasse", None, None,
        ]  # fmt: skip
        # Of the five images the first is offline, and the files of the last two are missing.
        selection = catalog.selection
        assert selection.ids(None).tolist() == [2, 3]
        assert selection.ids(conditions.Camera("STRASSE")).tolist() == [3]
        assert selection.ids(conditions.Taken("2024-06", "2024-07")).tolist() == [2, 3]
        assert catalog.images([2])[2].tags == ()
        assert catalog.images([2])[2].added_at == 2.0
        catalog.labels.tag([1, 2], ["beach"])
        assert catalog.labels.tags() == {"beach": 1}


@pytest.mark.parametrize("revision", ["old", "second", "third"])
def test_the_tables_indexes_and_checks_are_those_of_a_new_library(
    request: pytest.FixtureRequest, tmp_path: Path, revision: str
) -> None:
    old: Path = request.getfixturevalue(revision)
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
    "VALUES (:b, 1, 1, 1, 'present', 0)",
    "INSERT INTO file (path, size, mtime_ns, inode, state, checked_at) "
    "VALUES (:b, 1, 1, 1, 'skipped', 0)",
    "INSERT INTO file (path, size, mtime_ns, inode, state, checked_at, failure) "
    "VALUES (:b, 1, 1, 1, 'skipped', 0, 'content')",
    "UPDATE file SET state = 'lost'",
    "UPDATE file SET failure = 'other', reason = 'x'",
    "UPDATE file SET image_id = NULL WHERE state = 'present'",
    "UPDATE file SET path = :b",
    "UPDATE file SET image_id = 99",
    "UPDATE file SET folder_id = 99",
    "UPDATE folder SET events = 'perhaps'",
    "UPDATE setting SET name = NULL",
    "INSERT INTO tag (image_id, folded, word) VALUES (99, 'a', 'a')",
    "INSERT INTO tag (image_id, folded, word) VALUES (1, 'beach', 'BEACH')",
    "INSERT INTO property (image_id, key, name, value, folded) VALUES (1, 'rating', 'r', '', '')",
    "UPDATE property SET image_id = 99",
    "UPDATE property SET value = NULL",
]


def assert_nonsense_is_refused(catalog: Catalog) -> None:
    catalog.put_setting("recipe", "inverted")
    catalog.labels.tag([1], ["beach"])
    catalog.labels.put([1], {"rating": "5"})
    for statement in CHECKED:
        parameters = {"b": b"/b"} if ":b" in statement else {}
        with pytest.raises(LibraryError) as raised, catalog.database.writing() as connection:
            connection.execute(text(statement), parameters)
        assert isinstance(raised.value.__cause__, IntegrityError)


def test_what_makes_no_sense_is_refused_in_an_old_library(upgraded: Catalog) -> None:
    assert_nonsense_is_refused(upgraded)


def test_what_makes_no_sense_is_refused_in_a_new_library(catalog: Catalog) -> None:
    model = catalog.use_model(identity=IDENTITY, name="test", dimension=2)
    catalog.folders.put(FolderRecord("/"))
    content = NewContent(Facts(bytes=1, format=None, width=1, height=1), np.eye(2, dtype="f4")[0])
    files = [ReadFile(path, Stat(1, 1, 1), bytes(32), "/", content) for path in ("/x", "/y")]
    catalog.record(model, files, gone=lambda *_: False)
    assert_nonsense_is_refused(catalog)
