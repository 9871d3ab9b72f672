"""Places against plain models: what is known where, what is gone, what failed, what goes."""

import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from searchlib.catalog import (
    UNKNOWN_STAT,
    Catalog,
    Facts,
    FolderRecord,
    KnownFile,
    ModelRecord,
    NewContent,
    Purged,
    ReadFile,
    SkippedFile,
    Stat,
)
from searchlib.catalog.records import FailureKind
from searchlib.catalog.writer import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, pause_after
from searchlib.errors import ModelMismatchError
from searchlib.search import LiveIndex

DIMENSION = 4
FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)
STAT = Stat(10, 1, 2, 3)


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)


def vector(number: int) -> NDArray[np.float32]:
    values = np.random.default_rng(number).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def picture(path: str, number: int) -> ReadFile:
    return ReadFile(path, STAT, digest(number), None, NewContent(FACTS, vector(number)))


def skipped(path: str, kind: FailureKind, reason: str = "it is torn") -> SkippedFile:
    return SkippedFile(path, STAT, None, reason, kind)


def put(catalog: Catalog, model: ModelRecord, *files: ReadFile | SkippedFile) -> None:
    catalog.record(model, files, gone=lambda *_: False)


def row(catalog: Catalog, model: ModelRecord, path: str) -> KnownFile:
    return catalog.places.known(path, model, limit=1)[path]


def column(catalog: Catalog, path: str, name: str) -> object:
    with catalog.database.reading() as connection:
        query = text(f"SELECT {name} FROM file WHERE path = :path")
        found = connection.execute(query, {"path": os.fsencode(path)})
        return found.scalar_one()


# -- known ---------------------------------------------------------------------------------------

# Bytes that sort on either side of the separator, and some that are no text.
NAME = st.lists(st.sampled_from([b"a", b".", b"-", b"0", b" ", b"\xff", b"\n", b"\x01", b"B"]))
PATH = (
    st.lists(NAME.filter(bool).map(b"".join), min_size=1, max_size=3)
    .filter(lambda names: not {b".", b".."} & set(names))
    .map(lambda names: os.fsdecode(b"/" + b"/".join(names)))
)


@pytest.fixture(scope="module")
def empty_catalog(shared_catalog: Catalog) -> Catalog:
    shared_catalog.use_model(identity="a" * 64, name="test", dimension=DIMENSION)
    return shared_catalog


@settings(max_examples=40, deadline=None)
@given(
    paths=st.sets(st.one_of(PATH, st.sampled_from(["/a", "/a.b", "/a/c", "/a0", "/a/c.d/e"]))),
    root=st.one_of(PATH, st.sampled_from(["/", "/a", "/a/c", "/a."])),
    page=st.integers(1, 4),
)
def test_pages_of_what_is_known_are_the_paths_at_and_below_in_the_order_of_their_bytes(
    empty_catalog: Catalog, paths: set[str], root: str, page: int
) -> None:
    model = empty_catalog.model()
    assert model is not None
    with empty_catalog.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM file")
    put(empty_catalog, model, *(skipped(path, "content") for path in paths))
    below = root.rstrip("/") + "/"
    expected = sorted((p for p in paths if p == root or p.startswith(below)), key=os.fsencode)
    assert list(empty_catalog.places.known(root, model)) == expected

    found: list[str] = []
    while some := empty_catalog.places.known(
        root, model, after=found[-1] if found else None, limit=page
    ):
        assert len(some) <= page
        found += some
    assert found == expected


def test_what_is_known_of_a_file_is_told_whole(catalog: Catalog, model: ModelRecord) -> None:
    folder = catalog.folders.put(FolderRecord("/p"))
    stat = Stat(11, -5, -(2**63), 2**63 - 1)
    content = NewContent(FACTS, vector(1))
    put(catalog, model, ReadFile("/p/a.jpg", stat, digest(1), folder.path, content, "/p/a.mov"))
    assert row(catalog, model, "/p/a.jpg") == KnownFile(
        1, "/p/a.jpg", stat, "present", folder.id, True, "/p/a.mov"
    )
    other = catalog.known_model(identity="b" * 64, name="other", dimension=DIMENSION)
    assert not row(catalog, other, "/p/a.jpg").embedded


