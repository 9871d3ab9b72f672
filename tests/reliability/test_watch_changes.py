"""Whatever happens to the files while they are watched, the library is as the disk."""

import json
import os
import shutil
import sqlite3
import time
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

import searchlib
from tests.reliability.watching import FULL, Watch, picture, write
from tests.truth import Truth


def fill(folder: Path, first: int = 0) -> None:
    """A dozen pictures, some of them below."""
    for number in range(12):
        place = folder / ("a", "b", "b/c", ".")[number % 4]
        write(place / f"{number:02}.{'jpg' if number % 2 else 'png'}", first + number)


@pytest.fixture
def filled(root: Path) -> Path:
    """The root with a few pictures."""
    fill(root)
    return root


@pytest.fixture
def watched(quick, filled: Path, watch) -> Watch:
    """Watches the filled root, and has come to rest."""
    running = watch(quick, filled)
    running.wait_idle()
    return running


def move(root: Path) -> None:
    (root / "a" / "00.png").rename(root / "b" / "new name.png")


def rename_folder(root: Path) -> None:
    (root / "b").rename(root / "renamed")


def rename_folder_into_another(root: Path) -> None:
    (root / "b").rename(root / "a" / "below")


def swap(root: Path) -> None:
    one, other = root / "a" / "00.png", root / "a" / "04.png"
    one.rename(root / "aside")
    other.rename(one)
    (root / "aside").rename(other)


def swap_folders(root: Path) -> None:
    (root / "a").rename(root / ".aside")
    (root / "b").rename(root / "a")
    (root / ".aside").rename(root / "b")


def move_over_another(root: Path) -> None:
    (root / "a" / "00.png").replace(root / "a" / "04.png")


def copy(root: Path) -> None:
    shutil.copyfile(root / "a" / "00.png", root / "copy.png")
    shutil.copytree(root / "b", root / "copies")


def hard_link(root: Path) -> None:
    (root / "link.png").hardlink_to(root / "a" / "00.png")


def soft_link(root: Path) -> None:
    (root / "link.png").symlink_to("a/00.png")
    (root / "nowhere.png").symlink_to("nothing.png")
    (root / "folder").symlink_to("a")


def change_case(root: Path) -> None:
    (root / "a" / "00.png").rename(root / "a" / "00.PNG")
    (root / "b").rename(root / "B")


def delete(root: Path) -> None:
    (root / "a" / "00.png").unlink()
    shutil.rmtree(root / "b")


def delete_and_restore(root: Path) -> None:
    data = {path: path.read_bytes() for path in root.rglob("*.*") if path.is_file()}
    for path in data:
        path.unlink()
    for path, content in data.items():
        path.write_bytes(content)


def touch(root: Path) -> None:
    # As whoever writes the same bytes again and gives them their old time: without a write, the
    # kernel tells of no close, and the next scan notes the time.
    with (root / "a" / "00.png").open("ab") as file:
        os.utime(file.fileno(), (1, 1))


def folder_of_that_name(root: Path) -> None:
    path = root / "a" / "00.png"
    path.rename(root / "aside.png")
    path.mkdir()
    (root / "aside.png").rename(path / "00.png")


def hide(root: Path) -> None:
    (root / "a" / "00.png").rename(root / "a" / ".00.png")
    (root / "b").rename(root / ".b")


NEEDS_NO_MODEL = (
    move, rename_folder, rename_folder_into_another, swap, swap_folders, move_over_another, copy,
    hard_link, soft_link, change_case, delete, delete_and_restore, touch, folder_of_that_name, hide,
)  # fmt: skip


def test_moves_copies_links_and_deletes_need_no_vector(quick, root, watch):
    """Each in a folder of its name, all at once."""
    for number, change in enumerate(NEEDS_NO_MODEL):
        fill(root / change.__name__, 100 * number)
    running = watch(quick, root)
    running.wait_idle()
    before = running.until_equals_disk([root], quick.encoder)
    for change in NEEDS_NO_MODEL:
        change(root / change.__name__)
    after = running.until_equals_disk([root], quick.encoder)
    assert after.changes == before.changes == 12 * len(NEEDS_NO_MODEL)
    running.terminate()


def test_new_bytes_in_an_old_place_are_embedded_and_only_those(quick, filled, watched):
    before = watched.until_equals_disk([filled], quick.encoder)
    with (filled / "a" / "00.png").open("r+b") as file:  # in place: the same inode
        file.write(picture(1000))
        file.truncate()
    (filled / "a" / "04.png").unlink()
    write(filled / "a" / "04.png", 1001)
    write(filled / "aside", 1002).replace(filled / "a" / "08.png")
    after = watched.until_equals_disk([filled], quick.encoder)
    assert after.changes == before.changes + 3
    watched.terminate()


def test_an_edit_that_keeps_size_and_time_but_for_nanoseconds_is_seen(quick, filled, watched):
    path = filled / "a" / "00.png"
    data = picture(1000)
    path.write_bytes(data)
    watched.until_equals_disk([filled], quick.encoder)
    status = path.stat()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    watched.until_equals_disk([filled], quick.encoder)
    watched.terminate()


