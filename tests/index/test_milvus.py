"""`MilvusIndex` with Milvus Lite: in this process, and as a server that is killed and stopped."""

from __future__ import annotations

import base64
import inspect
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchlib.errors import IndexServiceError, InputError
from searchlib.index import NumpyIndex, Subset, VectorIndex, milvus_collection, milvus_index
from searchlib.index.milvus_index import MilvusIndex
from searchlib.index.milvus_service import _Lite
from tests.index.conformance import Conformance, repeatedly
from tests.index.kinds import (
    LATTICE,
    Kind,
    Model,
    check,
    check_content,
    lattice,
    model_of,
    recall,
    unit,
)
from tests.milvus import MISSING, SECRET, MilvusServer

if MISSING:
    pytest.skip("milvus-lite is not installed", allow_module_level=True)

IDENTITY = "ab" * 32


def opened(where: Path | str, dimension: int = 8, **options: Any) -> MilvusIndex:
    uri = where if isinstance(where, str) else str(where / "vectors.db")
    given = {"identity": IDENTITY, "library": "photos", "timeout": 60} | options
    return MilvusIndex(uri, dimension=dimension, **given)


def flush(index: MilvusIndex) -> None:
    """Milvus Lite keeps new rows in memory, where it compares all of them, until they are flushed
    to a segment, which is searched by its index."""
    with index._service.client() as client:
        client.flush(index._collection.name, timeout=60)


class Files:
    """Each index has a file of Milvus Lite of its own, so that reopening opens the file."""

    def __init__(self) -> None:
        self._folders: dict[MilvusIndex, tempfile.TemporaryDirectory[str]] = {}

    def make(self, dimension: int) -> MilvusIndex:
        folder = tempfile.TemporaryDirectory()
        try:
            index = opened(Path(folder.name), dimension)
        except BaseException:
            folder.cleanup()
            raise
        self._folders[index] = folder
        return index

    def reopen(self, index: MilvusIndex) -> MilvusIndex:
        folder = self._folders.pop(index)
        index.close()
        again = opened(Path(folder.name), index.dimension)
        self._folders[again] = folder
        return again

    def close(self, index: MilvusIndex) -> None:
        folder = self._folders.pop(index, None)
        if folder:
            index.close()
            folder.cleanup()


FILES = Files()
MILVUS = Kind(
    "milvus",
    FILES.make,
    settle=flush,
    reopen=FILES.reopen,
    close=FILES.close,
    dimensions=(1, 2, 17, 320),
    rounds=1,
)


class TestMilvus(Conformance):
    @pytest.fixture
    def kind(self) -> Kind:
        return MILVUS


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MilvusIndex]:
    with opened(tmp_path) as index:
        yield index


# Limits that take millions of vectors to reach are lowered.


@pytest.mark.parametrize("limit", ["FILTER_IDS", "OVERFETCHED"])
def test_a_large_subset_is_searched_exactly(
    index: MilvusIndex, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(milvus_index, "COMPARED_HERE", 3)
    monkeypatch.setattr(milvus_index, "FILTER_IDS", 20)
    if limit == "OVERFETCHED":
        monkeypatch.setattr(milvus_index, "OVERFETCHED", 0)
    # In no order of their ids, which Milvus Lite would keep among equal scores.
    model = model_of(np.random.default_rng(2).permutation(400), lattice(400))
    index.upsert(list(model), np.stack(list(model.values())))
    chosen = np.random.default_rng(1).permutation(500)
    for among in (chosen[:21], chosen[:200], chosen, np.arange(100, 150), np.arange(390, 450)):
        for k in (1, 9, 70):
            check(MILVUS, index, model, LATTICE[[3, 400, 900]], k, among=Subset.of(among))


@pytest.mark.parametrize("k", [1, 5, 15, 16, 40])
def test_more_equal_vectors_than_milvus_returns_are_told_apart(index: MilvusIndex, k: int) -> None:
    index._collection.most = 16
    ids = np.random.default_rng(2).permutation(300)
    model = model_of(ids, LATTICE[np.where(ids % 50, 5, 9)])
    index.upsert(ids, np.stack(list(model.values())))
    check(MILVUS, index, model, LATTICE[[5, 9, 700]], k)


def test_a_graph_finds_nearly_all_and_all_where_exactness_is_asked_for(tmp_path: Path) -> None:
    vectors, oracle = unit(1_500, 32, clusters=20), NumpyIndex(32)
    kind = Kind("graph", FILES.make, approximate=True)
    with opened(tmp_path, 32, index_type="HNSW") as index:
        for each in (index, oracle):
            each.upsert(np.arange(1_500), vectors)
            each.remove(np.arange(0, 1_500, 10))
        flush(index)
        model = {id: vectors[id] for id in oracle.ids().tolist()}
        for among in (None, Subset.of(range(1_400))):
            truth = oracle.search(vectors[:30], 10, among=among)
            assert recall(index.search(vectors[:30], 10, among=among), truth) >= 0.95
            check(kind, index, model, vectors[:3], 10, among=among, exact=True)
            # More than a graph of this width can be asked for at once.
            check(kind, index, model, vectors[:2], 1_349, among=among)


def test_what_a_bad_graph_does_not_lead_to_is_found_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_collection, "HNSW", {"M": 2, "efConstruction": 2})
    monkeypatch.setattr(milvus_collection, "EF", 1)
    vectors = unit(600, 16, clusters=60)
    kind = Kind("graph", FILES.make, approximate=True)
    with opened(tmp_path, 16, index_type="HNSW") as index:
        index.upsert(np.arange(600), vectors)
        flush(index)
        index.remove(np.arange(0, 600, 2))
        model = model_of(range(1, 600, 2), vectors[1::2])
        for among in (None, Subset.of(np.arange(1_500))):
            for k in (5, 200, 299, 300):
                check(kind, index, model, vectors[:5], k, among=among)