def test_new_numbers_and_videos_of_untouched_files_are_kept(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, *(picture(f"/{n}.jpg", n) for n in range(3)))
    ids = [row(catalog, model, f"/{n}.jpg").id for n in range(3)]
    catalog.places.note_stats([(ids[0], Stat(10, 1, 77, 88)), (ids[2], Stat(10, 1, -7, -8))])
    catalog.places.note_videos([(ids[1], os.fsdecode(b"/1\xff.mov"))])
    stats = [row(catalog, model, f"/{n}.jpg").stat for n in range(3)]
    assert stats == [Stat(10, 1, 77, 88), Stat(10, 1, 2, 3), Stat(10, 1, -7, -8)]
    assert row(catalog, model, "/1.jpg").video == os.fsdecode(b"/1\xff.mov")
    catalog.places.note_videos([(ids[1], None)])
    assert row(catalog, model, "/1.jpg").video is None


# -- missing, offline, present -------------------------------------------------------------------


def test_a_missing_file_says_since_when_and_the_first_time_counts(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, picture("/a.jpg", 1), picture("/b.jpg", 2))
    before = time.time()
    assert catalog.places.mark_missing(["/a.jpg", "/unknown.jpg"]) == 1
    since = column(catalog, "/a.jpg", "missing_since")
    assert isinstance(since, float)
    assert before <= since <= time.time()
    assert catalog.places.mark_missing(["/a.jpg", "/b.jpg"]) == 1
    assert column(catalog, "/a.jpg", "missing_since") == since


def test_an_offline_file_is_missing_since_never(catalog: Catalog, model: ModelRecord) -> None:
    put(catalog, model, picture("/a.jpg", 1))
    catalog.places.mark_missing(["/a.jpg"])
    assert catalog.places.mark_offline(["/a.jpg"]) == 1
    assert catalog.places.mark_offline(["/a.jpg"]) == 0
    assert row(catalog, model, "/a.jpg").state == "offline"
    assert column(catalog, "/a.jpg", "missing_since") is None
    assert catalog.places.purge(missing_before=time.time() + 1e6).files == 0


@pytest.mark.parametrize("state", ["missing", "offline"])
def test_a_file_that_is_back_is_as_it_was(catalog: Catalog, model: ModelRecord, state: str) -> None:
    put(catalog, model, picture("/a.jpg", 1))
    before = row(catalog, model, "/a.jpg")
    mark = catalog.places.mark_missing if state == "missing" else catalog.places.mark_offline
    mark(["/a.jpg"])
    assert row(catalog, model, "/a.jpg").state == state
    assert catalog.images([1]) == {}
    catalog.places.mark_present(model, [before.id])
    assert row(catalog, model, "/a.jpg") == before
    assert column(catalog, "/a.jpg", "missing_since") is None
    assert list(catalog.images([1])) == [1]


def test_a_file_is_not_marked_present_for_a_model_that_is_not_in_use(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, picture("/a.jpg", 1))
    catalog.places.mark_missing(["/a.jpg"])
    other = catalog.known_model(identity="b" * 64, name="other", dimension=DIMENSION)
    with pytest.raises(ModelMismatchError):
        catalog.places.mark_present(other, [1])
    assert row(catalog, model, "/a.jpg").state == "missing"


@pytest.mark.parametrize("state", ["missing", "offline"])
def test_a_picture_that_failed_and_went_is_no_failure_and_is_read_when_it_is_back(
    catalog: Catalog, model: ModelRecord, state: str
) -> None:
    put(catalog, model, picture("/a.jpg", 1))
    put(catalog, model, skipped("/a.jpg", "content"))
    mark = catalog.places.mark_missing if state == "missing" else catalog.places.mark_offline
    assert mark(["/a.jpg"]) == 1
    assert catalog.places.failures() == []
    known = row(catalog, model, "/a.jpg")
    assert (known.state, known.failure, known.reason, known.next_try) == (state, None, None, None)
    # With the bytes that could not be used it must not pass for the picture before.
    assert not STAT.is_untouched(known.stat)


