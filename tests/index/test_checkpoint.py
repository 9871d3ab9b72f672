"""A checkpoint is whole or refused, whatever happens to the file or to its writer."""

from __future__ import annotations

import errno
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.errors import CheckpointError, InputError
from searchlib.index import (
    FlatIndex,
    Recipe,
    checkpoint_seq,
    load_recipe,
    read_checkpoint,
    remove_stale_temporaries,
    stream_checkpoint,
    write_checkpoint,
)
from searchlib.index.checkpoint import HEADER_LENGTH, STALE_AFTER

IDENTITY = "0123456789abcdef" * 4
RECIPE = load_recipe("exact")


def vectors(rows: int, dimension: int = 24, seed: int = 0) -> npt.NDArray[np.float32]:
    numbers = np.random.default_rng(seed).standard_normal((rows, dimension))
    return (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)


def index_of(rows: int, dimension: int = 24, seed: int = 0) -> FlatIndex:
    index = FlatIndex(dimension, segment_rows=64)
    index.upsert(3 * np.random.default_rng(9).permutation(rows), vectors(rows, dimension, seed))
    return index


def write(path: Path, index: FlatIndex, seq: int = 5) -> None:
    write_checkpoint(path, index, identity=IDENTITY, recipe=RECIPE, seq=seq)


def read(path: Path, dimension: int = 24) -> tuple[FlatIndex, int]:
    return read_checkpoint(path, identity=IDENTITY, recipe=RECIPE, dimension=dimension)


def assert_same(one: FlatIndex, other: FlatIndex) -> None:
    assert one.ids().tolist() == other.ids().tolist()
    assert (one.vectors(one.ids()) == other.vectors(one.ids())).all()
    answers = [index.search(vectors(7, one.dimension, 99), 12) for index in (one, other)]
    assert (answers[0].ids == answers[1].ids).all()
    assert (answers[0].scores == answers[1].scores).all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exact.index"


@pytest.mark.parametrize("rows", [0, 1, 2, 200])
@pytest.mark.parametrize("dimension", [1, 3, 24])
def test_what_was_written_is_read(path: Path, rows: int, dimension: int) -> None:
    index = index_of(rows, dimension)
    write(path, index, seq=2**63 - 1)
    again, seq = read(path, dimension)
    assert seq == 2**63 - 1
    assert again.dimension == dimension
    assert_same(again, index)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_body_is_as_long_as_ids_and_codes(path: Path) -> None:
    write(path, index_of(200))
    assert path.stat().st_size == HEADER_LENGTH + 200 * (8 + 2 * 24)


def test_an_opened_checkpoint_is_mapped_and_copied_where_it_changes(path: Path) -> None:
    rows = 40_000
    index = FlatIndex(8)
    index.upsert(np.arange(rows), vectors(rows, 8))
    write(path, index)
    content = path.read_bytes()
    again, _ = read(path, 8)
    assert [segment.codes.flags.writeable for segment in again.segments()] == [False] * 3
    for one in (index, again):
        one.upsert([17, rows], vectors(2, 8, seed=1))
        assert one.remove([20, rows + 9]) == 1
    assert [segment.codes.flags.writeable for segment in again.segments()] == [True, False, True]
    assert_same(again, index)
    assert path.read_bytes() == content


def test_a_checkpoint_of_a_mapped_index_can_take_its_place(path: Path) -> None:
    write(path, index_of(300))
    first, _ = read(path)
    first.remove([3])
    write(path, first, seq=6)
    second, seq = read(path)
    assert seq == 6
    assert_same(second, first)


def test_who_has_the_old_checkpoint_open_keeps_it(path: Path) -> None:
    old = index_of(300)
    write(path, old)
    reader, _ = read(path)
    for seq in range(6, 9):
        write(path, index_of(500, seed=seq), seq)
    assert_same(reader, old)
    path.unlink()
    assert_same(reader, old)


def test_a_checkpoint_is_of_one_moment_while_the_index_changes(path: Path) -> None:
    index = FlatIndex(24, segment_rows=64)
    index.upsert(np.arange(2_000), np.tile(vectors(1), (2_000, 1)))
    stop = threading.Event()

    def change() -> None:
        seed = 1
        while not stop.is_set():
            index.upsert(np.arange(2_000), np.tile(vectors(1, seed=seed), (2_000, 1)))
            seed += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(15):
            write(path, index)
            again, _ = read(path)
            assert len(np.unique(again.vectors(np.arange(2_000)), axis=0)) == 1
    finally:
        stop.set()
        thread.join()


