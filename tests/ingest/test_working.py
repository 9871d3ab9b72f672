"""The notes of which files are being read: written at once, and found after any end of the run."""

import errno
import fcntl
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.ingest.working import Left, Working, forget, left_behind

NAMES = [
    "/photos/cat.jpg",
    "/photos/a name\nof two lines.jpg",
    "/photos/\N{CAT FACE}.heic",
    os.fsdecode(b"/photos/not \xff text.jpg"),
    "/" + "x" * 4095,
]

# Reads the paths of its arguments in a thread each, says so, and waits for its end.
READER = """
import sys, threading
from pathlib import Path
from searchlib.ingest.working import Working

working = Working(Path(sys.argv[1]))
inside = threading.Barrier(len(sys.argv) - 1)

def read(path):
    with working.on(path + " before"):
        pass
    with working.on(path):
        inside.wait()
        threading.Event().wait()

for path in sys.argv[2:]:
    threading.Thread(target=read, args=(path,), daemon=True).start()
inside.wait()
print("inside", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def start_reader(tmp_path):
    """Starts a process that is reading these paths, and ends it after the test."""
    started = []

    def start(*paths: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", READER, tmp_path, *paths], stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"inside\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def peek(folder: Path) -> list[str]:
    """What the live runs of a folder have noted: the same reader, on copies that nobody locks."""
    paths = []
    for file in folder.glob("working-*.slots"):
        copy = folder / f"working-copy-{random.getrandbits(64):x}.slots"
        copy.write_bytes(file.read_bytes())
        (left,) = [left for left in left_behind(folder) if left.file == copy]
        copy.unlink()
        paths += left.paths
    return sorted(paths)


def slots(folder: Path) -> list[Path]:
    return list(folder.glob("working-*.slots"))


def test_a_killed_process_leaves_the_paths_that_it_was_reading(tmp_path, start_reader):
    reader = start_reader(*NAMES)
    assert left_behind(tmp_path) == []
    os.kill(reader.pid, signal.SIGKILL)
    reader.wait()
    (left,) = left_behind(tmp_path)
    assert sorted(left.paths) == sorted(NAMES)
    assert left.file.parent == tmp_path
    assert f"-{reader.pid}-" in left.file.name


def test_only_the_dead_of_two_runs_is_found(tmp_path, start_reader):
    dead, alive = start_reader("/a.jpg"), start_reader("/b.jpg")
    dead.kill()
    dead.wait()
    assert [left.paths for left in left_behind(tmp_path)] == [("/a.jpg",)]
    alive.kill()
    alive.wait()
    assert sorted(left.paths for left in left_behind(tmp_path)) == [("/a.jpg",), ("/b.jpg",)]


def test_what_was_left_behind_can_be_forgotten(tmp_path, start_reader):
    reader = start_reader("/a.jpg")
    reader.kill()
    reader.wait()
    (left,) = left_behind(tmp_path)
    forget(left)
    assert left_behind(tmp_path) == []
    assert slots(tmp_path) == []
    forget(left)


def test_the_file_of_a_live_run_is_not_forgotten(tmp_path):
    working = Working(tmp_path)
    (file,) = slots(tmp_path)
    forget(Left(file, ()))
    assert slots(tmp_path) == [file]
    working.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_path_stands_in_the_file_only_inside_the_block(tmp_path, name):
    working = Working(tmp_path)
    with working.on(name):
        assert peek(tmp_path) == [name]
    assert peek(tmp_path) == []
    with pytest.raises(ZeroDivisionError), working.on(name):
        raise ZeroDivisionError
    assert peek(tmp_path) == []
    working.close()


def test_a_shorter_path_leaves_nothing_of_a_longer_one(tmp_path):
    working = Working(tmp_path)
    with working.on("/" + "long" * 1000):
        pass
    with working.on("/a"):
        assert peek(tmp_path) == ["/a"]
    working.close()


def test_a_path_that_no_system_opens_is_not_noted(tmp_path):
    working = Working(tmp_path)
    with working.on("/" + "x" * 10_000), working.on("/a"):
        assert peek(tmp_path) == ["/a"]
    working.close()


def test_threads_do_not_write_over_one_another(tmp_path):
    working = Working(tmp_path)
    inside, looked = threading.Barrier(9), threading.Barrier(9)

    def read(number: int) -> None:
        chance = random.Random(number)
        for turn in range(50):
            with working.on(f"/{number}/{turn}/" + "x" * chance.randrange(4000)):
                pass
        with working.on(f"/{number}"):
            inside.wait()
            looked.wait()

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(read, number) for number in range(8)]
        inside.wait()
        assert peek(tmp_path) == [f"/{number}" for number in range(8)]
        assert slots(tmp_path)[0].stat().st_size <= 8 * 8192
        looked.wait()
        for future in done:
            future.result()
    assert peek(tmp_path) == []
    working.close()


def test_a_run_that_ends_well_leaves_nothing(tmp_path):
    working = Working(tmp_path)
    with working.on("/a"):
        working.close()
        assert slots(tmp_path) == []
        # A file that takes the place of the closed one is not written to.
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        os.write(other, b"untouched")
    with working.on("/b"):
        pass
    assert os.pread(other, 100, 0) == b"untouched"
    os.close(other)
    working.close()


def test_a_run_that_forgot_to_close_blames_no_file(tmp_path):
    code = (
        "import sys; from pathlib import Path; from searchlib.ingest.working import Working\n"
        "working = Working(Path(sys.argv[1]))\n"
        "with working.on('/a'): pass"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    (left,) = left_behind(tmp_path)
    assert left.paths == ()


def test_a_folder_that_is_not_there_has_nothing_left_behind(tmp_path):
    assert left_behind(tmp_path / "none") == []


def test_where_no_file_can_be_made_the_run_goes_on_with_one_warning(tmp_path, caplog):
    working = Working(tmp_path / "none")
    for _ in range(3):
        with working.on("/a"):
            pass
    working.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(tmp_path / "none") in record.getMessage()
    assert os.strerror(errno.ENOENT) in record.getMessage()


def test_on_a_full_disk_the_run_goes_on_with_one_warning(tmp_path):
    # A limit on the size of files fails the same write as a full disk does.
    code = f"""
