"""The catalog in PostgreSQL: the order in which changes become visible, and words for failures."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from numpy.typing import NDArray
from sqlalchemy import URL, Engine, create_engine, make_url, text

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat, migrate
from searchlib.catalog.schema import REVISION, Base
from searchlib.errors import (
    LibraryBusyError,
    LibraryDamagedError,
    LibraryError,
    LibraryNotFoundError,
    LibraryReadOnlyError,
    LibraryTooNewError,
)
from tests.catalog.places import Place

pytest.importorskip("psycopg", reason="no psycopg: install searchlib[postgresql]")

from searchlib.catalog import postgresql

# The driver takes a connection that broke for closed, and then warns that nobody closed it.
pytestmark = pytest.mark.filterwarnings("ignore:.*deleted while still open:ResourceWarning")

DIMENSION = 8
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)
PASSWORD = "s3cret%/@:#?"


def vector(number: int) -> NDArray[np.float32]:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def picture(path: str, number: int) -> ReadFile:
    return ReadFile(
        path, Stat(1, 1, 1), number.to_bytes(32), None, NewContent(FACTS, vector(number))
    )


def put(catalog: Catalog, model: ModelRecord, *numbers: int) -> None:
    catalog.record(model, [picture(f"/{n}.jpg", n) for n in numbers], gone=lambda *_: False)


@pytest.fixture
def place(new_schema: Callable[[], str], tmp_path: Path) -> Place:
    return Place(tmp_path / "library", new_schema())


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)


@pytest.fixture
def engine(place: Place) -> Iterator[Engine]:
    """Another program at the same database."""
    assert place.url is not None
    engine = create_engine(make_url(place.url).set(drivername="postgresql+psycopg"))
    yield engine
    engine.dispose()


def wait_for_a_writer_that_waits(engine: Engine) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    patience = time.monotonic() + 30
    with engine.connect() as connection:
        while not connection.execute(text(query)).scalar_one():
            assert time.monotonic() < patience
            connection.rollback()
            time.sleep(0.01)


# -- transactions --------------------------------------------------------------------------------


def test_a_change_is_never_visible_before_one_with_a_lower_number(
    catalog: Catalog, model: ModelRecord, place: Place, engine: Engine
) -> None:
    put(catalog, model, 1)
    seq = catalog.last_seq(model)
    with closing(place.open()) as other:
        later = threading.Thread(target=put, args=(other, model, 3))
        with catalog.database.writing() as connection:
            # Its number is drawn, and it is not committed yet.
            connection.execute(text("INSERT INTO change (model_id, image_id) VALUES (1, 1)"))
            later.start()
            wait_for_a_writer_that_waits(engine)
            assert other.last_seq(model) == seq
        later.join()
        changes = other.changes(model, after=seq)
    assert changes.ids.tolist() == [1, 2]
    assert changes.seq == seq + 2


def test_a_reader_that_replays_misses_nothing_that_many_write(
    catalog: Catalog, model: ModelRecord, place: Place
) -> None:
    others = [place.open() for _ in range(3)]
    numbers = range(1, 121)
    writers = [
        threading.Thread(
            target=lambda other, mine: [put(other, model, n) for n in mine],
            args=(other, numbers[start :: len(others)]),
        )
        for start, other in enumerate(others)
    ]
    for writer in writers:
        writer.start()
    seq, running = 0, True
    seen: set[int] = set()
    while running:
        # Once more after the last of them has ended.
        running = any(writer.is_alive() for writer in writers)
        changes = catalog.changes(model, after=seq)
        seen |= set(changes.ids.tolist())
        seq = changes.seq
        time.sleep(0.001)
    for writer in writers:
        writer.join()
    for other in others:
        other.close()
    assert seen == set(catalog.all_vectors(model)[1].tolist())
    assert len(seen) == len(numbers)


def test_one_of_many_that_begin_a_library_with_another_model_wins(place: Place) -> None:
    """And all make one schema."""
    found: list[object] = []

    def begin(name: str) -> None:
        try:
            with closing(place.open()) as catalog:
                found.append(
                    catalog.use_model(identity=name * 64, name=name, dimension=DIMENSION).name
                )
        except LibraryError as error:
            found.append(type(error).__name__)

    threads = [threading.Thread(target=begin, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found))[:3] == ["ModelMismatchError"] * 3
    with closing(place.open(create=False)) as catalog:
        model = catalog.model()
    assert model is not None
    assert found.count(model.name) == 1


def test_a_reader_sees_one_moment_and_cannot_write(catalog: Catalog, model: ModelRecord) -> None:
    put(catalog, model, 1)
    with catalog.database.reading() as connection:
        count = text("SELECT count(*) FROM image")
        assert connection.execute(count).scalar() == 1
        put(catalog, model, 2)
        assert connection.execute(count).scalar() == 1
    with (
        pytest.raises(LibraryReadOnlyError),
        catalog.database.reading() as connection,
    ):
        connection.execute(text("DELETE FROM file"))
    # The next one to use the connection may.
    put(catalog, model, 3)


def test_whoever_waits_too_long_for_another_writer_is_told(
    catalog: Catalog, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_LOCK", postgresql._LOCK.replace("'30s'", "'50ms'"))
    with (
        closing(place.open()) as other,
        catalog.database.writing(),
        pytest.raises(LibraryBusyError, match="another process has kept the database"),
    ):
        other.put_setting("recipe", "inverted")
    assert catalog.setting("recipe") is None


def test_libraries_in_schemas_of_one_database_do_not_wait_for_each_other(
    catalog: Catalog, new_schema: Callable[[], str], tmp_path: Path
) -> None:
    with (
        closing(Place(tmp_path / "other", new_schema()).open()) as other,
        catalog.database.writing(),
    ):
        other.put_setting("recipe", "inverted")
    assert catalog.setting("recipe") is None
    assert other.setting("recipe") == "inverted"


def test_connections_that_the_server_ended_are_made_anew(place: Place, engine: Engine) -> None:
    name = f"ended-{os.getpid()}"
    catalog = Catalog(place.folder, url=f"{place.url}&application_name={name}")
    model = catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)
    put(catalog, model, 1)
    end = text(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
    )

    def end_all() -> None:
        with engine.connect() as connection:
            assert connection.execute(end).all()

    end_all()
    assert catalog.last_seq(model) == 1
    put(catalog, model, 2)

    def end_half_way() -> None:
        with catalog.database.writing() as connection:
            connection.execute(text("DELETE FROM file"))
            end_all()
            connection.execute(text("DELETE FROM setting"))

    with pytest.raises(LibraryError, match="server") as raised:
        end_half_way()
    assert "\n" not in str(raised.value)
    assert catalog.counts(model).files_present == 2
    catalog.close()


def test_paths_that_are_too_long_are_refused_and_all_others_are_not(
    catalog: Catalog, model: ModelRecord
) -> None:
    noise = np.random.default_rng(0).integers(97, 123, 4000, np.uint8).tobytes().decode()
    long = "/" + "/".join(noise[start : start + 250] for start in range(0, 2500, 250))
    catalog.record(model, [picture(long, 1)], gone=lambda *_: False)
    assert list(catalog.places.known("/", model)) == [long]
    longer = "/" + "/".join(noise[start : start + 250] for start in range(0, 4000, 250))
    with pytest.raises(LibraryError, match="a path is too long for PostgreSQL"):
        catalog.record(model, [picture("/b.jpg", 2), picture(longer, 3)], gone=lambda *_: False)
    assert list(catalog.places.known("/", model)) == [long]
    put(catalog, model, 2)


# -- the schema ----------------------------------------------------------------------------------


def upgrade_to(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        settings = migrate.config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)


def test_a_library_of_the_first_revision_is_upgraded_with_all_its_rows(
    place: Place, engine: Engine
) -> None:
    upgrade_to(engine, "0001")
    odd = b"/photos/caf\xe9\n\xff.jpg"
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO model (identity, name, dimension, in_use, added_at) "
            "VALUES ('c', 'test', 2, true, 1)",
            "INSERT INTO image (digest, bytes, width, height, camera_make, added_at) "
            "VALUES (:odd, 1, 2, 3, 'Straße', 4)",
            "INSERT INTO embedding VALUES (1, 1, '\\x0000003C')",
            "INSERT INTO change (model_id, image_id) VALUES (1, 1)",
            "INSERT INTO folder (path, added_at) VALUES ('/photos', 5)",
            "INSERT INTO file (image_id, path, size, mtime_ns, inode, state, checked_at) "
            "VALUES (1, :odd, 1, 2, 3, 'missing', 1003.5)",
            "INSERT INTO file (path, size, mtime_ns, inode, state, reason, checked_at) "
            "VALUES ('/torn', 1, 2, 3, 'skipped', 'is torn', 1005.5)",
        ):
            connection.execute(text(statement), {"odd": odd} if ":odd" in statement else {})
    with closing(place.open(create=False)) as catalog:
        model = catalog.model()
        assert model is not None
        assert list(catalog.places.known("/", model)) == [os.fsdecode(odd), "/torn"]
        (failure,) = catalog.places.failures()
        assert (failure.kind, failure.reason, failure.attempts) == ("content", "is torn", 1)
        assert catalog.vectors(model, [1])[1].tolist() == [[0, 1]]
        assert catalog.folders.get("/photos") is not None
        with catalog.database.reading() as connection:
            assert connection.execute(text("SELECT camera FROM image")).scalar() == "strasse"
        assert catalog.places.purge(missing_before=1004.0).files == 1
        with catalog.database.reading() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{previous}"


def upgrade() -> None:
    op.create_table("novelty", sa.Column("id", sa.Integer))
    raise RuntimeError
"""


