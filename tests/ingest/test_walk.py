"""The walk: which files it finds, which it leaves out, and that it always ends."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.catalog import FolderRecord
from searchlib.errors import InputError
from searchlib.ingest.place import gone, signed
from searchlib.ingest.walk import Found, Unlisted, walk


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(root: Path) -> list[str]:
    return [
        os.path.relpath(item.path, root)
        for item in walk(FolderRecord(str(root)))
        if isinstance(item, Found)
    ]


def test_pictures_are_found_by_name_in_a_stated_order(tmp_path: Path) -> None:
    make(tmp_path, "b.JPG", "a.png", "notes.txt", "z/c.webp", "y/d.heic", "y/x/e.tiff")
    assert found(tmp_path) == ["a.png", "b.JPG", "y/d.heic", "y/x/e.tiff", "z/c.webp"]


def test_hidden_things_and_litter_are_left_out(tmp_path: Path) -> None:
    make(
        tmp_path,
        ".hidden.jpg",
        ".git/a.jpg",
        "@eaDir/a.jpg",
        "node_modules/x/a.jpg",
        "album/.thumbnails/a.jpg",
        "album/kept.jpg",
    )
    assert found(tmp_path) == ["album/kept.jpg"]


def test_a_hidden_folder_that_was_named_is_walked(tmp_path: Path) -> None:
    make(tmp_path, ".photos/a.jpg")
    assert found(tmp_path / ".photos") == ["a.jpg"]


def test_an_ignore_file_counts_for_its_folder_and_below(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "a/b/x.jpg", "c/x.jpg", "a/y.jpg", "raw/z.jpg", "a/raw/z.jpg")
    (tmp_path / "a" / ".searchlibignore").write_text("x.jpg\n")
    (tmp_path / ".searchlibignore").write_text("/raw/\n# a comment\n\n")
    assert found(tmp_path) == ["a/raw/z.jpg", "a/y.jpg", "c/x.jpg"]


def test_a_nearer_ignore_file_can_take_a_pattern_back(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "keep/b.png", "keep/c.jpg")
    (tmp_path / ".searchlibignore").write_text("*.png\n")
    (tmp_path / "keep" / ".searchlibignore").write_text("!*.png\n")
    assert found(tmp_path) == ["keep/b.png", "keep/c.jpg"]


def test_a_pattern_that_means_nothing_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / ".searchlibignore").write_text("!\n")
    with pytest.raises(InputError, match=r"\.searchlibignore: .*correct this pattern"):
        found(tmp_path)


def test_links_to_files_count_and_links_to_folders_do_not(tmp_path: Path) -> None:
    make(tmp_path, "real/a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.jpg").symlink_to(tmp_path / "real")
    assert found(tmp_path) == ["b.jpg", "real/a.jpg"]


def test_a_dead_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (item,) = walk(FolderRecord(str(tmp_path)))
    assert item == Unlisted(str(tmp_path / "dead.jpg"), "is a link to a file that does not exist")


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path) -> None:
    (item,) = walk(FolderRecord(str(tmp_path / "nowhere")))
    assert isinstance(item, Unlisted)
    assert "cannot be listed" in item.reason


def test_names_need_not_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    make(tmp_path, name)
    assert found(tmp_path) == [name]


def test_gone_means_certainly_gone(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    assert not gone(str(tmp_path / "a.jpg"))
    assert gone(str(tmp_path / "b.jpg"))
    assert gone(str(tmp_path / "a.jpg" / "b.jpg"))
    # Too long a name is an error that says nothing of what is there.
    assert not gone(str(tmp_path / ("x" * 5000)))


@given(st.integers(0, 2**64 - 1))
def test_every_inode_fits_a_signed_integer_and_none_is_shared(inode: int) -> None:
    assert -(2**63) <= signed(inode) < 2**63
    assert signed(inode) % 2**64 == inode
