"""`searchlib watch` and `searchlib folders`, as a person and as a program see them."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest


def plain(output: bytes) -> str:
    """The output without what no two runs share."""
    text = re.sub(r" in \d+\.\d s", " in S s", os.fsdecode(output))
    return re.sub(r"\(\d+\.\d images/s\)", "(R images/s)", text)


def events(output: bytes) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_what_changes_is_told_as_json_lines_and_sigterm_ends_it(
    watching, original_photos, photos, library_folder, run
):
    (photos / "cat.jpg").unlink()
    watcher = watching(photos)
    assert watcher.events[0]["event"] == "started"
    assert watcher.events[0]["count"] == 1
    assert len(watcher.names("added")) == 7
    cat = photos / "cat.jpg"
    shutil.copy(original_photos / "cat.jpg", cat)
    added = watcher.until("file", outcome="added", path=str(cat))
    assert set(added) == {"event", "path", "outcome", "at"}
    cat.rename(photos / "katze.jpg")
    watcher.until("file", outcome="moved", path=str(photos / "katze.jpg"))
    (photos / "letter.jpg").write_text("Dear diary")
    skipped = watcher.until("file", outcome="skipped")
    assert skipped["reason"] == "not an image: no decoder knows its first bytes"
    (photos / "coins.png").unlink()
    assert watcher.until("missing")["count"] == 1
    assert watcher.end(signal.SIGTERM) == (0, b"")
    assert watcher.events[-2]["event"] == "stopped"
    report = watcher.events[-1]
    assert [report[name] for name in ("added", "moved", "missing")] == [8, 1, 1]
    found = run(
        "search", original_photos / "cat.jpg", "--paths", "-k1", "--library", library_folder
    )
    assert os.fsdecode(found.stdout) == f"{photos}/katze.jpg\n"


def test_a_person_is_told_little_and_ends_it_by_ctrl_c(start, photos, library_folder):
    (photos / "letter.jpg").write_text("Dear diary")
    # Each scan finds the letter again; it is said once.
    process = start(
        "watch", photos, "--settle", "0.1", "--rescan", "0.2", "--library", library_folder
    )
    # The first line on stdout is the sum of the first scan.
    assert process.stdout.readline() == b"added 8, skipped 1\n"
    (photos / "cat.jpg").unlink()
    assert process.stdout.readline() == b"missing 1\n"
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert output == b""
    assert plain(error) == (
        "watching 1 folder; Ctrl-C stops\n"
        f"scanned {photos}: 9 pictures\n"
        f"skipped {photos}/letter.jpg: not an image: no decoder knows its first bytes\n"
        "stopped\n"
    )
    assert process.returncode == 0


def wait_for_beat(run, folder: Path, *, done: int) -> dict:
    for _ in range(100):
        beat = json.loads(run("status", "--json", "--library", folder).stdout)["watcher"]
        if beat["done"] == done:
            return beat
    pytest.fail(f"no sign of {done} files: {beat}")


def test_another_process_sees_who_watches_and_cannot_watch_too(
    watching, run, original_photos, library_folder
):
    watcher = watching(original_photos)
    # The heartbeat is written every second, so it may be that far behind.
    beat = wait_for_beat(run, library_folder, done=8)
    assert (beat["pid"], beat["queued"]) == (watcher.process.pid, 0)
    status = run("status", "--library", library_folder)
    rows = dict(line.split(None, 1) for line in os.fsdecode(status.stdout).splitlines())
    pid = watcher.process.pid
    assert re.fullmatch(
        rf"pid {pid} on \S+ since \d{{4}}-\d\d-\d\d [\d:]{{8}}: \w+", rows["watcher"]
    )
    assert rows["queue"] == "0 (0 settling), lag 0.0 s"
    assert re.fullmatch(r"\d\.\d files/s; 8 done, 0 failed", rows["rate"])
    assert re.fullmatch(r"\d\.\d s ago", rows["heartbeat"])
    second = run("watch", "--library", library_folder)
    assert second.returncode == 2
    (line,) = os.fsdecode(second.stderr).splitlines()
    assert "is watched already by" in line
    assert str(pid) in line
    assert watcher.end(signal.SIGTERM) == (0, b"")
    status = run("status", "--library", library_folder)
    assert b"watcher" not in status.stdout
    assert (
        json.loads(run("status", "--json", "--library", library_folder).stdout)["watcher"] is None
    )


def test_a_watcher_that_hangs_is_told(watching, run, original_photos, library_folder):
    watcher = watching(original_photos)
    pid = watcher.process.pid
    watcher.process.send_signal(signal.SIGSTOP)
    with contextlib.closing(sqlite3.connect(library_folder / "catalog.db", timeout=30)) as database:
        with database:
            database.execute("UPDATE watcher SET beat_at = beat_at - 7200")
        status = run("status", "--library", library_folder)
    (line,) = (line for line in os.fsdecode(status.stdout).splitlines() if "heartbeat" in line)
    assert re.fullmatch(
        rf"heartbeat    no sign of life for 72\d\d s; see what pid {pid} on .*", line
    )
    watcher.process.send_signal(signal.SIGCONT)
    assert watcher.end(signal.SIGTERM) == (0, b"")


def test_once_brings_all_up_to_date_by_the_rules_and_ends(run, photos, library_folder):
    (photos / "deep").mkdir()
    for name in ("astronaut.jpg", "camera.png"):
        (photos / name).rename(photos / "deep" / name)
    (photos / "letter.jpg").write_text("Dear diary")
    where = ("--library", library_folder)
    done = run(
        "watch", photos, "--once", "--no-recursive", "--include", "*.jpg", "--exclude", "c*",
        "--exclude", "r*", "--json", *where,
    )  # fmt: skip
    told = events(done.stdout)
    outcomes = {Path(e["path"]).name: e["outcome"] for e in told if e["event"] == "file"}
    assert outcomes == {"hubble.jpg": "added", "letter.jpg": "skipped"}
    assert told[-1]["event"] == "report"
    assert (told[-1]["added"], told[-1]["cancelled"], done.returncode) == (1, False, 3)
    # Without rules the folder keeps those that it has.
    again = run("watch", photos, "--once", *where)
    assert plain(again.stdout) == "added 0, moved 0, unchanged 1, skipped 1 in S s\n"
    assert again.returncode == 3
    (photos / "letter.jpg").unlink()
    wider = run("watch", photos, "--once", "--exclude", "hubble.*", *where)
    assert plain(wider.stdout).startswith(
        "added 7, moved 0, unchanged 0, missing 1, skipped 0 in S s"
    )
    assert plain(wider.stderr) == f"scanned {photos}: 7 pictures\n"
    assert wider.returncode == 0


def test_registered_folders_are_listed_with_their_rules_and_removed(
    run, photos, original_photos, tmp_path, library_folder
):
    where = ("--library", library_folder)
    run("add", original_photos, *where)
    drive = tmp_path / "drive"
    drive.mkdir()
    run(
        "watch", drive, "--once", "--no-recursive", "--follow-links", "--include", "*.jpg",
        "--exclude", "a", "--exclude", "b\n*", "--marker", "here", "--events", "no", *where,
    )  # fmt: skip
    run("watch", photos, "--once", *where)
    listed = run("folders", *where)
    assert sorted(os.fsdecode(listed.stdout).splitlines()) == sorted(
        [
            f"added    {original_photos}",
            f"watched  {drive}  not the folders below, links to folders followed, include *.jpg, "
            "exclude a, exclude b\\n*, marker here, events no",
            f"watched  {photos}",
        ]
    )
    found = {each["path"]: each for each in json.loads(run("folders", "--json", *where).stdout)}
    assert found[str(drive)] == {
        "path": str(drive),
        "recursive": False,
        "follow_links": True,
        "include": ["*.jpg"],
        "exclude": ["a", "b\n*"],
        "marker": "here",
        "events": "no",
        "watched": True,
    }
    shutil.rmtree(drive)
    some = run("folders", *where, "rm", drive, tmp_path / "never")
    assert os.fsdecode(some.stdout) == (
        f"{drive}: removed; its files stay in the library\n{tmp_path}/never: nothing to remove\n"
    )
    assert some.returncode == 3
    assert run("folders", "rm", drive, *where).returncode == 1
    assert run("folders", "rm", photos, original_photos, *where).returncode == 0
    assert run("folders", *where).stdout == b"no folders; `searchlib watch FOLDER` watches one\n"
    status = json.loads(run("status", "--json", *where).stdout)
    assert (status["files"], status["folders"]) == (16, 0)


def test_without_a_folder_it_says_what_to_do(run, library_folder, tmp_path):
    done = run("watch", "--library", library_folder)
    assert done.returncode == 2
    assert b"no folder is watched yet; name one: searchlib watch FOLDER" in done.stderr
    done = run("watch", "--include", "*.jpg", "--library", library_folder)
    assert done.returncode == 2
    assert b"rules are of folders; say which ones as well" in done.stderr
    (tmp_path / "file").write_text("Dear diary")
    done = run("watch", tmp_path / "file", "--library", library_folder)
    assert done.returncode == 2


def test_a_rule_that_means_nothing_is_said_in_a_line(run, photos, library_folder):
    done = run("watch", photos, "--exclude", "!", "--library", library_folder)
    assert done.returncode == 2
    (line,) = os.fsdecode(done.stderr).splitlines()
    assert line.startswith(f"searchlib: {photos}: ")
    listed = run("folders", "--library", library_folder)
    assert listed.stdout == b"no folders; `searchlib watch FOLDER` watches one\n"


def test_a_folder_whose_drive_is_gone_is_offline_and_comes_back(run, photos, library_folder):
    where = ("--library", library_folder)
    (photos / "here").touch()
    run("watch", photos, "--once", "--marker", "here", *where)
    away = photos.rename(photos.parent / "away")
    photos.mkdir()
    done = run("watch", "--once", *where)
    assert plain(done.stderr) == (
        f"skipped {photos}: its marker here is not there, so nothing was looked for\n"
        f"scanned {photos}: 0 pictures\n"
        f"offline {photos}: its drive is not mounted: 8 files stay in the library as offline\n"
    )
    assert "offline 8" in plain(done.stdout)
    status = os.fsdecode(run("status", *where).stdout)
    assert "\noffline      8, on drives that are not mounted\n" in status
    added = run("add", photos, *where)
    assert "offline 8" in plain(added.stdout)
    assert added.returncode == 3
    photos.rmdir()
    away.rename(photos)
    back = run("watch", "--once", *where)
    assert (plain(back.stdout), back.returncode) == (
        "added 0, moved 0, unchanged 8, skipped 0 in S s\n",
        0,
    )


def test_names_that_are_no_text_are_told_escaped(watching, photos, original_photos):
    watcher = watching(photos)
    raw = os.fsencode(photos) + b"/caf\xe9\n.jpg"
    shutil.copy(original_photos / "coffee.jpg", raw)
    told = watcher.until("file", outcome="copy")
    assert os.fsencode(told["path"]) == raw
    assert watcher.end(signal.SIGINT) == (0, b"")


def test_a_reader_that_goes_away_ends_it_quietly(start, photos, library_folder):
    process = start("watch", photos, "--json", "--library", library_folder)
    head = subprocess.run(["head", "-n1"], stdin=process.stdout, capture_output=True, check=True)
    assert json.loads(head.stdout)["event"] == "started"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_events_that_cannot_be_written_end_it_in_a_line(run, photos, library_folder):
    with Path("/dev/full").open("wb") as full:
        done = run("watch", photos, "--json", "--library", library_folder, stdout=full)
    assert done.returncode == 2
    assert done.stderr == b"searchlib: the output: No space left on device\n"


def test_on_a_terminal_a_bar_shows_how_far_the_first_scan_is(
    on_a_terminal, many_photos, library_folder
):
    folder = many_photos(30)
    (folder / "letter.jpg").write_text("Dear diary")
    code, output, drawn = on_a_terminal("watch", folder, "--once", "--library", library_folder)
    assert code == 3
    assert plain(output) == "added 30, moved 0, unchanged 0, skipped 1 in S s (R images/s)\n"
    assert b"embedding" in drawn
    lines = re.split(rb"\r\n|\x1b\[2K", drawn)
    assert os.fsencode(f"scanned {folder}: 31 pictures") in lines
    assert (
        os.fsencode(f"skipped {folder}/letter.jpg: not an image: no decoder knows its first bytes")
        in lines
    )
