"""A checkpoint is whole or refused, whatever happens to its files or to its writer."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
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
    FaissIndex,
    Tuning,
    checkpoint,
    load_recipe,
    merge,
    read_checkpoint,
    read_saved,
    remove_stale_temporaries,
    remove_unused,
    stream_checkpoint,
    tune,
    write_checkpoint,
)
from searchlib.index.base_file import BLOCK_ROWS
from searchlib.index.sealed import PAGE, STALE_AFTER
from tests.index.kinds import unit

IDENTITY = "0123456789abcdef" * 4
DIMENSION = 24
INVERTED = replace(load_recipe("inverted"), least=0)
EXACT = load_recipe("exact")


@pytest.fixture(autouse=True, scope="module")
def _tuned_quickly() -> Iterator[None]:
    """To tune takes most of the time of a merge, and is of no matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "tune", partial(tune, sample=80))
        yield


def index_of(rows: int, dimension: int = DIMENSION, seed: int = 0) -> FaissIndex:
    index = FaissIndex(dimension, segment_rows=64)
    ids = 3 * np.random.default_rng(9).permutation(rows)
    index.upsert(ids, unit(rows, dimension, seed, clusters=20))
    return index


def write(path: Path, index: FaissIndex, seq: int = 5) -> None:
    write_checkpoint(path, index, identity=IDENTITY, seq=seq)


def read(path: Path, dimension: int = DIMENSION) -> tuple[FaissIndex, int]:
    return read_checkpoint(path, identity=IDENTITY, dimension=dimension)


def assert_same(one: FaissIndex, other: FaissIndex) -> None:
    assert one.ids().tolist() == other.ids().tolist()
    assert (one.vectors(one.ids()) == other.vectors(one.ids())).all()
    queries = unit(7, one.dimension, 99, clusters=20)
    for exact in (False, True):
        answers = [index.search(queries, 12, exact=exact) for index in (one, other)]
        assert (answers[0].ids == answers[1].ids).all()
        assert (answers[0].scores == answers[1].scores).all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index-0123.ckpt"


def based(path: Path) -> FaissIndex:
    """An index with a base, dead rows in it, and fresh vectors beside it."""
    index = index_of(1_000)
    assert index.merge(INVERTED, checkpoint=path)
    index.remove(np.arange(0, 300, 3))
    index.upsert(np.arange(600, 900), unit(300, DIMENSION, 3, clusters=20))
    assert (index.fresh, index.dead) == (300, 200)
    return index


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a base, not to be changed."""
    path = tmp_path_factory.mktemp("original") / "index-0123.ckpt"
    write(path, based(path))
    return path


@pytest.fixture
def with_base(original: Path, tmp_path: Path) -> Path:
    """A checkpoint with a base of the test's own."""
    for file in original.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / original.name


def file_of(path: Path, suffix: str) -> Path:
    (file,) = path.parent.glob(f"*.{suffix}")
    return file


# -- whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 2, 200])
@pytest.mark.parametrize("dimension", [1, 3, 24])
def test_what_was_written_is_read(path: Path, rows: int, dimension: int) -> None:
    index = index_of(rows, dimension)
    write(path, index, seq=2**63 - 1)
    again, seq = read(path, dimension)
    assert seq == 2**63 - 1
    assert again.dimension == dimension
    assert again.base is None
    assert_same(again, index)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_body_is_as_long_as_ids_and_codes(path: Path) -> None:
    write(path, index_of(200))
    assert path.stat().st_size == PAGE + 200 * (8 + 2 * DIMENSION)


def test_an_index_with_a_base_is_read_as_it_was(path: Path) -> None:
    index = based(path)
    write(path, index, seq=77)
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".base", ".ckpt", ".faiss"]
    again, seq = read(path)
    assert seq == 77
    assert (again.base, again.fresh, again.dead) == (index.base, 300, 200)
    assert_same(again, index)
    # The vectors of the base are in its own file, and the checkpoint holds the rest.
    assert path.stat().st_size == PAGE + 300 * (8 + 2 * DIMENSION) + 1_000 // 8


