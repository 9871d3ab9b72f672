"""The lock of the one watcher, held by real processes that end in every way."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from searchlib.errors import LibraryBusyError, LibraryReadOnlyError
from searchlib.ingest.holder import WatchLock

HOLD = """
import sys, time
from pathlib import Path
from searchlib.ingest.holder import WatchLock
with WatchLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_AND_START = """
import os, subprocess, sys
from pathlib import Path
from searchlib.ingest.holder import WatchLock
lock = WatchLock(Path(sys.argv[1]))
lock.acquire()
if sys.argv[2] == "fork":
    child = os.fork()
    if not child:
        os.close(1)
        os.read(int(sys.argv[3]), 1)
        os._exit(0)
else:
    subprocess.Popen(["sleep", "30"], close_fds=False, stdout=subprocess.DEVNULL)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        lock = WatchLock(tmp_path)
        with pytest.raises(LibraryBusyError) as caught:
            lock.acquire()
        assert re.fullmatch(
            rf"{re.escape(str(tmp_path))}: is watched already by process {process.pid} on "
            rf"{re.escape(os.uname().nodename)} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; "
            "stop that one first",
            str(caught.value),
        )
        holder = lock.holder()
        assert holder is not None
        assert holder.pid == process.pid
        assert abs(holder.since - time.time()) < 60
        assert str(tmp_path) in holder.command


def test_it_is_free_after_a_clean_end(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        process.communicate()
        assert process.returncode == 0
        assert WatchLock(tmp_path).holder() is None
        with WatchLock(tmp_path):
            pass


def test_it_is_free_after_a_kill_and_the_dead_holders_name_is_overwritten(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        process.kill()
        process.wait()
        assert str(process.pid) in (tmp_path / "watch.lock").read_text()
        lock = WatchLock(tmp_path)
        assert lock.holder() is None
        with lock:
            holder = lock.holder()
            assert holder is not None
            assert holder.pid == os.getpid()
        assert lock.holder() is None


def test_a_stopped_process_still_holds_it(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LibraryBusyError, match=f"process {process.pid} "):
            WatchLock(tmp_path).acquire()


@pytest.mark.parametrize("way", ["fork", "exec"])
def test_a_child_that_outlives_the_holder_does_not_keep_it(tmp_path: Path, way: str) -> None:
    out, into = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_START, tmp_path, way, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[out],
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(LibraryBusyError):
                WatchLock(tmp_path).acquire()
            process.kill()
            process.wait()
            os.killpg(process.pid, 0)  # its child lives on
            with WatchLock(tmp_path):
                pass
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            os.close(out)
            os.close(into)


def test_who_asks_for_the_holder_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    with (tmp_path / "watch.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `holder` does, for an instant
        timer = threading.Timer(0.05, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        with WatchLock(tmp_path):
            pass
        timer.join()


def test_two_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    first, second = WatchLock(tmp_path), WatchLock(tmp_path)
    first.acquire()
    first.acquire()
    with pytest.raises(LibraryBusyError):
        second.acquire()
    second.release()
    first.release()
    first.release()
    with second:
        assert first.holder() == second.holder()
        assert first.holder() is not None


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": 3}', b"[]", b"\xff\x00", b"null"])
def test_what_is_in_the_file_never_hinders(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchlib.ingest.holder._PAUSE", 0.001)
    (tmp_path / "watch.lock").write_bytes(content)
    assert WatchLock(tmp_path).holder() is None
    with WatchLock(tmp_path) as lock:
        (tmp_path / "watch.lock").write_bytes(content)
        holder = lock.holder()
        assert holder is not None
        assert holder.pid == 0
        with pytest.raises(LibraryBusyError, match="by another process; stop"):
            WatchLock(tmp_path).acquire()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    lock = WatchLock(tmp_path / "no")
    assert lock.holder() is None
    with pytest.raises(LibraryReadOnlyError, match=r"no/watch\.lock: cannot be opened"):
        lock.acquire()
