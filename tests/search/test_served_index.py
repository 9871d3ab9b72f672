"""The index that a Milvus server keeps follows the catalog, whatever happens to either of them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat
from searchlib.errors import IndexServiceError, InputError, LibraryDamagedError
from searchlib.index import NumpyIndex, Subset
from searchlib.index.milvus_collection import MilvusCollection
from searchlib.search import served_index
from searchlib.search.inspection import measure, verify
from searchlib.search.served_index import ServedIndex
from tests.milvus import MISSING, SECRET, MilvusServer
from tests.search.asked import nearest

if MISSING:
    pytest.skip("milvus-lite is not installed", allow_module_level=True)

DIMENSION = 16
IDENTITY = "c" * 64
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(one_server: MilvusServer) -> MilvusServer:
    """Runs; what other tests left there is of other libraries."""
    if not one_server.process:
        one_server.start()
    return one_server


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path / "library", create=True)
    yield catalog
    catalog.close()


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity=IDENTITY, name="test", dimension=DIMENSION)


Opens = Callable[..., ServedIndex]


@pytest.fixture
def opened(catalog: Catalog, model: ModelRecord, server: MilvusServer) -> Iterator[Opens]:
    """Opens the index of the library once more; those that are left are closed after the test."""
    indexes: list[ServedIndex] = []

    def opened(catalog: Catalog = catalog) -> ServedIndex:
        indexes.append(ServedIndex(catalog, model, server.uri))
        return indexes[-1]

    yield opened
    for index in indexes:
        index.close()


def vector(number: int) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def put(catalog: Catalog, model: ModelRecord, *numbers: int) -> None:
    """Record an image for each number."""
    files = [
        ReadFile(
            f"/{n:06}.jpg",
            Stat(1, n, n),
            n.to_bytes(32, "big"),
            None,
            NewContent(FACTS, vector(n)),
        )
        for n in numbers
    ]
    catalog.record(model, files, gone=lambda *_: False)


def give_up(catalog: Catalog, *numbers: int) -> None:
    """Remove the images of these numbers."""
    catalog.places.mark_missing([f"/{n:06}.jpg" for n in numbers])
    catalog.places.purge(missing_before=1e12)


def replace(catalog: Catalog, model: ModelRecord, id: int, number: int) -> None:
    """Give an image another vector, as importing vectors over others does."""
    stored = vector(number).astype(np.float16).tobytes()
    with catalog.database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE embedding SET vector = ? WHERE image_id = ?", (stored, id)
        )
        connection.exec_driver_sql(
            f"INSERT INTO change (model_id, image_id) VALUES ({model.id}, {id})"
        )


def assert_in_step(index: ServedIndex, catalog: Catalog, model: ModelRecord) -> None:
    """It has the vectors of the catalog, and answers as brute force over them does."""
    _, ids, vectors = catalog.all_vectors(model)
    oracle = NumpyIndex(DIMENSION)
    oracle.upsert(ids, vectors)
    queries = np.stack([vector(n) for n in range(1000, 1005)])
    for among in (None, Subset.of(ids[::2])):
        expected = oracle.search(queries, 10, among=among)
        found = index.search(queries, 10, among=among)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    there = index.current()
    np.testing.assert_array_equal(there.ids(), ids)
    np.testing.assert_array_equal(there.vectors(ids), vectors.astype(np.float32))
    assert there.seq() == catalog.last_seq(model)


class Sent:
    """What went to the server.

    Attributes:
        rows: ids of vectors, in the order in which they were sent.
        fails_at: the number of the request that fails, from 1; None for none.
    """

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.requests = 0
        self.fails_at: int | None = None


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Counts what is sent, and can break off."""
    sent = Sent()
    send = MilvusCollection.upsert

    def counted(self: MilvusCollection, client: Any, ids: Any, vectors: Any) -> None:
        sent.requests += 1
        if sent.requests == sent.fails_at:
            raise IndexServiceError("http://127.0.0.1: cut off")
        sent.rows += ids.tolist()
        send(self, client, ids, vectors)

    monkeypatch.setattr(MilvusCollection, "upsert", counted)
    return sent