def refused(path: Path, reason: str, **other: object) -> None:
    how = {"identity": IDENTITY, "recipe": RECIPE, "dimension": 24} | other
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_checkpoint(path, **how)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_refused(path: Path) -> None:
    refused(path, "No such file")
    refused(path / "below", "No such file")
    path.mkdir()
    refused(path, "it is not a file")


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    refused(path, "it is not a file")


def test_what_is_of_another_is_refused(path: Path) -> None:
    write(path, index_of(50))
    refused(path, "another model", identity="f" * 64)
    refused(path, "another dimension", dimension=23)
    for recipe in (
        Recipe("exact", "SQ8", "inner_product", ""),
        Recipe("exact", "SQfp16", "l2", ""),
        Recipe("other", "SQfp16", "inner_product", ""),
    ):
        refused(path, "another recipe", recipe=recipe)


def resealed(content: bytearray, offset: int, value: bytes) -> bytes:
    """The file with another value in its header and the right checksum over it."""
    content[offset : offset + len(value)] = value
    seal = HEADER_LENGTH - 32
    content[seal:HEADER_LENGTH] = blake3(bytes(content[:seal])).digest()
    return bytes(content)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"SLINDEXX", "not a checkpoint"),
        (8, struct.pack("<I", 2), "format 2"),
        (12, struct.pack("<I", 8192), "another header length"),
        (148, struct.pack("<I", 1), "contradicts itself"),
        (152, struct.pack("<Q", 49), "contradicts itself"),
        (152, struct.pack("<Q", 2**64 - 1), "contradicts itself"),
        (168, struct.pack("<Q", 4104), "contradicts itself"),
        (176, struct.pack("<Q", 0), "contradicts itself"),
        (184, bytes(32), "body is damaged"),
    ],
)
def test_a_header_that_is_whole_and_wrong_is_refused(
    path: Path, offset: int, value: bytes, reason: str
) -> None:
    write(path, index_of(50))
    path.write_bytes(resealed(bytearray(path.read_bytes()), offset, value))
    refused(path, reason)


def test_a_header_that_claims_more_vectors_than_the_file_holds_is_refused(path: Path) -> None:
    write(path, index_of(50))
    more = struct.pack("<QQQQ", 10**15, 5, HEADER_LENGTH, 10**15 * (8 + 2 * 24))
    path.write_bytes(resealed(bytearray(path.read_bytes()), 152, more))
    refused(path, "bytes instead of")


def test_every_flipped_bit_is_found(path: Path) -> None:
    write(path, index_of(60))
    content = path.read_bytes()
    chance = random.Random(0)
    regions = [(0, 216), (216, 4064), (4064, 4096), (4096, 4096 + 480), (4576, len(content))]
    bits = [8 * chance.randrange(*region) + chance.randrange(8) for region in regions * 200]
    with path.open("r+b", buffering=0) as file:
        for bit in bits:
            place = bit // 8
            os.pwrite(file.fileno(), bytes([content[place] ^ 1 << bit % 8]), place)
            with pytest.raises(CheckpointError):
                read(path)
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert_same(read(path)[0], index_of(60))


def test_a_file_of_any_other_length_is_refused(path: Path, tmp_path: Path) -> None:
    write(path, index_of(60))
    content = path.read_bytes()
    chance = random.Random(1)
    lengths = {0, 1, 8, 216, 4064, 4095, 4096, 4097, 4576, len(content) - 1}
    lengths |= {chance.randrange(len(content)) for _ in range(100)}
    torn = tmp_path / "torn"
    for length in lengths:
        torn.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read(torn)
    for tail in (b"\0", content[:4096], content):
        torn.write_bytes(content + tail)
        with pytest.raises(CheckpointError):
            read(torn)
    for start, stop in ((0, 4096), (4096, 4576), (4576, len(content)), (0, len(content))):
        torn.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
        with pytest.raises(CheckpointError):
            read(torn)


@pytest.mark.parametrize("identity", ["", "f" * 63, "f" * 65, "F" * 64, "g" * 64, "f" * 64 + "\n"])
def test_an_identity_of_another_form_is_refused(path: Path, identity: str) -> None:
    with pytest.raises(InputError, match="64 hex characters"):
        write_checkpoint(path, index_of(2), identity=identity, recipe=RECIPE, seq=0)
    with pytest.raises(InputError, match="64 hex characters"):
        read_checkpoint(path, identity=identity, recipe=RECIPE, dimension=24)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("seq", [-1, 2**63])
