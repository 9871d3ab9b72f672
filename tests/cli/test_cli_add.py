"""`searchlib add`, as a person and as a program see it."""

import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

from click.testing import CliRunner

from searchlib.cli import main


def plain(output: bytes) -> str:
    """The output without what no two runs share."""
    text = re.sub(r" in \d+\.\d s", " in S s", os.fsdecode(output))
    return re.sub(r"\(\d+\.\d images/s\)", "(R images/s)", text)


def test_new_pictures_are_added_and_known_ones_are_left_alone(run, photos, library_folder):
    first = run("add", photos, "--library", library_folder)
    assert plain(first.stdout) == "added 8, moved 0, unchanged 0, skipped 0 in S s (R images/s)\n"
    assert (first.returncode, first.stderr) == (0, b"")
    again = run("add", photos, "--library", library_folder)
    assert plain(again.stdout) == "added 0, moved 0, unchanged 8, skipped 0 in S s\n"
    assert (again.returncode, again.stderr) == (0, b"")


def test_known_files_are_not_opened_again(run, fill, photos, library_folder):
    fill(photos)
    for path in photos.iterdir():
        path.chmod(0)
    done = run("add", photos, "--library", library_folder, unprivileged=True)
    assert plain(done.stdout) == "added 0, moved 0, unchanged 8, skipped 0 in S s\n"


def test_every_kind_of_change_is_counted_in_one_line(run, fill, photos, library_folder):
    fill(photos)
    shutil.copy(photos / "coffee.jpg", photos / "coffee (1).jpg")
    (photos / "cat.jpg").rename(photos / "katze.jpg")
    (photos / "coins.png").write_bytes((photos / "rocket.jpg").read_bytes() + b"\0")
    (photos / "clock.png").unlink()
    (photos / "letter.jpg").write_text("Dear diary")
    done = run("add", photos, "--library", library_folder)
    assert plain(done.stdout) == (
        "added 0, copies 1, moved 1, changed 1, unchanged 5, missing 1, skipped 1 in S s\n"
    )
    assert plain(done.stderr) == (
        f"skipped {photos}/letter.jpg: not an image: no decoder knows its first bytes\n"
    )
    assert done.returncode == 3


def test_a_file_can_be_added_by_its_name(run, photos, library_folder):
    done = run("add", photos / "cat.jpg", photos / "coffee.jpg", "--library", library_folder)
    assert plain(done.stdout).startswith("added 2, moved 0, unchanged 0, skipped 0 ")
    assert done.returncode == 0


def test_the_json_holds_the_counts_and_the_skipped_files(run, photos, library_folder):
    shutil.copy(photos / "cat.jpg", photos / "cat again.jpg")
    (photos / "empty.png").write_bytes(b"")
    done = run("add", photos, "--library", library_folder, "--json")
    report = json.loads(done.stdout)
    assert report.pop("seconds") > 0
    assert report == {
        "found": 10,
        "added": 8,
        "copies": 1,
        "moved": 0,
        "changed": 0,
        "embedded": 0,
        "unchanged": 0,
        "missing": 0,
        "offline": 0,
        "skipped": [{"path": f"{photos}/empty.png", "reason": "the file is empty"}],
        "purged": 0,
        "cancelled": False,
    }
    assert (done.returncode, done.stderr) == (3, b"")


def test_each_file_is_a_json_line_where_a_program_asks_for_them(run, photos, library_folder):
    raw = os.fsencode(photos) + b"/caf\xe9.jpg"
    shutil.copy(photos / "coffee.jpg", raw)
    (photos / "empty.png").write_bytes(b"")
    done = run("add", photos, "--library", library_folder, "--jsonl")
    *lines, last = [json.loads(line) for line in done.stdout.splitlines()]
    files = {line["path"]: line for line in lines if line["event"] == "file"}
    assert len(files) == 10
    assert files[f"{photos}/cat.jpg"]["outcome"] == "added"
    assert files[f"{photos}/empty.png"]["reason"] == "the file is empty"
    assert {files[os.fsdecode(raw)]["outcome"], files[f"{photos}/coffee.jpg"]["outcome"]} == {
        "added",
        "copy",
    }
    progress = [line for line in lines if line["event"] == "progress"]
    assert progress[0] == {
        "event": "progress",
        "stage": "listing",
        "done": 10,
        "total": None,
        "skipped": 0,
    }
    assert [progress[-1][name] for name in ("stage", "done", "total")] == ["embedding", 10, 10]
    assert (last["event"], last["added"], last["found"]) == ("report", 8, 10)
    assert (done.returncode, done.stderr) == (3, b"")
    both = run("add", photos, "--library", library_folder, "--jsonl", "--json")
    assert both.returncode == 2


