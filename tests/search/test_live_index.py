"""The index follows the catalog, whatever happens to its checkpoint."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from searchlib.catalog import Catalog, Facts, ModelRecord, NewContent, ReadFile, Stat
from searchlib.errors import LibraryDamagedError
from searchlib.index import NumpyIndex, read_saved
from searchlib.search import LiveIndex, live_index
from tests.search.asked import nearest

DIMENSION = 16
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path, create=True)
    yield catalog
    catalog.close()


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="c" * 64, name="test", dimension=DIMENSION)


def vector(number: int) -> np.ndarray:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def put(catalog: Catalog, model: ModelRecord, *numbers: int) -> None:
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
    catalog.record(model, files, gone=lambda _: False)


def assert_in_step(index: LiveIndex, catalog: Catalog, model: ModelRecord) -> None:
    """The index answers as brute force over the stored vectors does."""
    _, ids, vectors = catalog.all_vectors(model)
    oracle = NumpyIndex(DIMENSION)
    oracle.upsert(ids, vectors)
    queries = np.stack([vector(n) for n in range(1000, 1010)])
    expected, found = oracle.search(queries, 10), index.search(queries, 10)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_an_empty_library_has_no_neighbours(catalog: Catalog, model: ModelRecord) -> None:
    index = LiveIndex(catalog, model, catalog.database.folder)
    assert list(nearest(vector(1), catalog, model, index, 5)) == []


def test_new_vectors_are_found_at_once(catalog: Catalog, model: ModelRecord) -> None:
    index = LiveIndex(catalog, model, catalog.database.folder)
    for start in (0, 20, 40):
        put(catalog, model, *range(start, start + 20))
        assert_in_step(index, catalog, model)
        assert len(index) == start + 20


def test_a_checkpoint_and_the_log_after_it_make_the_whole(
    catalog: Catalog, model: ModelRecord
) -> None:
    folder = catalog.database.folder
    put(catalog, model, *range(30))
    LiveIndex(catalog, model, folder).refresh()
    put(catalog, model, *range(30, 40))
    with catalog.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM embedding WHERE image_id = 5")
        connection.exec_driver_sql(
            f"INSERT INTO change (model_id, image_id) VALUES ({model.id}, 5)"
        )
    index = LiveIndex(catalog, model, folder)
    assert_in_step(index, catalog, model)
    assert len(index) == 39


@pytest.mark.parametrize("damage", ["gone", "empty", "torn", "flipped", "longer"])
def test_a_damaged_checkpoint_is_built_anew(
    catalog: Catalog, model: ModelRecord, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = catalog.database.folder
    put(catalog, model, *range(30))
    first = LiveIndex(catalog, model, folder)
    first.refresh()
    data = bytearray(first.path.read_bytes())
    if damage == "gone":
        first.path.unlink()
    elif damage == "empty":
        first.path.write_bytes(b"")
    elif damage == "torn":
        first.path.write_bytes(data[: len(data) // 2])
    elif damage == "longer":
        first.path.write_bytes(data + b"\0")
    else:
        data[-10] ^= 4
        first.path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        index = LiveIndex(catalog, model, folder)
        assert_in_step(index, catalog, model)
    assert bool(caplog.records) == (damage != "gone")
    index.refresh()
    caplog.clear()
    assert_in_step(LiveIndex(catalog, model, folder), catalog, model)
    assert caplog.records == []


@pytest.mark.parametrize("since", [0, 10, 50])
def test_a_checkpoint_newer_than_a_catalog_from_a_backup_is_not_used(
    catalog: Catalog, model: ModelRecord, tmp_path: Path, since: int
) -> None:
    folder = catalog.database.folder
    put(catalog, model, *range(20))
    restored = tmp_path / "restored"
    restored.mkdir()
    catalog.close()  # folds the write-ahead log into the file
    shutil.copy(folder / "catalog.db", restored)
    put(catalog, model, *range(20, 50))
    LiveIndex(catalog, model, folder).refresh()
    backup = Catalog(restored, create=False)
    put(backup, model, *range(100, 100 + since))
    index = LiveIndex(backup, model, folder)
    assert_in_step(index, backup, model)
    assert len(index) == 20 + since
    backup.close()


def test_a_checkpoint_is_written_first_at_once_and_then_after_many_changes(
    catalog: Catalog, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "REPLAY_AT_MOST", 10)
    folder = catalog.database.folder
    index = LiveIndex(catalog, model, folder)
    index.refresh()
    assert not index.path.exists()
    put(catalog, model, *range(5))
    index.refresh()
    first = index.path.read_bytes()
    put(catalog, model, *range(5, 15))
    for _ in range(2):
        LiveIndex(catalog, model, folder).refresh()
        assert index.path.read_bytes() == first
    put(catalog, model, 15)
    LiveIndex(catalog, model, folder).refresh()
    assert index.path.read_bytes() != first
    assert_in_step(LiveIndex(catalog, model, folder), catalog, model)


def test_a_library_that_cannot_be_written_is_searched_all_the_same(
    catalog: Catalog, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(catalog, model, *range(30))
    monkeypatch.setattr(catalog.database, "writable", False)
    index = LiveIndex(catalog, model, catalog.database.folder)
    assert_in_step(index, catalog, model)
    assert not index.path.exists()


def test_another_process_sees_what_one_commits(catalog: Catalog, model: ModelRecord) -> None:
    folder = catalog.database.folder
    reader_catalog = Catalog(folder, create=False)
    reader = LiveIndex(reader_catalog, model, folder)
    put(catalog, model, *range(10))
    assert len(reader) == 10
    put(catalog, model, *range(10, 15))
    assert_in_step(reader, catalog, model)
    reader_catalog.close()


def test_images_of_which_every_copy_is_missing_are_left_out(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, *range(100))
    index = LiveIndex(catalog, model, catalog.database.folder)
    before = nearest(vector(7), catalog, model, index, 100)
    assert len(before) == 100
    lost = before[:60]
    catalog.places.mark_missing([match.path for match in lost])
    after = nearest(vector(7), catalog, model, index, 10)
    assert [match.path for match in after] == [match.path for match in before[60:70]]
    assert [match.score for match in after] == [match.score for match in before[60:70]]


# -- saved by who only adds ----------------------------------------------------------------------


def saved_seq(index: LiveIndex, model: ModelRecord) -> int | None:
    saved = read_saved(index.path, identity=model.identity, dimension=DIMENSION)
    return saved and saved.seq


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all vectors are asked for at once, the test fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("all vectors were read into memory")

    monkeypatch.setattr(Catalog, "all_vectors", refuse)
    monkeypatch.setattr(live_index, "read_checkpoint", refuse)


@pytest.mark.usefixtures("never_loaded")
def test_who_only_adds_saves_a_checkpoint_and_never_loads_one(
    catalog: Catalog, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "REPLAY_AT_MOST", 10)
    folder = catalog.database.folder
    index = LiveIndex(catalog, model, folder)
    index.save()
    assert not index.path.exists()  # of nothing there need not be one
    put(catalog, model, *range(5))
    index.save()
    assert saved_seq(index, model) == 5
    put(catalog, model, *range(5, 15))
    index.save()
    assert saved_seq(index, model) == 5  # ten are replayed as fast
    put(catalog, model, 15)
    LiveIndex(catalog, model, folder).save()
    assert saved_seq(index, model) == 16


def test_what_was_saved_without_loading_is_what_an_index_that_is_loaded_saves(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, *range(40))
    catalog.places.mark_missing([f"/{n:06}.jpg" for n in range(10)])
    catalog.places.purge(missing_before=1e12)
    index = LiveIndex(catalog, model, catalog.database.folder)
    index.save()
    streamed = index.path.read_bytes()
    assert_in_step(LiveIndex(catalog, model, catalog.database.folder), catalog, model)
    index.path.unlink()
    index.refresh()
    assert index.path.read_bytes() == streamed


@pytest.mark.parametrize("place", [0, 9, 60, 150, 200, 4090])
def test_a_damaged_header_is_saved_anew(catalog: Catalog, model: ModelRecord, place: int) -> None:
    put(catalog, model, *range(10))
    index = LiveIndex(catalog, model, catalog.database.folder)
    index.save()
    whole = index.path.read_bytes()
    index.save()
    assert index.path.read_bytes() == whole
    torn = bytearray(whole)
    torn[place] ^= 1
    index.path.write_bytes(torn)
    index.save()
    assert index.path.read_bytes() == whole


def test_an_index_that_was_searched_is_saved_from_memory(
    catalog: Catalog, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "REPLAY_AT_MOST", 10)
    index = LiveIndex(catalog, model, catalog.database.folder)
    put(catalog, model, *range(5))
    assert len(index) == 5
    put(catalog, model, *range(5, 30))
    index.save()
    assert saved_seq(index, model) == 30
    assert_in_step(index, catalog, model)


def test_an_image_that_was_given_up_leaves_an_open_index_and_a_saved_one(
    catalog: Catalog, model: ModelRecord
) -> None:
    folder = catalog.database.folder
    put(catalog, model, *range(30))
    saved = LiveIndex(catalog, model, folder)
    saved.save()
    index = LiveIndex(catalog, model, folder)
    assert len(index) == 30
    catalog.places.mark_missing([f"/{n:06}.jpg" for n in range(20, 30)])
    catalog.places.purge(missing_before=1e12)
    put(catalog, model, 25, 100)
    for each in (index, saved, LiveIndex(catalog, model, folder)):
        assert len(each) == 22
        assert_in_step(each, catalog, model)
    # Its last change was taken back since, and it is of this catalog all the same.
    assert saved_seq(saved, model) == 30


def test_a_checkpoint_that_cannot_be_written_is_only_warned_of(
    catalog: Catalog,
    model: ModelRecord,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(catalog, model, 1)
    index = LiveIndex(catalog, model, tmp_path)
    index.path.mkdir()
    with caplog.at_level(logging.WARNING):
        index.save()
    assert "cannot be written" in caplog.text
    assert [path.name for path in tmp_path.glob("index-*")] == [index.path.name]


def test_a_stored_vector_that_is_none_is_damage_and_no_checkpoint_is_made(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, 1, 2)
    nothing = bytes(2 * DIMENSION)
    with catalog.database.writing() as connection:
        connection.exec_driver_sql("UPDATE embedding SET vector = ? WHERE image_id = 2", (nothing,))
    index = LiveIndex(catalog, model, catalog.database.folder)
    with pytest.raises(LibraryDamagedError, match="not valid"):
        index.save()
    assert list(catalog.database.folder.glob("*ckpt*")) == []


def test_a_library_that_cannot_be_written_is_not_saved(
    catalog: Catalog, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(catalog, model, 1)
    monkeypatch.setattr(catalog.database, "writable", False)
    index = LiveIndex(catalog, model, catalog.database.folder)
    index.save()
    assert not index.path.exists()
