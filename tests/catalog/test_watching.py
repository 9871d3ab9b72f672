"""What watching keeps: folders come back as they were put, no noted path is lost, the heartbeat."""

import os
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.catalog import Catalog, FolderRecord, Heartbeat, SkippedFile, Stat
from tests.catalog.places import Place

# -- folders -------------------------------------------------------------------------------------

# A path and a name of any bytes that a file system takes.
NAME = st.binary(min_size=1, max_size=8).map(
    lambda raw: os.fsdecode(raw.replace(b"\0", b"x").replace(b"/", b"y"))
)
PATTERN = NAME
FOLDER = st.builds(
    FolderRecord,
    path=st.lists(NAME, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names)),
    recursive=st.booleans(),
    follow_links=st.booleans(),
    include=st.lists(PATTERN, max_size=3).map(tuple),
    exclude=st.lists(PATTERN, max_size=3).map(tuple),
    marker=st.none() | NAME,
    events=st.sampled_from(["auto", "yes", "no"]),
    watched=st.booleans(),
)


def without_id(folder: FolderRecord) -> FolderRecord:
    values = {name: getattr(folder, name) for name in FolderRecord.__slots__ if name != "id"}
    return FolderRecord(**values)


@settings(max_examples=40, deadline=None)
@given(folders=st.lists(FOLDER, max_size=4))
def test_folders_come_back_as_they_were_put_last_by_path(
    shared_catalog: Catalog, folders: list[FolderRecord]
) -> None:
    store = shared_catalog.folders
    for known in store.all():
        assert store.forget(known.path)
    expected: dict[str, FolderRecord] = {}
    ids: dict[str, int] = {}
    for folder in folders:
        put = store.put(folder)
        assert without_id(put) == folder
        assert put.id == ids.setdefault(folder.path, put.id) > 0
        assert store.get(folder.path) == put
        expected[folder.path] = put
    in_order = [expected[path] for path in sorted(expected, key=os.fsencode)]
    assert store.all() == in_order
    assert store.all(watched=True) == [folder for folder in in_order if folder.watched]


def test_a_folder_that_was_forgotten_leaves_its_files(catalog: Catalog) -> None:
    model = catalog.use_model(identity="a" * 64, name="test", dimension=4)
    catalog.folders.put(FolderRecord("/p"))
    other = catalog.folders.put(FolderRecord("/q"))
    catalog.record(
        model,
        [SkippedFile(f"/{p}/a.jpg", Stat(1, 1, 1), f"/{p}", "torn") for p in "pq"],
        gone=lambda *_: False,
    )
    assert catalog.folders.get("/nowhere") is None
    assert catalog.folders.forget("/p")
    assert not catalog.folders.forget("/p")
    assert catalog.folders.all() == [other]
    known = catalog.places.known("/", model)
    assert {path: file.folder_id for path, file in known.items()} == {
        "/p/a.jpg": None,
        "/q/a.jpg": other.id,
    }


def test_a_file_belongs_to_the_folder_that_found_it_last(catalog: Catalog) -> None:
    model = catalog.use_model(identity="a" * 64, name="test", dimension=4)
    ids = {name: catalog.folders.put(FolderRecord(name)).id for name in ("/p", "/p/q")}

    def found_in(folder: str | None) -> int | None:
        file = SkippedFile("/p/q/a.jpg", Stat(1, 1, 1), folder, "torn")
        catalog.record(model, [file], gone=lambda *_: False)
        return catalog.places.known("/", model)["/p/q/a.jpg"].folder_id

    assert [found_in(folder) for folder in (None, "/p", "/p/q", None)] == [
        None,
        ids["/p"],
        ids["/p/q"],
        ids["/p/q"],
    ]


# -- the list of dirty paths ---------------------------------------------------------------------

