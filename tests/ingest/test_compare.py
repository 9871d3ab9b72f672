"""The disk against the catalog: what is read, untouched, absent or left out, by brute force too."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.catalog import (
    UNKNOWN_STAT,
    Catalog,
    Facts,
    FolderRecord,
    KnownFile,
    ModelRecord,
    NewContent,
    ReadFile,
    SkippedFile,
    Stat,
)
from searchlib.ingest import compare
from searchlib.ingest.absent import is_below, is_marked
from searchlib.ingest.compare import Comparison
from searchlib.ingest.place import signed, stat_at
from searchlib.ingest.report import Report

FACTS = Facts(bytes=10, format="JPEG", width=4, height=3)
VECTOR = np.array([1, 0, 0, 0], np.float32)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path_factory.mktemp("shared") / "library", create=True)
    catalog.use_model(identity="a" * 64, name="test", dimension=4)
    yield catalog
    catalog.close()


@pytest.fixture
def catalog(shared: Catalog) -> Catalog:
    """A catalog that knows no files and no folders."""
    empty(shared)
    return shared


@pytest.fixture
def model(shared: Catalog) -> ModelRecord:
    return in_use(shared)


def in_use(catalog: Catalog) -> ModelRecord:
    model = catalog.model()
    assert model is not None
    return model


def empty(catalog: Catalog) -> None:
    with catalog.database.writing() as connection:
        for table in ("file", "embedding", "change", "image", "folder"):
            connection.exec_driver_sql(f"DELETE FROM {table}")


def make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path.name))


def take_in(catalog: Catalog, *paths: Path, folder: str | None = None) -> None:
    """Have the catalog know files as they lie there now."""
    content = NewContent(FACTS, VECTOR)
    files = [
        ReadFile(str(path), stat_at(str(path)), os.fsencode(path)[-32:].ljust(32), folder, content)
        for path in paths
    ]
    catalog.record(in_use(catalog), files, gone=lambda *_: False)


def change(catalog: Catalog, path: Path | str, **values: object) -> None:
    """Write into the row of a file."""
    names = ", ".join(f"{name} = ?" for name in values)
    with catalog.database.writing() as connection:
        connection.exec_driver_sql(
            f"UPDATE file SET {names} WHERE path = ?", (*values.values(), os.fsencode(path))
        )


def states(catalog: Catalog) -> dict[str, str]:
    known = catalog.places.known("/", in_use(catalog))
    return {path: file.state for path, file in known.items()}


def known(catalog: Catalog, path: Path) -> KnownFile:
    return catalog.places.known(str(path), in_use(catalog))[str(path)]


class Looked:
    """What a comparison of some folders came to."""

    def __init__(self, catalog: Catalog, *folders: FolderRecord, **options: object) -> None:
        self.report = Report()
        self.comparison = Comparison(
            catalog,
            in_use(catalog),
            self.report,
            **options,  # type: ignore[arg-type]
        )
        self.read = [found for folder in folders for found in self.comparison.whole(folder)]
        self.missing, self.offline = self.comparison.absent.resolve(folders)

    @property
    def paths(self) -> list[str]:
        return [found.path for found in self.read]


# -- any folder against any catalog --------------------------------------------------------------

DIRECTORIES = ["", "a/", "a.b/", "a0/", "ex/", "a/a/", "\udcff/", "a/ex/"]
NAMES = ["a.jpg", "a-.jpg", "a.jpg.jpg", "\udcfe.jpg", "b.png", "a"]
FILES = st.builds(str.__add__, st.sampled_from(DIRECTORIES), st.sampled_from(NAMES))
ROW = st.fixed_dictionaries(
    {
        "touched": st.sampled_from([False, False, True]),
        "state": st.sampled_from(["present", "present", "missing", "offline", "skipped"]),
        "image": st.booleans(),
        "embedded": st.sampled_from([True, True, False]),
        "kind": st.sampled_from(["content", "access", "crash"]),
        "due": st.booleans(),
        "owned": st.booleans(),
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


def plant(root: Path, names: set[str]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name in names:
        with suppress(OSError):  # a file is there, where a folder should be, or the reverse
            make(root / name)


def remember(catalog: Catalog, folder: FolderRecord, rows: dict[str, dict[str, object]]) -> None:
    """Have the catalog know files in all the ways that there are."""
    files: list[ReadFile | SkippedFile] = []
    device = signed(Path(folder.path).stat().st_dev)
    for name, row in rows.items():
        path = f"{folder.path}/{name}"
        owner = folder.path if row["owned"] else None
        stat = Stat(5, 5, 5, device)
        if os.path.isfile(path):  # noqa: PTH113 - a Path is no part of this
            stat = stat_at(path)
        if row["touched"]:
            stat = replace(stat, mtime_ns=stat.mtime_ns + 1)
        if row["state"] == "skipped" and not row["image"]:
            files.append(SkippedFile(path, stat, owner, "why", str(row["kind"])))  # type: ignore[arg-type]
        else:
            digest = os.fsencode(name).ljust(32)
            files.append(ReadFile(path, stat, digest, owner, NewContent(FACTS, VECTOR)))
    catalog.record(in_use(catalog), files, gone=lambda *_: False)
    for name, row in rows.items():
        path = f"{folder.path}/{name}"
        failed = row["state"] == "skipped"
        change(
            catalog,
            path,
            state=row["state"],
            missing_since=1.0 if row["state"] == "missing" else None,
            failure=row["kind"] if failed else None,
            reason="why" if failed else None,
            next_try=1.0 if failed and row["due"] else None,
        )
        if not row["embedded"]:
            with catalog.database.writing() as connection:
                connection.exec_driver_sql(
                    "DELETE FROM embedding WHERE image_id IN "
                    "(SELECT image_id FROM file WHERE path = ?)",
                    (os.fsencode(path),),
                )


@settings(max_examples=45, deadline=None)
@given(
    on_disk=st.sets(FILES, max_size=12),
    rows=st.dictionaries(FILES, ROW, max_size=10),
    retry=st.booleans(),
)
def test_each_file_ends_as_the_plain_rules_say(
    shared: Catalog,
    place: Path,
    on_disk: set[str],
    rows: dict[str, dict[str, object]],
    retry: bool,
) -> None:
    empty(shared)
    root = place / "root"
    plant(root, on_disk)
    folder = shared.folders.put(FolderRecord(str(root), exclude=("ex/",)))
    remember(shared, folder, rows)
    before = {os.path.relpath(path, root): state for path, state in states(shared).items()}

    read, unchanged, quarantined, after = {}, 0, [], dict(before)
    for name in {*on_disk, *rows}:
        row = rows.get(name)
        there = (root / name).is_file()
        counts = there and name.endswith((".jpg", ".png")) and "ex/" not in name
        is_failure = row is not None and row["state"] == "skipped"
        never_a_picture = is_failure and row is not None and not row["image"]
        if counts:
            if row is None or row["touched"]:
                read[name] = is_failure and row is not None and row["kind"] == "crash"
            elif is_failure:
                if retry or row["due"] or row["kind"] == "access":
                    read[name] = row["kind"] == "crash"
                else:
                    quarantined.append(name)
            elif not row["embedded"]:
                read[name] = False
            else:
                unchanged += 1
                after[name] = "present"
        elif row is not None and row["state"] != "missing":
            # What is there and not of this folder may count in another one.
            lost = bool(row["owned"]) or not (root / name).exists()
            if lost and never_a_picture:
                del after[name]
            elif lost:
                after[name] = "missing"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_PAGE", 3)
        patch.setattr(compare, "_WRITE_EVERY", 2)
        looked = Looked(shared, folder, retry=retry)
    assert {os.path.relpath(found.path, root): found.alone for found in looked.read} == read
    assert looked.paths == sorted(looked.paths, key=os.fsencode)
    assert all(found.folder == folder.path for found in looked.read)
    assert looked.report.unchanged == unchanged
    assert sorted(each.path for each in looked.report.skipped) == sorted(
        f"{root}/{name}" for name in quarantined
    )
    assert {os.path.relpath(path, root): state for path, state in states(shared).items()} == after
    assert looked.comparison.found == len(read) + unchanged + len(quarantined)
    assert looked.offline == {}
    # And a second look finds nothing more to be said of what was not read.
    again = Looked(shared, folder, retry=retry)
    assert again.missing == 0
    assert {os.path.relpath(path, root): state for path, state in states(shared).items()} == after


OWNER = st.sampled_from(["outer", "inner", "none"])


@settings(max_examples=45, deadline=None)
@given(
    on_disk=st.sets(FILES, max_size=10),
    rows=st.dictionaries(FILES, OWNER, max_size=8),
    inner_first=st.booleans(),
    excluded=st.booleans(),
    recursive=st.booleans(),
)
def test_folders_inside_one_another_agree_on_every_file(
    shared: Catalog,
    place: Path,
    on_disk: set[str],
    rows: dict[str, str],
    inner_first: bool,
    excluded: bool,
    recursive: bool,
) -> None:
    empty(shared)
    root = place / "nested"
    plant(root, on_disk)
    if not (root / "a").exists():
        (root / "a").mkdir()
    outer = shared.folders.put(
        FolderRecord(str(root), exclude=("a/",) if excluded else (), recursive=recursive)
    )
    inner = shared.folders.put(FolderRecord(str(root / "a")))
    owners = {"outer": outer.path, "inner": inner.path, "none": None}
    there = {name: owner for name, owner in rows.items() if (root / name).is_file()}
    for name, owner in there.items():
        take_in(shared, root / name, folder=owners[owner])

    in_scope = set()
    for name in on_disk:
        if (root / name).is_file() and name.endswith((".jpg", ".png")):
            by_outer = (recursive or "/" not in name) and not (excluded and name.startswith("a/"))
            if by_outer or (name.startswith("a/") and (root / "a").is_dir()):
                in_scope.add(name)
    folders = [inner, outer] if inner_first else [outer, inner]
    looked = Looked(shared, *folders, overlapping=True)
    assert sorted(looked.paths) == sorted(f"{root}/{name}" for name in in_scope - set(there))
    assert looked.report.unchanged == len(in_scope & set(there))
    wrong = {
        name for name in in_scope & set(there) if states(shared)[f"{root}/{name}"] != "present"
    }
    assert wrong == set()


# -- failures ------------------------------------------------------------------------------------


def test_failures_of_each_kind_are_read_again_when_their_time_has_come(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    kinds = ("access", "content", "crash")
    paths = {kind: tmp_path / f"{kind}.jpg" for kind in kinds}
    make(*paths.values())
    catalog.record(
        in_use(catalog),
        [
            SkippedFile(str(paths[kind]), stat_at(str(paths[kind])), folder.path, "why", kind)  # type: ignore[arg-type]
            for kind in kinds
        ],
        gone=lambda *_: False,
    )
    looked = Looked(catalog, folder)
    assert looked.paths == [str(paths["access"])]
    assert [(s.path, s.reason) for s in looked.report.skipped] == [
        (str(paths[kind]), "why") for kind in ("content", "crash")
    ]
    assert Looked(catalog, folder, retry=True).paths == [str(paths[kind]) for kind in kinds]
    catalog.places.try_again([str(paths["crash"])])
    again = Looked(catalog, folder)
    assert [(found.path, found.alone) for found in again.read] == [
        (str(paths["access"]), False),
        (str(paths["crash"]), True),
    ]
    for path in paths.values():
        path.write_bytes(b"other bytes")
    assert len(Looked(catalog, folder).read) == 3


def test_a_dead_link_is_a_failure_until_it_leads_somewhere(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    link = tmp_path / "a.jpg"
    link.symlink_to(tmp_path / "target")
    assert Looked(catalog, folder).paths == []
    (failure,) = catalog.places.failures()
    assert (failure.path, failure.kind) == (str(link), "access")
    assert known(catalog, link).stat == UNKNOWN_STAT
    (tmp_path / "target").write_bytes(b"x")
    assert Looked(catalog, folder).paths == [str(link)]


@pytest.mark.parametrize("how", ["dead link", "suspect", "late"])
def test_a_failure_goes_with_its_file(catalog: Catalog, tmp_path: Path, how: str) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    path = tmp_path / "a.jpg"
    if how == "dead link":
        path.symlink_to(tmp_path / "nowhere")
        Looked(catalog, folder)
    else:
        make(path)
        if how == "suspect":
            catalog.places.suspect([str(path)])
        else:
            late = SkippedFile(str(path), UNKNOWN_STAT, None, "was still being written", "access")
            catalog.record(in_use(catalog), [late], gone=lambda *_: False)
    assert [failure.path for failure in catalog.places.failures()] == [str(path)]
    path.unlink()
    looked = Looked(catalog, folder)
    assert (looked.missing, looked.offline, looked.report.skipped) == (0, {}, [])
    assert catalog.places.failures() == []
    assert states(catalog) == {}


def test_what_cannot_be_asked_for_stays_as_it_is_known(catalog: Catalog, tmp_path: Path) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    path = tmp_path / "a.jpg"
    make(path)
    take_in(catalog, path, folder=folder.path)
    path.unlink()
    path.symlink_to(path)  # a loop, which says nothing of what was there
    looked = Looked(catalog, folder)
    assert (looked.paths, looked.missing) == ([], 0)
    file = known(catalog, path)
    assert (file.state, file.failure) == ("present", "access")


# -- what is gone --------------------------------------------------------------------------------


def test_a_folder_that_vanished_takes_its_files_with_it(catalog: Catalog, tmp_path: Path) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path / "p")))
    paths = [tmp_path / "p" / name for name in ("a.jpg", "x/b.jpg", "x/y/c.jpg")]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    shutil.rmtree(tmp_path / "p" / "x")
    assert Looked(catalog, folder).missing == 2
    shutil.rmtree(tmp_path / "p")
    assert Looked(catalog, folder).missing == 1
    assert set(states(catalog).values()) == {"missing"}
    assert Looked(catalog, folder).missing == 0


def test_a_file_that_is_back_at_the_second_look_is_not_missing(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    path = tmp_path / "a.jpg"
    make(path)
    take_in(catalog, path, folder=folder.path)
    path.rename(tmp_path / "away")
    comparison = Comparison(catalog, in_use(catalog), Report())
    assert list(comparison.whole(folder)) == []
    assert len(comparison.absent) == 1
    (tmp_path / "away").rename(path)
    assert comparison.absent.resolve([folder]) == (0, {})
    assert states(catalog) == {str(path): "present"}


def test_a_file_that_was_named_and_is_gone_is_missing_or_said_to_be_none(
    catalog: Catalog, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    make(path)
    report = Report()
    comparison = Comparison(catalog, in_use(catalog), report)
    assert [found.path for found in comparison.file(str(path))] == [str(path)]
    take_in(catalog, path)
    assert list(comparison.file(str(path))) == []
    assert report.unchanged == 1
    path.unlink()
    assert list(comparison.file(str(path))) == []
    assert list(comparison.file(str(tmp_path / "never.jpg"))) == []
    assert list(comparison.file("/nul\0.jpg")) == []
    assert [(s.path, s.reason.split(":")[0]) for s in report.skipped] == [
        (str(tmp_path / "never.jpg"), "there is no such file or folder"),
        ("/nul\0.jpg", "cannot be read"),
    ]
    assert comparison.absent.resolve([]) == (1, {})


def test_only_what_is_below_the_start_is_compared(catalog: Catalog, tmp_path: Path) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [tmp_path / name for name in ("a.jpg", "x/b.jpg", "x0/c.jpg", "x.jpg")]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    for path in paths:
        path.unlink()
    make(tmp_path / "x" / "new.jpg", tmp_path / "new.jpg")
    comparison = Comparison(catalog, in_use(catalog), Report())
    found = [each.path for each in comparison.folder(folder, start=str(tmp_path / "x"))]
    assert found == [str(tmp_path / "x" / "new.jpg")]
    assert comparison.absent.resolve([folder]) == (1, {})
    assert states(catalog)[str(tmp_path / "x" / "b.jpg")] == "missing"


def test_more_than_a_page_is_compared(catalog: Catalog, tmp_path: Path) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [tmp_path / f"{n % 7}" / f"{n}.jpg" for n in range(2300)]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    told: list[int] = []
    for path in paths[::100]:
        path.unlink()
    looked = Looked(catalog, folder, on_found=told.append)
    assert (looked.paths, looked.report.unchanged, looked.missing) == ([], 2277, 23)
    assert told == [500, 1000, 1500, 2000]


def test_a_comparison_that_is_stopped_believes_nothing_gone_that_it_did_not_come_to(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [tmp_path / f"{n}.jpg" for n in range(9)]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    for n in (1, 6, 8):
        paths[n].unlink()
    report = Report()
    comparison = Comparison(catalog, in_use(catalog), report, stopped=lambda: report.unchanged == 4)
    assert list(comparison.whole(folder)) == []
    assert report.unchanged == 4
    assert comparison.absent.resolve([folder]) == (1, {})
    assert [path for path, state in states(catalog).items() if state == "missing"] == [
        str(paths[1])
    ]


# -- drives --------------------------------------------------------------------------------------


def test_a_file_of_another_device_is_offline_and_not_missing(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    for path in paths:
        path.unlink()
    change(catalog, paths[0], device=12345)
    looked = Looked(catalog, folder)
    assert (looked.missing, looked.offline) == (1, {folder.path: 1})
    assert states(catalog) == {str(paths[0]): "offline", str(paths[1]): "missing"}
    again = Looked(catalog, folder)
    assert (again.missing, again.offline) == (0, {folder.path: 1})


def test_an_offline_file_counts_once_and_for_the_innermost_folder(
    catalog: Catalog, tmp_path: Path
) -> None:
    outer = catalog.folders.put(FolderRecord(str(tmp_path)))
    inner = catalog.folders.put(FolderRecord(str(tmp_path / "x")))
    paths = [tmp_path / "x" / "a.jpg", tmp_path / "b.jpg"]
    make(*paths)
    take_in(catalog, *paths, folder=outer.path)
    for path in paths:
        change(catalog, path, device=12345)
        path.unlink()
    looked = Looked(catalog, outer, inner, overlapping=True)
    assert looked.offline == {inner.path: 1, outer.path: 1}


def test_a_drive_with_a_new_number_is_known_by_what_is_untouched_on_it(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    for path in paths:
        change(catalog, path, device=777, inode=5)
    paths[0].unlink()
    looked = Looked(catalog, folder)
    assert (looked.paths, looked.report.unchanged) == ([], 2)
    assert (looked.missing, looked.offline) == (1, {})
    assert known(catalog, paths[1]).stat == stat_at(str(paths[1]))


def test_the_same_inode_counts_where_the_device_is_the_same_or_was_not_kept(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    change(catalog, paths[0], inode=5)
    change(catalog, paths[1], device=None)
    change(catalog, paths[2], device=None, inode=5)
    change(catalog, paths[3], device=777, size=1)
    assert Looked(catalog, folder).paths == [str(paths[n]) for n in (0, 2, 3)]
    assert known(catalog, paths[1]).stat == stat_at(str(paths[1]))


def test_a_file_of_no_known_device_is_missing_where_others_of_none_were_found(
    catalog: Catalog, tmp_path: Path
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    make(*paths)
    take_in(catalog, *paths, folder=folder.path)
    for path in paths:
        change(catalog, path, device=None)
    paths[0].unlink()
    looked = Looked(catalog, folder)
    assert (looked.missing, looked.offline) == (1, {})


def test_a_folder_without_its_marker_is_not_looked_into(catalog: Catalog, tmp_path: Path) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path), marker=".mounted"))
    (tmp_path / ".mounted").touch()
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    make(*paths)
    assert is_marked(folder)
    take_in(catalog, *paths, folder=folder.path)
    (tmp_path / ".mounted").unlink()
    paths[0].unlink()
    make(tmp_path / "new.jpg")
    looked = Looked(catalog, folder)
    assert (looked.paths, looked.missing, looked.offline) == ([], 0, {folder.path: 1})
    assert [skipped.path for skipped in looked.report.skipped] == [folder.path]
    assert states(catalog) == {str(paths[0]): "offline", str(paths[1]): "present"}
    (tmp_path / ".mounted").touch()
    looked = Looked(catalog, folder)
    assert looked.paths == [str(tmp_path / "new.jpg")]
    assert states(catalog)[str(paths[0])] == "missing"


def test_below_means_the_folder_and_all_in_it() -> None:
    assert is_below("/a", ["/a"])
    assert is_below("/a/b", ["/x", "/a"])
    assert not is_below("/ab", ["/a"])
    assert not is_below("/", ["/a"])
    assert is_below("/b", ["/"])
    assert not is_below("/b", [])


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[[bool], Path]]:
    """A file system of its own to be mounted, empty and with another number each time."""
    point = tmp_path / "drive"
    mounts: list[Path] = []

    def mount(wanted: bool) -> Path:
        for place in (tmp_path / f"spare{len(mounts)}", point) if wanted else ():
            # The first takes the number that the last file system has left.
            place.mkdir(exist_ok=True)
            act = ["mount", "-t", "tmpfs", "searchlib-test", place]
            if subprocess.run(act, capture_output=True, check=False).returncode:
                pytest.skip("no file system can be mounted here")
            mounts.append(place)
        if not wanted:
            subprocess.run(["umount", point], check=True)
            mounts.remove(point)
        return point

    yield mount
    for place in mounts:
        subprocess.run(["umount", place], check=True)


def test_an_unmounted_drive_is_offline_and_comes_back_under_another_number(
    catalog: Catalog, drive: Callable[[bool], Path], tmp_path: Path
) -> None:
    point = drive(True)
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    paths = [point / name for name in ("a.jpg", "x/b.jpg", "x/c.jpg")]
    make(*paths, tmp_path / "beside.jpg")
    take_in(catalog, *paths, tmp_path / "beside.jpg", folder=folder.path)
    kept = tmp_path.parent / "kept"
    shutil.copytree(point, kept, copy_function=shutil.copy2)
    drive(False)
    looked = Looked(catalog, folder)
    assert (looked.missing, looked.offline) == (0, {folder.path: 3})
    drive(True)  # another drive in its place, and empty
    assert Looked(catalog, folder).missing == 0
    assert len([state for state in states(catalog).values() if state == "offline"]) == 3
    for path in paths[1:]:
        path.parent.mkdir(exist_ok=True)
        shutil.copy2(kept / path.relative_to(point), path)
    assert stat_at(str(paths[1])).device != known(catalog, paths[1]).stat.device
    looked = Looked(catalog, folder)
    assert (looked.paths, looked.report.unchanged, looked.missing) == ([], 3, 1)
    assert states(catalog) == {
        str(paths[0]): "missing",
        **dict.fromkeys(map(str, [*paths[1:], tmp_path / "beside.jpg"]), "present"),
    }


def test_a_link_to_another_drive_is_missing_when_it_is_deleted_and_offline_when_it_is_dead(
    catalog: Catalog, drive: Callable[[bool], Path], tmp_path: Path
) -> None:
    point = drive(True)
    root = tmp_path / "links"
    root.mkdir()
    folder = catalog.folders.put(FolderRecord(str(root)))
    make(point / "a.jpg", point / "b.jpg")
    for name in ("a.jpg", "b.jpg"):
        (root / name).symlink_to(point / name)
    take_in(catalog, root / "a.jpg", root / "b.jpg", folder=folder.path)
    (root / "a.jpg").unlink()
    looked = Looked(catalog, folder)
    assert (looked.missing, looked.offline) == (1, {})
    drive(False)
    looked = Looked(catalog, folder)
    assert (looked.missing, looked.offline) == (0, {folder.path: 1})


# -- rules that change ---------------------------------------------------------------------------

RULES: list[Callable[[Path], dict[str, object]]] = [
    lambda _: {"exclude": ("x/",)},
    lambda _: {"include": ("/a.jpg",)},
    lambda _: {"recursive": False},
    lambda root: (root / ".searchlibignore").write_text("x/\n") and {},
    lambda root: (root / "x" / ".searchlibignore").write_text("*\n") and {},
]


@pytest.mark.parametrize("rule", RULES)
def test_what_a_new_rule_leaves_out_is_missing_and_is_back_unread_when_the_rule_goes(
    catalog: Catalog, tmp_path: Path, rule: Callable[[Path], dict[str, object]]
) -> None:
    paths = [tmp_path / "a.jpg", tmp_path / "x" / "b.jpg"]
    make(*paths)
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    take_in(catalog, *paths, folder=folder.path)
    ruled = rule(tmp_path)
    looked = Looked(catalog, catalog.folders.put(replace(folder, **ruled)))  # type: ignore[arg-type]
    assert (looked.paths, looked.missing, looked.report.unchanged) == ([], 1, 1)
    assert states(catalog) == {str(paths[0]): "present", str(paths[1]): "missing"}
    for ignore in tmp_path.rglob(".searchlibignore"):
        ignore.unlink()
    looked = Looked(catalog, catalog.folders.put(folder))
    assert (looked.paths, looked.missing, looked.report.unchanged) == ([], 0, 2)
    assert set(states(catalog).values()) == {"present"}


def test_a_file_that_was_named_itself_is_not_left_out_by_a_folder(
    catalog: Catalog, tmp_path: Path
) -> None:
    path = tmp_path / "x" / "a.jpg"
    make(path)
    take_in(catalog, path)
    folder = catalog.folders.put(FolderRecord(str(tmp_path), exclude=("x/",)))
    looked = Looked(catalog, folder)
    assert (looked.missing, states(catalog)) == (0, {str(path): "present"})


def test_a_file_that_is_named_after_it_was_left_out_stays(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "x" / "a.jpg"
    make(path)
    folder = catalog.folders.put(FolderRecord(str(tmp_path), exclude=("x/",)))
    take_in(catalog, path, folder=folder.path)
    assert Looked(catalog, folder).missing == 1
    comparison = Comparison(catalog, in_use(catalog), Report())
    assert list(comparison.file(str(path))) == []
    assert states(catalog) == {str(path): "present"}
    assert Looked(catalog, folder).missing == 0
    assert states(catalog) == {str(path): "present"}


# -- what is noted of the untouched --------------------------------------------------------------


def test_the_film_of_a_live_photo_is_noted_when_it_comes_and_goes(
    catalog: Catalog, tmp_path: Path
) -> None:
    still, film = tmp_path / "a.heic", tmp_path / "a.mov"
    make(still)
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    take_in(catalog, still, folder=folder.path)
    for there in (True, False):
        film.touch() if there else film.unlink()
        assert Looked(catalog, folder).paths == []
        assert known(catalog, still).video == (str(film) if there else None)
    film.touch()
    comparison = Comparison(catalog, in_use(catalog), Report())
    assert list(comparison.file(str(still), folder.path)) == []
    assert known(catalog, still).video == str(film)


def test_the_librarys_own_pictures_are_none_of_the_users(catalog: Catalog, tmp_path: Path) -> None:
    make(tmp_path / "a.jpg", tmp_path / "library" / "b.jpg")
    folder = catalog.folders.put(FolderRecord(str(tmp_path)))
    looked = Looked(catalog, folder, leave_out=(str(tmp_path / "library"),))
    assert looked.paths == [str(tmp_path / "a.jpg")]
