"""The database file: durable settings, migrations, and words for every way that it fails."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from searchlib.catalog import database, migrate
from searchlib.catalog.database import Database
from searchlib.catalog.migrate import config
from searchlib.catalog.schema import REVISION, Base
from searchlib.errors import (
    LibraryDamagedError,
    LibraryNotFoundError,
    LibraryTooNewError,
)
from tests.catalog.places import Place


def test_the_newest_migration_is_the_one_the_schema_names() -> None:
    assert ScriptDirectory.from_config(config()).get_current_head() == REVISION


def test_the_migrations_make_exactly_the_tables_of_the_schema(
    new_place: Callable[[], Place],
) -> None:
    place = new_place()
    opened = Database(place.folder, create=True, url=place.url)
    with opened.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        for table in Base.metadata.sorted_tables:
            columns = {
                c["name"]: c["nullable"] for c in inspect(connection).get_columns(table.name)
            }
            assert columns == {column.name: column.nullable for column in table.columns}
    opened.close()


def test_the_settings_that_keep_data_safe_are_on(tmp_path: Path) -> None:
    opened = Database(tmp_path, create=True)
    with opened.reading() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    opened.close()


def test_there_is_no_library_where_none_was_made(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFoundError, match="there is no library here"):
        Database(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_transaction_leaves_nothing(place: Place) -> None:
    opened = Database(place.folder, create=True, url=place.url)

    def fail_half_way() -> None:
        with opened.writing() as connection:
            connection.execute(text("INSERT INTO folder (path, added_at) VALUES ('a', 0)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    with opened.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM folder")).scalar() == 0
    opened.close()


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    Database(tmp_path, create=True).close()
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(LibraryTooNewError, match=r"revision 9999.*upgrade searchlib"):
        Database(tmp_path, create=True)
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{previous}"


def upgrade() -> None:
    op.create_table("novelty", sa.Column("id", sa.Integer))
    {then}
"""


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the program one more migration, which ends with a line of the test's choice."""

    def release(then: str) -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(migrate.script_folder(), folder)
        script = NEXT.format(previous=REVISION, then=then)
        (folder / "versions" / "next.py").write_text(script, encoding="utf-8")
        monkeypatch.setattr(migrate, "script_folder", lambda: folder)
        monkeypatch.setattr(database, "REVISION", "next")

    return release


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        return {name for (name,) in connection.execute(query)}


def test_an_upgrade_keeps_a_copy_of_the_database_before_it(
    tmp_path: Path, next_version: Callable[[str], None]
) -> None:
    folder = tmp_path / "library"
    Database(folder, create=True).close()
    next_version("")
    Database(folder, create=False).close()
    assert "novelty" in tables(folder / "catalog.db")
    assert "novelty" not in tables(folder / "catalog.db.before-next")
    assert "image" in tables(folder / "catalog.db.before-next")


def test_an_upgrade_that_fails_changes_nothing(
    tmp_path: Path, next_version: Callable[[str], None]
) -> None:
    folder = tmp_path / "library"
    Database(folder, create=True).close()
    next_version("raise RuntimeError")
    with pytest.raises(RuntimeError):
        Database(folder, create=False)
    assert "novelty" not in tables(folder / "catalog.db")


def test_a_file_that_is_no_database_is_damage(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LibraryDamagedError, match="is damaged"):
        Database(tmp_path, create=True)
    assert (tmp_path / "catalog.db").read_bytes().startswith(b"not a database")


def test_two_openings_at_once_make_one_schema(new_place: Callable[[], Place]) -> None:
    place = new_place()
    failures: list[Exception] = []

    def open_it() -> None:
        try:
            Database(place.folder, create=True, url=place.url).close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_up_to_date_library_opens_without_alembic_and_without_another_driver(
    tmp_path: Path,
) -> None:
    Database(tmp_path, create=True).close()
    script = (
        "import sys; from pathlib import Path; from searchlib.catalog.database import Database;"
        "Database(Path(sys.argv[1]), create=False).close();"
        "sys.exit('alembic' in sys.modules or 'psycopg' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path]).returncode == 0


def test_a_database_whose_driver_is_missing_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from pathlib import Path\n"
        "from searchlib.catalog import Catalog\n"
        "Catalog(Path(sys.argv[1]) / 'library', url='postgresql://h/d')"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        "LibraryError: the driver of PostgreSQL is not installed; run `pip install" in done.stderr
    )
    assert not list(tmp_path.iterdir())


def test_names_with_signs_that_urls_use_are_opened_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "100% #1 caf\xe9?"
    Database(folder, create=True).close()
    assert (folder / "catalog.db").exists()
    Database(folder, create=False).close()
    shutil.rmtree(folder)