def test_a_seq_of_another_form_is_refused(path: Path, seq: int) -> None:
    with pytest.raises(InputError, match="seq"):
        write(path, index_of(2), seq)
    assert not list(path.parent.iterdir())


def test_a_folder_that_is_not_there_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(path / "below" / "exact.index", index_of(2))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "searchlib-test", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    if not done:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(small_disk: Path) -> None:
    path = small_disk / "exact.index"
    old = index_of(2_000)
    write(path, old)
    for rows in (20_000, 7_300):
        with pytest.raises(OSError, match="No space left") as caught:
            write(path, index_of(rows), seq=6)
        assert caught.value.errno == errno.ENOSPC
        assert [file.name for file in small_disk.iterdir()] == [path.name]
    again, seq = read(path)
    assert seq == 5
    again.search(vectors(1), 3)
    assert_same(again, old)
    del again
    write(path, index_of(4_000), seq=7)
    assert read(path)[1] == 7


# Each line from the test starts a fresh writer, forked so that not each has to import everything.
WRITERS = """
import os, sys
from pathlib import Path
import numpy as np
from searchlib.index import FlatIndex, load_recipe, write_checkpoint

path, identity, recipe = Path(sys.argv[1]), sys.argv[2], load_recipe("exact")
for line in sys.stdin:
    first = int(line)
    writer = os.fork()
    if writer:
        print(os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]), flush=True)
        continue
    for seq in range(first, first + 10_000):
        codes = np.zeros((20_000, 24), np.float16)
        codes[:, seq % 24] = 1
        index = FlatIndex.over(np.arange(seq, seq + 20_000), codes)
        write_checkpoint(path, index, identity=identity, recipe=recipe, seq=seq)
        if seq == first:
            print(os.getpid(), flush=True)
    os._exit(0)
"""


def test_a_writer_that_is_killed_leaves_a_whole_checkpoint(path: Path) -> None:
    chance = random.Random(time.time_ns())
    last, attempt, torn = 0, 0, 0
    command = [sys.executable, "-W", "ignore", "-c", WRITERS, str(path), IDENTITY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        # Goes on until one was killed while it wrote; otherwise this would prove nothing.
        while attempt < 20 or not torn:
            attempt += 1
            print(attempt * 10_000, file=writers.stdin, flush=True)
            process = int(writers.stdout.readline())
            time.sleep(chance.uniform(0, 0.06))
            os.kill(process, signal.SIGKILL)
            assert int(writers.stdout.readline()) == -signal.SIGKILL
            index, seq = read(path)
            assert seq >= attempt * 10_000 > last
            last = seq
            assert index.ids().tolist() == list(range(seq, seq + 20_000))
            codes = np.concatenate([segment.codes for segment in index.segments()])
            assert (codes == np.eye(24)[seq % 24]).all()
            torn += len(remove_stale_temporaries(path.parent))
            assert [file.name for file in path.parent.iterdir()] == [path.name]
        writers.stdin.close()


def test_only_temporaries_of_writers_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "0123456789abcdef"
    stale = tmp_path / f".exact.index.{gone.pid}.{code}.checkpoint-tmp"
    old = tmp_path / f".exact.index.{os.getpid()}.{code}.checkpoint-tmp"
    kept = [
        tmp_path / f".exact.index.{os.getpid()}.{code[::-1]}.checkpoint-tmp",
        tmp_path / f".exact.index.{gone.pid}.{code}.checkpoint-tmp.jpg",
        tmp_path / f"exact.index.{gone.pid}.{code}.checkpoint-tmp",
        tmp_path / f".exact.index.{gone.pid}.photo.checkpoint-tmp",
        tmp_path / "exact.index",
    ]
    for file in (stale, old, *kept):
        file.write_bytes(b"x")
    long_ago = time.time() - STALE_AFTER - 60
    for file in (old, *kept[1:]):
        os.utime(file, (long_ago, long_ago))
    folder = tmp_path / f".folder.{gone.pid}.{code}.checkpoint-tmp"
    folder.mkdir()
    link = tmp_path / f".link.{gone.pid}.{code}.checkpoint-tmp"
    link.symlink_to(tmp_path / "exact.index")
    assert remove_stale_temporaries(tmp_path) == sorted([stale, old])
    assert sorted(tmp_path.iterdir()) == sorted([*kept, folder, link])


# -- streamed, and asked by its header alone -----------------------------------------------------


def stream(
    path: Path, ids: npt.NDArray[np.int64], *blocks: npt.NDArray[np.float16], seq: int = 5
) -> None:
    stream_checkpoint(path, ids, blocks, identity=IDENTITY, recipe=RECIPE, dimension=24, seq=seq)


def seq_of(path: Path, **other: object) -> int | None:
    how = {"identity": IDENTITY, "recipe": RECIPE, "dimension": 24} | other
    return checkpoint_seq(path, **how)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 150), cuts=st.lists(st.integers(0, 150), max_size=5))
