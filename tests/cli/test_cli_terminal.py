"""The command among other programs: terminals, pipes, signals, and what it loads."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import searchlib
from searchlib.errors import ModelFileError

# Runs the command in this process and then tells which modules were loaded on the way.
LOADED = """
import runpy, sys
sys.argv = ["searchlib", *sys.argv[1:]]
try:
    runpy.run_module("searchlib.cli", run_name="__main__")
except SystemExit as end:
    assert end.code in (0, None), end.code
print(*sys.modules, sep="\\n", file=sys.stderr)
"""

# Works on and on, as what hangs in a system call does; tells of every signal that it outlives.
STUCK = """
import signal, sys, threading
from searchlib.cli import signals
signals._SAME_REQUEST_SECONDS = float(sys.argv[1])
with signals.stopping() as stop:
    take = signals.signal.getsignal(signal.SIGTERM)
    came = threading.Event()
    def taken(*signal):
        take(*signal)
        came.set()
    print("ready", flush=True)
    stop.event.wait()
    signal.signal(signal.SIGTERM, taken)
    print("asked to stop", flush=True)
    came.wait()
    print("still here", flush=True)
    came.clear()
    came.wait()
"""


def test_a_terminal_shows_progress_and_keeps_only_the_summary(
    on_a_terminal, many_photos, library_folder
):
    folder = many_photos(30)
    (folder / "letter.jpg").write_text("Dear diary")
    code, output, drawn = on_a_terminal("add", folder, "--library", library_folder)
    assert code == 3
    assert re.fullmatch(rb"added 30, .*skipped 1 in \d+\.\d s .*\n", output)
    assert b"embedding" in drawn
    assert b"/31" in drawn
    # The bar is wiped: from the last thing that clears a line on, only the skipped file is left.
    left = drawn.rpartition(b"\x1b[2K")[2].strip()
    assert left == os.fsencode(
        f"skipped {folder}/letter.jpg: not an image: no decoder knows its first bytes"
    )


def test_without_a_terminal_nothing_is_drawn(run, original_photos, library_folder):
    done = run("add", original_photos, "--library", library_folder)
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_what_was_done_and_the_next_run_completes_it(
    start, fill, many_photos, library_folder, number, code
):
    folder = many_photos(100)
    process = start("add", folder, "--workers", "1", "--library", library_folder)
    # The first commit has been made: the model is known from then on.
    wait_until((library_folder / "catalog.db-wal").exists, process)
    wait_until(lambda: images(library_folder) > 0, process)
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    before = images(library_folder)
    assert 0 < before < 100
    assert re.fullmatch(rb"added %d, moved 0, .*\n" % before, output)
    assert error == b"searchlib: interrupted; what was added is kept\n"
    assert process.returncode == code
    report = fill(folder)
    assert (report.added, report.unchanged, report.skipped) == (100 - before, before, [])


def wait_until(condition, process):
    for _ in range(6000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("it did not come so far within a minute")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(environment, number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, "0"], env=environment, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"asked to stop\n"
        process.send_signal(number)
    assert process.returncode == -number


def test_one_request_to_stop_may_come_as_two_signals(environment):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, "3600"], env=environment, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"asked to stop\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"still here\n"
        process.kill()


def images(folder: Path) -> int:
    try:
        with searchlib.open_library(folder, create=False) as library:
            return library.status().images
    except searchlib.errors.LibraryError:
        return 0


def test_a_reader_that_goes_away_is_no_error(run, original_photos, filled_library):
    ours, theirs = os.pipe()
    os.close(ours)
    done = run(
        "search", original_photos / "cat.jpg", "--paths", "--library", filled_library,
        stdout=theirs,
    )  # fmt: skip
    os.close(theirs)
    assert done.stderr == b""


def test_head_takes_the_first_line(start, original_photos, filled_library):
    search = start("search", original_photos / "cat.jpg", "--library", filled_library)
    head = subprocess.run(["head", "-n1"], stdin=search.stdout, capture_output=True, check=True)
    assert head.stdout.startswith(b"1.000  ")
    search.stdout.close()
    assert search.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_said_in_a_line(run, original_photos, filled_library):
    with Path("/dev/full").open("wb") as full:
        done = run("search", original_photos / "cat.jpg", "--library", filled_library, stdout=full)
    assert done.returncode == 2
    assert done.stderr == b"searchlib: the output: No space left on device\n"


def test_closed_streams_do_not_stop_it(original_photos, library_folder, launch, environment):
    shell = f'"$@" add "{original_photos}" --library "{library_folder}" >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, "sh", *launch], env=environment, check=False)
    assert done.returncode == 0
    assert images(library_folder) == 8


def test_an_old_terminal_gets_names_that_it_cannot_show_escaped(run, fill, photos, library_folder):
    name = "кот 😀.jpg"
    (photos / "cat.jpg").rename(photos / name)
    fill(photos)
    for encoding, shown in (("ascii", None), ("latin-1", rb"\u043a\u043e\u0442 \U0001f600.jpg")):
        done = run(
            "search", photos / name, "-k1", "--library", library_folder,
            env={"PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"1.000  ")
        assert shown is None or shown in done.stdout


def modules(environment, *arguments) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        env=environment,
        capture_output=True,
        check=True,
    )
    return set(done.stderr.decode().split())


def test_no_command_loads_torch(environment, photos, library_folder, tmp_path):
    foreign = shutil.copy(photos / "coffee.jpg", tmp_path / "foreign.jpg")
    (photos / "coffee.jpg").unlink()
    for arguments in (
        ["add", photos],
        ["search", foreign],
        ["search", photos / "cat.jpg"],
        ["status"],
    ):
        loaded = modules(environment, *arguments, "--library", library_folder)
        assert "searchlib.library" in loaded
        assert not {"torch", "torchvision", "onnxruntime", "skimage"} & loaded, arguments
        # A picture that has a vector already needs no encoder, nor does a count.
        needed = arguments[0] == "add" or foreign in arguments
        assert ("searchlib.encoder._engine" in loaded) == needed, arguments
        # Schema changes are rare, and what makes them is slow to load.
        assert ("alembic" in loaded) == (arguments[0] == "add"), arguments


def test_a_known_picture_is_found_without_the_model(original_photos, filled_library, tmp_path):
    import dataclasses

    card = dataclasses.replace(searchlib.ImageEncoder().card, path=tmp_path / "nowhere.pte")
    gone = searchlib.ImageEncoder(card)
    with searchlib.open_library(filled_library, encoder=gone) as library:
        best = library.search(original_photos / "cat.jpg")[0]
        assert best.path == str(original_photos / "cat.jpg")
        assert best.score == pytest.approx(1, abs=2e-4)
        with pytest.raises(ModelFileError, match=r"nowhere\.pte"):
            library.search((original_photos / "cat.jpg").read_bytes() + b"\0")
