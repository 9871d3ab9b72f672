"""The library follows the disk: whatever happens to the files, the next add knows it."""

import dataclasses
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

import searchlib
from searchlib import ImageEncoder
from searchlib.encoder import built_in_card


@pytest.fixture
def absent_encoder(tmp_path: Path) -> ImageEncoder:
    """The same model without its file: whatever asks it for a vector fails."""
    card = dataclasses.replace(built_in_card(), path=tmp_path / "absent.pte")
    return ImageEncoder(card)


def found(folder: Path, query: Path, encoder: ImageEncoder) -> list[str]:
    """The paths of all matches, best first."""
    with searchlib.open_library(folder, encoder=encoder) as library:
        return [path for match in library.search(query, k=100) for path in match.image.paths]


def test_moves_copies_and_touches_need_no_model(
    photos, fill, library_folder, absent_encoder, tmp_path
):
    fill(photos)
    (photos / "2024").mkdir()
    (photos / "cat.jpg").rename(photos / "2024" / "cat.jpg")
    shutil.copy(photos / "coffee.jpg", photos / "2024" / "coffee.jpg")
    os.utime(photos / "rocket.jpg", (1, 1))
    with searchlib.open_library(library_folder, encoder=absent_encoder) as library:
        report = library.add(photos)
        assert (report.moved, report.copies, report.unchanged) == (1, 1, 7)
        assert (report.added, report.missing, report.skipped) == (0, 0, [])
    # A whole folder under another name, and the library asked from there.
    photos.rename(tmp_path / "pictures")
    with searchlib.open_library(library_folder, encoder=absent_encoder) as library:
        report = library.add(tmp_path / "pictures")
        assert (report.moved, report.copies, report.added, report.skipped) == (9, 0, 0, [])
        status = library.status()
        assert (status.images, status.files, status.missing) == (8, 9, 0)
    matches = found(library_folder, tmp_path / "pictures" / "2024" / "cat.jpg", absent_encoder)
    assert matches[0] == str(tmp_path / "pictures" / "2024" / "cat.jpg")
    assert not any(str(photos) + os.sep in path for path in matches)


def test_deleted_files_leave_the_results_and_come_back_when_restored(
    photos, fill, library_folder, absent_encoder, tmp_path
):
    fill(photos)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("cat.jpg", "coffee.jpg"):
        (photos / name).rename(bin_ / name)
    assert fill(photos).missing == 2
    matches = found(library_folder, bin_ / "cat.jpg", absent_encoder)
    assert sorted(matches) == sorted(map(str, photos.iterdir()))
    for name in ("cat.jpg", "coffee.jpg"):
        (bin_ / name).rename(photos / name)
    with searchlib.open_library(library_folder, encoder=absent_encoder) as library:
        report = library.add(photos)
        assert (report.unchanged, report.missing, report.added) == (8, 0, 0)
        assert library.status().missing == 0
    assert found(library_folder, photos / "cat.jpg", absent_encoder)[0] == str(photos / "cat.jpg")


def test_a_folder_that_is_gone_keeps_its_vectors_until_it_is_back(
    photos, fill, library_folder, absent_encoder, tmp_path
):
    """On a drive that is there; for one that is not see test_watch_drives.py."""
    fill(photos)
    photos.rename(tmp_path / "away")
    assert fill(photos).missing == 8
    (tmp_path / "away").rename(photos)
    with searchlib.open_library(library_folder, encoder=absent_encoder) as library:
        report = library.add(photos)
        assert (report.unchanged, report.missing, report.skipped) == (8, 0, [])
        assert (library.status().images, library.status().missing) == (8, 0)


def test_one_folder_named_twice_or_with_one_below_it_is_one_folder(photos, fill):
    below = photos / "below"
    below.mkdir()
    shutil.move(photos / "cat.jpg", below)
    shutil.move(photos / "coffee.jpg", below)
    fill(photos)
    (below / "cat.jpg").unlink()
    (below / "coffee.jpg").unlink()
    shutil.copy(photos / "rocket.jpg", below)
    report = fill(photos, below, photos)
    assert (report.missing, report.copies, report.unchanged) == (2, 1, 6)
    assert report.skipped == []


def test_what_is_left_out_of_a_folder(run, photos, library_folder):
    picture = (photos / "cat.jpg").read_bytes()
    names = {
        ".hidden.jpg": False,
        ".thumbnails/a.jpg": False,
        "._cat.jpg": False,
        "@eaDir/cat.jpg/SYNOPHOTO_THUMB_XL.jpg": False,
        "web/node_modules/logo/logo.png": False,
        "#recycle/a.jpg": False,
        "drafts/a.jpg": False,
        "album/drafts/a.jpg": True,
        "album/private.jpg": False,
        "album/public/private.jpg": True,
        "album/b.JPEG": True,
        "album/notes.txt": False,
        "album/video.mp4": False,
    }
    for number, name in enumerate(names):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture + bytes([number]))
    (photos / ".searchlibignore").write_bytes(
        b"# not for the library\r\n/drafts/\r\nprivate.jpg\r\n"
    )
    (photos / "album" / "public").mkdir(exist_ok=True)
    (photos / "album" / "public" / ".searchlibignore").write_text("!private.jpg\n")
    (photos / "album" / "up").symlink_to("..")
    (photos / "loop").symlink_to("loop")
    (photos / "loop.jpg").symlink_to("loop.jpg")
    done = run("add", photos, "--library", library_folder)
    assert os.fsdecode(done.stderr) == (
        f"skipped {photos}/loop.jpg: cannot be read: Too many levels of symbolic links\n"
    )
    with closing(sqlite3.connect(library_folder / "catalog.db")) as database:
        rows = database.execute("SELECT path FROM file WHERE state = 'present'").fetchall()
    known = {os.path.relpath(os.fsdecode(path), photos) for (path,) in rows}
    assert known == {name for name, taken in names.items() if taken} | {
        path.name for path in photos.iterdir() if path.is_file() and path.name[0] != "."
    }