@pytest.mark.parametrize("kind", ["content", "access", "crash"])
def test_a_place_that_never_was_a_picture_is_forgotten_when_it_is_gone_and_kept_when_offline(
    catalog: Catalog, model: ModelRecord, kind: str
) -> None:
    put(catalog, model, skipped("/a.jpg", kind))
    assert catalog.places.mark_offline(["/a.jpg"]) == 0
    assert [failure.kind for failure in catalog.places.failures()] == [kind]
    assert catalog.places.mark_missing(["/a.jpg"]) == 0
    assert catalog.places.known("/", model) == {}


def test_more_paths_than_a_statement_takes_are_marked(catalog: Catalog, model: ModelRecord) -> None:
    paths = [f"/{n}.jpg" for n in range(1201)]
    put(catalog, model, *(picture(path, 1) for path in paths))
    assert catalog.places.mark_offline(iter(paths)) == 1201
    assert catalog.places.mark_missing(iter(paths)) == 1201
    known = catalog.places.known("/", model).values()
    catalog.places.mark_present(model, (file.id for file in known))
    assert catalog.counts(model).files_present == 1201


# -- failures ------------------------------------------------------------------------------------


@given(st.integers(1, 10_000))
def test_each_pause_is_twice_the_one_before_up_to_a_day(attempts: int) -> None:
    pause = pause_after(attempts)
    assert FIRST_RETRY_SECONDS <= pause <= LAST_RETRY_SECONDS
    assert pause_after(attempts + 1) == min(2 * pause, LAST_RETRY_SECONDS)
    assert pause_after(1) == FIRST_RETRY_SECONDS


def test_what_the_disk_refuses_is_tried_again_after_pauses_that_grow(
    catalog: Catalog, model: ModelRecord
) -> None:
    for attempts in (1, 2, 3):
        put(catalog, model, skipped("/a.jpg", "access", "no permission"))
        (failure,) = catalog.places.failures()
        assert (failure.path, failure.kind, failure.reason) == ("/a.jpg", "access", "no permission")
        assert failure.attempts == attempts
        assert failure.next_try == pytest.approx(failure.last_try + pause_after(attempts))


@pytest.mark.parametrize("kind", ["content", "crash"])
def test_what_only_other_bytes_can_help_is_not_tried_again_by_itself(
    catalog: Catalog, model: ModelRecord, kind: str
) -> None:
    for attempts in (1, 2):
        put(catalog, model, skipped("/a.jpg", kind))
        (failure,) = catalog.places.failures()
        assert (failure.kind, failure.attempts, failure.next_try) == (kind, attempts, None)


def test_another_kind_of_failure_is_counted_from_one(catalog: Catalog, model: ModelRecord) -> None:
    for kind in ("access", "access", "content"):
        put(catalog, model, skipped("/a.jpg", kind))
    (failure,) = catalog.places.failures()
    assert (failure.kind, failure.attempts, failure.next_try) == ("content", 1, None)


def test_tries_are_counted_in_one_batch_as_in_several(catalog: Catalog, model: ModelRecord) -> None:
    put(catalog, model, *[skipped("/a.jpg", "access")] * 3)
    (failure,) = catalog.places.failures()
    assert failure.attempts == 3


def test_a_picture_that_cannot_be_asked_for_stays_in_the_results_with_its_failure(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, picture("/a.jpg", 1))
    before = row(catalog, model, "/a.jpg")
    put(catalog, model, SkippedFile("/a.jpg", UNKNOWN_STAT, None, "no permission", "access"))
    known = row(catalog, model, "/a.jpg")
    assert (known.state, known.stat, known.failure) == ("present", before.stat, "access")
    assert list(catalog.images([1])) == [1]
    assert catalog.counts(model).files_failed == 1
    put(catalog, model, picture("/a.jpg", 1))
    assert row(catalog, model, "/a.jpg") == before
    assert catalog.places.failures() == []


