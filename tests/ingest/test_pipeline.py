"""The pipeline on real files: what is read, what is not, and what is kept when it stops."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import searchlib
from searchlib import Library, Progress
from searchlib.images import load
from searchlib.ingest import read


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with searchlib.open_library(tmp_path / "library") as library:
        yield library


def decoded(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the pictures that are embedded from now on."""
    embedded: list[int] = []
    embed: Callable[[object], object] = library.encoder.embed

    def counted(image: object) -> object:
        embedded.append(1)
        return embed(image)

    monkeypatch.setattr(library.encoder, "embed", counted)
    return embedded


def test_all_pictures_of_a_folder_are_added_once(library: Library, photos: Path) -> None:
    count = len(list(photos.iterdir()))
    first = library.add(photos)
    assert (first.added, first.unchanged, first.skipped) == (count, 0, [])
    second = library.add(photos)
    assert (second.added, second.unchanged, second.skipped) == (0, count, [])
    assert library.status().images == count


def test_vectors_do_not_depend_on_what_was_embedded_beside_them(
    library: Library, photos: Path
) -> None:
    library.add(photos, workers=3)
    encoder = searchlib.ImageEncoder()
    for path in photos.iterdir():
        alone = encoder.embed(load(path, min_side=encoder.min_side).pixels)
        (match,) = library.search(path, k=1)
        assert match.path == str(path)
        model = library._catalog.model()
        assert model is not None
        stored = library._catalog.vector(bytes.fromhex(match.image.digest), model)
        assert stored is not None
        np.testing.assert_array_equal(
            stored.astype(np.float16), alone.astype(np.float16), err_msg=str(path)
        )


def test_nothing_is_embedded_twice(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add(photos)
    embedded = decoded(library, monkeypatch)
    shutil.copytree(photos, tmp_path / "copy")
    one, two, *_ = sorted(photos.iterdir())
    one.rename(photos / f"renamed{one.suffix}")
    os.utime(two, ns=(1, 1))
    report = library.add(photos, tmp_path / "copy")
    assert embedded == []
    count = len(list(photos.iterdir()))
    assert (report.moved, report.copies, report.unchanged) == (1, count, count - 1)


def test_an_edit_in_place_is_a_change(library: Library, photos: Path) -> None:
    library.add(photos)
    one, two, *_ = sorted(photos.glob("*.jpg"))
    one.write_bytes(two.read_bytes() + b"\0")
    report = library.add(photos)
    assert (report.changed, report.added, report.skipped) == (1, 0, [])


def test_a_known_file_that_vanished_is_missing_until_it_is_back(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    library.add(photos)
    path = min(photos.iterdir())
    away = tmp_path / "away"
    path.rename(away)
    assert library.add(photos).missing == 1
    assert str(path) not in [match.path for match in library.search(away, k=50)]
    away.rename(path)
    assert library.add(photos).missing == 0
    assert library.search(path, k=1)[0].path == str(path)


def test_an_emptied_folder_of_a_mounted_drive_is_missing_and_comes_back_whole(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add(photos)
    count = library.status().images
    away = photos.rename(photos.with_name("away"))
    photos.mkdir()
    assert library.add(photos).missing == count
    assert list(library.search(away / "cat.jpg", k=50)) == []
    photos.rmdir()
    away.rename(photos)
    embedded = decoded(library, monkeypatch)
    assert library.add(photos).unchanged == count
    assert library.status().images == count
    assert embedded == []


def test_overlapping_paths_are_read_once(library: Library, photos: Path) -> None:
    count = len(list(photos.iterdir()))
    report = library.add(photos, min(photos.iterdir()), photos)
    assert (report.added, report.copies, report.skipped) == (count, 0, [])


def test_same_bytes_twice_in_one_batch_are_one_image(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    path = min(photos.glob("*.jpg"))
    folder = tmp_path / "twins"
    folder.mkdir()
    for i in range(5):
        shutil.copy(path, folder / f"{i}.jpg")
    report = library.add(folder, workers=4)
    assert (report.added, report.copies) == (1, 4)
    assert len(library.search(path)[0].image.paths) == 5


def test_a_broken_file_is_told_each_time_and_read_once(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = photos / "broken.jpg"
    broken.write_bytes(b"no picture")
    first = library.add(photos)
    opened: list[str] = []
    open_file = read.open_file

    def noted(path: str) -> object:
        opened.append(path)
        return open_file(path)

    monkeypatch.setattr(read, "open_file", noted)
    again = library.add(photos)
    assert first.skipped == again.skipped
    assert opened == []
    library.add(photos, retry=True)
    assert opened == [str(broken)]


def test_progress_ends_at_the_total(library: Library, photos: Path) -> None:
    told: list[Progress] = []
    library.add(photos, on_progress=told.append)
    count = len(list(photos.iterdir()))
    assert told[0] == Progress("listing", count, None)
    assert told[-1] == Progress("embedding", count, count)
    assert [p.done for p in told[1:]] == list(range(1, count + 1))


def test_what_was_finished_before_an_interrupt_is_kept(library: Library, photos: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 3 and progress.total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.add(photos, workers=1, on_progress=interrupt)
    assert library.status().images == 3
    count = len(list(photos.iterdir()))
    assert library.add(photos).added == count - 3


@pytest.mark.parametrize("state", ["missing", "offline", "present"])
def test_a_file_that_was_in_the_decoder_and_is_gone_is_no_failure_any_more(
    library: Library, photos: Path, state: str
) -> None:
    path = photos / "cat.jpg"
    library.add(photos)
    places = library._catalog.places
    content = path.read_bytes()
    path.unlink()
    if state == "missing":
        library.add(photos)
    elif state == "offline":
        places.mark_offline([str(path)])
    # It was back for a moment, and the process was killed while it was read.
    places.suspect([str(path)])
    library.add(photos)
    assert library.failures() == []
    assert library.status().missing == 1
    path.write_bytes(content)
    report = library.add(photos)
    assert (report.skipped, library.status().images) == ([], 8)
