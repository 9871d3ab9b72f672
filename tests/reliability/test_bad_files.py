"""Files that cannot be used: each gets a line that says which and why, and the others are added."""

import os
import shutil
import socket
import struct
import zlib
from pathlib import Path

import pytest

import searchlib

LETTER = b"Dear diary, today I went out to take some photographs.\n" * 40


def png_of(width: int, height: int) -> bytes:
    """A PNG file that promises a picture of this size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        )
    )


def skip_lines(error: bytes, folder: Path) -> dict[str, str]:
    """What was said of each file, by its name."""
    said = {}
    for line in os.fsdecode(error).splitlines():
        start = f"skipped {folder}/"
        assert line.startswith(start), line
        name, _, reason = line.removeprefix(start).partition(": ")
        said[name] = reason
    return said


def test_every_bad_file_is_named_with_its_reason_and_the_good_ones_are_added(
    run, photos, library_folder
):
    jpeg = (photos / "coffee.jpg").read_bytes()
    bad = {
        "letter.jpg": (LETTER, "not an image: no decoder knows its first bytes"),
        "page.jpg": (b"<!DOCTYPE html><html>", "a web page, not a picture"),
        "scan.jpg": (b"%PDF-1.7 ...", "a PDF document, not a picture"),
        "empty.png": (b"", "the file is empty"),
        "zeros.png": (bytes(100_000), "not an image: no decoder knows its first bytes"),
        "bomb.png": (png_of(50_000, 50_000), "50000 x 50000 is 2500 megapixels, the limit is 500"),
        "torn.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "head.jpg": (jpeg[:4], ""),
        "torn.png": ((photos / "clock.png").read_bytes()[:9000], "truncated"),
    }
    for name, (content, _) in bad.items():
        (photos / name).write_bytes(content)
    done = run("add", photos, "--library", library_folder)
    said = skip_lines(done.stderr, photos)
    assert said.keys() == bad.keys()
    for name, (_, words) in bad.items():
        assert words in said[name], name
        assert said[name]
    assert done.stdout.startswith(b"added 8, moved 0, unchanged 0, skipped 9 in ")
    assert done.returncode == 3


def test_a_huge_picture_is_refused_by_its_header_and_not_decoded(fill, tmp_path, encoder):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(50_000, 50_000))
    (skipped,) = fill(path).skipped
    assert "50000 x 50000" in skipped.reason
    with (
        searchlib.open_library(tmp_path / "library", encoder=encoder) as library,
        pytest.raises(searchlib.errors.TooLargeError, match=r"bomb\.png: .*50000 x 50000"),
    ):
        library.search(path)


def test_files_and_folders_without_permission_are_named(run, photos, library_folder):
    locked = photos / "coffee.jpg"
    closed = photos / "private"
    closed.mkdir()
    shutil.copy(photos / "cat.jpg", closed)
    locked.chmod(0)
    closed.chmod(0)
    try:
        done = run(
            "add", photos, closed / "cat.jpg", locked, "--library", library_folder,
            unprivileged=True,
        )  # fmt: skip
        query = run("search", locked, "--library", library_folder, unprivileged=True)
    finally:
        closed.chmod(0o755)
        locked.chmod(0o644)
    assert skip_lines(done.stderr, photos) == {
        "coffee.jpg": "no permission to read it",
        "private": "this folder cannot be listed: Permission denied",
        "private/cat.jpg": "cannot be read: Permission denied",
    }
    assert done.stdout.startswith(b"added 7, moved 0, unchanged 0, skipped 3 in ")
    assert done.returncode == 3
    assert query.stderr == os.fsencode(f"searchlib: {locked}: no permission to read it\n")
    assert query.returncode == 2
    # What the disk refused is tried again without being asked: the file has not changed.
    again = run("add", photos, "--library", library_folder)
    assert again.stdout.startswith(b"added 1, copies 1, moved 0, unchanged 7, skipped 0 in ")
    assert again.returncode == 0


def test_a_known_file_that_becomes_unreadable_is_not_taken_for_gone(run, fill, photos):
    fill(photos)
    closed = photos / "closed"
    closed.mkdir()
    (photos / "cat.jpg").rename(closed / "cat.jpg")
    fill(photos)
    closed.chmod(0)
    library = photos.parent / "library"
    try:
        done = run("add", photos, "--library", library, unprivileged=True)
    finally:
        closed.chmod(0o755)
    assert done.stdout.startswith(b"added 0, moved 0, unchanged 7, skipped 1 in ")
    assert fill(photos).unchanged == 8


def test_what_is_no_regular_file_never_blocks(fill, photos, monkeypatch):
    os.mkfifo(photos / "pipe.jpg")
    (photos / "folder.jpg").mkdir()
    (photos / "to folder.jpg").symlink_to("folder.jpg")
    (photos / "null.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        # From inside the folder, for the path of a socket must be short.
        monkeypatch.chdir(photos)
        listener.bind("s.jpg")
        report = fill(photos)
    assert report.added == 8
    assert {Path(skipped.path).name: skipped.reason for skipped in report.skipped} == {
        "null.png": "is a device, not a file",
        "pipe.jpg": "is a pipe, not a file",
        "s.jpg": "is a socket, not a file",
    }


STRANGE = [
    b"caf\xe9.jpg",
    b"\xff\xfe\x80.jpg",
    b"new\nline.jpg",
    b"tab\tand \x1b[31mred.jpg",
    "emoji 😀 ñ 写真.jpg".encode(),
    "right-to-left \u202egpj.jpg".encode(),
    b"-k.jpg",
    b" leading and trailing .jpg",
    b"'quotes\" $HOME `ls` *?.jpg",
    b"100%.jpg",
    b"x" * 250 + b".jpg",
]


def test_strange_names_are_added_found_and_printed_byte_for_byte(run, photos, library_folder):
    folder = os.fsencode(photos)
    jpeg = (photos / "rocket.jpg").read_bytes()
    made = {}
    for number, name in enumerate(STRANGE):
        path = folder + b"/" + name
        try:
            Path(os.fsdecode(path)).write_bytes(jpeg + bytes([number]))
        except OSError:
            continue  # a file system that insists on UTF-8
        made[path] = number
    assert len(made) >= len(STRANGE) - 2
    done = run("add", photos, "--library", library_folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"added %d, " % (8 + len(made)))

    query = folder + b"/" + STRANGE[0] if folder + b"/" + STRANGE[0] in made else max(made)
    everything = ("search", query, "-k", "50", "--library", library_folder)
    found = run(*everything, "-0").stdout.split(b"\0")[:-1]
    assert set(made) <= set(found)
    assert len(found) == 8 + len(made)
    assert run(*everything, "--paths").stdout == b"".join(path + b"\n" for path in found)
    shown = run(*everything).stdout
    # Lines of valid text whatever the names hold, and nothing that a terminal would obey.
    assert len(shown.decode("utf-8").splitlines()) == 8 + len(made)
    assert not set(b"\x1b\t\r") & set(shown)
    assert "\u202e" not in shown.decode()


def test_a_strange_name_in_an_error_stays_in_one_line(run, photos, library_folder):
    name = os.fsencode(photos) + b"/new\nline caf\xe9.jpg"
    Path(os.fsdecode(name)).write_bytes(LETTER)
    done = run("add", name, "--library", library_folder)
    (line,) = done.stderr.splitlines()
    assert rb"new\nline caf\xe9.jpg: not an image" in line
    done = run("search", name, "--library", library_folder)
    assert done.stdout == b""
    done = run("search", photos / "cat.jpg", "--library", os.fsencode(library_folder) + b"\n\xe9")
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"searchlib: ")
    assert rb"library\n\xe9: there is no library here" in line
    assert done.returncode == 2