@pytest.mark.parametrize("state", ["missing", "offline"])
def test_a_picture_that_is_back_and_refuses_is_skipped_and_keeps_its_image(
    catalog: Catalog, model: ModelRecord, state: str
) -> None:
    put(catalog, model, picture("/a.jpg", 1))
    mark = catalog.places.mark_missing if state == "missing" else catalog.places.mark_offline
    mark(["/a.jpg"])
    put(catalog, model, skipped("/a.jpg", "access"))
    assert row(catalog, model, "/a.jpg").state == "skipped"
    assert column(catalog, "/a.jpg", "missing_since") is None
    put(catalog, model, picture("/a.jpg", 1))
    assert list(catalog.images([1])) == [1]


def test_failures_are_told_by_path_and_by_when_they_are_due(
    catalog: Catalog, model: ModelRecord
) -> None:
    odd = os.fsdecode(b"/\xff.jpg")
    put(
        catalog,
        model,
        skipped(odd, "access"),
        skipped("/b.jpg", "access"),
        skipped("/b.jpg", "access"),
        skipped("/a.jpg", "content"),
        skipped("/c.jpg", "crash"),
        picture("/d.jpg", 1),
    )
    places = catalog.places
    assert [each.path for each in places.failures()] == ["/a.jpg", "/b.jpg", "/c.jpg", odd]
    assert [each.path for each in places.failures(limit=2)] == ["/a.jpg", "/b.jpg"]
    soon = time.time() + FIRST_RETRY_SECONDS + 5
    assert [each.path for each in places.failures(due_before=soon)] == [odd]
    later = time.time() + 2 * FIRST_RETRY_SECONDS + 5
    assert [each.path for each in places.failures(due_before=later)] == ["/b.jpg", odd]
    assert [each.path for each in places.failures(due_before=later, limit=1)] == ["/b.jpg"]
    assert places.failures(due_before=time.time()) == []


def test_a_suspect_is_due_at_once_and_a_crash_puts_it_into_quarantine(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, picture("/known.jpg", 1))
    stat = row(catalog, model, "/known.jpg").stat
    catalog.places.suspect(["/known.jpg", "/new.jpg"])
    due = catalog.places.failures(due_before=time.time() + 1)
    assert [(each.path, each.kind) for each in due] == [
        ("/known.jpg", "crash"),
        ("/new.jpg", "crash"),
    ]
    known, new = row(catalog, model, "/known.jpg"), row(catalog, model, "/new.jpg")
    # The picture is one until it is known to be none.
    assert (known.state, known.stat) == ("present", stat)
    assert (new.state, new.stat) == ("skipped", UNKNOWN_STAT)
    put(catalog, model, skipped("/new.jpg", "crash"), picture("/known.jpg", 1))
    (failure,) = catalog.places.failures()
    assert (failure.path, failure.attempts, failure.next_try) == ("/new.jpg", 1, None)
    catalog.places.suspect([])
    assert len(catalog.places.failures()) == 1


def test_failures_are_tried_again_where_it_is_asked(catalog: Catalog, model: ModelRecord) -> None:
    paths = ["/a/x.jpg", "/a.jpg", "/a0.jpg", "/b.jpg", "/b/c/y.jpg"]
    put(catalog, model, *(skipped(path, "content") for path in paths), picture("/a/ok.jpg", 1))

    def due() -> list[str]:
        return [each.path for each in catalog.places.failures(due_before=time.time() + 1)]

    assert catalog.places.try_again(["/a", "/b.jpg"]) == 2
    assert due() == ["/a/x.jpg", "/b.jpg"]
    assert catalog.places.try_again([]) == 0
    assert catalog.places.try_again() == 5
    assert due() == sorted(paths)


