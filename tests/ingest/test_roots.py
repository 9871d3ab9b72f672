"""The watched folders: which have to be scanned and why, on real folders and real events."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from searchlib.catalog import Catalog, FolderRecord
from searchlib.ingest import roots as roots_module
from searchlib.ingest.hints import Hints
from searchlib.ingest.mounts import gives_events, mount_of
from searchlib.ingest.roots import Roots

LONG = 1e6


@pytest.fixture
def catalog(library_folder: Path) -> Iterator[Catalog]:
    catalog = Catalog(library_folder, create=True)
    yield catalog
    catalog.close()


@pytest.fixture
def hints(catalog: Catalog) -> Hints:
    return Hints(catalog, settle=0.01, patience=600)


@pytest.fixture
def folder(catalog: Catalog, tmp_path: Path) -> FolderRecord:
    return registered(catalog, tmp_path / "a")


@pytest.fixture
def open_roots(
    catalog: Catalog, hints: Hints, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Roots]]:
    """Begins with some folders; closes them after the test."""
    monkeypatch.setattr(roots_module, "_LOOK_EVERY_SECONDS", 0.0)
    opened: list[Roots] = []

    def open_roots(
        *folders: FolderRecord, rescan: float = LONG, poll: float = LONG, listen: bool = True
    ) -> Roots:
        roots = Roots(catalog, hints, rescan, poll)
        opened.append(roots)
        roots.begin(folders, listen=listen)
        return roots

    yield open_roots
    for roots in opened:
        roots.close()


def registered(catalog: Catalog, path: Path, **rules: object) -> FolderRecord:
    path.mkdir(exist_ok=True)
    return catalog.folders.put(FolderRecord(str(path), watched=True, **rules))  # type: ignore[arg-type]


def scans(roots: Roots, at_most: int = 10) -> list[tuple[str, str]]:
    """The folders that have to be scanned now, by name, and why."""
    asked = []
    while len(asked) < at_most and (next_scan := roots.next_scan()) is not None:
        asked.append((Path(next_scan[0].path).name, next_scan[1]))
    return asked


def wait_for(happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not (done := happened()) and time.monotonic() < end:
        time.sleep(0.01)
    return done


def noted(catalog: Catalog) -> set[str]:
    return {path for _, path in catalog.dirty.after(0, limit=10_000)}


def tells(folder: FolderRecord) -> None:
    if not gives_events(mount_of(folder.path).kind):
        pytest.skip("this file system tells of no changes")


def test_every_folder_is_scanned_at_the_start_once(
    catalog: Catalog, folder: FolderRecord, open_roots: Callable[..., Roots], tmp_path: Path
) -> None:
    other = registered(catalog, tmp_path / "b")
    for listen in (True, False):
        roots = open_roots(folder, other, listen=listen)
        assert scans(roots) == [("a", "the start"), ("b", "the start")]
        assert scans(roots) == []


def test_all_are_scanned_again_after_the_time_between_two_scans(
    folder: FolderRecord, open_roots: Callable[..., Roots]
) -> None:
    roots = open_roots(folder, rescan=0.05)
    assert scans(roots, at_most=1) == [("a", "the start")]
    assert wait_for(lambda: scans(roots, at_most=1) == [("a", "the time since the last scan")])


def test_a_scan_that_is_asked_for_twice_is_made_once_for_the_first_reason(
    folder: FolderRecord, open_roots: Callable[..., Roots]
) -> None:
    roots = open_roots(folder)
    scans(roots)
    roots.ask_all("this")
    roots.ask_all("that")
    assert scans(roots) == [("a", "this")]


def test_what_happens_in_a_folder_is_noted(
    catalog: Catalog,
    hints: Hints,
    folder: FolderRecord,
    open_roots: Callable[..., Roots],
) -> None:
    tells(folder)
    roots = open_roots(folder)
    assert roots.last_event is None
    path = Path(folder.path) / "x.jpg"
    path.touch()
    assert wait_for(lambda: str(path) in noted(catalog))
    assert hints.news.is_set()
    assert roots.last_event is not None
    assert abs(time.time() - roots.last_event) < 60


def test_who_does_not_listen_hears_nothing(
    catalog: Catalog, folder: FolderRecord, open_roots: Callable[..., Roots]
) -> None:
    roots = open_roots(folder, listen=False)
    (Path(folder.path) / "x.jpg").touch()
    registered(catalog, Path(folder.path).with_name("b"))
    roots.look_around()
    assert scans(roots) == [("a", "the start")]
    assert roots.last_event is None
    assert noted(catalog) == set()


def test_a_burst_ends_with_a_scan(
    catalog: Catalog,
    folder: FolderRecord,
    open_roots: Callable[..., Roots],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tells(folder)
    monkeypatch.setattr(roots_module, "_BURST", 20)
    monkeypatch.setattr(roots_module, "_BURST_REST_SECONDS", LONG)
    roots = open_roots(folder)
    scans(roots)
    paths = [Path(folder.path) / f"{n}.jpg" for n in range(30)]
    for path in paths:
        path.touch()
    assert wait_for(lambda: set(map(str, paths)) <= noted(catalog))
    roots.look_around()
    assert scans(roots) == []  # it may not be over
    monkeypatch.setattr(roots_module, "_BURST_REST_SECONDS", 0.0)
    roots.look_around()
    assert scans(roots) == [("a", "a burst of changes")]
    roots.look_around()
    assert scans(roots) == []


def test_a_folder_that_goes_is_scanned_and_listened_to_again_when_it_is_back(
    catalog: Catalog, folder: FolderRecord, open_roots: Callable[..., Roots]
) -> None:
    tells(folder)
    roots = open_roots(folder, poll=0.0)
    assert scans(roots, at_most=1) == [("a", "the start")]
    assert scans(roots) == []
    root = Path(folder.path)
    shutil.rmtree(root)
    asked: list[tuple[str, str]] = []

    def is_lost() -> bool:
        asked.extend(scans(roots, at_most=1))
        return bool(asked)

    assert wait_for(is_lost)
    assert asked[0][0] == "a"
    assert "the folder is gone" in asked[0][1]
    # While it cannot be listened to it is polled.
    assert wait_for(lambda: scans(roots, at_most=1) == [("a", "it tells of no changes")])
    root.mkdir()
    assert wait_for(lambda: scans(roots, at_most=1) == [])
    (root / "x.jpg").touch()
    assert wait_for(lambda: str(root / "x.jpg") in noted(catalog))


def test_a_folder_that_is_not_there_at_the_start_is_polled(
    catalog: Catalog, tmp_path: Path, open_roots: Callable[..., Roots]
) -> None:
    folder = catalog.folders.put(FolderRecord(str(tmp_path / "away"), watched=True))
    roots = open_roots(folder, poll=0.0)
    assert scans(roots, at_most=3) == [
        ("away", "the start"),
        ("away", "it tells of no changes"),
        ("away", "it tells of no changes"),
    ]


def test_a_folder_that_is_not_to_be_listened_to_is_polled(
    catalog: Catalog, tmp_path: Path, open_roots: Callable[..., Roots]
) -> None:
    deaf = registered(catalog, tmp_path / "deaf", events="no")
    often = open_roots(deaf, poll=0.0)
    assert scans(often, at_most=3) == [
        ("deaf", "the start"),
        ("deaf", "it tells of no changes"),
        ("deaf", "it tells of no changes"),
    ]
    rarely = open_roots(deaf)
    assert scans(rarely) == [("deaf", "the start")]
    (tmp_path / "deaf" / "x.jpg").touch()
    rarely.close()  # hands on what has come
    assert noted(catalog) == set()


def test_a_folder_that_another_process_registers_is_picked_up(
    catalog: Catalog, folder: FolderRecord, open_roots: Callable[..., Roots], tmp_path: Path
) -> None:
    roots = open_roots(folder)
    scans(roots)
    other = Catalog(catalog.database.folder, create=False)
    new = registered(other, tmp_path / "b")
    roots.look_around()
    assert roots.folders == [folder, new]
    assert scans(roots) == [("b", "it was registered")]
    if gives_events(mount_of(new.path).kind):
        (tmp_path / "b" / "x.jpg").touch()
        assert wait_for(lambda: str(tmp_path / "b" / "x.jpg") in noted(catalog))

    ruled = registered(other, tmp_path / "b", exclude=("x/",))
    other.folders.put(FolderRecord(str(tmp_path / "unwatched")))
    roots.look_around()
    assert roots.folders == [folder, ruled]
    assert scans(roots) == [("b", "it was registered")]

    assert other.folders.forget(folder.path)
    roots.look_around()
    assert roots.folders == [ruled]
    assert scans(roots) == []
    other.close()
    gone = Path(folder.path) / "y.jpg"
    gone.touch()
    roots.close()
    assert str(gone) not in noted(catalog)


def test_a_mount_makes_all_folders_be_scanned(
    folder: FolderRecord, open_roots: Callable[..., Roots]
) -> None:
    roots = open_roots(folder)
    scans(roots)
    roots.look_around()
    assert scans(roots) == []
    point = Path(folder.path) / "drive"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "searchlib-test", str(point)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        roots.look_around()
        assert scans(roots) == [("a", "a drive was mounted or unmounted")]
        roots.look_around()
        assert scans(roots) == []
    finally:
        subprocess.run(["umount", str(point)], check=True)
    roots.look_around()
    assert scans(roots) == [("a", "a drive was mounted or unmounted")]