def test_files_and_folders_take_each_others_names(quick, filled, watched):
    path = filled / "b"
    for number in range(3):
        path.rename(filled / f".aside-{number}")
        write(path.with_name("x.png"), 2000 + number).rename(path)  # a file named as the folder was
        watched.until_equals_disk([filled], quick.encoder)
        path.unlink()
        (filled / f".aside-{number}").rename(path)
        (filled / "folder.png").mkdir()
        write(filled / "folder.png" / "in.png", 3000 + number)
        watched.until_equals_disk([filled], quick.encoder)
        shutil.rmtree(filled / "folder.png")
        write(filled / "folder.png", 4000 + number)
        watched.until_equals_disk([filled], quick.encoder)
        (filled / "folder.png").unlink()
    watched.until_equals_disk([filled], quick.encoder)
    watched.terminate()


NAMES = (
    b"new\nline.png",
    b"\xff\xfe not utf-8.png",
    b"caf\xe9.jpg",
    "emoji 😀 写真.png".encode(),
    "right-to-left \u202egpj.jpg".encode(),
    b"-rf.png",
    b"tab\t\x1b[31m.png",
    b" spaces .png",
    b"*?[a].png",
    b"#hash!.png",
    b"x" * 250 + b".png",
    unicodedata.normalize("NFC", "café é.png").encode(),
    unicodedata.normalize("NFD", "café é.png").encode(),
    b"Case.png",
    b"case.png",
)


def test_names_of_any_bytes_of_files_and_folders(quick, root, watch):
    for folder in (b"", b"/not \xff\nutf"):
        Path(os.fsdecode(os.fsencode(root) + folder)).mkdir(exist_ok=True)
        for number, name in enumerate(NAMES[::2]):
            write(Path(os.fsdecode(os.fsencode(root) + folder + b"/" + name)), number)
    running = watch(quick, root)
    running.wait_idle()
    for folder in (b"", b"/not \xff\nutf", b"/\xe9\xe9/deep \xf0"):
        Path(os.fsdecode(os.fsencode(root) + folder)).mkdir(exist_ok=True, parents=True)
        for number, name in enumerate(NAMES):
            write(Path(os.fsdecode(os.fsencode(root) + folder + b"/" + name)), 100 + number)
    truth = running.until_equals_disk([root], quick.encoder)
    assert len(truth.present) == 3 * len(NAMES)
    # Twins in normalisation and in case are two files here: one that turns into the other moves.
    here = Path(os.fsdecode(os.fsencode(root) + b"/\xe9\xe9/deep \xf0"))
    for old, new in ((NAMES[11], NAMES[12]), (NAMES[13], NAMES[14])):
        (here / os.fsdecode(old)).replace(here / os.fsdecode(new))
    after = running.until_equals_disk([root], quick.encoder)
    assert len(after.present) == len(truth.present) - 2
    assert after.changes == truth.changes
    running.terminate()


def test_folders_and_files_renamed_during_a_scan_and_after_it(quick, root, watch, many):
    count = many
    running = watch(quick, root)
    # The scan runs while all are renamed, as folders and file by file.
    running.wait_for("scanning")
    for number, folder in enumerate(sorted(root.iterdir())):
        folder.rename(root / f"renamed-{number}")
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(f"new-{path.name}"))
    (root / "renamed-0").rename(root / "renamed-1" / "below")
    truth = running.until_equals_disk([root], quick.encoder, most_vectors=300)
    assert len(truth.present) == count
    assert truth.changes == count
    # Now that the library knows all of them, nothing is embedded again when the folder that all
    # the others are in gets another name.
    (root / "all").mkdir()
    for folder in sorted(root.iterdir()):
        if folder.name != "all":
            folder.rename(root / "all" / folder.name)
    (root / "all").rename(root / "everything")
    truth = running.until_equals_disk([root], quick.encoder, most_vectors=300)
    assert (len(truth.present), truth.changes) == (count, count)
    running.terminate()


@pytest.fixture
def many(root: Path) -> int:
    """Many pictures in ten folders; gives how many."""
    count = 10_000 if FULL else 2000
    for number in range(count):
        write(root / f"{number % 10}" / f"{number:05}.png", number)
    return count


def test_links_in_circles_are_followed_once(quick, filled, watch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "far.png", 500)
    (filled / "a" / "up").symlink_to("..")
    (filled / "self").symlink_to("self")
    (filled / "self.png").symlink_to("self.png")
    (filled / "one").symlink_to("two")
    (filled / "two").symlink_to("one")
    (elsewhere / "back").symlink_to(filled)
    (filled / "far").symlink_to(elsewhere)
    running = watch(quick, filled, "--follow-links")
    running.wait_idle()
    loop = filled / "self.png"
    far = filled / "far" / "far.png"
    running.until_equals_disk([filled], quick.encoder, also=[far], failing=[loop])
    write(elsewhere / "new" / "further.png", 501)
    write(filled / "a" / "near.png", 502)
    also = [far, filled / "far" / "new" / "further.png"]
    running.until_equals_disk([filled], quick.encoder, also=also, failing=[loop])
    running.terminate()


