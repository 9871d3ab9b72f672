"""Catalogs in a SQLite file, and in PostgreSQL where there is a server or one can be started."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from searchlib.catalog import Catalog
from tests.catalog.places import Place, emptied

# Where the binaries lie that are not in the PATH.
_BINARIES = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin")
# Of the options, only those about speed differ from a server's usual ones.
_OPTIONS = (
    "fsync=off",
    "full_page_writes=off",
    "listen_addresses=127.0.0.1",
    "shared_buffers=16MB",
)
# A role with a password, and all others without.
_ACCESS = """\
host all careful 127.0.0.1/32 scram-sha-256
local all careful scram-sha-256
local all all trust
"""


@pytest.fixture(scope="session")
def private_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of the tests' own; skips where it is not installed."""
    pytest.importorskip("psycopg", reason="no psycopg: install searchlib[postgresql]")
    found = [str(path) for each in _BINARIES for path in sorted(Path("/").glob(each[1:]))]
    search = os.pathsep.join([*reversed(found), os.environ.get("PATH", "")])
    initdb, postgres = (shutil.which(name, path=search) for name in ("initdb", "postgres"))
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL: install it, or set SEARCHLIB_TEST_POSTGRESQL to a URL")
    # A socket's path may have a hundred characters, fewer than pytest's folders.
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder, data = Path(name), Path(name) / "data"
        user = _unprivileged(folder)
        made = subprocess.run(
            [initdb, "-D", data, "-U", "searchlib", "-A", "trust", "-E", "UTF8", "--locale=C",
             "--no-sync"],
            capture_output=True, cwd=folder, **user,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr.decode()
        (data / "pg_hba.conf").write_text(_ACCESS)
        port = _free_port()
        with (folder / "log").open("wb") as log:
            settings = [part for option in _OPTIONS for part in ("-c", option)]
            server = subprocess.Popen(
                [postgres, "-D", data, "-k", folder, "-p", str(port), *settings],
                stderr=log, cwd=folder, **user,
            )  # fmt: skip
        url = f"postgresql://searchlib@/postgres?host={folder}&port={port}"
        try:
            _wait_for(url, server, folder / "log")
            yield url
        finally:
            # At once: of what it holds nothing is to be kept.
            server.send_signal(signal.SIGQUIT)
            server.wait()


def _unprivileged(folder: Path) -> dict[str, Any]:
    """How to run a program that refuses to be root's."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no user nobody")


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    patience = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < patience, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> str:
    """The URL of a PostgreSQL database that tests may make schemas in."""
    named = os.environ.get("SEARCHLIB_TEST_POSTGRESQL")
    if named:
        pytest.importorskip("psycopg", reason="no psycopg: install searchlib[postgresql]")
        return named
    private: str = request.getfixturevalue("private_server")
    return private


@pytest.fixture(scope="session")
def new_schema(server: str) -> Iterator[Callable[[], str]]:
    """Makes an empty schema and gives its URL."""
    import psycopg
    from sqlalchemy import make_url

    url = make_url(server)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    numbers = count()
    made = []

    def new_schema() -> str:
        name = f"searchlib_{os.getpid()}_{next(numbers)}"
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        made.append(name)
        options = f"-csearch_path={name}"
        return url.update_query_dict({"options": options}).render_as_string(hide_password=False)

    yield new_schema
    if os.environ.get("SEARCHLIB_TEST_POSTGRESQL"):
        with psycopg.connect(plain, autocommit=True) as connection:
            for name in made:
                connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Place]:
    """Gives a place for a library, where nothing is yet; in each engine."""
    if request.param == "sqlite":
        return lambda: Place(tmp_path_factory.mktemp("place") / "library", None)
    new_schema = request.getfixturevalue("new_schema")
    return lambda: Place(tmp_path_factory.mktemp("place") / "library", new_schema())


@pytest.fixture(scope="session")
def _emptied_again(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture
def place(new_place: Callable[[], Place], _emptied_again: Place, tmp_path: Path) -> Place:
    """Where the test's own library is; nothing is in it yet."""
    url = _emptied_again.url
    if url is None:
        return new_place()
    # A schema of its own for each test takes longer, and thousands of files.
    with closing(Place(tmp_path / "emptied", url).open()) as catalog:
        emptied(catalog)
    return Place(tmp_path / "library", url)


@pytest.fixture
def catalog(place: Place) -> Iterator[Catalog]:
    """An empty catalog of the test's own."""
    catalog = place.open()
    yield catalog
    catalog.close()


@pytest.fixture(scope="module")
def shared_catalog(new_place: Callable[[], Place]) -> Iterator[Catalog]:
    """One catalog for all tests of a module."""
    catalog = new_place().open()
    yield catalog
    catalog.close()