def test_an_upgrade_that_fails_changes_nothing(
    catalog: Catalog, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchlib.catalog import database

    folder = tmp_path / "migrations"
    shutil.copytree(migrate.script_folder(), folder)
    (folder / "versions" / "next.py").write_text(NEXT.format(previous=REVISION))
    monkeypatch.setattr(migrate, "script_folder", lambda: folder)
    monkeypatch.setattr(database, "REVISION", "next")
    with pytest.raises(RuntimeError):
        place.open(create=False)
    with catalog.database.reading() as connection:
        assert connection.execute(text("SELECT to_regclass('novelty')")).scalar() is None
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [
            (REVISION,)
        ]
    catalog.put_setting("still", "usable")


def test_a_newer_library_is_left_alone(place: Place, engine: Engine) -> None:
    place.open().close()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LibraryTooNewError, match=r"revision 9999.*upgrade searchlib"):
        place.open()


def test_tables_of_another_program_are_left_alone(place: Place, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE file (theirs text)"))
        connection.execute(text("INSERT INTO file VALUES ('kept')"))
    with pytest.raises(LibraryError, match="another program has its tables here"):
        place.open()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT theirs FROM file")).scalar() == "kept"
        assert connection.execute(text("SELECT to_regclass('image')")).scalar() is None


def test_a_table_that_is_gone_is_damage(catalog: Catalog, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE setting"))
    with pytest.raises(LibraryDamagedError, match='relation "setting" does not exist'):
        catalog.setting("recipe")


# -- what belongs together -----------------------------------------------------------------------


def test_there_is_no_library_where_none_was_made(place: Place) -> None:
    with pytest.raises(LibraryNotFoundError, match="there is no library here"):
        place.open(create=False)
    assert not place.folder.exists()


def test_a_second_machine_makes_its_own_folder(catalog: Catalog, place: Place) -> None:
    catalog.put_setting("recipe", "inverted")
    with closing(Place(place.folder.with_name("second"), place.url).open(create=False)) as second:
        assert second.setting("recipe") == "inverted"
    assert place.folder.with_name("second").is_dir()


def test_a_folder_is_of_one_catalog_only(
    place: Place, new_schema: Callable[[], str], tmp_path: Path
) -> None:
    place.open().close()
    with pytest.raises(LibraryError, match=r"the catalog of this library is in postgresql://"):
        Catalog(place.folder, create=True)
    assert not (place.folder / "catalog.db").exists()
    other = new_schema()
    with pytest.raises(LibraryError, match=r"belongs to the catalog in postgresql://.*, not to"):
        Catalog(place.folder, create=True, url=other)
    Catalog(tmp_path / "plain", create=True).close()
    with pytest.raises(LibraryError, match="this folder has a library of its own"):
        Catalog(tmp_path / "plain", create=True, url=other)
    # Where the database was moved, the person says so.
    (place.folder / "catalog.url").unlink()
    Catalog(place.folder, create=True, url=other).close()


def test_a_folder_that_was_marked_by_half_is_marked_again(place: Place) -> None:
    place.open().close()
    marker = place.folder / "catalog.url"
    whole = marker.read_text(encoding="utf-8")
    assert whole.startswith("postgresql://")
    marker.write_text("", encoding="utf-8")
    place.open().close()
    assert marker.read_text(encoding="utf-8") == whole
    assert [path.name for path in place.folder.glob("catalog.url*")] == ["catalog.url"]


# -- servers that cannot be used -----------------------------------------------------------------


def says(folder: Path, url: str | URL) -> LibraryError:
    """The error of opening a library there; nothing that it carries shows the password."""
    if isinstance(url, URL):
        url = url.render_as_string(hide_password=False)
    with pytest.raises(LibraryError) as raised:
        Catalog(folder, create=True, url=url)
    told = "".join(traceback.format_exception(raised.value))
    for part in ("s3cret", PASSWORD):
        assert part not in told
    assert "\n" not in str(raised.value)
    assert not folder.exists()
    return raised.value


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "mysql://u:s3cret@h/d",
        "postgresql+psycopg2://u:s3cret@h/d",
        "postgresql://u:pass@s3cret@h/d",
        "postgresql://u:p@s3cret/word@h/d",
        "postgresql://u:pass@h:s3cret/d",
        "postgresql://u:s3cret@[::1/d",
    ],
)
def test_a_url_that_is_none_is_not_repeated(tmp_path: Path, url: str) -> None:
    assert "write it as postgresql://USER:PASSWORD@HOST/DATABASE" in str(says(tmp_path / "l", url))