def test_a_link_to_a_folder_that_is_watched_anyway_doubles_nothing(quick, filled, watch):
    (filled / "z link").symlink_to("b")
    running = watch(quick, filled, "--follow-links")
    running.wait_idle()
    running.until_equals_disk([filled], quick.encoder)
    write(filled / "b" / "c" / "new.png", 600)
    write(filled / "z link" / "other.png", 601)
    running.until_equals_disk([filled], quick.encoder)
    running.terminate()
    again = watch(quick, "--once")
    assert again.wait_end() == 0
    again.until_equals_disk([filled], quick.encoder)


def test_a_file_that_is_held_open_is_not_read_before_it_is_closed(quick, root, watch):
    running = watch(quick, root)
    running.wait_idle()
    data = picture(1)
    with (root / "slow.png").open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        # Another one, written later, shows that its time to settle has passed long since.
        write(root / "first.png", 2)
        running.wait_for("file", path=root / "first.png", outcome="added")
        for number in range(4):
            told = len(running.events)
            write(root / f"later-{number}.png", 10 + number)
            running.wait_for("file", path=root / f"later-{number}.png", after=told)
        assert not [each for each in running.events if each.get("path") == str(root / "slow.png")]
        file.write(data[len(data) // 2 :])
    truth = running.until_equals_disk([root], quick.encoder)
    assert str(root / "slow.png") in truth.present
    assert running.outcomes("skipped") == []
    running.terminate()


def test_files_that_come_in_pieces_are_whole_in_the_end(quick, root, watch):
    """Closed and opened again for each piece, some slower than the time to settle."""
    running = watch(quick, root)
    running.wait_idle()
    contents = {root / f"{number}.png": picture(number) for number in range(20)}
    for step in range(4):
        for path, data in contents.items():
            with path.open("ab") as file:
                file.write(data[step * len(data) // 4 : (step + 1) * len(data) // 4])
        time.sleep(0.4 if step % 2 else 0)
    truth = running.until_equals_disk([root], quick.encoder)
    assert len(truth.present) == 20
    running.terminate()


def test_moves_between_two_watched_folders_need_no_vector(quick, filled, watch, tmp_path):
    other = tmp_path / "other"
    write(other / "here.png", 700)
    roots = [filled, other]
    running = watch(quick, *roots)
    running.wait_idle()
    before = running.until_equals_disk(roots, quick.encoder)
    (filled / "a" / "00.png").rename(other / "00.png")
    (filled / "b").rename(other / "b")
    (other / "here.png").rename(filled / "a" / "here.png")
    after = running.until_equals_disk(roots, quick.encoder)
    (other / "b").rename(filled / "b again")
    again = running.until_equals_disk(roots, quick.encoder)
    assert before.changes == after.changes == again.changes
    assert len(before.present) == len(after.present) == len(again.present)
    running.terminate()
    assert states(quick.library) == {"present"}


def states(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "catalog.db")) as database:
        return {state for (state,) in database.execute("SELECT DISTINCT state FROM file")}


def test_a_deleted_file_is_missing_first_and_given_up_by_purge_only(
    quick, filled, watched, run, watch
):
    path = filled / "a" / "00.png"
    data = path.read_bytes()
    before = watched.until_equals_disk([filled], quick.encoder)
    path.unlink()
    missing = watched.until_equals_disk([filled], quick.encoder)
    assert missing.vectors == before.vectors
    watched.wait_for("missing", count=1)
    # Back under another name, it needs no vector.
    (filled / "back.png").write_bytes(data)
    back = watched.until_equals_disk([filled], quick.encoder)
    assert (back.changes, back.vectors) == (before.changes, before.vectors)
    (filled / "back.png").unlink()
    watched.until_equals_disk([filled], quick.encoder)
    done = run("purge", "--yes", "--json", "--library", quick.library, env=quick.env)
    assert json.loads(done.stdout)["purged"] == 1
    purged = watched.until_equals_disk([filled], quick.encoder)
    assert purged.vectors == before.vectors - 1
    with searchlib.open_library(quick.library, encoder=quick.encoder) as library:
        assert library.status().missing == 0
    path.write_bytes(data)
    again = watched.until_equals_disk([filled], quick.encoder)
    assert again.vectors == before.vectors
    watched.terminate()
    # Without a time of grace it goes with the next look, and what is there stays.
    path.unlink()
    none = watch(quick, filled, "--grace-days", "0", "--once")
    assert none.wait_end() == 0
    truth = none.until_equals_disk([filled], quick.encoder)
    assert truth.vectors in (before.vectors, before.vectors - 1)
    none = watch(quick, filled, "--grace-days", "0", "--once")
    assert none.wait_end() == 0
    truth: Truth = none.until_equals_disk([filled], quick.encoder)
    assert truth.vectors == before.vectors - 1