def test_thumbnails_are_kept_from_when_they_are_asked_for(run, photos, library_folder):
    def thumbnails() -> int:
        return sum(path.is_file() for path in library_folder.glob("thumbnails/**/*.webp"))

    where = ("--library", library_folder)
    run("add", photos / "cat.jpg", *where)
    assert thumbnails() == 0
    run("add", photos / "coffee.jpg", "--thumbnails", *where)
    assert thumbnails() == 1
    run("add", photos / "rocket.jpg", *where)
    assert thumbnails() == 2
    run("add", photos / "coins.png", "--no-thumbnails", *where)
    assert thumbnails() == 2


def test_a_missing_path_does_not_stop_the_others(run, photos, library_folder):
    nowhere = photos.parent / "Fotos"
    done = run("add", nowhere, photos, "--library", library_folder)
    assert plain(done.stderr) == f"skipped {nowhere}: there is no such file or folder\n"
    assert plain(done.stdout).startswith("added 8, moved 0, unchanged 0, skipped 1 ")
    assert done.returncode == 3


def test_a_folder_without_images_is_said_and_is_not_an_error_of_the_command(
    run, tmp_path, library_folder
):
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear diary")
    done = run("add", folder, "--library", library_folder)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"no images found\n", b"")


def test_of_many_skipped_files_the_first_are_listed(run, tmp_path, library_folder):
    folder = tmp_path / "letters"
    folder.mkdir()
    for number in range(25):
        (folder / f"{number:02}.jpg").write_text("Dear diary")
    done = run("add", folder, "--library", library_folder)
    *lines, last = plain(done.stderr).splitlines()
    assert len(lines) == 20
    assert last == "skipped 5 more; `searchlib status --skipped` lists them"
    assert plain(done.stdout) == "added 0, moved 0, unchanged 0, skipped 25 in S s\n"


def test_a_skipped_file_is_tried_again_when_asked_or_when_it_changed(
    run, fill, photos, library_folder
):
    torn = photos / "torn.jpg"
    whole = (photos / "cat.jpg").read_bytes() + b"\0"
    torn.write_bytes(whole[:3000])
    fill(photos)
    again = run("add", photos, "--retry", "--library", library_folder)
    assert (again.returncode, plain(again.stdout)) == (
        3,
        "added 0, moved 0, unchanged 8, skipped 1 in S s\n",
    )
    torn.write_bytes(whole)
    done = run("add", photos, "--library", library_folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert plain(done.stdout).startswith("added 1, moved 0, unchanged 8, skipped 0 ")


def test_the_library_of_the_environment_is_used(run, photos, tmp_path):
    run("add", photos, env={"SEARCHLIB_LIBRARY": str(tmp_path / "from-env")})
    assert (tmp_path / "from-env" / "catalog.db").is_file()
    named = tmp_path / "named"
    run("add", photos, "--library", named, env={"SEARCHLIB_LIBRARY": str(tmp_path / "not-this")})
    assert (named / "catalog.db").is_file()
    assert not (tmp_path / "not-this").exists()


def test_without_a_named_library_it_lies_in_the_data_folder(run, photos, tmp_path):
    data = tmp_path / "data"
    done = run("add", photos / "cat.jpg", env={"XDG_DATA_HOME": str(data), "HOME": str(tmp_path)})
    assert done.returncode == 0
    assert [path.parent.name for path in tmp_path.rglob("catalog.db")] == ["searchlib"]


def test_relative_paths_are_remembered_as_absolute_ones(run, photos, tmp_path):
    run("add", "photos", "--library", "library", cwd=tmp_path)
    done = run("search", "photos/cat.jpg", "-k1", "--paths", "--library", "library", cwd=tmp_path)
    assert os.fsdecode(done.stdout) == f"{photos}/cat.jpg\n"


def test_the_catalog_keeps_names_as_the_disk_has_them(fill, photos, library_folder):
    raw = os.fsencode(photos) + b"/caf\xe9.jpg"
    shutil.copy(photos / "coffee.jpg", raw)
    fill(photos)
    with sqlite3.connect(library_folder / "catalog.db") as database:
        paths = {bytes(path) for (path,) in database.execute("SELECT path FROM file")}
    database.close()
    assert raw in paths
    assert os.fsencode(Path(photos, "coffee.jpg")) in paths


def test_without_a_terminal_progress_comes_in_plain_lines(
    photos, library_folder, environment, monkeypatch
):
    monkeypatch.setattr("searchlib.cli.progress._LINE_EVERY_SECONDS", 0)
    arguments = ["add", str(photos), "--library", str(library_folder)]
    done = CliRunner().invoke(main, arguments, env=environment)
    assert done.exit_code == 0
    listing, *lines = done.stderr.splitlines()
    assert listing == "listing: 8 files"
    assert len(lines) == 8
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(
            rf"embedding: {number} of 8 files, \d+\.\d images/s, \d+ s left", line
        ), line