def test_a_server_that_is_not_there_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = URL.create("postgresql", "me", PASSWORD, "127.0.0.1", 1, "photos")
    line = str(says(tmp_path / "l", url))
    assert line.startswith("postgresql://me@127.0.0.1:1/photos: the server cannot be reached (")
    assert PASSWORD not in caplog.text
    assert "s3cret" not in caplog.text


@pytest.fixture
def private(private_server: str) -> Callable[..., URL]:
    """The URL of the tests' own server with other parts, through its port where one is a host."""
    whole = make_url(private_server)

    def private(*, database: str = "postgres", **parts: Any) -> URL:
        url = whole.set(database=database)
        if "host" in parts:
            url = url.set(port=int(str(whole.query["port"])), query={})
        return url.set(**parts)

    return private


@pytest.fixture
def asked(private_server: str) -> Callable[[str], None]:
    """Runs a statement on the tests' own server."""
    import psycopg

    def ask(statement: str) -> None:
        with psycopg.connect(private_server, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    return ask


def test_the_password_counts_and_is_never_shown(
    private: Callable[..., URL], asked: Callable[[str], None], tmp_path: Path
) -> None:
    asked("DROP DATABASE IF EXISTS careful")
    asked("DROP ROLE IF EXISTS careful")
    asked(f"CREATE ROLE careful LOGIN PASSWORD '{PASSWORD}'")
    asked("CREATE DATABASE careful OWNER careful")
    right = private(host="127.0.0.1", username="careful", password=PASSWORD, database="careful")
    with closing(
        Catalog(tmp_path / "right", url=right.render_as_string(hide_password=False))
    ) as catalog:
        catalog.put_setting("recipe", "inverted")
        assert PASSWORD not in catalog.database.place
        assert PASSWORD not in repr(catalog.database.damaged("torn"))
    for file in (tmp_path / "right").iterdir():
        assert "s3cret" not in file.read_text()
    wrong = str(says(tmp_path / "l", right.set(password="s3cret-and-wrong")))
    assert "the server refuses the connection (password authentication failed" in wrong
    assert "the server refuses" in str(says(tmp_path / "l", right.set(username="nobody-known")))


def test_a_database_that_is_not_there_is_named(private: Callable[..., URL], tmp_path: Path) -> None:
    error = says(tmp_path / "l", private(database="nowhere", password=PASSWORD))
    assert isinstance(error, LibraryNotFoundError)
    assert "/nowhere?host=" in str(error)


def test_a_schema_that_is_not_there_is_said(private: Callable[..., URL], tmp_path: Path) -> None:
    url = private().update_query_dict({"options": "-csearch_path=nowhere"})
    assert "make one with CREATE SCHEMA" in str(says(tmp_path / "l", url))


def test_a_server_that_is_too_old_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "OLDEST_SERVER", 99)
    assert place.url is not None
    assert "searchlib needs 99 or newer" in str(says(place.folder, place.url))


