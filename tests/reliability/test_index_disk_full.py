"""No space for an index: the one before serves, nothing is left behind, and later it works."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator

import pytest

from searchlib.index import read_saved
from searchlib.search import IndexChoice, LiveIndex, measure, write_choice
from tests.reliability.disks import Disk
from tests.reliability.index_writers import DIMENSION, IDENTITY, Vectors, assert_right, small

PLENTY = 8_000_000


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small():
        yield


@pytest.fixture
def vectors(disk: Disk) -> Iterator[Vectors]:
    """A library of 500 vectors on a small disk that is to have an inverted index."""
    vectors = Vectors(disk.path / "library", create=True)
    vectors.add(range(500))
    write_choice(vectors.catalog, IndexChoice("inverted"))
    vectors.index().save()
    yield vectors
    vectors.close()


def checkpoint(index: LiveIndex) -> bytes:
    return index.path.read_bytes()


def unnamed(vectors: Vectors) -> set[str]:
    """Files of the index that its checkpoint does not name."""
    (path,) = vectors.folder.glob("*.ckpt")
    saved = read_saved(path, identity=IDENTITY, dimension=DIMENSION)
    assert saved is not None
    used = {path.name, *(f"{path.stem}-{saved.generation}.{end}" for end in ("base", "faiss"))}
    return {each.name for each in vectors.folder.glob("*index-*")} - used


@pytest.mark.parametrize("first", [True, False])
def test_a_merge_that_finds_no_space_leaves_all_as_it_was(
    vectors: Vectors, disk: Disk, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """However much there is: at the rows, at what FAISS made of them, at the checkpoint."""
    caplog.set_level(logging.WARNING)
    index = vectors.index()
    if not first:
        assert index.merge()
        vectors.remove(range(0, 100, 2))
        vectors.add(range(1_000, 1_050))
    oracle = vectors.content()
    assert_right(index, oracle)
    before, failed, space = checkpoint(index), 0, 0
    while True:
        disk.leave(space)
        try:
            assert index.merge(always=True)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        else:
            break
        assert unnamed(vectors) == set()
        assert checkpoint(index) == before
        assert_right(index, oracle)
        assert_right(vectors.index(), oracle)
        failed += 1
        space += 4096
        assert space < PLENTY
    # It failed at every page of the three files; whoever asks for a merge is told, once.
    assert failed > 5
    assert caplog.records == []
    assert unnamed(vectors) == set()
    assert_right(vectors.index(), oracle)
    disk.leave(PLENTY)
    vectors.add(range(2_000, 2_100))
    assert index.merge(always=True)
    assert unnamed(vectors) == set()
    assert_right(vectors.index(), vectors.content())


@pytest.mark.parametrize("free", [0, 4096, 8192, 16_384])
def test_a_checkpoint_that_finds_no_space_is_a_warning_and_the_one_before_stays(
    vectors: Vectors, disk: Disk, free: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    index = vectors.index()
    assert index.merge()
    vectors.add(range(1_000, 1_500))
    oracle = vectors.content()
    before = checkpoint(index)
    disk.leave(free)
    # More than are replayed, so that both of them want to write a new one.
    for each in (index, vectors.index()):
        assert_right(each, oracle)
        each.refresh()
        assert checkpoint(index) == before
        assert unnamed(vectors) == set()
    said = {record.getMessage() for record in caplog.records}
    assert said == {f"{index.path} cannot be written: No space left on device"}
    caplog.clear()
    disk.leave(PLENTY)
    index.rewrite(index.current())
    assert checkpoint(index) != before
    assert_right(vectors.index(), oracle)
    assert caplog.records == []


def test_a_streamed_checkpoint_that_finds_no_space_is_a_warning(
    vectors: Vectors, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    before = checkpoint(vectors.index())
    vectors.add(range(1_000, 1_500))
    disk.leave(8192)
    vectors.index().save()
    (record,) = caplog.records
    assert record.getMessage().endswith("cannot be written: No space left on device")
    assert checkpoint(vectors.index()) == before
    disk.leave(PLENTY)
    vectors.index().save()
    assert checkpoint(vectors.index()) != before
    assert_right(vectors.index(), vectors.content())


def test_a_tuning_that_finds_no_space_is_used_and_not_saved(
    vectors: Vectors, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    index = vectors.index()
    assert index.merge()
    before = checkpoint(index)
    disk.leave(0)
    tuning = measure(index, target=0.5).tuning
    base = index.current().base
    assert base is not None
    assert base.tuning == tuning
    assert checkpoint(index) == before
    assert "No space left on device" in caplog.text
    assert_right(index, vectors.content())
