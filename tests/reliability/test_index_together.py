"""Several processes and threads that use one index and make it anew, all at once."""

from __future__ import annotations

import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchlib.index import read_saved
from searchlib.search import IndexChoice, live_index, measure, verify, write_choice
from tests.reliability.index_writers import (
    DIMENSION,
    IDENTITY,
    Processes,
    Vectors,
    assert_answers,
    assert_right,
    small,
    vector,
)

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
SECONDS = 60 if FULL else 3


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small():
        yield


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[Vectors]:
    """A library of 400 vectors that is to have an inverted index and has none yet."""
    vectors = Vectors(tmp_path / "library", create=True)
    vectors.add(range(400))
    write_choice(vectors.catalog, IndexChoice("inverted"))
    yield vectors
    vectors.close()


@pytest.fixture
def open_again(vectors: Vectors) -> Iterator[Callable[[], Vectors]]:
    """The same library as another process has it open."""
    opened: list[Vectors] = []

    def open_again() -> Vectors:
        opened.append(Vectors(vectors.folder))
        return opened[-1]

    yield open_again
    for each in opened:
        each.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*index-*")}


def generation(vectors: Vectors) -> str | None:
    (path,) = vectors.folder.glob("*.ckpt")
    saved = read_saved(path, identity=IDENTITY, dimension=DIMENSION)
    return saved and saved.generation


