"""A database that another process keeps for itself: the watcher waits, and goes on."""

import sqlite3
import threading
import time
from contextlib import closing

from tests.reliability.watching import FULL, write

# Longer than SQLite waits, in the full form: then it is trouble that is told and that passes.
SECONDS = 40.0 if FULL else 3.0


def test_a_database_that_is_locked_for_long_holds_it_up_and_no_more(quick, root, watch):
    running = watch(quick, root)
    running.wait_idle()
    with closing(sqlite3.connect(quick.library / "catalog.db", isolation_level=None)) as other:
        for round in range(2 if FULL else 1):
            other.execute("BEGIN IMMEDIATE")
            for number in range(40):
                write(root / f"{round}" / f"{number:02}.png", 100 * round + number)
            time.sleep(SECONDS)
            other.execute("ROLLBACK")
            truth = running.until_equals_disk([root], quick.encoder)
            assert len(truth.present) == 40 * (round + 1)
    if FULL:
        # By an event where something could not be committed, and by a warning where only the list
        # of changed paths had to wait.
        told = [each["reason"] for each in running.events if each["event"] == "trouble"]
        words = "another process has kept the database"
        assert words in running.said() or any(words in reason for reason in told)
    assert truth.changes == len(truth.present)
    running.terminate()


def test_one_that_takes_the_database_again_and_again_starves_nobody(quick, root, watch):
    stop = threading.Event()

    def disturb() -> None:
        with closing(sqlite3.connect(quick.library / "catalog.db", isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout = 60000")
            while not stop.is_set():
                other.execute("BEGIN IMMEDIATE")
                time.sleep(0.2)
                other.execute("ROLLBACK")
                time.sleep(0.05)

    running = watch(quick, root)
    running.wait_idle()
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for number in range(60):
            write(root / f"{number % 6}" / f"{number:02}.png", number)
        running.until_equals_disk([root], quick.encoder)
    finally:
        stop.set()
        thread.join()
    running.terminate()