def test_thousands_of_failures_are_tried_again_by_name(
    catalog: Catalog, model: ModelRecord
) -> None:
    paths = [f"/{n}.jpg" for n in range(1200)]
    put(catalog, model, *(skipped(path, "content") for path in paths))
    assert catalog.places.try_again(paths) == 1200
    assert len(catalog.places.failures(due_before=time.time() + 1)) == 1200


# -- purge ---------------------------------------------------------------------------------------


def age(catalog: Catalog, path: str, seconds: float) -> None:
    """Let a missing file be missing for that long."""
    with catalog.database.writing() as connection:
        connection.execute(
            text("UPDATE file SET missing_since = missing_since - :seconds WHERE path = :path"),
            {"seconds": seconds, "path": os.fsencode(path)},
        )


def test_only_what_is_missing_for_long_enough_is_given_up(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, *(picture(f"/{n}.jpg", n) for n in range(4)))
    catalog.places.mark_missing(["/0.jpg", "/1.jpg"])
    catalog.places.mark_offline(["/2.jpg"])
    age(catalog, "/0.jpg", 1000)
    purged = catalog.places.purge(missing_before=time.time() - 500)
    assert (purged.files, purged.digests) == (1, (digest(0),))
    assert sorted(catalog.places.known("/", model)) == ["/1.jpg", "/2.jpg", "/3.jpg"]
    assert not catalog.has_vector(digest(0), model)
    assert all(catalog.has_vector(digest(n), model) for n in (1, 2, 3))
    assert catalog.places.purge(missing_before=time.time() - 500).files == 0


@pytest.mark.parametrize("state", ["present", "offline", "skipped", "missing"])
def test_an_image_stays_while_it_has_another_place_whatever_its_state(
    catalog: Catalog, model: ModelRecord, state: str
) -> None:
    put(catalog, model, picture("/a.jpg", 1), picture("/b.jpg", 1))
    catalog.places.mark_missing(["/a.jpg"])
    age(catalog, "/a.jpg", 1000)
    if state == "skipped":
        put(catalog, model, skipped("/b.jpg", "content"))
    elif state == "offline":
        catalog.places.mark_offline(["/b.jpg"])
    elif state == "missing":
        catalog.places.mark_missing(["/b.jpg"])
    purged = catalog.places.purge(missing_before=time.time() - 500)
    assert (purged.files, purged.digests) == (1, ())
    assert catalog.has_vector(digest(1), model)
    assert list(catalog.places.known("/", model)) == ["/b.jpg"]


def test_the_vectors_of_all_models_go_and_the_log_of_each_says_so(
    catalog: Catalog, model: ModelRecord
) -> None:
    other = catalog.known_model(identity="b" * 64, name="other", dimension=DIMENSION)
    put(catalog, model, picture("/a.jpg", 1), picture("/b.jpg", 2))
    catalog.put_vectors(other, [(1, vector(11)), (2, vector(12))])
    before = {each: catalog.last_seq(each) for each in (model, other)}
    catalog.places.mark_missing(["/a.jpg"])
    catalog.places.purge(missing_before=time.time() + 1)
    for each in (model, other):
        assert catalog.last_seq(each) > before[each]
        changes = catalog.changes(each, after=before[each])
        assert (changes.ids.tolist(), changes.removed.tolist()) == ([], [1])
        assert catalog.all_vectors(each)[1].tolist() == [2]
    with catalog.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT id FROM image").scalars().all() == [2]


def test_the_index_follows_a_purge_from_a_checkpoint_and_while_it_is_open(
    catalog: Catalog, model: ModelRecord
) -> None:
    folder = catalog.database.folder
    put(catalog, model, *(picture(f"/{n}.jpg", n) for n in range(30)))
    index = LiveIndex(catalog, model, folder)
    index.refresh()
    catalog.places.mark_missing([f"/{n}.jpg" for n in range(10)])
    catalog.places.purge(missing_before=time.time() + 1)
    expected = catalog.all_vectors(model)[1].tolist()
    assert len(expected) == 20
    for each in (index, LiveIndex(catalog, model, folder)):
        assert len(each) == 20
        assert sorted(each.search(vector(3)[None], 30).ids[0].tolist())[-20:] == expected


