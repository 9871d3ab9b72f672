"""Taking files in: their order, their batches, and what is kept when it breaks off."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib import ImageEncoder
from searchlib.catalog import Catalog, ModelRecord
from searchlib.errors import EngineError, ModelMismatchError
from searchlib.ingest import intake
from searchlib.ingest.intake import Handling, Intake, in_order
from searchlib.ingest.place import stat_at
from searchlib.ingest.walk import Found
from searchlib.ingest.working import Working


@pytest.fixture
def catalog(library_folder: Path) -> Iterator[Catalog]:
    catalog = Catalog(library_folder, create=True)
    yield catalog
    catalog.close()


@pytest.fixture
def model(catalog: Catalog, encoder: ImageEncoder) -> ModelRecord:
    return catalog.use_model(
        identity=encoder.identity, name=encoder.card.name, dimension=encoder.dimension
    )


@pytest.fixture
def take_in(
    catalog: Catalog, encoder: ImageEncoder, model: ModelRecord
) -> Iterator[Callable[..., Intake]]:
    """An intake of that many workers."""
    with closing(Working(catalog.database.folder)) as working:

        def take_in(workers: int = 2) -> Intake:
            return Intake(catalog, encoder, model, Handling(workers), working)

        yield take_in


def found(path: Path, *, alone: bool = False) -> Found:
    return Found(str(path), stat_at(str(path)), None, None, alone)


def all_of(photos: Path) -> list[Found]:
    return [found(path) for path in sorted(photos.iterdir())]


def present(catalog: Catalog, model: ModelRecord) -> set[str]:
    return set(catalog.places.known("/", model))


# -- side by side, in order ----------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_results_come_in_the_order_of_the_items(naps: list[int], workers: int) -> None:
    def nap(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 5000)
        return item[0]

    assert list(in_order(nap, enumerate(naps), workers)) == list(range(len(naps)))


@pytest.mark.parametrize("workers", [1, 3])
def test_items_are_taken_no_further_ahead_than_a_few_for_each_worker(workers: int) -> None:
    taken: list[int] = []
    items = (taken.append(n) or n for n in range(200))  # type: ignore[func-returns-value]
    ahead = 0
    for done, _ in enumerate(in_order(lambda item: item, items, workers), 1):
        ahead = max(ahead, len(taken) - done)
    assert len(taken) == 200
    assert ahead < 4 * workers


def test_as_many_are_worked_on_at_once_as_there_are_workers() -> None:
    together = threading.Barrier(3)

    def meet(_: int) -> int:
        return together.wait(20)

    assert sorted(in_order(meet, range(3), 3)) == [0, 1, 2]


def test_an_error_comes_at_its_place_and_nothing_is_begun_after_it() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise RuntimeError("the third")
        return item

    results = in_order(work, range(100), 1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="the third"):
        next(results)
    assert max(begun) < 10


def test_who_stops_listening_waits_for_no_more_than_what_is_under_way() -> None:
    begun: list[int] = []
    results = in_order(begun.append, range(1000), 2)
    next(results)
    results.close()
    assert len(begun) <= 16


# -- files ---------------------------------------------------------------------------------------


def test_files_are_told_in_their_order_and_read_side_by_side(
    take_in: Callable[..., Intake], photos: Path
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    files = [*reversed(all_of(photos))]
    results = list(take_in(4).run(files))
    assert [result.path for result in results] == [file.path for file in files]
    assert [result.outcome for result in results if result.outcome != "added"] == ["skipped"]


def test_a_batch_is_committed_when_it_is_full_and_the_rest_at_the_end(
    take_in: Callable[..., Intake],
    catalog: Catalog,
    model: ModelRecord,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "BATCH_FILES", 3)
    monkeypatch.setattr(intake, "BATCH_SECONDS", 1000)
    counts = [len(present(catalog, model)) for _ in take_in().run(all_of(photos))]
    assert counts == [3, 3, 3, 6, 6, 6, 8, 8]


def test_a_batch_that_takes_long_is_committed_before_it_is_full(
    take_in: Callable[..., Intake],
    catalog: Catalog,
    model: ModelRecord,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "BATCH_SECONDS", 0)
    counts = [len(present(catalog, model)) for _ in take_in().run(all_of(photos))]
    assert counts == list(range(1, 9))


def test_who_counts_what_is_read_hears_of_each_file_once(
    take_in: Callable[..., Intake], photos: Path
) -> None:
    read: list[int] = []
    results = take_in().run(all_of(photos), on_read=lambda: read.append(1))
    assert sum(1 for _ in results) == len(read) == 8


def test_what_was_read_before_the_source_failed_is_kept(
    take_in: Callable[..., Intake], catalog: Catalog, model: ModelRecord, photos: Path
) -> None:
    files = all_of(photos)

    def some() -> Iterator[Found]:
        yield from files[:6]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(take_in(1).run(some()))
    # Those that were under way are read again the next time.
    kept = present(catalog, model)
    assert kept == {file.path for file in files[: len(kept)]}
    assert len(kept) >= 2


def test_what_was_read_before_the_model_failed_is_kept(
    take_in: Callable[..., Intake],
    catalog: Catalog,
    encoder: ImageEncoder,
    model: ModelRecord,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embed = encoder.embed
    calls: list[int] = []

    def fail_at_the_fifth(pixels: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise EngineError("no more")
        return embed(pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "embed", fail_at_the_fifth)
    files = all_of(photos)
    with pytest.raises(EngineError, match="no more"):
        list(take_in(1).run(files))
    assert present(catalog, model) == {file.path for file in files[:4]}


def test_a_stop_ends_it_after_what_was_read(
    take_in: Callable[..., Intake], catalog: Catalog, model: ModelRecord, photos: Path
) -> None:
    files = all_of(photos)
    read: list[int] = []
    results = list(
        take_in(2).run(files, stopped=lambda: len(read) == 3, on_read=lambda: read.append(1))
    )
    assert [result.path for result in results] == [file.path for file in files[:3]]
    assert present(catalog, model) == {file.path for file in files[:3]}


def test_no_vector_is_written_for_a_model_that_was_replaced(
    take_in: Callable[..., Intake], catalog: Catalog, model: ModelRecord, photos: Path
) -> None:
    other = catalog.known_model(identity="b" * 64, name="other", dimension=2)
    assert catalog.switch_model(other, without=())
    with pytest.raises(ModelMismatchError, match="changed to the model other"):
        list(take_in().run(all_of(photos)))
    assert present(catalog, model) == set()


def test_no_files_are_no_work(take_in: Callable[..., Intake]) -> None:
    assert list(take_in().run([])) == []


def test_a_file_that_may_end_the_process_is_read_by_another_one(
    take_in: Callable[..., Intake],
    catalog: Catalog,
    encoder: ImageEncoder,
    model: ModelRecord,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    catalog.places.suspect([str(photos / "cat.jpg"), str(photos / "broken.jpg")])
    (here,) = take_in().run([found(photos / "coffee.jpg")])

    def never(_: object) -> object:
        raise AssertionError("this process was to embed nothing")

    monkeypatch.setattr(encoder, "embed", never)
    files = [found(photos / name, alone=True) for name in ("cat.jpg", "broken.jpg")]
    results = list(take_in().run(files))
    assert [(here.outcome), *(result.outcome for result in results)] == [
        "added",
        "added",
        "skipped",
    ]
    (failure,) = catalog.places.failures()
    assert (failure.path, failure.kind) == (files[1].path, "content")
    assert catalog.counts(model).vectors == 2
