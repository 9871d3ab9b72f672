"""Permissions that come and go, files that never rest, and decoders that crash."""

import json
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

import searchlib
from searchlib.ingest import Handling
from searchlib.ingest.watch import Watcher, WatchRules
from tests.conftest import _drop_root_powers
from tests.reliability.watching import PATIENCE, picture, write
from tests.truth import assert_equals_disk


@pytest.fixture
def unprivileged() -> dict:
    """Options of a process for which a mode counts."""
    return {"preexec_fn": _drop_root_powers} if os.geteuid() == 0 else {}


def test_permission_that_is_taken_during_a_scan_makes_nothing_missing(
    quick, root, watch, unprivileged
):
    for number in range(400):
        write(root / f"{number % 8}" / f"{number:03}.png", number)
    closed, locked = root / "1", root / "2" / "002.png"
    running = watch(quick, root, "--rescan", "1", **unprivileged)
    running.wait_events(40)
    try:
        closed.chmod(0)
        locked.chmod(0)
        write(root / "new.png", 1000)
        # What became of the files in the closed folder depends on whether they were read by then;
        # of those that were, none may be gone, and all else is there.
        running.wait_for("file", path=root / "new.png", outcome="added")
        told = len(running.events)
        for _ in range(3):
            told = 1 + running.events.index(running.wait_for("scanned", after=told), told)
        with closing(sqlite3.connect(quick.library / "catalog.db")) as database:
            query = "SELECT path FROM file WHERE state IN ('missing', 'offline')"
            assert database.execute(query).fetchall() == []
    finally:
        closed.chmod(0o755)
        locked.chmod(0o644)
    truth = running.until_equals_disk([root], quick.encoder)
    assert len(truth.present) == 401
    assert truth.changes == 401
    running.terminate()


def test_a_root_that_may_not_be_looked_into_is_not_empty(quick, root, watch, unprivileged):
    for number in range(10):
        write(root / f"{number}.png", number)
    running = watch(quick, root, "--rescan", "1", **unprivileged)
    running.wait_idle()
    before = running.until_equals_disk([root], quick.encoder)
    try:
        root.chmod(0)
        told = len(running.events)
        for _ in range(3):
            told = 1 + running.events.index(running.wait_for("scanned", after=told), told)
        with closing(sqlite3.connect(quick.library / "catalog.db")) as database:
            states = database.execute("SELECT state, count(*) FROM file GROUP BY state").fetchall()
    finally:
        root.chmod(0o755)
    assert states == [("present", 10)]
    write(root / "new.png", 100)
    after = running.until_equals_disk([root], quick.encoder)
    assert after.changes == before.changes + 1
    running.terminate()


def test_a_file_that_never_rests_is_told_and_taken_when_it_does(quick, root):
    stop = threading.Event()
    events = []
    heard = threading.Condition()

    def hear(event) -> None:
        with heard:
            events.append(event)
            heard.notify_all()

    def wait_for(what) -> None:
        with heard:
            assert heard.wait_for(lambda: any(map(what, events)), PATIENCE), events

    path = root / "slow.png"
    with searchlib.open_library(quick.library, encoder=quick.encoder) as library:
        library.register(root)
        watcher = Watcher(
            library._catalog,
            library._current.begin,
            lambda: None,
            Handling(1),
            WatchRules(settle=0.1, patience=0.5),
            stop=stop,
            on_event=hear,
        )
        thread = threading.Thread(target=lambda: watcher.run(once=False))
        thread.start()
        try:
            wait_for(lambda event: event.kind == "idle")
            with path.open("wb") as file:
                file.write(picture(1)[:300])
                file.flush()
                wait_for(lambda event: event.kind == "trouble" and event.path == str(path))
                (failure,) = library.failures()
                assert (failure.path, failure.kind) == (str(path), "access")
                assert "still being written" in failure.reason
                # Nobody else waits for it.
                write(root / "other.png", 2)
                other = str(root / "other.png")
                wait_for(lambda event: event.kind == "file" and event.path == other)
                file.write(picture(1)[300:])
            wait_for(lambda event: event.path == str(path) and event.outcome == "added")
        finally:
            stop.set()
            thread.join()
    assert_equals_disk(quick.library, [root], quick.encoder)


BREAK = """
import ctypes
from PIL.JpegImagePlugin import JpegImageFile

really = JpegImageFile.load_prepare

def load_prepare(self):
    if self.size == (83, 59):
        ctypes.string_at(0)
    really(self)

JpegImageFile.load_prepare = load_prepare
"""


def test_a_picture_that_ends_the_watcher_is_put_in_quarantine(quick, root, watch, run, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BREAK)
    env = {"PYTHONPATH": str(tmp_path / "site")}
    for number in range(30):
        write(root / f"{number:02}.jpg", number)
    running = watch(quick, root, env=env)
    running.wait_idle()
    colours = np.random.default_rng(1).integers(0, 255, (59, 83, 3), np.uint8)
    broken = [root / "10 broken.jpg", root / "20 broken.jpg"]
    for number, path in enumerate(broken):
        Image.fromarray(colours + np.uint8(number)).save(path)
    for number in range(30, 60):
        write(root / f"{number:02}.jpg", number)
    starts = 0
    while running.process.poll() is None or running.process.returncode == -signal.SIGSEGV:
        if running.process.poll() is not None:
            starts += 1
            assert starts < 6, "the same file ends it again and again"
            running = watch(quick, root, env=env)
        if any(event["event"] == "idle" for event in running.events) and starts:
            break
        time.sleep(0.1)
    truth = running.until_equals_disk([root], quick.encoder, failing=broken)
    assert starts >= 1
    assert len(truth.present) == 60
    done = run("failures", "--json", "--library", quick.library, env=quick.env)
    failures = json.loads(done.stdout)
    assert [(each["path"], each["kind"]) for each in failures] == [
        (str(path), "crash") for path in broken
    ]
    assert all("signal SIGSEGV" in each["reason"] for each in failures)
    running.terminate()
    # From then on it ends nothing, whoever comes; and with a decoder that can read it, it is in.
    again = watch(quick, root, "--once", env=env)
    assert again.wait_end() == 3
    done = run("failures", "--retry", "--library", quick.library, env=quick.env)
    assert done.returncode == 0, done
    assert_equals_disk(quick.library, [root], quick.encoder)