def test_a_base_whose_rows_are_all_dead_is_read_as_it_was(path: Path) -> None:
    index = based(path)
    index.remove(index.ids())
    write(path, index)
    again, _ = read(path)
    assert len(again) == 0
    assert again.dead == 1_000
    assert again.search(unit(2, DIMENSION), 3).ids.shape == (2, 0)
    again.upsert([7], unit(1, DIMENSION))
    assert again.search(unit(1, DIMENSION), 3).ids.tolist() == [[7]]


def test_every_generation_is_read_with_its_own_base(path: Path) -> None:
    index = based(path)
    generations = set()
    for round in range(6):
        write(path, index, seq=round)
        assert index.base is not None
        generations.add(index.base.generation)
        again, seq = read(path)
        assert seq == round
        assert_same(again, index)
        gone = remove_unused(path, keep=index.base.generation)
        assert len(gone) == (2 if round else 0)
        assert_same(again, index)
        again.upsert(5_000 + np.arange(50) + 50 * round, unit(50, DIMENSION, round, clusters=20))
        again.remove(again.ids()[::7])
        assert again.merge(INVERTED, checkpoint=path)
        index = again
    assert len(generations) == 6


def test_a_tuning_is_kept(path: Path) -> None:
    index = based(path)
    tuning = Tuning(7, 11, recall=0.987654321, target=0.95)
    index.tune(tuning)
    write(path, index)
    base = read(path)[0].base
    assert base is not None
    assert base.tuning == tuning


def test_a_base_in_memory_alone_is_not_saved(path: Path) -> None:
    index = index_of(600)
    assert index.merge(INVERTED)
    with pytest.raises(InputError, match="not written to files"):
        write(path, index)
    assert not list(path.parent.iterdir())


def test_an_index_that_went_back_to_exact_is_saved_without_a_base(path: Path) -> None:
    index = based(path)
    write(path, index)
    again, _ = read(path)
    assert again.merge(EXACT, checkpoint=path)
    write(path, again, seq=6)
    remove_unused(path, keep="")
    assert list(path.parent.iterdir()) == [path]
    assert_same(read(path)[0], index_with_content_of(index))
    assert_same(again, read(path)[0])


def index_with_content_of(index: FaissIndex) -> FaissIndex:
    exact = FaissIndex(index.dimension)
    exact.upsert(index.ids(), index.vectors(index.ids()))
    return exact


def test_an_opened_checkpoint_is_mapped_and_copied_where_it_changes(path: Path) -> None:
    rows = 40_000
    index = FaissIndex(8)
    index.upsert(np.arange(rows), unit(rows, 8))
    write(path, index)
    content = path.read_bytes()
    again, _ = read(path, 8)

    def writeable() -> list[bool]:
        return [segment.codes.flags.writeable for segment in again.state().fresh.segments]

    assert writeable() == [False] * 3
    for one in (index, again):
        one.upsert([17, rows], unit(2, 8, seed=1))
        assert one.remove([20, rows + 9]) == 1
    assert writeable() == [True, False, True]
    assert_same(again, index)
    assert path.read_bytes() == content


