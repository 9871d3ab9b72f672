"""Libraries that cannot be written, are damaged, or are another's."""

import contextlib
import dataclasses
import os
import random
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

import searchlib
from searchlib import ImageEncoder
from searchlib.encoder import built_in_card, load_card
from searchlib.errors import (
    LibraryDamagedError,
    LibraryTooNewError,
    ModelFileError,
    ModelMismatchError,
    SearchlibError,
)


def one_line(done) -> str:
    """The one line that a refused command says."""
    assert done.returncode == 2, done
    assert done.stdout == b""
    (line,) = os.fsdecode(done.stderr).splitlines()
    assert line.startswith("searchlib: ")
    return line.removeprefix("searchlib: ")


def assert_whole(folder: Path, photos: Path, encoder: ImageEncoder) -> None:
    """The library knows the photographs and finds each of them."""
    with closing(sqlite3.connect(folder / "catalog.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with searchlib.open_library(folder, create=False, encoder=encoder) as library:
        for path in photos.iterdir():
            assert library.search(path, k=1)[0].path == str(path)


# -- Folders that cannot be written ------------------------------------------------------------


def test_a_read_only_folder_is_searched_and_not_written(
    run, filled_library, original_photos, photos, encoder
):
    before = {path.name: path.read_bytes() for path in filled_library.iterdir()}
    for path in filled_library.iterdir():
        path.chmod(0o444)
    filled_library.chmod(0o555)
    library = ("--library", filled_library)
    try:
        refused = run("add", photos, *library, unprivileged=True)
        search = run("search", original_photos / "cat.jpg", *library, unprivileged=True)
        status = run("status", *library, unprivileged=True)
        foreign = run("search", photos / "cat.jpg", "-k1", *library, unprivileged=True)
    finally:
        filled_library.chmod(0o755)
    assert one_line(refused) == (
        f"{filled_library}: this folder cannot be written; change its permissions or choose "
        "another one with --library"
    )
    assert search.stdout.startswith(os.fsencode(f"1.000  {original_photos}/cat.jpg\n"))
    assert (search.returncode, search.stderr) == (0, b"")
    assert foreign.returncode == 0
    assert b"images       8\n" in status.stdout
    assert {path.name: path.read_bytes() for path in filled_library.iterdir()} == before
    assert_whole(filled_library, original_photos, encoder)


def test_a_library_cannot_be_made_where_nothing_can_be_written(run, photos, tmp_path):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    shelf.chmod(0o555)
    try:
        below = run("add", photos, "--library", shelf / "library", unprivileged=True)
        here = run("add", photos, "--library", shelf, unprivileged=True)
    finally:
        shelf.chmod(0o755)
    assert one_line(below).startswith(f"{shelf}/library: this folder cannot be written")
    assert one_line(here).startswith(f"{shelf}: this folder cannot be written")
    assert list(shelf.iterdir()) == []


def test_a_folder_that_may_not_be_looked_into_is_named(run, filled_library, original_photos):
    filled_library.chmod(0)
    try:
        done = run("search", original_photos / "cat.jpg", "--library", filled_library / "below",
                   unprivileged=True)  # fmt: skip
    finally:
        filled_library.chmod(0o755)
    assert one_line(done).startswith(f"{filled_library}/below: this folder cannot be ")


def test_a_file_is_not_a_library(run, photos, tmp_path):
    done = run("add", photos, "--library", photos / "cat.jpg")
    assert "cat.jpg: this is a file; name a folder for the library" in one_line(done)
    assert (photos / "cat.jpg").stat().st_size > 1000
    assert tmp_path.is_dir()


@pytest.fixture
def mounted(tmp_path):
    """Binds a folder read-only to another name, as a write-protected drive would be."""
    target = tmp_path / "drive"
    target.mkdir()

    def mount(source):
        for arguments in (["--bind", source, target], ["-o", "remount,bind,ro", target]):
            done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
            if done.returncode != 0:
                pytest.skip("nothing can be mounted here")
        return target

    yield mount
    subprocess.run(["umount", target], capture_output=True, check=False)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount command")
def test_a_library_on_a_write_protected_drive_is_searched(
    run, filled_library, original_photos, photos, mounted
):
    drive = mounted(filled_library)
    search = run("search", original_photos / "rocket.jpg", "--library", drive)
    assert search.stdout.startswith(os.fsencode(f"1.000  {original_photos}/rocket.jpg\n"))
    assert (search.returncode, search.stderr) == (0, b"")
    assert "this folder cannot be written" in one_line(run("add", photos, "--library", drive))


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount command")
def test_a_write_protected_drive_that_was_pulled_out_while_written_is_searched(
    run, filled_library, mounted, encoder, photos
):
    """What a killed writer leaves: the newest commits are in the write-ahead log alone."""
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        library.add(photos / "cat.jpg")
        left = shutil.copytree(filled_library, filled_library.with_name("left"))
    assert (left / "catalog.db-wal").stat().st_size > 0
    drive = mounted(left)
    search = run("search", photos / "cat.jpg", "-k1", "--library", drive)
    assert search.stdout.startswith(b"1.000  ")
    assert (search.returncode, search.stderr) == (0, b"")


# -- Damage ------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_named_and_left_alone(run, photos, library_folder):
    library_folder.mkdir()
    database = library_folder / "catalog.db"
    database.write_bytes(b"This is not a database.\n" * 1000)
    for arguments in (["add", photos], ["search", photos / "cat.jpg"], ["status"]):
        assert one_line(run(*arguments, "--library", library_folder)) == (
            f"{database}: the database is damaged (file is not a database); put a backup in its "
            "place, or move it away and add your folders again"
        )
    assert database.read_bytes() == b"This is not a database.\n" * 1000


def test_a_torn_database_is_said_in_a_line(run, filled_library, original_photos):
    database = filled_library / "catalog.db"
    for file in filled_library.glob("*.ckpt"):
        file.unlink()
    database.write_bytes(database.read_bytes()[:10_000])
    done = run("search", original_photos / "cat.jpg", "--library", filled_library)
    assert "the database is damaged" in one_line(done)


@pytest.mark.parametrize("seed", range(36))
def test_a_damaged_database_raises_nothing_but_our_errors(
    filled_library, original_photos, encoder, seed
):
    chance = random.Random(seed)
    database = filled_library / "catalog.db"
    data = bytearray(database.read_bytes())
    if seed % 2:
        for file in filled_library.glob("*.ckpt"):
            file.unlink()
    match seed % 3:
        case 0:  # single bits
            for _ in range(chance.choice((1, 5, 50))):
                data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
        case 1:  # a stretch of noise
            start, length = chance.randrange(len(data)), chance.choice((16, 512, 4096, 20_000))
            data[start : start + length] = chance.randbytes(len(data[start : start + length]))
        case _:  # a page of another file
            page = 4096 * chance.randrange(len(data) // 4096)
            data[page : page + 4096] = bytes(4096)
    database.write_bytes(data)
    for act in (
        lambda library: library.status(),
        lambda library: library.skipped(),
        lambda library: library.search(original_photos / "cat.jpg"),
        lambda library: library.add(original_photos),
    ):
        # Damage that SQLite cannot see may give an answer; all else is said in our words.
        with (
            contextlib.suppress(SearchlibError),
            searchlib.open_library(filled_library, encoder=encoder) as library,
        ):
            act(library)


def test_a_damaged_vector_is_not_compared(filled_library, original_photos, encoder):
    for bad in (b"\x00\x7e", b"\xff\x7b", b"\x00\x00"):  # NaN, huge, zero
        with closing(sqlite3.connect(filled_library / "catalog.db")) as database, database:
            database.execute("UPDATE embedding SET vector = ? WHERE image_id = 1", (bad * 320,))
            database.execute("INSERT INTO change (model_id, image_id) VALUES (1, 1)")
        with searchlib.open_library(filled_library, encoder=encoder) as library:
            with pytest.raises(LibraryDamagedError, match=r"catalog\.db: .*backup"):
                library.search(original_photos / "cat.jpg")
            with pytest.raises(LibraryDamagedError, match=r"catalog\.db: .*backup"):
                library.search(original_photos / "astronaut.jpg")


def test_a_library_of_a_newer_version_is_left_as_it_is(run, filled_library, original_photos):
    with closing(sqlite3.connect(filled_library / "catalog.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = {path.name: path.read_bytes() for path in filled_library.iterdir()}
    for arguments in (["add", original_photos], ["status"]):
        line = one_line(run(*arguments, "--library", filled_library))
        assert line.startswith(f"{filled_library}/catalog.db: a newer searchlib wrote this library")
        assert line.endswith("upgrade searchlib")
    assert {path.name: path.read_bytes() for path in filled_library.iterdir()} == before
    with pytest.raises(LibraryTooNewError):
        searchlib.open_library(filled_library)


def test_a_read_only_library_of_a_newer_version_says_so_too(run, filled_library, original_photos):
    with closing(sqlite3.connect(filled_library / "catalog.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    filled_library.chmod(0o555)
    try:
        done = run("search", original_photos / "cat.jpg", "--library", filled_library,
                   unprivileged=True)  # fmt: skip
    finally:
        filled_library.chmod(0o755)
    assert "a newer searchlib wrote this library" in one_line(done)


# -- The index is a cache ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", ["deleted", "empty", "truncated", "flipped", "noise", "a folder"]
)
def test_search_gives_the_same_answer_without_its_checkpoint(
    run, filled_library, original_photos, damage
):
    (checkpoint,) = filled_library.glob("*.ckpt")
    query = ("search", original_photos / "coins.png", "--library", filled_library)
    whole = run(*query).stdout
    data = bytearray(checkpoint.read_bytes())
    if damage == "truncated":
        checkpoint.write_bytes(data[:-100])
    elif damage == "flipped":
        data[len(data) // 2] ^= 16
        checkpoint.write_bytes(data)
    elif damage == "noise":
        checkpoint.write_bytes(random.Random(1).randbytes(len(data)))
    elif damage == "empty":
        checkpoint.write_bytes(b"")
    else:
        checkpoint.unlink()
        if damage == "a folder":
            checkpoint.mkdir()
    done = run(*query)
    assert done.returncode == 0
    assert done.stdout == whole
    if damage == "deleted":
        assert done.stderr == b""
    else:
        line, *more = os.fsdecode(done.stderr).splitlines()
        assert line.startswith(f"searchlib: warning: {checkpoint}: ")
        # What is no file cannot be replaced by one.
        assert bool(more) == (damage == "a folder")
    if damage != "a folder":
        assert run(*query).stderr == b""


def test_add_writes_the_checkpoint_that_was_lost(filled_library, original_photos, encoder):
    (checkpoint,) = filled_library.glob("*.ckpt")
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[:500])
    with searchlib.open_library(filled_library, encoder=encoder) as library:
        library.add(original_photos)
    assert checkpoint.read_bytes()[4096:] == data[4096:]


# -- Models ------------------------------------------------------------------------------------


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A copy of the built-in model."""
    return shutil.copytree(built_in_card().path.parent, tmp_path / "model")


def test_a_model_file_with_a_flipped_byte_is_refused_and_the_library_stays(
    filled_library, original_photos, photos, encoder, model_folder
):
    card = load_card(model_folder / "card.toml")
    data = bytearray(card.path.read_bytes())
    data[len(data) // 2] ^= 1
    card.path.write_bytes(data)
    (photos / "new.jpg").write_bytes((photos / "cat.jpg").read_bytes() + b"\0")
    with searchlib.open_library(filled_library, encoder=ImageEncoder(card)) as library:
        with pytest.raises(ModelFileError, match=r"\.pte: the model file is damaged .*install"):
            library.add(photos / "new.jpg")
        assert library.status().images == 8
        # The vectors it has are as good as before.
        assert library.search(photos / "cat.jpg")[0].path == str(original_photos / "cat.jpg")
    assert_whole(filled_library, original_photos, encoder)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_model_file_that_is_not_whole_is_refused(fill, photos, model_folder, damage, tmp_path):
    card = load_card(model_folder / "card.toml")
    if damage == "missing":
        card.path.unlink()
    else:
        card.path.write_bytes(card.path.read_bytes()[:-1])
    with (
        searchlib.open_library(tmp_path / "library", encoder=ImageEncoder(card)) as library,
        pytest.raises(ModelFileError, match=r"\.pte: the model file .*install it again"),
    ):
        library.add(photos)
    assert fill(photos).added == 8


def test_a_library_takes_vectors_of_one_model_only(
    filled_library, original_photos, photos, encoder
):
    card = built_in_card()
    cropped = dataclasses.replace(card.preprocessing, resize="crop")
    other = ImageEncoder(dataclasses.replace(card, name="tiny-vit-crop", preprocessing=cropped))
    with searchlib.open_library(filled_library, encoder=other) as library:
        for act in (library.add, library.search):
            with pytest.raises(ModelMismatchError, match=r"tiny-vit-5m .* not with tiny-vit-crop"):
                act(photos / "cat.jpg")
        # What it says of itself is about its own vectors.
        assert (library.status().model, library.status().images) == ("tiny-vit-5m", 8)
    assert_whole(filled_library, original_photos, encoder)