def test_an_image_that_was_given_up_comes_back_and_no_other_gets_its_id(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, picture("/a.jpg", 1), picture("/b.jpg", 2))
    catalog.places.mark_missing(["/b.jpg"])
    catalog.places.purge(missing_before=time.time() + 1)
    assert catalog.record(model, [picture("/c.jpg", 3)], gone=lambda *_: False) == ["added"]
    catalog.record(model, [picture("/b.jpg", 2)], gone=lambda *_: False)
    ids = {image.digest: image.id for image in catalog.images(range(1, 10)).values()}
    assert set(ids) == {digest(n).hex() for n in (1, 2, 3)}
    assert ids[digest(1).hex()] == 1
    assert ids[digest(3).hex()] != 2
    assert len(LiveIndex(catalog, model, catalog.database.folder)) == 3


def test_an_image_that_no_file_holds_since_it_was_edited_is_given_up_by_its_age(
    catalog: Catalog, model: ModelRecord
) -> None:
    put(catalog, model, *(picture(f"/{n}.jpg", n) for n in range(4)))
    put(catalog, model, picture("/0.jpg", 10), picture("/1.jpg", 11), picture("/3.jpg", 13))
    put(catalog, model, skipped("/3.jpg", "content"), picture("/copy.jpg", 1))
    seq = catalog.last_seq(model)
    with catalog.database.writing() as connection:
        connection.exec_driver_sql("UPDATE image SET added_at = 5 WHERE id < 4")
    assert catalog.places.purge_replaced(added_before=5).digests == ()
    assert catalog.places.purge_replaced(added_before=6, limit=10) == Purged(0, (digest(0),))
    assert catalog.places.purge_replaced(added_before=6).digests == ()
    assert catalog.changes(model, after=seq).removed.tolist() == [1]
    # The third was replaced as well, and later.
    assert catalog.places.purge_replaced(added_before=time.time() + 1).digests == (digest(3),)
    assert sorted(catalog.places.known("/", model)) == [
        *(f"/{n}.jpg" for n in range(4)),
        "/copy.jpg",
    ]
    assert all(catalog.has_vector(digest(n), model) for n in (1, 2, 10, 11, 13))


@settings(max_examples=20, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=14),
    limit=st.integers(1, 5),
)
def test_batches_of_any_size_give_up_the_same(
    empty_catalog: Catalog, places: list[tuple[int, bool]], limit: int
) -> None:
    catalog, model = empty_catalog, empty_catalog.model()
    assert model is not None
    with catalog.database.writing() as connection:
        for table in ("file", "embedding", "change", "image"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    put(catalog, model, *(picture(f"/{i}.jpg", n) for i, (n, _) in enumerate(places)))
    catalog.places.mark_missing([f"/{i}.jpg" for i, (_, gone) in enumerate(places) if gone])
    index = LiveIndex(catalog, model, catalog.database.folder)
    index.refresh()
    files, digests = 0, []
    while (purged := catalog.places.purge(missing_before=time.time() + 1, limit=limit)).files:
        assert purged.files <= limit
        files += purged.files
        digests += purged.digests
    kept = {n for n, gone in places if not gone}
    assert files == sum(gone for _, gone in places)
    assert sorted(digests) == sorted(digest(n) for n in {n for n, _ in places} - kept)
    assert sorted(catalog.places.known("/", model)) == sorted(
        f"/{i}.jpg" for i, (_, gone) in enumerate(places) if not gone
    )
    assert len(index) == len(LiveIndex(catalog, model, catalog.database.folder)) == len(kept)
    index.path.unlink(missing_ok=True)