def test_changes_of_an_index_with_a_base_leave_its_files_alone(with_base: Path) -> None:
    content = {file: file.read_bytes() for file in with_base.parent.iterdir()}
    index, _ = read(with_base)
    index.upsert(index.ids()[::2], unit(-(-len(index) // 2), DIMENSION, 5))
    index.remove(index.ids()[::3])
    index.merge(INVERTED)
    index.merge(EXACT)
    assert {file: file.read_bytes() for file in with_base.parent.iterdir()} == content


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


def test_who_has_an_old_base_open_keeps_it_when_its_files_are_removed(with_base: Path) -> None:
    reader, _ = read(with_base)
    for file in with_base.parent.iterdir():
        file.unlink()
    # Nothing of the base was read before its file was gone.
    exact = index_with_content_of(reader)
    queries = unit(20, DIMENSION, 8, clusters=20)
    found = reader.search(queries, 10, exact=True)
    assert (found.ids == exact.search(queries, 10).ids).all()
    assert (np.isin(reader.search(queries, 10).ids, exact.ids())).all()
    reader.upsert([10**6], queries[:1])
    assert reader.search(queries[:1], 1).ids.tolist() == [[10**6]]


def test_a_checkpoint_is_of_one_moment_while_the_index_changes(path: Path) -> None:
    index = FaissIndex(DIMENSION, segment_rows=64)
    index.upsert(np.arange(2_000), np.tile(unit(1, DIMENSION), (2_000, 1)))
    stop = threading.Event()

    def change() -> None:
        seed = 1
        while not stop.is_set():
            index.upsert(np.arange(2_000), np.tile(unit(1, DIMENSION, seed), (2_000, 1)))
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


# -- or refused ----------------------------------------------------------------------------------


def refused(path: Path, reason: str, **other: object) -> None:
    how = {"identity": IDENTITY, "dimension": DIMENSION} | other
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_checkpoint(path, **how)  # type: ignore[arg-type]
    assert str(path.parent) in str(caught.value)
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
    assert read_saved(path, identity=IDENTITY, dimension=DIMENSION) is None


def test_what_is_of_another_is_refused(path: Path) -> None:
    write(path, index_of(50))
    refused(path, "another model", identity="f" * 64)
    refused(path, "another dimension", dimension=23)


def test_a_base_is_no_checkpoint_and_a_checkpoint_no_base(with_base: Path) -> None:
    base, faiss = file_of(with_base, "base"), file_of(with_base, "faiss")
    whole = with_base.read_bytes()
    for other in (base, faiss):
        shutil.copy(other, with_base)
        refused(with_base, "kind")
    with_base.write_bytes(whole)
    base.write_bytes(whole)
    refused(with_base, "kind 1 instead of 2")


def test_the_base_of_another_generation_is_refused(with_base: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    other = index_of(1_000)
    other.merge(INVERTED, checkpoint=aside / with_base.name)
    base = file_of(with_base, "base")
    whole = base.read_bytes()
    shutil.copy(file_of(aside / with_base.name, "base"), base)
    refused(with_base, "not the one that the checkpoint names")
    base.write_bytes(whole)
    read(with_base)
    base.unlink()
    refused(with_base, "No such file")


@pytest.mark.parametrize("how", ["gone", "empty", "flipped", "cut", "another", "a checkpoint"])
def test_an_index_without_what_faiss_made_of_it_compares_every_vector(
    with_base: Path, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = read(with_base)
    file = file_of(with_base, "faiss")
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "flipped":
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 16]) + content[-8:])
    elif how == "cut":
        file.write_bytes(content[:-1])
    elif how == "a checkpoint":
        shutil.copy(with_base, file)
    else:
        other = index_of(1_000)
        other.merge(INVERTED, checkpoint=tmp_path / "other.ckpt")
        (tmp_path / f"other-{other.base.generation}.faiss").replace(file)  # type: ignore[union-attr]
        for rest in tmp_path.glob("other*"):
            rest.unlink()
    index, _ = read(with_base)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(file) in record.getMessage()
    assert index.base is not None
    assert (index.base.recipe, index.base.tuning) == (None, None)
    queries = unit(9, DIMENSION, 4, clusters=20)
    assert (
        index.search(queries, 10).ids.tolist() == whole.search(queries, 10, exact=True).ids.tolist()
    )
    # Saved as it is it stays so, and a merge makes it whole.
    write(with_base, index)
    assert read(with_base)[0].base == index.base
    assert index.merge(INVERTED, checkpoint=with_base)
    write(with_base, index)
    assert_same(read(with_base)[0], index)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("gone", ["base", "faiss"])
def test_a_checkpoint_that_is_replaced_while_it_is_opened_is_refused_and_can_be_opened_again(
    with_base: Path, gone: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the checkpoint and a file of its base, another process has merged and swept."""
    other, _ = read(with_base)
    opener = {"base": "read_base", "faiss": "read_accelerator"}[gone]
    opened = getattr(checkpoint, opener)
    merged = []

    def late(*arguments: object) -> object:
        if not merged:
            merged.append(other.merge(INVERTED, checkpoint=with_base))
            write(with_base, other, seq=6)
            assert other.base is not None
            assert len(remove_unused(with_base, keep=other.base.generation)) == 2
        return opened(*arguments)

    monkeypatch.setattr(checkpoint, opener, late)
    refused(with_base, "No such file")
    again, seq = read(with_base)
    assert seq == 6
    assert_same(again, other)
    assert caplog.records == []


@pytest.mark.parametrize("region", ["codes", "table", "ids"])
def test_damaged_vectors_of_a_base_are_never_given_to_anybody(with_base: Path, region: str) -> None:
    whole, _ = read(with_base)
    base = file_of(with_base, "base")
    content = base.read_bytes()
    codes = PAGE + 2 * PAGE  # 8,000 bytes of ids fill up to two pages
    table = codes + 1_000 * 2 * DIMENSION
    assert len(content) == table + 16 * -(-1_000 // BLOCK_ROWS)
    place = {"ids": PAGE + 8 * 400 + 1, "codes": codes + 2 * DIMENSION * 400, "table": table + 20}
    torn = bytearray(content)
    torn[place[region]] ^= 8
    base.write_bytes(torn)
    if region != "codes":
        refused(with_base, "ids are damaged")
        return
    index, _ = read(with_base)
    # Row 400 is in the second block of 256 rows; that block is refused and the others are not.
    ids = 3 * np.random.default_rng(9).permutation(1_000)
    living = np.isin(ids, index.ids()) & ~((ids >= 600) & (ids < 900))
    for start in range(0, 1_000, BLOCK_ROWS):
        block = ids[start : start + BLOCK_ROWS][living[start : start + BLOCK_ROWS]]
        if start == 256:
            for id in block[:3].tolist():
                with pytest.raises(CheckpointError, match="from row 256 on are damaged"):
                    index.vectors([id])
        else:
            assert (index.vectors(block) == whole.vectors(block)).all()
    for call in (
        lambda: index.search(unit(1, DIMENSION), 3, exact=True),
        lambda: index.search(unit(1, DIMENSION), 800),
        lambda: index.merge(INVERTED, checkpoint=with_base),
        lambda: index.merge(EXACT),
        lambda: index.merge(replace(INVERTED, lists=1.0), checkpoint=with_base),
    ):
        with pytest.raises(CheckpointError, match="from row 256 on are damaged"):
            call()
    assert len(list(with_base.parent.iterdir())) == 3
    # The bits that were flipped may cost a neighbour, but none with a wrong score is returned.
    queries = unit(200, DIMENSION, 4, clusters=20)
    for query in queries:
        try:
            found = index.search(query[None], 5)
        except CheckpointError:
            continue
        scores = whole.vectors(found.ids[0]) @ query
        np.testing.assert_allclose(found.scores[0], scores, atol=1e-6)


def resealed(
    content: bytes, *, at: int | None = None, value: bytes = b"", **facts: object
) -> bytes:
    """The file with something else in its header and the right checksum over it."""
    page = bytearray(content[:PAGE])
    if facts:
        (length,) = struct.unpack_from("<I", page, 56)
        text = json.dumps(json.loads(page[60 : 60 + length]) | facts).encode()
        page[56:4064] = struct.pack("<I", len(text)) + text.ljust(4004, b"\0")
    if at is not None:
        page[at : at + len(value)] = value
    page[4064:] = blake3(bytes(page[:4064])).digest()
    return bytes(page) + content[PAGE:]


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, b"SLINDEXX", "another program"),
        (8, struct.pack("<I", 1), "format 1 and this version reads 2"),
        (8, struct.pack("<I", 3), "format 3"),
        (12, struct.pack("<I", 2), "kind 2 instead of 1"),
        (12, struct.pack("<I", 9), "kind 9"),
        (16, struct.pack("<Q", 2**64 - 1), "bytes instead of"),
        (16, struct.pack("<Q", 0), "bytes instead of"),
        (24, bytes(32), "body is damaged"),
    ],
)
def test_a_header_that_is_whole_and_wrong_is_refused(
    path: Path, at: int, value: bytes, reason: str
) -> None:
    write(path, index_of(50))
    path.write_bytes(resealed(path.read_bytes(), at=at, value=value))
    refused(path, reason)


@pytest.mark.parametrize(
    "facts", [{"fresh": 49}, {"fresh": 10**15}, {"fresh": 0}], ids=lambda facts: str(facts)
)
def test_facts_that_contradict_the_length_of_the_file_are_refused(
    path: Path, facts: dict[str, int]
) -> None:
    write(path, index_of(50))
    path.write_bytes(resealed(path.read_bytes(), **facts))
    refused(path, "contradicts itself")


@pytest.mark.parametrize(
    "facts", [{"rows": 999}, {"dimension": 12}, {"block_rows": 255}, {"offset": PAGE}],
    ids=lambda facts: str(facts),
)  # fmt: skip
def test_a_base_whose_header_was_forged_is_not_the_one_that_is_named(
    with_base: Path, facts: dict[str, int]
) -> None:
    base = file_of(with_base, "base")
    base.write_bytes(resealed(base.read_bytes(), **facts))
    refused(with_base, "not the one")


def test_every_flipped_bit_of_a_checkpoint_is_found(path: Path) -> None:
    write(path, index_of(60))
    content = path.read_bytes()
    chance = random.Random(0)
    regions = [(0, 400), (400, 4064), (4064, 4096), (4096, 4096 + 480), (4576, len(content))]
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
    lengths = {0, 1, 8, 60, 4064, 4095, 4096, 4097, 4576, len(content) - 1}
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


def format_1(index: FaissIndex, seq: int) -> bytes:
    """A checkpoint as the first version wrote it."""
    ids, body = index.ids(), b""
    body = ids.tobytes() + index.vectors(ids).astype(np.float16).tobytes()
    fields = struct.pack(
        "<8sII32s32s64s4xIQQQQ32s", b"SLINDEX\0", 1, PAGE, bytes.fromhex(IDENTITY), bytes(32),
        b"exact", index.dimension, len(ids), seq, PAGE, len(body), blake3(body).digest(),
    ).ljust(PAGE - 32, b"\0")  # fmt: skip
    return fields + blake3(fields).digest() + body


def test_a_checkpoint_of_the_first_format_is_refused(path: Path) -> None:
    path.write_bytes(format_1(index_of(50), 5))
    refused(path, "format 1 and this version reads 2")
    assert read_saved(path, identity=IDENTITY, dimension=DIMENSION) is None


@pytest.mark.parametrize("identity", ["", "f" * 63, "f" * 65, "F" * 64, "g" * 64, "f" * 64 + "\n"])
def test_an_identity_of_another_form_is_refused(path: Path, identity: str) -> None:
    with pytest.raises(InputError, match="64 hex characters"):
        write_checkpoint(path, index_of(2), identity=identity, seq=0)
    write(path, index_of(2))
    with pytest.raises(InputError, match="64 hex characters"):
        read_checkpoint(path, identity=identity, dimension=DIMENSION)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("seq", [-1, 2**63])
def test_a_seq_of_another_form_is_refused(path: Path, seq: int) -> None:
    with pytest.raises(InputError, match="seq"):
        write(path, index_of(2), seq)
    assert not list(path.parent.iterdir())


def test_a_folder_that_is_not_there_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(path / "below" / "exact.index", index_of(2))
    with pytest.raises(FileNotFoundError):
        index_of(300).merge(INVERTED, checkpoint=path / "below" / "exact.index")


# -- a full disk, and writers that die -----------------------------------------------------------


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
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


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
    again.search(unit(1, DIMENSION), 3)
    assert_same(again, old)
    del again
    write(path, index_of(4_000), seq=7)
    assert read(path)[1] == 7


# Each line from the test starts a fresh writer, forked so that not each has to import everything.
WRITERS = """
import os, sys
from pathlib import Path
import numpy as np
from searchlib.index import FaissIndex, write_checkpoint

path, identity = Path(sys.argv[1]), sys.argv[2]
for line in sys.stdin:
    first = int(line)
    writer = os.fork()
    if writer:
        print(os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]), flush=True)
        continue
    for seq in range(first, first + 10_000):
        codes = np.zeros((20_000, 24), np.float16)
        codes[:, seq % 24] = 1
        index = FaissIndex.over(np.arange(seq, seq + 20_000), codes)
        write_checkpoint(path, index, identity=identity, seq=seq)
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
            codes = np.concatenate([each.codes for each in index.state().fresh.segments])
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


def test_only_files_of_bases_of_this_checkpoint_are_swept(path: Path) -> None:
    used, unused = "0123456789abcdef", "fedcba9876543210"
    swept = [f"index-0123-{unused}.base", f"index-0123-{unused}.faiss"]
    kept = [
        "index-0123.ckpt",
        f"index-0123-{used}.base",
        f"index-0123-{used}.faiss",
        f"index-01234-{unused}.base",
        f"index-0123-{unused}.jpg",
        f"index-0123-{unused}.base.jpg",
        f"index-0123-{unused[1:]}.base",
        f"index-0123-{unused.upper()}.base",
        f"my index-0123-{unused}.base",
    ]
    for name in (*swept, *kept):
        (path.parent / name).write_bytes(b"x")
    (path.parent / f"index-0123-{unused[::-1][:15]}a.base").mkdir()
    assert [file.name for file in remove_unused(path, keep=used)] == swept
    assert {file.name for file in path.parent.iterdir() if file.is_file()} == set(kept)


# -- streamed, and asked by its header alone -----------------------------------------------------


def stream(
    path: Path, ids: npt.NDArray[np.int64], *blocks: npt.NDArray[np.float16], seq: int = 5
) -> None:
    stream_checkpoint(path, ids, blocks, identity=IDENTITY, dimension=DIMENSION, seq=seq)


def seq_of(path: Path, **other: object) -> int | None:
    how = {"identity": IDENTITY, "dimension": DIMENSION} | other
    saved = read_saved(path, **how)  # type: ignore[arg-type]
    return saved and saved.seq


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 150), cuts=st.lists(st.integers(0, 150), max_size=5))
def test_what_is_streamed_in_any_blocks_is_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, rows: int, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("streams")
    ids = np.random.default_rng(9).permutation(rows) * 3
    codes = unit(rows, DIMENSION).astype(np.float16)
    edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    blocks = [codes[a:b] for a, b in pairwise(edges)]
    stream(folder / "streamed", ids, *blocks, seq=77)
    index = FaissIndex(DIMENSION, segment_rows=64)
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
            yield np.ones((1000, DIMENSION), np.float16)

    stream_checkpoint(
        path, np.arange(20_000), blocks(), identity=IDENTITY, dimension=DIMENSION, seq=1
    )
    # What came before is on its way to the disk, but for a buffer.
    assert all(late > early for early, late in pairwise(sizes[1:]))
    assert len(read(path)[0]) == 20_000