# -- following -----------------------------------------------------------------------------------


def test_an_empty_library_has_no_neighbours(
    catalog: Catalog, model: ModelRecord, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened()
    assert list(nearest(vector(1), catalog, model, index, 5)) == []
    monkeypatch.setattr(ServedIndex, "_opened", None)  # which would connect once more
    assert len(index) == 0


def test_it_follows_what_is_added_replaced_and_removed(
    catalog: Catalog, model: ModelRecord, opened: Opens, sent: Sent
) -> None:
    index = opened()
    put(catalog, model, *range(20))
    assert_in_step(index, catalog, model)
    put(catalog, model, *range(20, 40))
    replace(catalog, model, 3, 300)
    give_up(catalog, *range(10), 39)
    assert_in_step(index, catalog, model)
    assert len(index) == 29
    # Each once, and of those that were added and removed in between none.
    assert sorted(sent.rows) == list(range(1, 40))
    give_up(catalog, *range(40))
    assert_in_step(index, catalog, model)
    assert len(index) == 0
    put(catalog, model, 50)
    assert_in_step(index, catalog, model)


def test_who_opens_it_again_sends_only_what_is_missing(
    catalog: Catalog, model: ModelRecord, opened: Opens, sent: Sent
) -> None:
    put(catalog, model, *range(30))
    opened().save()
    put(catalog, model, *range(30, 35))
    sent.rows.clear()
    first = opened()
    assert_in_step(first, catalog, model)
    assert sorted(sent.rows) == list(range(31, 36))
    first.close()
    # The last that the server has was changed since, which is no sign of another catalog.
    replace(catalog, model, 35, 350)
    replace(catalog, model, 35, 351)
    sent.rows.clear()
    assert_in_step(opened(), catalog, model)
    give_up(catalog, 34)
    assert_in_step(opened(), catalog, model)
    assert_in_step(first, catalog, model)
    assert sent.rows == [35]


def test_after_many_changes_all_are_sent_in_blocks(
    catalog: Catalog,
    model: ModelRecord,
    opened: Opens,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served_index, "REPLAY_AT_MOST", 10)
    put(catalog, model, *range(8))
    index = opened()
    assert_in_step(index, catalog, model)
    put(catalog, model, *range(8, 18))
    sent.rows.clear()
    assert_in_step(index, catalog, model)
    assert sorted(sent.rows) == list(range(9, 19))
    put(catalog, model, *range(18, 28))
    give_up(catalog, 5)
    sent.rows.clear()
    assert_in_step(index, catalog, model)
    assert len(sent.rows) == 27


def test_a_stored_vector_that_is_none_is_damage(
    catalog: Catalog, model: ModelRecord, opened: Opens
) -> None:
    put(catalog, model, 1, 2)
    with catalog.database.writing() as connection:
        nothing = bytes(2 * DIMENSION)
        connection.exec_driver_sql("UPDATE embedding SET vector = ? WHERE image_id = 2", (nothing,))
    with pytest.raises(LibraryDamagedError, match="not valid"):
        opened().search(vector(1)[None], 1)


def test_the_token_comes_from_the_environment(
    catalog: Catalog, model: ModelRecord, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(served_index.TOKEN, f"me:{SECRET}")
    index = ServedIndex(catalog, model, f"http://127.0.0.1:{server.port}")
    assert index.current()._service._token == f"me:{SECRET}"
    index.close()


# -- outages -------------------------------------------------------------------------------------


def test_in_an_outage_adding_goes_on_and_searching_says_what_is_wrong(
    catalog: Catalog,
    model: ModelRecord,
    opened: Opens,
    server: MilvusServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(catalog, model, *range(10))
    before, after = opened(), opened()
    assert_in_step(before, catalog, model)
    server.kill()
    put(catalog, model, *range(10, 20))
    give_up(catalog, 3)
    with caplog.at_level(logging.WARNING):
        before.save()
        after.refresh()
    # pymilvus logs, too.
    ours = [record for record in caplog.records if record.name.startswith("searchlib")]
    assert [record.levelname for record in ours] == ["WARNING"] * 2
    assert all(f"http://127.0.0.1:{server.port}: " in record.getMessage() for record in ours)
    for index in (before, after):
        with pytest.raises(IndexServiceError, match=f"^http://127.0.0.1:{server.port}: ") as said:
            index.search(vector(1)[None], 3)
        assert SECRET not in str(said.value)
    assert SECRET not in caplog.text
    server.start()
    assert_in_step(before, catalog, model)
    assert_in_step(after, catalog, model)


def test_a_server_that_was_emptied_gets_all_vectors_again(
    catalog: Catalog, model: ModelRecord, opened: Opens, server: MilvusServer
) -> None:
    put(catalog, model, *range(10))
    unchanged, changed = opened(), opened()
    for index in (unchanged, changed):
        assert_in_step(index, catalog, model)
    server.kill()
    server.start(f"emptied of {catalog.database.folder.parent.name}")
    # Who finds out by a search says so, and has sent them before the next one.
    with pytest.raises(IndexServiceError):
        unchanged.search(vector(1)[None], 3)
    assert_in_step(unchanged, catalog, model)
    server.kill()
    server.start(f"emptied again of {catalog.database.folder.parent.name}")
    put(catalog, model, 10)
    for _ in range(2):
        changed.refresh()
    assert_in_step(changed, catalog, model)
    server.kill()  # for the next test it starts with what it had


@pytest.mark.parametrize("since", [0, 10, 50])
def test_a_catalog_from_a_backup_is_noticed(
    catalog: Catalog, model: ModelRecord, opened: Opens, tmp_path: Path, since: int
) -> None:
    put(catalog, model, *range(20))
    opened().save()
    restored = tmp_path / "restored"
    restored.mkdir()
    catalog.close()  # folds the write-ahead log into the file
    shutil.copy(catalog.database.folder / "catalog.db", restored)
    put(catalog, model, *range(20, 50))
    opened().save()
    backup = Catalog(restored, create=False)
    # The numbers of the images and of the changes are those of others before.
    put(backup, model, *range(100, 100 + since))
    index = opened(backup)
    assert_in_step(index, backup, model)
    assert len(index) == 20 + since
    backup.close()


def test_a_server_from_a_backup_is_sent_what_came_since(
    catalog: Catalog, model: ModelRecord, opened: Opens, server: MilvusServer, sent: Sent
) -> None:
    put(catalog, model, *range(20))
    index = opened()
    index.save()
    server.kill()
    backup = f"backup of {catalog.database.folder.parent.name}"
    shutil.copytree(server.folder / "data", server.folder / backup)
    server.start()
    put(catalog, model, *range(20, 25))
    assert_in_step(opened(), catalog, model)
    server.kill()
    server.start(backup)
    put(catalog, model, 25)
    sent.rows.clear()
    for _ in range(2):
        index.refresh()
    assert_in_step(index, catalog, model)
    assert sorted(set(sent.rows)) == list(range(21, 27))
    server.kill()  # for the next test it starts with what it had


# -- cut off -------------------------------------------------------------------------------------


@contextmanager
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalog gives its vectors five at a time."""
    whole = Catalog.vector_blocks

    @contextmanager
    def split(self: Catalog, model: ModelRecord) -> Iterator[Any]:
        with whole(self, model) as (seq, ids, blocks):
            fives = (b[at : at + 5] for b in blocks for at in range(0, len(b), 5))
            yield seq, ids, fives

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "vector_blocks", split)
        yield


def test_what_was_cut_off_while_all_were_sent_is_not_taken_for_the_whole(
    catalog: Catalog,
    model: ModelRecord,
    opened: Opens,
    sent: Sent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(catalog, model, *range(30))
    index = opened()
    with small_blocks(monkeypatch):
        sent.fails_at = 4
        for _ in range(2):
            with pytest.raises(IndexServiceError, match="cut off"):
                index.search(vector(1)[None], 3)
            sent.requests = 0
        assert len(sent.rows) == 30
        sent.fails_at = None
        assert_in_step(index, catalog, model)
        sent.requests, sent.fails_at = 0, 4
        other = opened()
        assert_in_step(other, catalog, model)
        with pytest.raises(IndexServiceError, match="cut off"):
            index.rebuild()
        # Who knows all of it goes on finding all of it, and so does who opens it now.
        sent.fails_at = None
        for each in (other, index, opened()):
            assert_in_step(each, catalog, model)


def test_what_was_cut_off_does_not_look_like_another_catalog_that_was_sent(
    catalog: Catalog,
    model: ModelRecord,
    opened: Opens,
    sent: Sent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(catalog, model, *range(20))
    restored = tmp_path / "restored"
    opened().save()
    catalog.close()
    restored.mkdir()
    shutil.copy(catalog.database.folder / "catalog.db", restored)
    put(catalog, model, *range(20, 50))
    opened().save()
    backup = Catalog(restored, create=False)
    put(backup, model, *range(100, 128))
    give_up(backup, 109)
    put(backup, model, *range(128, 150))
    index = opened(backup)
    with small_blocks(monkeypatch):
        sent.rows.clear()
        sent.requests, sent.fails_at = 0, 12
        with pytest.raises(IndexServiceError, match="cut off"):
            len(index)
        sent.fails_at = None
    # The change to which the server had got is there now, but not all before it.
    assert 49 in sent.rows
    assert_in_step(index, backup, model)
    backup.close()


def test_a_server_that_dies_while_all_are_sent_gets_them_again(
    catalog: Catalog,
    model: ModelRecord,
    opened: Opens,
    server: MilvusServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(catalog, model, *range(30))
    index, sends = opened(), MilvusCollection.upsert
    requests = 0

    def dies(self: MilvusCollection, client: Any, ids: Any, vectors: Any) -> None:
        nonlocal requests
        requests += 1
        if requests == 4:
            server.kill()
        sends(self, client, ids, vectors)

    with small_blocks(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(MilvusCollection, "upsert", dies)
        with pytest.raises(IndexServiceError):
            len(index)
    server.start()
    assert_in_step(index, catalog, model)
    assert_in_step(opened(), catalog, model)


def test_changes_that_were_cut_off_are_replayed(
    catalog: Catalog, model: ModelRecord, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(catalog, model, *range(10))
    index = opened()
    index.save()
    put(catalog, model, *range(10, 20))
    give_up(catalog, 2)

    def cut_off(*_: object) -> None:
        raise IndexServiceError("http://127.0.0.1: cut off")

    for step in ("upsert", "set_seq"):
        with monkeypatch.context() as patch:
            patch.setattr(MilvusCollection, step, cut_off)
            with pytest.raises(IndexServiceError, match="cut off"):
                len(index)
    assert_in_step(index, catalog, model)


# -- several at once -----------------------------------------------------------------------------


def test_many_threads_of_two_indexes_follow_at_once(
    catalog: Catalog, model: ModelRecord, opened: Opens, sent: Sent
) -> None:
    indexes = [opened(), opened()]
    failed: list[BaseException] = []

    def search(index: ServedIndex) -> None:
        try:
            for _ in range(10):
                least = catalog.counts(model).vectors
                assert len(index.search(vector(1)[None], 500).ids[0]) >= least
        except BaseException as error:
            failed.append(error)

    put(catalog, model, *range(30))
    threads = [threading.Thread(target=search, args=(each,)) for each in indexes * 2]
    for thread in threads:
        thread.start()
    for start in range(30, 60, 5):
        put(catalog, model, *range(start, start + 5))
    for thread in threads:
        thread.join()
    assert not failed
    for index in indexes:
        assert_in_step(index, catalog, model)
    # They took turns, so that none sent what the other one had sent.
    assert sorted(sent.rows) == list(range(1, 61))


PROGRAM = """
import sys
from pathlib import Path
from searchlib.catalog import Catalog
from searchlib.search.served_index import ServedIndex

catalog = Catalog(Path(sys.argv[1]), create=False)
model = catalog.model()
index = ServedIndex(catalog, model, sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    index.rebuild()
    assert len(index) == catalog.counts(model).vectors
"""


def test_two_processes_send_all_at_once_beside_one_that_searches(
    catalog: Catalog, model: ModelRecord, opened: Opens, server: MilvusServer
) -> None:
    put(catalog, model, *range(200))
    index = opened()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(catalog.database.folder), server.uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        for _ in range(2)
    ]
    for sender in senders:
        assert sender.stdout
        assert sender.stdout.readline() == b"ready\n"
    for sender in senders:
        assert sender.stdin
        sender.stdin.write(b"\n")
        sender.stdin.flush()
    while any(sender.poll() is None for sender in senders):
        assert len(index.search(vector(1)[None], 300).ids[0]) == 200
    for sender in senders:
        _, errors = sender.communicate(timeout=60)
        assert (sender.returncode, errors) == (0, b"")
    assert_in_step(index, catalog, model)


def test_while_another_process_sends_no_part_is_taken_for_the_whole(
    catalog: Catalog, model: ModelRecord, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_index, "WAIT_SECONDS", 0.1)
    put(catalog, model, *range(10))
    waiting = opened()
    other = FileLock(str(catalog.database.folder / "index.lock"), is_singleton=False)
    with other, pytest.raises(IndexServiceError, match="another process is sending"):
        waiting.search(vector(1)[None], 3)
    sender = opened()
    assert_in_step(sender, catalog, model)
    assert_in_step(waiting, catalog, model)
    put(catalog, model, 10)
    with other:
        # What was there before is found, and what is new as soon as it can be.
        assert len(waiting) == len(opened()) == 10
    assert_in_step(waiting, catalog, model)


def test_a_library_that_cannot_be_written_is_followed_all_the_same(
    catalog: Catalog, model: ModelRecord, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(catalog, model, *range(10))
    opened().save()
    put(catalog, model, 10)
    monkeypatch.setattr(catalog.database, "writable", False)
    index = opened()
    assert_in_step(index, catalog, model)
    index.current().remove([3])
    check = verify(index, catalog, model)
    assert (check.missing, check.healed) == (1, True)
    assert_in_step(index, catalog, model)


# -- inspection ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["nothing", "missing", "different", "extra", "all"])
def test_what_is_wrong_on_the_server_is_found_and_healed(
    catalog: Catalog, model: ModelRecord, opened: Opens, wrong: str
) -> None:
    put(catalog, model, *range(30))
    index = opened()
    there = index.current()
    if wrong in ("missing", "all"):
        there.remove([4, 5])
    if wrong in ("different", "all"):
        there.upsert([7], vector(700)[None])
    if wrong in ("extra", "all"):
        there.upsert([100, 101, 102], np.stack([vector(n) for n in range(3)]))
    expected = {
        "missing": 2 * (wrong in ("missing", "all")),
        "different": wrong in ("different", "all"),
        "extra": 3 * (wrong in ("extra", "all")),
    }
    steps: list[tuple[str, int, int]] = []
    check = verify(index, catalog, model, on_progress=lambda *step: steps.append(step))
    assert {name: getattr(check, name) for name in expected} == expected
    assert (check.checked, check.damage) == (30, None)
    assert check.healed == (not check.is_right) == (wrong != "nothing")
    assert steps[-1] == ("comparing", 30, 30)
    assert verify(index, catalog, model).is_right
    assert_in_step(index, catalog, model)


def test_tuning_is_refused_in_words(opened: Opens) -> None:
    with pytest.raises(InputError, match="kept by Milvus; it is tuned there"):
        measure(opened(), target=0.9)