def test_an_upsert_larger_than_a_message_goes_in_blocks(index: MilvusIndex) -> None:
    index._collection.most = 900
    vectors = lattice(10_000)
    index.upsert(np.arange(10_000), vectors)
    assert len(index) == 10_000
    assert index.held(np.array([9_999, 10_000, 0])).tolist() == [True, False, True]
    assert index.held(np.empty(0, np.int64)).shape == (0,)
    assert (index.ids() == np.arange(10_000)).all()
    assert (index.vectors(np.arange(10_000)) == vectors).all()


def test_a_search_sees_no_part_of_a_change_that_goes_in_blocks(index: MilvusIndex) -> None:
    index._collection.most = 8
    before, after = np.tile(LATTICE[:1], (64, 1)), np.tile(LATTICE[9:10], (64, 1))
    index.upsert(np.arange(64), before)

    def look() -> None:
        assert len(np.unique(index.vectors(np.arange(64)), axis=0)) == 1
        assert len(np.unique(index.search(LATTICE[:1], 7).scores)) == 1

    with repeatedly(look, look):
        for _ in range(5):
            index.upsert(np.arange(64), after)
            index.upsert(np.arange(64), before)


# Whose vectors they are.


def test_models_and_libraries_do_not_meet(tmp_path: Path) -> None:
    with (
        opened(tmp_path) as mine,
        opened(tmp_path, identity="ab" * 31 + "cd") as of_another_model,
        opened(tmp_path, library="videos") as of_another_library,
    ):
        mine.upsert([1, 2], LATTICE[:2])
        mine.set_seq(7)
        for other in (of_another_model, of_another_library):
            check_content(other, {})
            assert other.seq() == 0
            other.upsert([1], LATTICE[5:6])
        check_content(mine, model_of([1, 2], LATTICE[:2]))


def test_a_collection_for_vectors_of_another_dimension_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(IndexServiceError, match="not for vectors of 9 numbers"):
        opened(tmp_path, 9)
    # Nor does it keep the file of Milvus Lite from others.
    assert not _Lite._users[str(tmp_path / "vectors.db")]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("identity", "no hex"),
        ("identity", ""),
        ("library", ""),
        ("library", "a b"),
        ("library", "ü"),
        ("timeout", 0),
    ],
)
def test_arguments_that_make_no_name_are_refused(tmp_path: Path, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=option):
        opened(tmp_path, **{option: value})


# The position in the change log.