def test_a_stream_that_breaks_off_leaves_the_checkpoint_before(path: Path) -> None:
    write(path, index_of(50))
    before = path.read_bytes()

    def blocks() -> Iterator[npt.NDArray[np.float16]]:
        yield unit(30, DIMENSION).astype(np.float16)
        raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError, match="the database is gone"):
        stream_checkpoint(
            path, np.arange(60), blocks(), identity=IDENTITY, dimension=DIMENSION, seq=9
        )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("rows", [29, 31, 0])
def test_a_stream_of_too_few_or_too_many_vectors_makes_no_checkpoint_that_is_read(
    path: Path, rows: int
) -> None:
    try:
        stream(path, np.arange(30), unit(rows, DIMENSION).astype(np.float16))
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
    blocks = [np.ones((1000, DIMENSION), np.float16)] * 40
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
    path.unlink()
    path.mkdir()
    assert seq_of(path) is None


def test_the_header_alone_says_how_much_is_in_a_checkpoint(original: Path) -> None:
    index, _ = read(original)
    saved = read_saved(original, identity=IDENTITY, dimension=DIMENSION)
    assert saved is not None
    assert index.base is not None
    assert (saved.seq, saved.vectors) == (5, len(index)) == (5, 1_100)
    assert saved.generation == index.base.generation


def test_a_flipped_bit_anywhere_in_the_header_makes_it_say_nothing(path: Path) -> None:
    write(path, index_of(5))
    content = path.read_bytes()
    chance = random.Random(0)
    for bit in [8 * place + chance.randrange(8) for place in range(0, PAGE, 7)]:
        torn = bytearray(content)
        torn[bit // 8] ^= 1 << bit % 8
        path.write_bytes(torn)
        assert seq_of(path) is None
    for length in (0, 1, 60, PAGE - 1):
        path.write_bytes(content[:length])
        assert seq_of(path) is None
    path.write_bytes(content[:PAGE])
    assert seq_of(path) == 5  # the body is not looked at
