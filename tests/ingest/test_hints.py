"""From hints to files: what each kind of path leads to, and that no hint is lost on the way."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from searchlib.catalog import (
    Catalog,
    Facts,
    FolderRecord,
    KnownFile,
    ModelRecord,
    NewContent,
    ReadFile,
)
from searchlib.ingest.compare import Comparison
from searchlib.ingest.hints import Hints, judge
from searchlib.ingest.place import stat_at
from searchlib.ingest.report import Report
from searchlib.ingest.settle import Settled, being_written, look
from searchlib.ingest.walk import Found

CONTENT = NewContent(
    Facts(bytes=10, format="JPEG", width=4, height=3), np.array([1, 0], np.float32)
)


@pytest.fixture
def catalog(library_folder: Path) -> Iterator[Catalog]:
    catalog = Catalog(library_folder, create=True)
    yield catalog
    catalog.close()


@pytest.fixture
def model(catalog: Catalog) -> ModelRecord:
    return catalog.use_model(identity="a" * 64, name="test", dimension=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def folder(catalog: Catalog, root: Path) -> FolderRecord:
    return catalog.folders.put(FolderRecord(str(root), watched=True))


def make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path.name))


def take_in(catalog: Catalog, model: ModelRecord, folder: FolderRecord, *paths: Path) -> None:
    files = [
        ReadFile(
            str(path), stat_at(str(path)), os.fsencode(path)[-32:].ljust(32), folder.path, CONTENT
        )
        for path in paths
    ]
    catalog.record(model, files, gone=lambda *_: False)


class Judged:
    """What came of a path that stands still as it lies there now."""

    def __init__(
        self,
        catalog: Catalog,
        model: ModelRecord,
        path: Path,
        *folders: FolderRecord,
        leave_out: tuple[str, ...] = (),
    ) -> None:
        self.report = Report()
        comparison = Comparison(catalog, model, self.report, leave_out=leave_out)
        settled = Settled(str(path), 1, look(str(path)), 1.0)
        self.read = list(judge(settled, comparison, folders))
        self.paths = [found.path for found in self.read]
        self.missing, self.offline = comparison.absent.resolve(folders)


def known(catalog: Catalog, model: ModelRecord, path: Path) -> KnownFile:
    return catalog.places.known(str(path), model)[str(path)]


# -- judge ---------------------------------------------------------------------------------------


def test_a_new_file_is_read_for_the_innermost_folder_that_counts_it(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    path = root / "x" / "a.jpg"
    make(path)
    inner = catalog.folders.put(FolderRecord(str(root / "x"), watched=True))
    for folders in ([folder, inner], [inner, folder]):
        (found,) = Judged(catalog, model, path, *folders).read
        assert (found.path, found.folder) == (str(path), inner.path)
    picky = replace(inner, include=("*.png",))
    (found,) = Judged(catalog, model, path, folder, picky).read
    assert found.folder == folder.path


def test_a_file_that_no_folder_counts_leads_to_nothing(
    catalog: Catalog, model: ModelRecord, tmp_path: Path, root: Path, folder: FolderRecord
) -> None:
    paths = [root / ".hidden.jpg", root / "notes.txt", root / "node_modules" / "a.jpg"]
    outside = tmp_path / "root0" / "a.jpg"
    make(*paths, outside)
    for path in [*paths, outside, root / "never-was.jpg"]:
        judged = Judged(catalog, model, path, folder)
        assert (judged.paths, judged.missing, judged.report.skipped) == ([], 0, [])
    assert catalog.places.known("/", model) == {}


def test_a_known_file_is_read_only_if_it_was_touched(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    path = root / "a.jpg"
    make(path)
    take_in(catalog, model, folder, path)
    judged = Judged(catalog, model, path, folder)
    assert (judged.paths, judged.report.unchanged) == ([], 1)
    path.write_bytes(b"other bytes")
    assert Judged(catalog, model, path, folder).paths == [str(path)]


def test_what_is_gone_is_missing_with_all_below(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    paths = [root / name for name in ("x/a.jpg", "x/y/b.jpg", "x.jpg", "x0/c.jpg")]
    make(*paths)
    take_in(catalog, model, folder, *paths)
    shutil.rmtree(root / "x")
    assert Judged(catalog, model, root / "x", folder).missing == 2
    paths[2].unlink()
    assert Judged(catalog, model, paths[2], folder).missing == 1
    assert known(catalog, model, paths[3]).state == "present"


def test_a_new_folder_is_looked_through_by_the_rules(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    make(*(root / "x" / name for name in ("a.jpg", "b.png", "y/c.jpg", ".h/d.jpg")))
    judged = Judged(catalog, model, root / "x", folder)
    assert judged.paths == [str(root / "x" / name) for name in ("a.jpg", "b.png", "y/c.jpg")]
    picky = replace(folder, exclude=("*.png", "y/"))
    assert Judged(catalog, model, root / "x", picky).paths == [str(root / "x" / "a.jpg")]
    assert Judged(catalog, model, root / "x", replace(folder, exclude=("x/",))).paths == []
    assert Judged(catalog, model, root / "x", replace(folder, recursive=False)).paths == []
    assert Judged(catalog, model, root / "x" / ".h", folder).paths == []


def test_a_folder_in_which_files_are_gone_says_so(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    paths = [root / name for name in ("x/a.jpg", "x/b.jpg", "c.jpg")]
    make(*paths)
    take_in(catalog, model, folder, *paths)
    for path in paths:
        path.unlink()
    assert Judged(catalog, model, root / "x", folder).missing == 2
    assert known(catalog, model, paths[2]).state == "present"


def test_an_ignore_file_counts_when_it_comes_changes_and_goes(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    paths = [root / "x" / name for name in ("a.jpg", "b.png")]
    make(*paths, root / "beside.jpg")
    take_in(catalog, model, folder, *paths, root / "beside.jpg")
    ignore = root / "x" / ".searchlibignore"
    ignore.write_text("*.png\n")
    assert Judged(catalog, model, ignore, folder).missing == 1
    assert known(catalog, model, paths[1]).state == "missing"
    ignore.write_text("a.jpg\n")
    assert Judged(catalog, model, ignore, folder).missing == 1
    assert known(catalog, model, paths[0]).state == "missing"
    assert known(catalog, model, paths[1]).state == "present"
    ignore.unlink()
    judged = Judged(catalog, model, ignore, folder)
    assert (judged.paths, judged.missing) == ([], 0)
    assert {file.state for file in catalog.places.known("/", model).values()} == {"present"}


def test_an_ignore_file_that_goes_with_its_folder_leaves_the_files_missing(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    make(root / "x" / "a.jpg", root / "x" / ".searchlibignore")
    take_in(catalog, model, folder, root / "x" / "a.jpg")
    shutil.rmtree(root / "x")
    missing = 0
    for path in (root / "x" / ".searchlibignore", root / "x"):
        missing += Judged(catalog, model, path, folder).missing
    assert missing == 1


def test_a_film_is_noted_at_its_still_when_it_comes_and_when_it_goes(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    still, film, stranger = root / "a.HEIC", root / "a.mov", root / "b.mov"
    make(still, stranger)
    take_in(catalog, model, folder, still)
    film.touch()
    assert Judged(catalog, model, film, folder).paths == []
    assert known(catalog, model, still).video == str(film)
    assert Judged(catalog, model, stranger, folder).paths == []
    film.unlink()
    assert Judged(catalog, model, film, folder).paths == []
    assert known(catalog, model, still).video is None
    assert known(catalog, model, still).state == "present"


def test_nothing_is_believed_of_a_folder_without_its_marker(
    catalog: Catalog, model: ModelRecord, root: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(root), marker=".here", watched=True))
    make(root / "a.jpg")
    take_in(catalog, model, folder, root / "a.jpg")
    (root / "a.jpg").unlink()
    make(root / "b.jpg")
    for name in ("a.jpg", "b.jpg", "."):
        judged = Judged(catalog, model, root / name, folder)
        assert (judged.paths, judged.missing, judged.offline) == ([], 0, {})
    (root / ".here").touch()
    assert Judged(catalog, model, root / "a.jpg", folder).missing == 1
    assert Judged(catalog, model, root / "b.jpg", folder).paths == [str(root / "b.jpg")]


def test_the_library_in_a_watched_folder_leads_to_nothing(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    own = root / "library"
    make(own / "thumbnails" / "ab" / "x.webp", root / "library.webp")
    for path in (own, own / "thumbnails", own / "thumbnails" / "ab" / "x.webp"):
        assert Judged(catalog, model, path, folder, leave_out=(str(own),)).paths == []
    judged = Judged(catalog, model, root, folder, leave_out=(str(own),))
    assert judged.paths == [str(root / "library.webp")]
    judged = Judged(catalog, model, root / "library.webp", folder, leave_out=(str(own),))
    assert judged.paths == [str(root / "library.webp")]


def test_a_file_that_cannot_be_asked_for_is_a_failure(
    catalog: Catalog, model: ModelRecord, root: Path, folder: FolderRecord
) -> None:
    path = root / "a.jpg"
    path.symlink_to(path)
    assert Judged(catalog, model, path, folder).paths == []
    (failure,) = catalog.places.failures()
    assert (failure.path, failure.kind) == (str(path), "access")


# -- what is fresh -------------------------------------------------------------------------------


def found_at(path: Path) -> Found:
    return Found(str(path), stat_at(str(path)), None)


def test_a_file_is_fresh_while_it_is_young_or_written(catalog: Catalog, root: Path) -> None:
    hints = Hints(catalog, settle=100, patience=600)
    path = root / "a.jpg"
    make(path)
    assert hints.is_fresh(found_at(path))
    past = time.time_ns() - 200 * 10**9
    os.utime(path, ns=(past, past))
    assert not hints.is_fresh(found_at(path))
    with path.open("ab"):
        # Not every system and file system tells.
        assert hints.is_fresh(found_at(path)) == being_written(str(path))
    assert not hints.is_fresh(found_at(path))


# -- the list ------------------------------------------------------------------------------------


def take_all(hints: Hints, wanted: int) -> list[Settled]:
    taken: list[Settled] = []
    end = time.monotonic() + 20
    while len(taken) < wanted and time.monotonic() < end:
        taken += hints.take(1000)
        time.sleep(0.005)
    return taken


def test_what_was_noted_is_given_out_once_and_stays_on_the_list_until_it_is_done(
    catalog: Catalog, root: Path
) -> None:
    hints = Hints(catalog, settle=0.01, patience=600)
    paths = [str(root / f"{n}.jpg") for n in range(20)]
    make(*map(Path, paths[:10]))
    hints.note(paths)
    assert hints.news.is_set()
    settled = take_all(hints, 20)
    assert sorted(each.path for each in settled) == sorted(paths)
    assert {each.look.kind for each in settled} == {"file", "gone"}
    assert hints.take(1000) == []
    assert hints.pause() is None
    assert catalog.dirty.size()[0] == 20
    hints.done(settled[:5])
    assert catalog.dirty.size()[0] == 15

    hints.start_again()
    again = take_all(hints, 15)
    assert {each.path for each in again} == {each.path for each in settled[5:]}
    hints.done(again)
    assert catalog.dirty.size()[0] == 0


def test_a_path_that_is_noted_while_it_is_dealt_with_is_given_out_again(
    catalog: Catalog, root: Path
) -> None:
    hints = Hints(catalog, settle=0.01, patience=600)
    path = root / "a.jpg"
    make(path)
    hints.note([str(path)])
    first = take_all(hints, 1)
    hints.note([str(path)])
    hints.done(first)
    assert catalog.dirty.size()[0] == 1
    second = take_all(hints, 1)
    assert [each.path for each in second] == [str(path)]
    assert second[0].mark > first[0].mark
    hints.done(second)
    assert catalog.dirty.size()[0] == 0


def test_what_another_process_noted_is_taken_as_well(catalog: Catalog, root: Path) -> None:
    hints = Hints(catalog, settle=0.01, patience=600)
    other = Catalog(catalog.database.folder, create=False)
    other.dirty.note([str(root / "a.jpg")])
    other.close()
    assert [each.path for each in take_all(hints, 1)] == [str(root / "a.jpg")]


def test_the_pause_ends_when_something_can_stand_still(catalog: Catalog, root: Path) -> None:
    hints = Hints(catalog, settle=50, patience=600)
    assert hints.pause() is None
    hints.note([str(root / "a.jpg")])
    assert hints.take(10) == []
    assert len(hints) == 1
    pause = hints.pause()
    assert pause is not None
    assert 0 < pause <= 50


def test_what_does_not_come_to_rest_is_a_failure_to_be_tried_later(
    catalog: Catalog, model: ModelRecord, root: Path
) -> None:
    hints = Hints(catalog, settle=0.005, patience=0.05)
    picture, notes = root / "a.jpg", root / "a.txt"
    hints.note([str(picture), str(notes)])
    late: list[str] = []
    end = time.monotonic() + 20
    while len(late) < 2 and time.monotonic() < end:
        for path in (picture, notes):
            with path.open("ab") as file:
                file.write(b"x")
        assert hints.take(10) == []
        late += hints.report_late(model)
        time.sleep(0.006)
    assert sorted(late) == [str(picture), str(notes)]
    (failure,) = catalog.places.failures()
    assert (failure.path, failure.kind) == (str(picture), "access")
    assert "still being written" in failure.reason
    assert failure.next_try is not None
    assert catalog.dirty.size()[0] == 0
    assert hints.report_late(model) == []