def test_the_position_is_kept_and_is_no_vector(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        assert index.seq() == 0
        index.set_seq(np.int64(2**40))
        check(MILVUS, index, {}, LATTICE[:2], 3)
        index.upsert([0], -LATTICE[:1])
        index.set_seq(2**40 + 1)
        with pytest.raises(InputError):
            index.set_seq(-1)
    with opened(tmp_path) as index:
        assert index.seq() == 2**40 + 1
        model = {0: -LATTICE[0]}
        check_content(index, model)
        # The nearest is opposite, while the row of the position is at a right angle.
        for exact in (False, True):
            check(MILVUS, index, model, LATTICE[:2], 1, exact=exact)
        assert index.remove([0]) == 1
        assert index.seq() == 2**40 + 1
        index.set_seq(0)
        check_content(index, {})


def test_two_writers_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def write(first: int) -> None:
        try:
            with opened(tmp_path) as index:
                for id in range(first, 60, 2):
                    index.upsert([id, 1_000 + id], LATTICE[[id, id]])
                    assert index.remove([1_000 + id, 5_000]) == 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with opened(tmp_path) as index:
        check_content(index, model_of(range(60), LATTICE[:60]))


BLOCK = 25


def changed(index: VectorIndex, seq: int) -> None:
    """One change of a log: some are put in and some of the ones before are removed."""
    ids = np.arange(BLOCK) + BLOCK * seq
    index.upsert(ids, np.eye(8)[(ids * 5 + seq) % 8])
    index.remove(ids[::3] - BLOCK if seq else [])


# With few imports, so that it is soon at work.
PROGRAM = """
import sys
import numpy as np
from searchlib.errors import IndexServiceError
from searchlib.index.milvus_index import MilvusIndex

def opened(uri, **options):
    given = {"identity": "ab" * 32, "library": "photos", "timeout": 60} | options
    return MilvusIndex(uri, dimension=8, **given)

"""

WRITER = (
    PROGRAM.replace("def", f"VectorIndex, BLOCK = MilvusIndex, {BLOCK}\ndef", 1)
    + inspect.getsource(changed)
    + """
index = opened(sys.argv[1])
for seq in range(index.seq(), 10_000):
    changed(index, seq)
    index.set_seq(seq + 1)
    print(seq, flush=True)
"""
)


def program(code: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONWARNINGS": "error", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **options,
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_the_log_replays_into_what_killed_writers_left(tmp_path: Path) -> None:
    uri = str(tmp_path / "vectors.db")
    for turn, writes in enumerate((1, 9)):
        writer = program(WRITER, uri)
        assert writer.stdout
        for _ in range(writes):
            written = int(writer.stdout.readline())
        if not turn:
            with pytest.raises(IndexServiceError, match="another process has it open"):
                opened(tmp_path)
        time.sleep(0.003 * writes)
        writer.kill()
        writer.communicate()
        with opened(tmp_path) as index:
            assert index.seq() > written
    with opened(tmp_path) as index:
        seq = index.seq()
        until = seq + 2
        # The change after the position may have been made, in part or as a whole.
        for each in range(seq, until):
            changed(index, each)
        index.set_seq(until)
        oracle = NumpyIndex(8)
        for each in range(until):
            changed(oracle, each)
        check_content(index, model_of(oracle.ids(), oracle.vectors(oracle.ids())))


# Outages.


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(one_server: MilvusServer, request: pytest.FixtureRequest) -> MilvusServer:
    """Runs; a library of the test's own name is empty."""
    if not one_server.process:
        one_server.start()
    one_server.library = request.node.name[:64]
    return one_server


def connected(server: MilvusServer, **options: Any) -> MilvusIndex:
    return opened(server.uri, library=server.library, **options)


CALLS: dict[str, Callable[[MilvusIndex], object]] = {
    "len": len,
    "contains": lambda index: 1 in index,
    "ids": lambda index: index.ids(),
    "vectors": lambda index: index.vectors([1]),
    "upsert": lambda index: index.upsert([1], LATTICE[:1]),
    "remove": lambda index: index.remove([999]),
    "search": lambda index: index.search(LATTICE[:1], 1),
    "search among": lambda index: index.search(LATTICE[:1], 1, among=Subset.of([1])),
    "seq": lambda index: index.seq(),
    "set_seq": lambda index: index.set_seq(3),
}


def told(error: BaseException) -> str:
    """All that a program could show or log of an error."""
    return "".join(traceback.format_exception(error)) + str(error.__context__)


def test_an_outage_is_said_clearly_and_the_same_index_goes_on_after_it(
    server: MilvusServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model: Model = model_of(range(50), lattice(50))
    index = connected(server)
    index.upsert(list(model), np.stack(list(model.values())))
    index.set_seq(3)
    server.kill()
    for call in CALLS.values():
        with pytest.raises(IndexServiceError, match=f"^http://127.0.0.1:{server.port}: ") as caught:
            call(index)
        assert "\n" not in str(caught.value)
        assert SECRET not in told(caught.value)
    server.start()
    check_content(index, model)
    check(MILVUS, index, model, LATTICE[:5], 7)
    assert index.seq() == 3
    server.kill()
    server.start()
    model |= {77: LATTICE[5]}
    index.upsert([77], LATTICE[5:6])
    # pymilvus went on by itself, and Milvus Lite, unlike Milvus, has forgotten that the collection
    # was loaded: that is found out here, and the next call connects anew.
    with pytest.raises(IndexServiceError, match="load"):
        len(index)
    check_content(index, model)
    index.close()
    assert SECRET not in repr(index)
    assert SECRET not in caplog.text


def test_a_server_that_does_not_answer_does_not_hang_its_callers(server: MilvusServer) -> None:
    index = connected(server, timeout=0.5)
    index.upsert([1, 2], LATTICE[:2])
    server.send(signal.SIGSTOP)
    failed: list[BaseException] = []

    def ask() -> None:
        for _ in range(2):
            try:
                index.search(LATTICE[:1], 1)
            except IndexServiceError as error:
                failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 6
    assert not any(SECRET in told(error) for error in failed)
    with pytest.raises(IndexServiceError):
        connected(server, timeout=0.5)
    server.send(signal.SIGCONT)
    index._collection.timeout = 60
    check_content(index, model_of([1, 2], LATTICE[:2]))
    index.close()


def test_vectors_that_the_server_lost_are_not_taken_for_none(server: MilvusServer) -> None:
    index = connected(server)
    index.upsert([1], LATTICE[:1])
    index.set_seq(1)
    server.kill()
    server.start("another folder")
    for message in ("does not exist", "is gone; open the index again"):
        with pytest.raises(IndexServiceError, match=message):
            index.search(LATTICE[:1], 1)
    with connected(server) as again:
        check_content(again, {})
        assert again.seq() == 0
    index.close()


def test_two_processes_write_through_one_server(server: MilvusServer) -> None:
    # One after the other: Milvus Lite, unlike Milvus, does not bear writers at the same time.
    index = connected(server)
    index.upsert([1], LATTICE[:1])
    code = (
        "with opened(sys.argv[1], library=sys.argv[2]) as index:\n"
        "    index.upsert([2], np.eye(8)[1:2])\n"
        "    assert index.remove([1]) == 1\n"
        "    index.set_seq(5)\n"
    )
    assert ended(program(PROGRAM + code, server.uri, server.library)) == (0, b"", b"")
    check_content(index, {2: np.eye(8, dtype=np.float32)[1]})
    assert index.seq() == 5
    index.close()


ADDRESSES = {
    "nobody is there": "http://root:{}@127.0.0.1:9",
    "a key": "http://{}@127.0.0.1:9",
    "with characters of an address": "http://root:{}%40@/x@127.0.0.1:9/db?token={}",
    "with a token besides": "https://127.0.0.1:9",
    "no scheme": "root:{}@127.0.0.1:19530",
    "another scheme": "ftp://root:{}@127.0.0.1",
    "no host": "http://root:{}@",
    "nothing": "",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused_without_its_password(address: str) -> None:
    uri = ADDRESSES[address].replace("{}", SECRET)
    with pytest.raises((IndexServiceError, InputError)) as caught:
        opened(uri, token=SECRET if "besides" in address else None, timeout=1)
    assert SECRET not in told(caught.value)
    assert "\n" not in str(caught.value)


def test_what_milvus_says_of_a_token_is_not_told(tmp_path: Path) -> None:
    with opened(tmp_path, token=f"root:{SECRET}") as index:
        coded = base64.b64encode(f"root:{SECRET}".encode()).decode()
        for said in (f"root:{SECRET}", f"password {SECRET} is wrong", f"header {coded}"):
            assert "***" in str(index._service._error(said))
            assert SECRET not in str(index._service._error(said))
            assert coded not in str(index._service._error(said))


def test_a_file_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        opened(tmp_path / "missing")


def test_without_pymilvus_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"pip install 'searchlib\[milvus\]'"):
        opened(tmp_path)


def test_a_process_says_nothing_and_ends_although_it_closes_nothing(tmp_path: Path) -> None:
    code = (
        "index = opened(sys.argv[1])\n"
        "index.upsert([1], np.eye(8)[:1])\n"
        "assert index.ids().tolist() == [1]\n"
        "try:\n"
        "    opened('http://127.0.0.1:9', timeout=1)\n"
        "except IndexServiceError:\n"
        "    print('refused')\n"
    )
    uri = str(tmp_path / "vectors.db")
    assert ended(program(PROGRAM + code, uri)) == (0, b"refused\n", b"")