import logging, resource, signal, sys
from pathlib import Path
from searchlib.ingest.working import Working
logging.basicConfig(format="%(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
working = Working(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, {resource.RLIM_INFINITY}))
with working.on("/a"):
    for _ in range(3):
        with working.on("/b"):
            pass
    import os
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    (line,) = ended.stderr.decode().splitlines()
    assert "cannot note which files are being read" in line
    assert [left.paths for left in left_behind(tmp_path)] == [("/a",)]


def test_a_file_taken_for_a_dead_one_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    really, others = fcntl.flock, []

    def another_run_is_first(descriptor: int, operation: int) -> None:
        if not others:
            others.append(descriptor)
            for left in left_behind(tmp_path):
                forget(left)
        really(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", another_run_is_first)
    working = Working(tmp_path)
    with working.on("/a"):
        assert peek(tmp_path) == ["/a"]
    working.close()
    assert slots(tmp_path) == []


def test_links_and_folders_in_place_of_a_file_are_left_alone(tmp_path):
    (tmp_path / "working-1-a.slots").mkdir()
    (tmp_path / "working-1-b.slots").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "working-1-c.slots")
    assert left_behind(tmp_path) == []
    forget(Left(tmp_path / "working-1-a.slots", ()))
    assert len(slots(tmp_path)) == 3


@settings(max_examples=30, deadline=None)
@given(length=st.integers(0, 100) | st.integers(8190, 8300), seed=st.integers(0, 1 << 32))
def test_garbage_gives_no_paths(tmp_path_factory, length, seed):
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "working-1-a.slots").write_bytes(random.Random(seed).randbytes(length))
    (left,) = left_behind(folder)
    assert left.paths == ()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_torn_or_changed_slot_gives_no_path_but_its_own(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("torn")
    working = Working(folder)
    with working.on("/first/picture.jpg"), working.on("/second/picture.jpg"):
        whole = slots(folder)[0].read_bytes()
    working.close()
    torn = bytearray(whole)
    at = data.draw(st.integers(8192, len(whole) - 1))
    if data.draw(st.booleans()):
        torn[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del torn[at:]
    (folder / "working-1-a.slots").write_bytes(torn)
    (left,) = left_behind(folder)
    assert left.paths == ("/first/picture.jpg",)