DIRTY_PATH = st.sampled_from(["/a", "/b", os.fsdecode(b"/\xff\n"), "/a/b", "/ä"])
STEP = st.one_of(
    st.tuples(st.just("note"), st.lists(DIRTY_PATH, unique=True, max_size=4)),
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(st.just("done"), st.integers(0, 20)),
    st.tuples(st.just("again"), st.just(0)),
)


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(STEP, max_size=14))
def test_no_path_leaves_the_list_before_its_last_mark_is_dealt_with(
    shared_catalog: Catalog, steps: list[tuple[str, list[str] | int]]
) -> None:
    """A reader takes pages behind its mark, and takes off what it had, in any order."""
    dirty = shared_catalog.dirty
    dirty.take_off([mark for mark, _ in dirty.after(0, limit=1000)])
    pending: dict[str, int] = {}  # path -> how often it was noted
    noted = 0
    taken: list[tuple[int, str, int]] = []  # mark, path, how often noted at that time
    reader, highest = 0, 0
    for what, value in steps:
        if isinstance(value, list):
            dirty.note(value)
            for path in value:
                noted += 1
                pending[path] = noted
        elif what == "take":
            for mark, path in dirty.after(reader, limit=value):
                assert mark > reader
                reader = mark
                taken.append((mark, path, pending[path]))
        elif what == "done" and taken:
            mark, path, version = taken.pop(value % len(taken))
            dirty.take_off([mark])
            if pending.get(path) == version:
                del pending[path]
        elif what == "again":
            reader = 0
        rows = dirty.after(0, limit=1000)
        marks = [mark for mark, _ in rows]
        assert marks == sorted(set(marks))
        assert [path for _, path in rows] == sorted(pending, key=pending.__getitem__)
        highest = max([highest, *marks])
        assert dirty.size()[0] == len(pending)
    dirty.note(["/last"])
    assert dirty.after(highest, limit=10)[-1][1] == "/last"


def test_a_mark_is_never_given_twice(catalog: Catalog) -> None:
    catalog.dirty.note(["/a"])
    ((first, _),) = catalog.dirty.after(0, limit=10)
    catalog.dirty.take_off([first])
    catalog.dirty.note(["/b"])
    ((second, _),) = catalog.dirty.after(0, limit=10)
    assert second > first
    assert catalog.dirty.after(first, limit=10) == [(second, "/b")]
    assert catalog.dirty.after(second, limit=10) == []


def test_the_list_outlives_its_process_and_holds_many(catalog: Catalog, place: Place) -> None:
    paths = [f"/{n:05}.jpg" for n in range(1700)]
    catalog.dirty.note(paths)
    again = place.open(create=False)
    rows = again.dirty.after(0, limit=5000)
    assert [path for _, path in rows] == paths
    again.dirty.take_off(mark for mark, _ in rows[:-1])
    assert [path for _, path in catalog.dirty.after(0, limit=5)] == paths[-1:]
    again.close()


def test_the_size_says_how_many_and_since_when(catalog: Catalog) -> None:
    assert catalog.dirty.size() == (0, None)
    catalog.dirty.note([])
    assert catalog.dirty.size() == (0, None)
    before = time.time()
    catalog.dirty.note(["/a"])
    middle = time.time()
    catalog.dirty.note(["/b", "/c"])
    count, oldest = catalog.dirty.size()
    assert count == 3
    assert oldest is not None
    assert before <= oldest <= middle
    catalog.dirty.note(["/a"])  # noted anew, so that it waits since now
    assert catalog.dirty.size()[0] == 3
    assert (catalog.dirty.size()[1] or 0) >= middle


# -- the heartbeat -------------------------------------------------------------------------------

HEARTBEAT = st.builds(
    Heartbeat,
    pid=st.integers(1, 2**31),
    host=st.text(max_size=10).filter(lambda text: "\0" not in text),
    started_at=st.floats(0, 4e9),
    beat_at=st.floats(0, 4e9),
    stage=st.sampled_from(["watching", "embedding"]),
    queued=st.integers(0, 2**40),
    settling=st.integers(0, 5000),
    done=st.integers(0, 2**40),
    failed=st.integers(0, 2**40),
    per_second=st.floats(0, 1e6),
    lag=st.floats(0, 1e9),
    last_event_at=st.none() | st.floats(0, 4e9),
    scanned_at=st.none() | st.floats(0, 4e9),
)


def test_folders_that_were_never_watched_have_no_heartbeat(catalog: Catalog) -> None:
    assert catalog.pulse.last() is None


@settings(max_examples=10, deadline=None)
@given(beats=st.lists(HEARTBEAT, min_size=1, max_size=3))
def test_the_last_heartbeat_is_the_one_that_is_read(
    shared_catalog: Catalog, beats: list[Heartbeat]
) -> None:
    for beat in beats:
        shared_catalog.pulse.beat(beat)
        assert shared_catalog.pulse.last() == beat
    with shared_catalog.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM watcher").scalar() == 1
