"""The catalog against a plain model of itself, on a real database."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from searchlib.catalog import (
    Catalog,
    Facts,
    ModelRecord,
    NewContent,
    ReadFile,
    SkippedFile,
    Stat,
)
from searchlib.errors import LibraryDamagedError, LibraryError, ModelMismatchError
from tests.catalog.places import emptied

DIMENSION = 8
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3, taken_at="2024-06-01T12:00:00")


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)


def vector(number: int) -> NDArray[np.float32]:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def picture(path: str, number: int, *, known: bool = False, size: int = 10) -> ReadFile:
    """A file whose content is the picture of that number."""
    content = None if known else NewContent(FACTS, vector(number))
    return ReadFile(path, Stat(size, 1, 2), number.to_bytes(32, "big"), None, content)


def never(_: str, _device: int | None) -> bool:
    return False


def test_same_bytes_at_two_places_are_one_image(catalog: Catalog, model: ModelRecord) -> None:
    outcomes = catalog.record(model, [picture("/a.jpg", 1), picture("/b.jpg", 1)], gone=never)
    assert outcomes == ["added", "copy"]
    (image,) = catalog.images([1, 2]).values()
    assert image.paths == ("/a.jpg", "/b.jpg")
    assert image.facts == FACTS
    assert image.digest == (1).to_bytes(32, "big").hex()
    assert catalog.counts(model).vectors == 1


def test_a_file_whose_old_place_is_empty_was_moved(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/old.jpg", 1)], gone=never)
    moved = picture("/new.jpg", 1, known=True)
    assert catalog.record(model, [moved], gone=lambda path, _: path == "/old.jpg") == ["moved"]
    (image,) = catalog.images([1]).values()
    assert image.paths == ("/new.jpg",)
    assert catalog.places.known("/old.jpg", model) == {}


def test_each_empty_place_is_moved_from_once(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/old.jpg", 1)], gone=never)
    batch = [picture("/new1.jpg", 1, known=True), picture("/new2.jpg", 1, known=True)]
    outcomes = catalog.record(model, batch, gone=lambda path, _: path == "/old.jpg")
    assert outcomes == ["moved", "copy"]


def test_new_content_at_a_known_path_is_a_change(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/a.jpg", 1)], gone=never)
    assert catalog.record(model, [picture("/a.jpg", 2)], gone=never) == ["changed"]
    assert list(catalog.images([1, 2])) == [2]
    assert catalog.vector((1).to_bytes(32, "big"), model) is not None


def test_a_touched_file_is_unchanged_and_its_new_stat_is_kept(
    catalog: Catalog, model: ModelRecord
) -> None:
    catalog.record(model, [picture("/a.jpg", 1)], gone=never)
    touched = picture("/a.jpg", 1, known=True, size=11)
    assert catalog.record(model, [touched], gone=never) == ["unchanged"]
    assert catalog.places.known("/a.jpg", model)["/a.jpg"].stat.size == 11


def test_a_skipped_file_is_kept_with_its_reason_until_it_can_be_used(
    catalog: Catalog, model: ModelRecord
) -> None:
    broken = SkippedFile("/a.jpg", Stat(1, 1, 1), None, "the file is empty")
    assert catalog.record(model, [broken], gone=never) == [None]
    (failure,) = catalog.places.failures()
    assert (failure.path, failure.kind, failure.reason) == (
        "/a.jpg",
        "content",
        "the file is empty",
    )
    assert (failure.attempts, failure.next_try) == (1, None)
    assert catalog.record(model, [picture("/a.jpg", 1)], gone=never) == ["added"]
    assert catalog.places.failures() == []


def test_a_picture_that_broke_keeps_its_vector(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/a.jpg", 1)], gone=never)
    catalog.record(model, [SkippedFile("/a.jpg", Stat(1, 1, 1), None, "torn")], gone=never)
    assert catalog.images([1]) == {}
    assert catalog.has_vector((1).to_bytes(32, "big"), model)


def test_missing_files_leave_the_images_and_come_back(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/a.jpg", 1)], gone=never)
    file_id = catalog.places.known("/a.jpg", model)["/a.jpg"].id
    assert catalog.places.mark_missing(["/a.jpg", "/never-seen.jpg"]) == 1
    assert catalog.images([1]) == {}
    assert catalog.counts(model).files_missing == 1
    catalog.places.mark_present(model, [file_id])
    assert list(catalog.images([1])) == [1]


def test_a_batch_is_written_whole_or_not_at_all(catalog: Catalog, model: ModelRecord) -> None:
    unknown = picture("/b.jpg", 2, known=True)
    with pytest.raises(LibraryError, match=r"/b\.jpg"):
        catalog.record(model, [picture("/a.jpg", 1), unknown], gone=never)
    assert catalog.counts(model).files_present == 0
    assert catalog.last_seq(model) == 0


def test_paths_need_not_be_text(catalog: Catalog, model: ModelRecord) -> None:
    path = os.fsdecode(b"/photos/caf\xe9\n.jpg")
    catalog.record(model, [picture(path, 1)], gone=never)
    assert list(catalog.places.known("/photos", model)) == [path]


def test_known_files_are_those_below_the_folder_and_no_namesakes(
    catalog: Catalog, model: ModelRecord
) -> None:
    paths = ["/a/x.jpg", "/a/b/y.jpg", "/a.jpg", "/ab/z.jpg", "/a-/z.jpg", "/a0.jpg"]
    catalog.record(model, [picture(path, i) for i, path in enumerate(paths)], gone=never)
    assert set(catalog.places.known("/a", model)) == {"/a/x.jpg", "/a/b/y.jpg"}
    assert set(catalog.places.known("/", model)) == set(paths)
    assert set(catalog.places.known("/a.jpg", model)) == {"/a.jpg"}


def test_vectors_come_back_as_unit_vectors(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/a.jpg", 1)], gone=never)
    stored = catalog.vector((1).to_bytes(32, "big"), model)
    assert stored is not None
    assert stored.dtype == np.float32
    assert np.linalg.norm(stored) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(stored, vector(1), atol=1e-3)
    assert catalog.vector((9).to_bytes(32, "big"), model) is None


def test_the_change_log_gives_what_came_after_a_number(
    catalog: Catalog, model: ModelRecord
) -> None:
    catalog.record(model, [picture("/a.jpg", 1), picture("/b.jpg", 2)], gone=never)
    seq = catalog.last_seq(model)
    catalog.record(model, [picture("/c.jpg", 3), picture("/d.jpg", 1, known=True)], gone=never)
    changes = catalog.changes(model, after=seq)
    assert changes.seq > seq
    assert changes.ids.tolist() == [3]
    assert changes.removed.tolist() == []
    np.testing.assert_array_equal(changes.vectors[0], vector(3).astype(np.float16))
    assert len(catalog.changes(model, after=changes.seq).ids) == 0


def test_a_removed_vector_is_named_in_the_changes(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/a.jpg", 1)], gone=never)
    with catalog.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM embedding")
    assert catalog.changes(model, after=0).removed.tolist() == [1]


def test_a_vector_of_another_length_is_damage(catalog: Catalog, model: ModelRecord) -> None:
    catalog.record(model, [picture("/a.jpg", 1)], gone=never)
    with catalog.database.writing() as connection:
        connection.execute(text("UPDATE embedding SET vector = :torn"), {"torn": b"\0\0"})
    with pytest.raises(LibraryDamagedError, match="2 bytes where test has 16"):
        catalog.all_vectors(model)


def test_another_model_is_refused_by_name(catalog: Catalog, model: ModelRecord) -> None:
    assert catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION) == model
    with pytest.raises(ModelMismatchError, match=r"made with the model test .*not with other"):
        catalog.use_model(identity="b" * 64, name="other", dimension=DIMENSION)


STEPS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(1, 4))), max_size=25
)


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(STEPS, max_size=4))
def test_any_history_ends_with_each_path_at_its_last_content(
    shared_catalog: Catalog, batches: list[list[tuple[str, int | None]]]
) -> None:
    catalog = emptied(shared_catalog)
    model = catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)
    expected: dict[str, int | None] = {}
    embedded: set[int] = set()
    for batch in batches:
        files: list[ReadFile | SkippedFile] = []
        for name, number in batch:
            path = f"/{name}.jpg"
            expected[path] = number
            if number is None:
                files.append(SkippedFile(path, Stat(0, 0, 0), None, "broken"))
            else:
                files.append(picture(path, number))
                embedded.add(number)
        catalog.record(model, files, gone=never)
    assert set(catalog.places.known("/", model)) == set(expected)
    failed = {failure.path for failure in catalog.places.failures()}
    assert failed == {path for path, number in expected.items() if number is None}
    found = {
        path: int(image.digest, 16)
        for image in catalog.images(range(1, 10)).values()
        for path in image.paths
    }
    assert found == {path: number for path, number in expected.items() if number is not None}
    seq, ids, _ = catalog.all_vectors(model)
    assert len(ids) == len(embedded) == seq