def test_what_is_streamed_in_any_blocks_is_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, rows: int, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("streams")
    ids = np.random.default_rng(9).permutation(rows) * 3
    codes = vectors(rows).astype(np.float16)
    edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    blocks = [codes[a:b] for a, b in pairwise(edges)]
    stream(folder / "streamed", ids, *blocks, seq=77)
    index = FlatIndex(24, segment_rows=64)
    index.upsert(ids, codes)
    write(folder / "written", index, seq=77)
    assert (folder / "streamed").read_bytes() == (folder / "written").read_bytes()
    again, seq = read(folder / "streamed")
    assert seq == seq_of(folder / "streamed") == 77
    assert_same(again, index)


def test_blocks_are_taken_one_at_a_time(path: Path) -> None:
    sizes: list[int] = []

    def blocks() -> Iterator[npt.NDArray[np.float16]]:
        for _ in range(20):
            (temporary,) = path.parent.iterdir()
            sizes.append(temporary.stat().st_size)
            yield np.ones((1000, 24), np.float16)

    stream_checkpoint(
        path, np.arange(20_000), blocks(), identity=IDENTITY, recipe=RECIPE, dimension=24, seq=1
    )
    # What came before is on its way to the disk, but for a buffer.
    assert all(late > early for early, late in pairwise(sizes[1:]))
    assert len(read(path)[0]) == 20_000


def test_a_stream_that_breaks_off_leaves_the_checkpoint_before(path: Path) -> None:
    write(path, index_of(50))
    before = path.read_bytes()

    def blocks() -> Iterator[npt.NDArray[np.float16]]:
        yield vectors(30).astype(np.float16)
        raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError, match="the database is gone"):
        stream_checkpoint(
            path, np.arange(60), blocks(), identity=IDENTITY, recipe=RECIPE, dimension=24, seq=9
        )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("rows", [29, 31, 0])
def test_a_stream_of_too_few_or_too_many_vectors_makes_no_checkpoint_that_is_read(
    path: Path, rows: int
) -> None:
    try:
        stream(path, np.arange(30), vectors(rows).astype(np.float16))
    except InputError:
        assert not path.exists()
    else:
        with pytest.raises(CheckpointError):
            read(path)


def test_a_streamed_seq_of_another_form_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="seq"):
        stream(path, np.arange(0), seq=-1)
    assert not list(path.parent.iterdir())


def test_a_full_disk_ends_a_stream_as_it_ends_a_write(small_disk: Path) -> None:
    path = small_disk / "exact.index"
    write(path, index_of(100))
    blocks = [np.ones((1000, 24), np.float16)] * 40
    with pytest.raises(OSError, match="No space left"):
        stream(path, np.arange(40_000), *blocks, seq=6)
    assert list(small_disk.iterdir()) == [path]
    assert read(path)[1] == 5


def test_the_header_alone_says_what_is_in_a_checkpoint(path: Path) -> None:
    assert seq_of(path) is None
    write(path, index_of(50), seq=2**63 - 1)
    assert seq_of(path) == 2**63 - 1
    assert seq_of(path, identity="f" * 64) is None
    assert seq_of(path, dimension=23) is None
    assert seq_of(path, recipe=Recipe("exact", "SQ8", "inner_product", "")) is None
    path.unlink()
    path.mkdir()
    assert seq_of(path) is None


def test_a_flipped_bit_anywhere_in_the_header_makes_it_say_nothing(path: Path) -> None:
    write(path, index_of(5))
    content = path.read_bytes()
    chance = random.Random(0)
    for bit in [8 * place + chance.randrange(8) for place in range(0, HEADER_LENGTH, 7)]:
        torn = bytearray(content)
        torn[bit // 8] ^= 1 << bit % 8
        path.write_bytes(torn)
        assert seq_of(path) is None
    for length in (0, 1, 216, HEADER_LENGTH - 1):
        path.write_bytes(content[:length])
        assert seq_of(path) is None
    path.write_bytes(content[:HEADER_LENGTH])
    assert seq_of(path) == 5  # the body is not looked at