@pytest.mark.parametrize("pattern", ["!", "\\"])
def test_a_pattern_that_means_nothing_is_refused_before_anything_is_done(
    run, photos, library_folder, pattern
):
    (photos / "album").mkdir()
    (photos / "album" / ".searchlibignore").write_text(f"*.tmp\n{pattern}\n")
    done = run("add", photos, "--library", library_folder)
    (line,) = os.fsdecode(done.stderr).splitlines()
    assert line.startswith(f"searchlib: {photos}/album/.searchlibignore: ")
    assert line.endswith("correct this pattern or take it out")
    assert (done.returncode, done.stdout) == (2, b"")


def test_what_is_ignored_later_leaves_the_results_and_comes_back(
    photos, fill, library_folder, absent_encoder
):
    fill(photos)
    (photos / ".searchlibignore").write_text("*.png\n")
    report = fill(photos)
    assert (report.unchanged, report.missing, report.skipped) == (5, 3, [])
    matches = found(library_folder, photos / "cat.jpg", absent_encoder)
    assert not [path for path in matches if path.endswith(".png")]
    (photos / ".searchlibignore").unlink()
    with searchlib.open_library(library_folder, encoder=absent_encoder) as library:
        report = library.add(photos)
        assert (report.unchanged, report.missing, report.skipped) == (8, 0, [])


def digests_on_disk(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): blake3(path.read_bytes()).digest() for path in files}


def in_catalog(folder: Path) -> dict[str, bytes]:
    """The content of each file that the library takes for present."""
    query = (
        "SELECT file.path, image.digest FROM file JOIN image ON image.id = file.image_id "
        "WHERE file.state = 'present'"
    )
    with closing(sqlite3.connect(folder / "catalog.db")) as database:
        return {os.fsdecode(path): digest for path, digest in database.execute(query)}


def upset(root: Path, contents: list[bytes], chance: random.Random) -> None:
    """Do one thing to the files below a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    anywhere = root / chance.choice((".", "a", "b", "a/c")) / f"{chance.randrange(12)}.jpg"
    anywhere.parent.mkdir(parents=True, exist_ok=True)
    one, other = (chance.choice(files), chance.choice(files)) if files else (anywhere, anywhere)
    match chance.choice(
        ("write", "write", "copy", "copy", "move", "delete", "swap", "touch", "up")
    ):
        case "copy" if files and one != anywhere:
            shutil.copyfile(one, anywhere)
        case "move" if files:
            one.replace(anywhere)
        case "delete" if len(files) > 2:
            one.unlink()
        case "swap" if one != other:
            aside = one.with_suffix(".aside")
            one.rename(aside)
            other.rename(one)
            aside.rename(other)
        case "touch" if files:
            os.utime(one, ns=(chance.randrange(10**18), chance.randrange(10**18)))
        case "up" if (root / "a").is_dir() and not (root / "d").exists():
            (root / "a").rename(root / "d")
        case _:
            anywhere.write_bytes(chance.choice(contents))


@pytest.mark.parametrize("seed", range(4))
def test_after_any_changes_the_library_is_as_the_disk(
    seed, original_photos, library_folder, encoder, tmp_path
):
    chance = random.Random(seed)
    root = tmp_path / "album"
    root.mkdir()
    # Contents of different lengths: an edit in place that keeps length and time shows nowhere.
    jpegs = [path.read_bytes() for path in sorted(original_photos.glob("*.jpg"))]
    contents = [jpeg + bytes(number) for number, jpeg in enumerate(jpegs * 2)]
    ever: set[bytes] = set()
    with searchlib.open_library(library_folder, encoder=encoder) as library:
        for _ in range(16):
            for _ in range(chance.randrange(4)):
                upset(root, contents, chance)
            on_disk = digests_on_disk(root)
            ever |= set(on_disk.values())
            report = library.add(root)
            assert report.skipped == []
            assert report.found == len(on_disk)
            assert in_catalog(library_folder) == on_disk
            status = library.status()
            assert (status.files, status.images) == (len(on_disk), len(set(on_disk.values())))
            # Each content was embedded once, and is never forgotten.
            assert status.vectors == len(ever)
            for path in chance.sample(sorted(on_disk), min(2, len(on_disk))):
                same = [match for match in library.search(path) if match.score > 0.999]
                assert path in [place for match in same for place in match.image.paths]
    with closing(sqlite3.connect(library_folder / "catalog.db")) as database:
        assert database.execute("SELECT count(*) FROM change").fetchone() == (len(ever),)