def test_processes_that_write_and_merge_at_once_leave_an_index_that_is_right(
    vectors: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    ways = ["slow", "background", "reader", "late"]
    servers = [Processes(vectors.folder) for _ in ways]
    try:
        running = [
            (server, server.start(way, number + 1))
            for number, (server, way) in enumerate(zip(servers, ways, strict=True))
        ]
        until = time.monotonic() + SECONDS
        seen = set()
        while time.monotonic() < until:
            if list(vectors.folder.glob("*.ckpt")):
                seen.add(generation(vectors))
            time.sleep(0.05)
        said = [server.end(process) for server, process in running]
    finally:
        for server in servers:
            server.close()
    assert len(seen) > 2
    # Nothing that was in place was ever refused, and no reader was told a wrong answer.
    assert [line for text in said for line in text.splitlines() if line != "right"] == []
    assert all("right" in text for text in said[2:])
    caplog.set_level(logging.WARNING)
    index = vectors.index()
    assert_right(index, vectors.content())
    index.rewrite(index.current())
    assert len(names(vectors.folder)) == (3 if generation(vectors) else 1)
    assert_right(vectors.index(), vectors.content())
    assert caplog.records == []


def test_who_holds_an_old_base_open_is_right_and_goes_over_to_the_new_one(
    vectors: Vectors,
    open_again: Callable[[], Vectors],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.WARNING)
    writer = vectors.index()
    assert writer.merge()
    other = open_again()
    reader = other.index()
    assert_answers(reader, other.content())
    old = generation(vectors)
    monkeypatch.setattr(live_index, "REPLAY_AT_MOST", 10**9)
    for round in range(4):
        vectors.add(range(1_000 + 30 * round, 1_030 + 30 * round))
        vectors.replace(10, round)
        vectors.remove(range(20 * round, 20 * round + 20))
        assert writer.merge(always=True)
        now = reader.current().base
        assert now is not None
        # Its files are gone since the first round, and it has them all the same.
        assert now.generation == old != generation(vectors)
        assert not list(vectors.folder.glob(f"*{old}*"))
        assert_right(reader, other.content())
    assert len(names(vectors.folder)) == 3
    monkeypatch.setattr(live_index, "REPLAY_AT_MOST", 0)
    vectors.add([5_000])
    assert_answers(reader, other.content())
    now = reader.current().base
    assert now is not None
    assert now.generation == generation(vectors)
    assert_right(reader, other.content())
    assert_right(open_again().index(), vectors.content())
    assert caplog.records == []


def test_to_tune_in_one_process_does_not_undo_the_merge_of_another(
    vectors: Vectors, open_again: Callable[[], Vectors], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    writer = vectors.index()
    assert writer.merge()
    other = open_again().index()
    assert len(other) == 400
    vectors.add(range(1_000, 1_030))
    assert writer.merge(always=True)
    merged = generation(vectors)
    assert measure(other, target=0.9).recall >= 0.9
    assert generation(vectors) == merged
    assert len(names(vectors.folder)) == 3
    for index in (writer, other, open_again().index()):
        assert_right(index, vectors.content())
    assert caplog.records == []


@pytest.mark.parametrize("change", ["remove", "replace"])
def test_a_change_while_the_index_is_opened_is_not_taken_for_another_catalog(
    vectors: Vectors,
    open_again: Callable[[], Vectors],
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    vectors.add([9_999])
    assert vectors.index().merge()
    other = open_again()
    asked = vectors.catalog.change_at
    changed: list[str] = []

    def change_at(*arguments: Any) -> Any:
        # Between the log that was read and the last change of the checkpoint, which is compared.
        if not changed:
            changed.append(change)
            if change == "remove":
                other.remove([9_999])
            else:
                other.replace(401, 1)
        return asked(*arguments)

    monkeypatch.setattr(vectors.catalog, "change_at", change_at)
    merged = generation(vectors)
    index = vectors.index()
    index.refresh()
    assert changed
    assert_right(index, vectors.content())
    now = index.current().base
    assert now is not None
    assert now.generation == merged
    assert caplog.records == []


def test_who_only_adds_does_not_undo_the_merge_of_another(
    vectors: Vectors, open_again: Callable[[], Vectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors.index().save()
    assert generation(vectors) == ""
    vectors.add(range(1_000, 1_100))
    other = open_again()
    counted = vectors.catalog.changes_since

    def count(*arguments: Any) -> int:
        # Between this question and the checkpoint that follows from it.
        assert other.index().merge()
        return counted(*arguments)

    monkeypatch.setattr(vectors.catalog, "changes_since", count)
    vectors.index().save()
    assert generation(vectors) != ""
    assert len(names(vectors.folder)) == 3
    assert_right(vectors.index(), vectors.content())


def test_who_only_adds_sweeps_what_no_checkpoint_names(vectors: Vectors) -> None:
    index = vectors.index()
    assert index.merge()
    assert len(names(vectors.folder)) == 3
    index.path.write_bytes(b"garbage")
    vectors.index().save()
    assert names(vectors.folder) == {index.path.name}
    assert_right(vectors.index(), vectors.content())


def test_to_heal_in_one_process_does_not_disturb_another(
    vectors: Vectors, open_again: Callable[[], Vectors]
) -> None:
    writer = vectors.index()
    assert writer.merge()
    other = open_again()
    reader = other.index()
    assert_right(reader, vectors.content())
    writer.rebuild()
    assert generation(vectors) == ""
    assert_right(reader, vectors.content())
    vectors.add(range(1_000, 1_100))
    assert_right(reader, vectors.content())
    assert reader.merge(always=True)
    for index in (writer, reader, open_again().index()):
        assert_right(index, vectors.content())
    assert len(names(vectors.folder)) == 3


def test_an_app_that_merges_in_the_background_while_another_process_purges(
    vectors: Vectors, open_again: Callable[[], Vectors], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    other = open_again()
    app = vectors.index(background=True)
    errors: list[BaseException] = []
    stop = threading.Event()
    generations = set()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                errors.append(error)

        return run

    chance = random.Random(1)
    numbers = iter(range(1_000, 10**6))

    def change() -> None:
        other.add([next(numbers) for _ in range(chance.randint(20, 80))])
        known = other.numbers()
        other.remove(chance.sample(known, len(known) // chance.choice((40, 8, 4))))
        other.replace(10, next(numbers))

    def search() -> None:
        query = vector(chance.randrange(10**8))[None]
        for exact in (False, True):
            found = app.search(query, 20, exact=exact)
            assert (np.diff(found.scores) <= 0).all()
            assert len(set(found.ids[0].tolist())) == found.ids.size
        base = app.current().base
        generations.add(base and base.generation)

    def look() -> None:
        check = verify(app, vectors.catalog, vectors.model)
        assert not check.healed
        assert check.damage is None

    threads = [threading.Thread(target=guarded(work)) for work in (change, search, look)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert len(generations) > 1
    assert_right(app, vectors.content())
    app.close()
    assert_right(app, vectors.content())
    assert_right(open_again().index(), vectors.content())
    assert caplog.records == []


def test_a_background_merge_ends_soon_when_the_library_is_closed(vectors: Vectors) -> None:
    vectors.add(range(1_000, 3_000))
    app = vectors.index(background=True)
    assert len(app) == 2_400
    app.close()
    # It was stopped, or done by then; there is no half of it.
    assert len(names(vectors.folder)) in (1, 3)
    assert not [each for each in threading.enumerate() if each.name == "searchlib-merge"]
    assert_right(app, vectors.content())
    assert_right(vectors.index(), vectors.content())


@pytest.mark.parametrize("based", [False, True])
def test_a_library_in_a_folder_that_cannot_be_written_is_searched(
    vectors: Vectors, based: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if based:
        vectors.index().merge()
    else:
        vectors.index().save()
    vectors.add(range(1_000, 1_100))
    copy = Path(shutil.copytree(vectors.folder, tmp_path / "copy"))
    oracle = vectors.content()
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    read_only = Vectors(copy)
    # Root may write whatever the mode says; this is what the catalog finds out for others.
    read_only.catalog.database.writable = False
    caplog.set_level(logging.WARNING)
    index = read_only.index(background=True)
    assert_right(index, oracle)
    index.save()
    index.refresh()
    index.close()
    check = verify(index, read_only.catalog, read_only.model)
    assert (check.healed, check.damage, check.checked) == (False, None, 500)
    after = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert {name: after[name] for name in after if "index-" in name} == {
        name: before[name] for name in before if "index-" in name
    }
    read_only.close()
    assert caplog.records == []