def test_a_database_that_cannot_hold_all_text_is_refused(
    private: Callable[..., URL], asked: Callable[[str], None], tmp_path: Path
) -> None:
    asked("DROP DATABASE IF EXISTS latin")
    asked("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    assert "encoded as LATIN1" in str(says(tmp_path / "l", private(database="latin")))


def test_a_server_that_only_reads_can_be_searched(
    catalog: Catalog, model: ModelRecord, place: Place
) -> None:
    put(catalog, model, 1)
    assert place.url is not None
    url = make_url(place.url)
    options = f"{url.query['options']} -cdefault_transaction_read_only=on"
    reading = url.update_query_dict({"options": options}).render_as_string(hide_password=False)
    with closing(Catalog(place.folder, create=False, url=reading)) as reader:
        assert not reader.database.writable
        assert reader.last_seq(model) == 1
        with pytest.raises(LibraryReadOnlyError, match="ask for the right to write"):
            reader.put_setting("recipe", "inverted")


def test_a_user_who_may_only_read_can_search(
    private: Callable[..., URL], asked: Callable[[str], None], tmp_path: Path
) -> None:
    asked("DROP DATABASE IF EXISTS shown")
    asked("DROP ROLE IF EXISTS reader")
    asked("CREATE ROLE reader LOGIN")
    asked("CREATE DATABASE shown")
    owner = private(database="shown").render_as_string()
    with closing(Catalog(tmp_path / "owner", url=owner)) as catalog:
        model = catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)
        put(catalog, model, 1)
        with catalog.database.writing() as connection:
            connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    url = private(database="shown", username="reader").render_as_string()
    with closing(Catalog(tmp_path / "reader", url=url)) as reader:
        assert not reader.database.writable
        assert reader.all_vectors(model)[1].tolist() == [1]
        with pytest.raises(LibraryReadOnlyError, match="this user may not write here"):
            put(reader, model, 2)


def test_the_size_grows_with_what_is_kept(catalog: Catalog, model: ModelRecord) -> None:
    before = catalog.database.size()
    put(catalog, model, *range(500))
    assert catalog.database.size() > before > 0
