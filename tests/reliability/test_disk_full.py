"""A disk without space: what was committed stays, and the next run goes on."""

import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import searchlib
from searchlib.errors import DiskFullError


@pytest.fixture
def more_photos(original_photos: Path, tmp_path: Path) -> Path:
    """A hundred small files of different bytes, which fill a catalog by more than a batch."""
    folder = tmp_path / "more"
    folder.mkdir()
    content = [path.read_bytes() for path in sorted(original_photos.glob("*.jpg"))]
    for number in range(100):
        data = content[number % len(content)] + bytes([number])
        (folder / f"{number:02}.jpg").write_bytes(data)
    return folder


def assert_consistent(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "catalog.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def assert_says_disk_full(done, folder: Path) -> None:
    *warnings, line = os.fsdecode(done.stderr).splitlines()
    assert all(each.startswith("searchlib: warning: ") for each in warnings)
    assert line == (
        f"searchlib: {folder}: no space left on this disk; what was added before is safe. "
        "Free some space and run the command again"
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_full_disk_keeps_what_was_committed_and_the_next_run_completes_it(
    run, disk, original_photos, more_photos, encoder
):
    folder = disk.path / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.add(original_photos)
    # More than opening takes, and less than a hundred pictures do.
    disk.leave(150_000)
    done = run("add", more_photos, "--library", folder)
    assert_says_disk_full(done, folder)
    assert_consistent(folder)
    disk.leave(16_000_000)
    with searchlib.open_library(folder, encoder=encoder) as library:
        kept = library.status().images
        assert kept >= 8
        assert library.search(original_photos / "cat.jpg")[0].path.endswith("/cat.jpg")
        report = library.add(more_photos)
        assert (report.added, report.unchanged) == (108 - kept, kept - 8)
        assert report.skipped == []
        assert library.status().images == 108
    assert_consistent(folder)


def test_a_disk_that_fills_up_between_two_batches_keeps_the_first(
    disk, original_photos, more_photos, encoder
):
    folder = disk.path / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.add(original_photos)

        def fill(progress):
            # Somewhere behind the first batch another program takes all the space there is.
            if progress.stage == "embedding" and progress.done == 70:
                disk.leave(0)

        with pytest.raises(DiskFullError, match="Free some space"):
            library.add(more_photos, on_progress=fill)
        # How many came before depends on the machine: a batch is also closed by the clock.
        kept = library.status().images - 8
        assert kept > 0
    assert_consistent(folder)
    disk.leave(16_000_000)
    with searchlib.open_library(folder, encoder=encoder) as library:
        assert library.add(more_photos).unchanged == kept
        assert library.status().images == 108


def test_a_disk_that_fills_up_while_the_model_changes_leaves_the_old_one(
    disk, original_photos, more_photos, encoder, cropping
):
    folder = disk.path / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.add(original_photos, more_photos)

        def fill(progress):
            if progress.done == 70:
                disk.leave(0)

        with pytest.raises(DiskFullError, match="Free some space"):
            library.use_model(cropping.card, on_progress=fill)
        assert library.status().identity == encoder.identity
        assert library.search(original_photos / "cat.jpg")[0].path.endswith("/cat.jpg")
        disk.leave(16_000_000)
        change = library.use_model(cropping.card)
        assert 0 < change.kept < 108
        assert (change.embedded, change.failed) == (108 - change.kept, [])
        assert library.status().vectors == 108
    assert_consistent(folder)


def test_a_full_disk_without_a_library_yet_is_said(run, disk, original_photos):
    disk.leave(20_000)
    folder = disk.path / "library"
    assert_says_disk_full(run("add", original_photos, "--library", folder), folder)
    disk.leave(16_000_000)
    done = run("add", original_photos, "--library", folder)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_space_for_the_checkpoint_is_a_warning_only(disk, original_photos, encoder, caplog):
    folder = disk.path / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.add(original_photos)
    (checkpoint,) = folder.glob("*.ckpt")
    checkpoint.unlink()
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.status()
        disk.leave(0)
        library._current.begin().index.refresh()
        assert not checkpoint.exists()
        (record,) = caplog.records
        assert record.getMessage().endswith("cannot be written: No space left on device")
        assert library.search(original_photos / "cat.jpg")[0].path.endswith("/cat.jpg")


def test_a_limit_on_the_size_of_files_stops_it_in_a_line_and_loses_nothing(
    run, fill, filled_library, original_photos, more_photos
):
    limit = (filled_library / "catalog.db").stat().st_size + 30_000
    done = run(
        "add", more_photos, "--library", filled_library,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    (line,) = os.fsdecode(done.stderr).splitlines()
    assert line.startswith(f"searchlib: {filled_library}/catalog.db: ")
    assert line.endswith("then run the command again")
    assert (done.returncode, done.stdout) == (2, b"")
    assert_consistent(filled_library)
    report = fill(more_photos)
    assert report.added + report.unchanged == 100
    assert fill(original_photos).unchanged == 8


def test_a_query_needs_no_space_of_its_own_while_the_library_is_open(
    disk, original_photos, encoder
):
    folder = disk.path / "library"
    with searchlib.open_library(folder, encoder=encoder) as library:
        library.add(original_photos)
        disk.leave(0)
        for path in original_photos.iterdir():
            assert library.search(path)[0].path == str(path)
        assert library.status().images == 8
