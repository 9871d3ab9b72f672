"""kill -9 at any moment of what is done to an index: nothing is lost, and nothing is wrong."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchlib.index import read_saved
from searchlib.search import IndexChoice, LiveIndex, write_choice
from tests.reliability.index_writers import (
    DIMENSION,
    IDENTITY,
    Processes,
    Vectors,
    assert_right,
    small,
)

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
KILLS = int(os.environ.get("SEARCHLIB_KILLS", "200" if FULL else "15"))
SEED = int(os.environ.get("SEARCHLIB_KILL_SEED", "1"))
LONGEST = 0.7


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A library of 300 vectors that is to have an inverted index and has none yet."""
    folder = tmp_path / "library"
    vectors = Vectors(folder, create=True)
    vectors.add(range(300))
    write_choice(vectors.catalog, IndexChoice("inverted"))
    vectors.close()
    return folder


@pytest.fixture
def writers(folder: Path) -> Iterator[Processes]:
    writers = Processes(folder)
    yield writers
    writers.close()


def names(folder: Path) -> set[str]:
    """The files of the index, temporary ones too."""
    return {path.name for path in folder.iterdir() if "index-" in path.name}


def wait_changes(folder: Path, count: int, until: float) -> None:
    """Until files of the index were seen to come or go so many times."""
    before = names(folder)
    while count and time.monotonic() < until:
        now = names(folder)
        count -= now != before
        before = now


def left_behind(folder: Path) -> set[str]:
    """What no checkpoint names."""
    (path,) = folder.glob("*.ckpt")
    saved = read_saved(path, identity=IDENTITY, dimension=DIMENSION)
    assert saved is not None
    used = {path.name}
    if saved.generation:
        used |= {f"{path.stem}-{saved.generation}.{end}" for end in ("base", "faiss")}
    assert used <= names(folder)
    return names(folder) - used


def swept(vectors: Vectors, index: LiveIndex) -> None:
    """The next save leaves nothing of those that died."""
    index.rewrite(index.current())
    assert left_behind(vectors.folder) == set()


def test_a_killed_process_leaves_an_index_that_is_right(
    folder: Path,
    writers: Processes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chance = random.Random(SEED)
    seen = {"temporary": 0, "unnamed": 0, "base": 0}
    kills = 0
    caplog.set_level(logging.WARNING)
    # On, where no moment has hit one that was writing: that proves nothing yet.
    while kills < KILLS or (KILLS >= 15 and not all(seen.values()) and kills < 8 * KILLS):
        kills += 1
        process = writers.start(chance.choice(["plain", "background"]), SEED * 1_000 + kills)
        until = time.monotonic() + LONGEST
        if chance.random() < 0.4:
            time.sleep(chance.uniform(0, LONGEST))
        else:
            wait_changes(folder, chance.randint(1, 12), until)
            time.sleep(chance.choice((0, chance.uniform(0, 0.01))))
        writers.kill(process)
        left = left_behind(folder) if list(folder.glob("*.ckpt")) else set()
        seen["temporary"] += any(name.endswith("checkpoint-tmp") for name in left)
        seen["unnamed"] += any(re.fullmatch(r"index-.*\.(base|faiss)", name) for name in left)
        seen["base"] += any(name.endswith(".faiss") for name in names(folder) - left)
        vectors = Vectors(folder)
        index = vectors.index()
        assert_right(index, vectors.content())
        if kills % 4 == 0:
            swept(vectors, index)
        # What is in place was written as a whole: nothing of it is ever refused.
        assert [record.getMessage() for record in caplog.records] == []
        vectors.close()
    vectors = Vectors(folder)
    index = vectors.index()
    swept(vectors, index)
    assert_right(index, vectors.content())
    assert_right(vectors.index(), vectors.content())
    assert seen["base"] or KILLS < 15
    vectors.close()
