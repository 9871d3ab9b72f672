"""An ingest followed file by file: what is told is committed, and it can be left at any time."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import searchlib
from searchlib import ImageEncoder, Library
from searchlib.catalog import Catalog
from searchlib.errors import InputError
from searchlib.images import load
from searchlib.ingest import FileResult, intake


@pytest.fixture
def library(library_folder: Path, encoder: ImageEncoder) -> Iterator[Library]:
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        yield library


@pytest.fixture
def other(library: Library) -> Iterator[Catalog]:
    """The same library, as another process sees it."""
    catalog = Catalog(library.folder, create=False)
    yield catalog
    catalog.close()


def known(catalog: Catalog) -> dict[str, str]:
    model = catalog.model()
    if model is None:
        return {}
    return {path: file.state for path, file in catalog.places.known("/", model).items()}


def test_each_file_is_committed_by_the_time_it_is_told(
    library: Library, other: Catalog, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_FILES", 3)
    (photos / "broken.jpg").write_bytes(b"no picture")
    told = []
    with library.adding(photos) as adding:
        for result in adding:
            told.append(result.path)
            state = "skipped" if result.path.endswith("broken.jpg") else "present"
            assert known(other)[result.path] == state
            # And no more than the batch that is being told of, which is not in any hurry.
            assert len(known(other)) <= len(told) + 2
    assert told == sorted(map(str, photos.iterdir()))


def test_nothing_happens_before_the_first_file_is_asked_for(
    library: Library, other: Catalog, photos: Path
) -> None:
    with library.adding(photos):
        pass
    assert known(other) == {}
    assert other.folders.all() == []


def test_leaving_early_keeps_what_was_told_and_the_next_run_does_the_rest(
    library: Library, other: Catalog, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_FILES", 2)
    told = []
    with library.adding(photos, workers=1) as adding:
        for result in adding:
            told.append(result.path)
            if len(told) == 3:
                break
    assert set(told) <= set(known(other))
    assert library.search(told[0], k=1)[0].path == told[0]
    before = len(known(other))
    report = library.add(photos)
    assert (report.added, report.unchanged) == (8 - before, before)


def test_an_exception_in_the_loop_leaves_as_a_break_does(
    library: Library, other: Catalog, photos: Path
) -> None:
    told = []

    def stumble() -> None:
        with library.adding(photos) as adding:
            told.append(next(adding).path)
            raise KeyError

    with pytest.raises(KeyError):
        stumble()
    assert set(told) <= set(known(other))
    assert library.add(photos).skipped == []
    assert len(known(other)) == 8


def test_the_report_is_there_at_the_end_only(library: Library, photos: Path) -> None:
    with library.adding(photos) as adding:
        with pytest.raises(InputError, match="iterate to the end"):
            _ = adding.report
        next(adding)
        with pytest.raises(InputError):
            _ = adding.report
        rest = list(adding)
        assert adding.report.added == len(rest) + 1 == 8
        with pytest.raises(StopIteration):
            next(adding)
    assert adding.report.added == 8
    assert not adding.report.cancelled
    with library.adding(photos) as adding:
        pass
    with pytest.raises(InputError):
        _ = adding.report


def test_it_can_be_closed_twice_and_a_closed_one_is_at_its_end(
    library: Library, photos: Path
) -> None:
    adding = library.adding(photos)
    next(adding)
    adding.close()
    adding.close()
    assert list(adding) == []


def test_the_index_is_saved_when_it_is_done_or_left(library: Library, photos: Path) -> None:
    with library.adding(photos / "cat.jpg") as adding:
        assert list(library.folder.glob("index-*.ckpt")) == []
        next(adding)
    assert len(list(library.folder.glob("index-*.ckpt"))) == 1


def test_another_thread_cancels_it_and_what_was_read_is_committed(
    library: Library, other: Catalog, photos: Path
) -> None:
    for n in range(30):
        shutil.copy(photos / "cat.jpg", photos / f"cat{n:02}.jpg")
    cancel, begun = threading.Event(), threading.Event()

    def cancel_soon() -> None:
        begun.wait()
        cancel.set()

    def on_progress(progress: searchlib.Progress) -> None:
        if progress.stage == "embedding" and progress.done == 4:
            begun.set()
            thread.join()

    thread = threading.Thread(target=cancel_soon)
    thread.start()
    report = library.add(photos, workers=2, cancel=cancel, on_progress=on_progress)
    assert report.cancelled
    assert report.added + report.copies == len(known(other)) == 4
    assert (report.missing, report.purged) == (0, 0)
    again = library.add(photos)
    assert not again.cancelled
    assert again.unchanged == 4
    assert len(known(other)) == 38


def test_one_that_is_cancelled_from_the_start_does_nothing_and_loses_nothing(
    library: Library, other: Catalog, photos: Path
) -> None:
    library.add(photos / "cat.jpg", photos / "coffee.jpg")
    (photos / "coffee.jpg").unlink()
    cancel = threading.Event()
    cancel.set()
    report = library.add(photos, cancel=cancel)
    assert report.cancelled
    assert (report.added, report.missing) == (0, 0)
    assert set(known(other).values()) == {"present"}


def test_every_outcome_is_told_with_its_path(library: Library, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    with library.adding(photos) as adding:
        results = {os.path.basename(result.path): result for result in adding}  # noqa: PTH119
    broken = results.pop("broken.jpg")
    assert broken.outcome == "skipped"
    assert broken.reason
    assert {result.outcome for result in results.values()} == {"added"}
    assert all(result.reason is None for result in results.values())

    shutil.copy(photos / "cat.jpg", photos / "copy.jpg")
    (photos / "coffee.jpg").rename(photos / "moved.jpg")
    shutil.copyfile(photos / "rocket.jpg", photos / "hubble.jpg")
    os.utime(photos / "astronaut.jpg", ns=(1, 1))
    with library.adding(photos) as adding:
        outcomes = {os.path.basename(result.path): result.outcome for result in adding}  # noqa: PTH119
    assert outcomes == {
        "astronaut.jpg": "unchanged",
        "copy.jpg": "copy",
        "hubble.jpg": "changed",
        "moved.jpg": "moved",
    }
    assert [skipped.path for skipped in adding.report.skipped] == [broken.path]
    assert adding.report.unchanged == 6  # five were not read, one was only touched


# -- thumbnails ----------------------------------------------------------------------------------


def test_thumbnails_are_made_where_it_is_asked_and_from_then_on(
    library: Library, photos: Path
) -> None:
    later = photos.with_name("later")
    later.mkdir()
    (photos / "coffee.jpg").rename(later / "coffee.jpg")
    (photos / "clock.png").rename(later / "clock.png")

    def thumbnail(path: Path) -> Path | None:
        (match,) = library.search(path, k=1)
        assert match.path == str(path)
        return library.thumbnail(match.image.digest)

    library.add(photos / "rocket.jpg")
    assert thumbnail(photos / "rocket.jpg") is None
    library.add(photos, thumbnails=True)
    made = thumbnail(photos / "cat.jpg")
    assert made is not None
    small = load(made).pixels
    assert max(small.size) == 256
    assert small.width > small.height
    # It was embedded before, so that its pixels were not there to be reduced.
    assert thumbnail(photos / "rocket.jpg") is None
    library.add(later / "coffee.jpg")
    assert thumbnail(later / "coffee.jpg") is not None
    library.add(later / "clock.png", thumbnails=False)
    assert thumbnail(later / "clock.png") is None


def test_a_thumbnail_goes_with_its_image(library: Library, photos: Path) -> None:
    shutil.copy(photos / "cat.jpg", photos / "twin.jpg")
    library.add(photos, thumbnails=True)
    digests = {
        name: library.search(photos / f"{name}.jpg", k=1)[0].image.digest
        for name in ("cat", "coffee")
    }
    for name in ("cat", "coffee"):
        (photos / f"{name}.jpg").unlink()
    assert library.add(photos).missing == 2
    assert library.purge() == 2
    assert library.thumbnail(digests["cat"]) is not None
    assert library.thumbnail(digests["coffee"]) is None


def test_there_is_no_thumbnail_of_what_is_not_known(library: Library) -> None:
    assert library.thumbnail("00" * 32) is None


def test_results_are_plain_values() -> None:
    result = FileResult("/a.jpg", "skipped", "it is torn")
    assert result == FileResult("/a.jpg", "skipped", "it is torn")
    with pytest.raises(AttributeError):
        result.path = "/b.jpg"  # type: ignore[misc]
