"""kill -9 and SIGTERM at any moment while another process changes the folder: nothing is lost."""

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.reliability.watching import FULL, SEED, Writer
from tests.truth import assert_equals_disk

KILLS = int(os.environ.get("SEARCHLIB_KILLS", "200" if FULL else "15"))
ADD_KILLS = int(os.environ.get("SEARCHLIB_KILLS", "200" if FULL else "8"))


@pytest.fixture
def writer(root: Path) -> Iterator[Writer]:
    """Another process that does all kinds of things to the files of the root."""
    writer = Writer("upset", root, SEED)
    yield writer
    writer.end()


def assert_whole(folder: Path) -> None:
    """What holds at any moment, whatever the disk is doing."""
    with closing(sqlite3.connect(folder / "catalog.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        without = (
            "SELECT count(*) FROM file LEFT JOIN embedding USING (image_id) "
            "WHERE state = 'present' AND vector IS NULL"
        )
        assert database.execute(without).fetchone() == (0,)
        unlogged = (
            "SELECT count(*) FROM embedding WHERE image_id NOT IN (SELECT image_id FROM change)"
        )
        assert database.execute(unlogged).fetchone() == (0,)


def test_a_watch_that_is_killed_again_and_again_loses_nothing(quick, root, watch, writer):
    chance = random.Random(SEED)
    kills = embedded = 0
    while kills < KILLS:
        running = watch(quick, root)
        match kills % 3:
            case 0:  # as it starts: while it opens, scans, or takes in what was left
                time.sleep(chance.uniform(0.3, 2.0))
            case 1:  # somewhere in the flow of events
                running.wait_events(chance.randint(3, 80))
            case 2:  # when it has caught up with the disk, and as it goes on from there
                running.wait_events(chance.randint(3, 30))
                writer.pause()
                truth = running.until_equals_disk([root], quick.encoder)
                assert truth.changes >= embedded, "changes of the vector set were lost"
                embedded = truth.changes
                writer.go_on()
                time.sleep(chance.uniform(0, 1.0))
        assert running.kill() == -signal.SIGKILL, running.said()
        assert_whole(quick.library)
        kills += 1
    writer.pause()
    running = watch(quick, root)
    truth = running.until_equals_disk([root], quick.encoder)
    # Killing it is no crime of the files that were in the decoder: each is in, and none is blamed.
    assert truth.failed == {}
    assert truth.changes == truth.vectors
    running.terminate()
    assert not list(quick.library.glob("working-*"))


def test_a_watch_that_is_stopped_again_and_again_loses_nothing(quick, root, watch, writer):
    chance = random.Random(SEED)
    for number in range(40 if FULL else 4):
        running = watch(quick, root)
        running.wait_events(chance.randint(2, 60))
        running.process.send_signal(signal.SIGINT if number % 2 else signal.SIGTERM)
        running.terminate()
        assert_whole(quick.library)
    writer.pause()
    running = watch(quick, root)
    running.until_equals_disk([root], quick.encoder)
    running.terminate()


def test_an_add_that_is_killed_again_and_again_loses_nothing(
    quick, root, writer, launch, environment
):
    chance = random.Random(SEED)
    command = [*launch, "add", root, "--library", quick.library]
    env = {**environment, **quick.env}
    for _ in range(ADD_KILLS):
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=-3) as running:
            time.sleep(chance.uniform(0.2, 1.2))
            running.kill()
        assert_whole(quick.library)
    writer.pause()
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert_equals_disk(quick.library, [root], quick.encoder)
