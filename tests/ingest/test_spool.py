"""The spool: a queue of files on disk that gives out all it was given, in that order."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.catalog import Stat
from searchlib.ingest.spool import Spool
from searchlib.ingest.walk import Found


def file(number: int) -> Found:
    return Found(f"/{number}.jpg", Stat(number, -number, number, None), None)


@pytest.fixture
def spool() -> Iterator[Spool]:
    with Spool() as spool:
        yield spool


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.one_of(st.integers(0, 600), st.just(-1)), max_size=8))
def test_all_that_was_put_in_comes_out_once_in_that_order(steps: list[int]) -> None:
    """A step puts so many files in, or takes a block out."""
    put, taken = 0, []
    with Spool() as spool:
        for step in steps:
            if step < 0:
                taken += next(spool.blocks(), [])
            else:
                spool.extend(map(file, range(put, put + step)))
                put += step
            assert len(spool) == put - len(taken)
        for block in spool.blocks():
            assert block
            taken += block
        assert len(spool) == 0
        assert list(spool.blocks()) == []
    assert taken == [file(number) for number in range(put)]


def test_what_comes_while_it_is_emptied_comes_out_as_well(spool: Spool) -> None:
    spool.extend(map(file, range(300)))
    taken = []
    for block in spool.blocks():
        if len(taken) < 900:
            spool.extend([file(300 + len(taken))])
        taken += block
    assert len(taken) > 300
    assert len(spool) == 0
    assert len(set(taken)) == len(taken)


def test_everything_of_a_file_is_kept(spool: Spool) -> None:
    odd = os.fsdecode(b"/\xff\n.heic")
    files = [
        Found(odd, Stat(2**62, -1, -(2**63), 2**63 - 1), os.fsdecode(b"/\xfe"), odd + ".mov", True),
        Found("/a.jpg", Stat(0, 0, 0), None),
    ]
    spool.extend(files)
    assert list(spool.blocks()) == [files]


def test_more_than_fits_into_memory_is_kept_on_disk(spool: Spool) -> None:
    long = "/" + "x" * 3000
    spool.extend(Found(f"{long}{n}", Stat(n, n, n), None) for n in range(2000))
    assert len(spool) == 2000
    blocks = list(spool.blocks())
    assert max(map(len, blocks)) < 2000
    assert [found.stat.size for block in blocks for found in block] == list(range(2000))


def test_a_source_that_fails_leaves_what_came_before(spool: Spool) -> None:
    def some() -> Iterator[Found]:
        yield file(1)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError):
        spool.extend(some())
    spool.extend([file(2)])
    assert list(spool.blocks()) == [[file(1), file(2)]]
