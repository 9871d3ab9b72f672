"""`searchlib purge`, as a person and as a program see it."""

import contextlib
import json
import os
import sqlite3

import pytest

DAY = 86400


@pytest.fixture
def lacking(fill, photos, library_folder):
    """The library of the photographs, of which two are gone, one of them for ten days."""
    fill(photos)
    for name, days in (("cat.jpg", 10), ("coins.png", 0)):
        (photos / name).unlink()
        fill(photos)
        with (
            contextlib.closing(sqlite3.connect(library_folder / "catalog.db")) as database,
            database,
        ):
            database.execute(
                "UPDATE file SET missing_since = missing_since - ? WHERE state = 'missing'",
                (days * DAY,),
            )
    return library_folder


def counts(run, folder) -> tuple[int, int]:
    """How many files are missing, and how many vectors there are."""
    status = json.loads(run("status", "--json", "--library", folder).stdout)
    return status["missing"], status["vectors"]


def test_nothing_is_given_up_where_nobody_can_be_asked(run, lacking):
    done = run("purge", "--library", lacking)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"2 files are missing; give up all of them? There is no terminal" in done.stderr
    assert counts(run, lacking) == (2, 8)


def test_with_yes_all_that_is_missing_goes_and_its_vectors(run, lacking, original_photos):
    done = run("purge", "--yes", "--library", lacking)
    assert done.stdout == b"2 files are given up, 0 still missing\n"
    assert (done.returncode, done.stderr) == (0, b"")
    assert counts(run, lacking) == (0, 6)
    again = run("purge", "--library", lacking)
    assert (again.returncode, again.stdout) == (0, b"no files are missing\n")
    found = run("search", original_photos / "cat.jpg", "--library", lacking)
    assert b"1.000" not in found.stdout


def test_what_is_missing_for_less_stays(run, lacking):
    done = run("purge", "--older-than", "9.5", "--yes", "--json", "--library", lacking)
    assert json.loads(done.stdout) == {"purged": 1, "missing": 1}
    assert counts(run, lacking) == (1, 7)


def test_on_a_terminal_it_asks_first(run, on_a_terminal, lacking):
    arguments = ("purge", "--older-than", "5", "--library", lacking)
    code, output, shown = on_a_terminal(*arguments, typed=b"n\n")
    assert (code, output) == (1, b"")
    assert b"2 files are missing; give up those missing for more than 5 days? [y/N]: " in shown
    assert shown.endswith(b"nothing was given up\r\n")
    assert counts(run, lacking) == (2, 8)
    code, output, _ = on_a_terminal(*arguments, typed=b"y\n")
    assert (code, output) == (0, b"1 file is given up, 1 still missing\n")
    assert counts(run, lacking) == (1, 7)


def test_watch_gives_up_what_is_missing_for_longer_than_the_grace_time_and_add_does_not(
    run, photos, lacking
):
    with contextlib.closing(sqlite3.connect(lacking / "catalog.db")) as database, database:
        database.execute("UPDATE file SET missing_since = missing_since - ?", (25 * DAY,))
    done = run("add", photos, "--library", lacking)
    assert os.fsdecode(done.stdout).startswith("added 0, moved 0, unchanged 6, skipped 0 in ")
    assert counts(run, lacking) == (2, 8)
    done = run("watch", "--once", photos, "--library", lacking)
    assert os.fsdecode(done.stdout).startswith(
        "added 0, moved 0, unchanged 6, skipped 0, purged 1 in "
    )
    assert counts(run, lacking) == (1, 7)
