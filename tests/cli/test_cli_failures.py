"""`searchlib failures`, as a person and as a program see it."""

import json
import os
import re
import shutil
from datetime import datetime

import pytest


@pytest.fixture
def troubled(fill, photos):
    """The photographs, a torn one and a letter, all in the library or refused by it."""
    (photos / "deep").mkdir()
    (photos / "deep" / "torn.jpg").write_bytes((photos / "cat.jpg").read_bytes()[:3000])
    (photos / "letter\n.jpg").write_text("Dear diary")
    fill(photos)
    return photos


def test_what_failed_is_a_table_and_no_error(run, troubled, library_folder):
    done = run("failures", "--library", library_folder)
    assert os.fsdecode(done.stdout) == (
        "kind     tries  next try       file: reason\n"
        f"content      1  if it changes  {troubled}/deep/torn.jpg: "
        "the file is truncated (38 bytes not processed)\n"
        f"content      1  if it changes  {troubled}/letter\\n.jpg: "
        "not an image: no decoder knows its first bytes\n"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    below = json.loads(
        run("failures", troubled / "deep", "--json", "--library", library_folder).stdout
    )
    (torn,) = below
    assert abs(torn.pop("last_try") - datetime.now().timestamp()) < 3600
    assert torn == {
        "path": f"{troubled}/deep/torn.jpg",
        "kind": "content",
        "reason": "the file is truncated (38 bytes not processed)",
        "attempts": 1,
        "next_try": None,
    }


def test_without_failures_it_says_so(run, filled_library, library_folder):
    for arguments in ((), ("--retry",)):
        done = run("failures", *arguments, "--library", filled_library)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"no failures\n", b"")
    assert json.loads(run("failures", "--json", "--library", library_folder).stdout) == []


def test_a_file_that_the_disk_refuses_has_a_time_for_the_next_try(run, photos, library_folder):
    (photos / "cat.jpg").chmod(0)
    run("add", photos, "--library", library_folder, unprivileged=True)
    done = run("failures", "--library", library_folder)
    assert re.fullmatch(
        r"access +1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S+/cat\.jpg: \S.*",
        os.fsdecode(done.stdout).splitlines()[1],
    )
    (photos / "cat.jpg").chmod(0o644)
    again = run("failures", "--retry", "--library", library_folder)
    assert os.fsdecode(again.stdout).startswith("added 1, moved 0, unchanged 0, skipped 0 in ")
    assert (again.returncode, again.stderr) == (0, b"")


def test_a_retry_says_what_became_of_them(run, troubled, library_folder):
    letter, torn = troubled / "letter\n.jpg", troubled / "deep" / "torn.jpg"
    shutil.copy(troubled / "cat.jpg", torn)
    some = run("failures", "--retry", torn, "--json", "--library", library_folder)
    report = json.loads(some.stdout)
    assert (report["copies"], report["found"], report["failures"]) == (1, 1, [])
    assert some.returncode == 0
    left = run("failures", "--retry", "--library", library_folder)
    table, row, summary = os.fsdecode(left.stdout).splitlines()
    assert table.startswith("kind")
    assert row == (
        f"content      2  if it changes  {troubled}/letter\\n.jpg: "
        "not an image: no decoder knows its first bytes"
    )
    assert summary.startswith("added 0, moved 0, unchanged 0, skipped 1 in ")
    assert left.returncode == 3
    letter.unlink()
    gone = run("failures", "--retry", "--library", library_folder)
    assert gone.returncode == 0
    assert run("failures", "--library", library_folder).stdout == b"no failures\n"


def test_a_changed_picture_that_broke_is_a_failure_too(run, fill, photos, library_folder):
    fill(photos)
    (photos / "cat.jpg").write_bytes((photos / "cat.jpg").read_bytes()[:3000])
    assert run("add", photos, "--library", library_folder).returncode == 3
    status = os.fsdecode(run("status", "--library", library_folder).stdout)
    assert "\nfailed       1, see `searchlib failures`\n" in status
    (failure,) = json.loads(run("failures", "--json", "--library", library_folder).stdout)
    assert failure["path"] == f"{photos}/cat.jpg"
