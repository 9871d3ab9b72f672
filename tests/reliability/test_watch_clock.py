"""A clock that is set back and forth while folders are watched: nothing waits for it."""

import json
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reliability.watching import FULL, write

HOUR, DAY = 3600, 86400


class Clock:
    """The clock of the processes that are started with `env`."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self._file.write_bytes(bytes(8))
        self.env = {"LD_PRELOAD": str(library), "FAKECLOCK": str(file)}

    def shift(self, seconds: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler, or no Linux")
    library = tmp_path / "fakeclock.so"
    source = Path(__file__).with_name("fakeclock.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True)
    clock = Clock(tmp_path / "shift", library)
    clock.shift(-30 * DAY)
    code = "import time; print(time.time())"
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, env=clock.env, capture_output=True, check=True).stdout
    if abs(float(told) - (time.time() - 30 * DAY)) > HOUR:
        pytest.skip("the clock of a process cannot be shifted here")
    clock.shift(0)
    return clock


def test_a_clock_that_is_set_back_and_forth_loses_nothing(quick, root, watch, clock):
    for number in range(10):
        write(root / f"old-{number}.png", number)
    running = watch(quick, root, env=clock.env)
    running.wait_idle()
    (root / "old-0.png").unlink()
    before = running.until_equals_disk([root], quick.encoder)
    for step, shift in enumerate((-DAY, HOUR, 0, 2 * HOUR, -HOUR, -3650 * DAY, 25 * DAY, 0)):
        clock.shift(shift)
        folder = root / f"{step}"
        for number in range(5):
            write(folder / f"new-{number}.png", 100 * step + number)
        write(root / "edited.png", 1000 + step)
        (folder / "new-0.png").rename(folder / "renamed.png")
        (folder / "new-1.png").unlink()
        truth = running.until_equals_disk([root], quick.encoder)
        assert truth.failed == {}
    # What was deleted keeps its vector through all of this.
    assert truth.vectors == truth.changes >= before.vectors
    running.terminate()


@pytest.mark.parametrize(
    "shift", [-DAY, -3650 * DAY, 2 * HOUR] if FULL else [-3650 * DAY, 2 * HOUR]
)
def test_a_start_with_a_wrong_clock_reads_what_is_new_and_gives_up_nothing(
    quick, root, watch, clock, shift, run
):
    for number in range(6):
        write(root / f"{number}.png", number)
    running = watch(quick, root, "--once", env=clock.env)
    assert running.wait_end() == 0
    (root / "0.png").unlink()
    write(root / "broken.png", 7).write_bytes(b"no picture")
    clock.shift(shift)
    write(root / "new.png", 8)
    running = watch(quick, root, env=clock.env)
    running.wait_idle()
    broken = [root / "broken.png"]
    running.until_equals_disk([root], quick.encoder, failing=broken)
    running.terminate()
    clock.shift(0)
    write(root / "newer.png", 9)
    running = watch(quick, root, env=clock.env)
    running.wait_idle()
    truth = running.until_equals_disk([root], quick.encoder, failing=broken)
    assert truth.vectors == truth.changes == 8
    running.terminate()
    status = run("status", "--json", "--library", quick.library, env=quick.env)
    assert json.loads(status.stdout)["missing"] == 1
