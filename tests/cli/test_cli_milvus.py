"""A library whose vectors Milvus keeps, through the real command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Completed, Run
from tests.milvus import MISSING, SECRET, MilvusServer

if MISSING:
    pytest.skip("milvus-lite is not installed", allow_module_level=True)

Command = Callable[..., Completed]


@pytest.fixture
def command(run: Run, filled_library: Path) -> Command:
    """Runs `searchlib` on a library of eight photographs."""

    def command(*arguments: str | Path, code: int = 0, **options: object) -> Completed:
        done = run(*arguments, "--library", filled_library, **options)  # type: ignore[arg-type]
        assert done.returncode == code, done.stderr
        assert SECRET.encode() not in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr
        return done

    return command


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path)
    server.start()
    yield server
    server.kill()


def found(command: Command, photograph: Path) -> list[tuple[str, float]]:
    """Paths and scores of all that `search` finds, the nearest first."""
    answer = json.loads(command("search", photograph, "--json", "-k", "20").stdout)
    return [(match["path"], round(match["score"], 4)) for match in answer["matches"]]


def test_a_file_of_milvus_lite_answers_as_the_exact_index_does(
    command: Command, original_photos: Path, tmp_path: Path
) -> None:
    cat = original_photos / "cat.jpg"
    exact = found(command, cat)
    assert len(exact) == 8
    # Relative to where the command runs, and found from elsewhere too.
    used = command("index", "use", "milvus", "--uri", "vectors.db", cwd=tmp_path)
    file = tmp_path / "vectors.db"
    assert used.stdout.startswith(f"milvus is chosen, at {file}: the vectors are sent".encode())
    assert found(command, cat) == exact
    assert file.exists()

    listed = command("index", "list").stdout.decode().splitlines()
    assert [line for line in listed if line[0] != " "] == [
        "exact",
        "inverted",
        "milvus  in use, chosen",
    ]
    (milvus,) = (each for each in json.loads(command("index", "list", "--json").stdout)[2:])
    assert (milvus["name"], milvus["uri"]) == ("milvus", str(file))
    assert b"index        milvus, 8 vectors" in command("status").stdout

    built = command("index", "build").stdout.decode()
    assert built == f"nothing to build: milvus at {file} has all vectors\n"
    assert command("index", "build", "--always").stdout.startswith(b"built in ")
    assert command("index", "verify").stdout == b"8 vectors compared: the index is right\n"
    tuned = command("index", "tune", "--recall", "0.9", code=2)
    assert b"kept by Milvus; it is tuned there" in tuned.stderr
    assert json.loads(command("status", "--json").stdout)["recall_target"] == 0.99

    command("index", "use", "auto")
    assert b"index        exact, 8 vectors" in command("status").stdout
    shutil.rmtree(file, ignore_errors=True)
    assert found(command, cat) == exact


def test_what_is_added_while_the_server_is_away_is_not_lost(
    command: Command, server: MilvusServer, photos: Path, original_photos: Path
) -> None:
    uri = f"http://127.0.0.1:{server.port}"
    cat = original_photos / "cat.jpg"
    command("index", "use", "milvus", "--uri", server.uri)
    assert len(found(command, cat)) == 8
    server.kill()
    added = command("add", photos)
    assert f"{uri}: Milvus cannot be used" in added.stderr.decode()
    assert b"the index follows when it can be reached again" in added.stderr
    (photos / "new.jpg").write_bytes(cat.read_bytes() + b"behind the picture")
    command("add", photos)
    for asked in (("search", cat), ("index", "verify"), ("index", "build")):
        refused = command(*asked, code=2)
        assert refused.stderr.startswith(f"searchlib: {uri}: Milvus cannot be used".encode())
        assert refused.stderr.count(b"\n") == 1
    command("status")
    command("index", "list")
    server.start()
    paths = [path for path, _ in found(command, cat)]
    assert str(photos / "new.jpg") in paths
    assert command("index", "verify").stdout == b"9 vectors compared: the index is right\n"


@pytest.mark.parametrize("uri", ["ftp://me:{}@localhost", "me:{}@localhost:19530", "localhost"])
def test_what_is_no_address_is_refused_at_once(command: Command, uri: str) -> None:
    used = command("index", "use", "milvus", "--uri", uri.format(SECRET), code=2)
    assert b"is no address of Milvus" in used.stderr
    assert b"index        exact" in command("status").stdout
