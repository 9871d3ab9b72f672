"""`searchlib watch` as a real process, and the pictures that it is given."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from searchlib import ImageEncoder
from tests.truth import Truth, assert_equals_disk

FULL = os.environ.get("SEARCHLIB_RELIABILITY") == "full"
SEED = int(os.environ.get("SEARCHLIB_KILL_SEED", "1"))
PATIENCE = float(os.environ.get("SEARCHLIB_PATIENCE", "900" if FULL else "120"))
WRITERS = Path(__file__).with_name("writers.py")


def picture(number: int, kind: str = "PNG") -> bytes:
    """A small picture of its own, the same for the same number."""
    chance = random.Random(number)
    width, height = chance.randint(8, 24), chance.randint(8, 24)
    image = Image.frombytes("RGB", (width, height), chance.randbytes(3 * width * height))
    file = io.BytesIO()
    image.save(file, kind)
    # Two versions of a file within one tick of the clock should differ in size at least.
    return file.getvalue() + chance.randbytes(chance.randint(1, 2000))


def write(path: Path, number: int) -> Path:
    """A picture of this number at a path, whose end says of which kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(number, "JPEG" if path.suffix.lower() == ".jpg" else "PNG"))
    return path


class Watch:
    """A running `searchlib watch --json`, and what it has told so far.

    Args:
        command: that starts `searchlib`.
        arguments: of `watch`.
        library: its folder.
        options: for subprocess.Popen.
    """

    def __init__(
        self, command: Sequence[str], arguments: Sequence[Any], library: Path, **options: Any
    ) -> None:
        self.library = library
        self.events: list[dict[str, Any]] = []
        self.errors = b""
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [*command, "watch", "--json", "--library", library, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        self._threads = [threading.Thread(target=act) for act in (self._listen, self._hear)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # A killed process may leave half a line.
            if line.endswith(b"\n"):
                with self._news:
                    self.events.append(json.loads(line))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _hear(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def wait(
        self, what: Callable[[dict[str, Any]], bool], *, after: int = 0, words: str = "it"
    ) -> dict[str, Any]:
        """The first event behind the first `after` of which something is so; waits for it."""
        end = time.monotonic() + PATIENCE
        at = after
        with self._news:
            while True:
                while at < len(self.events):
                    if what(self.events[at]):
                        return self.events[at]
                    at += 1
                running = self._threads[0].is_alive()
                if not running and at >= len(self.events):
                    raise AssertionError(f"ended before {words}: {self.said()}")
                assert time.monotonic() < end, f"no {words}: {self.events[-20:]}, {self.said()}"
                self._news.wait(0.5)

    def wait_for(self, kind: str, *, after: int = 0, **values: Any) -> dict[str, Any]:
        """The next event of a kind with these values."""
        values = {name: os.fspath(value) if isinstance(value, Path) else value
                  for name, value in values.items()}  # fmt: skip
        wanted = {"event": kind, **values}
        return self.wait(
            lambda event: wanted.items() <= event.items(), after=after, words=str(wanted)
        )

    def wait_idle(self, *, after: int = 0) -> None:
        """Until it has said that all is dealt with."""
        self.wait_for("idle", after=after)

    def wait_events(self, count: int) -> None:
        """Until it has told of so many events."""
        self.wait(lambda _: len(self.events) >= count, words=f"{count} events")

    def until_equals_disk(
        self, roots: Sequence[Path], encoder: ImageEncoder, **options: Any
    ) -> Truth:
        """Until the library is as the disk, which must not change meanwhile."""
        end = time.monotonic() + PATIENCE
        while True:
            self._wait_quiet(end)
            try:
                return assert_equals_disk(self.library, roots, encoder, **options)
            except AssertionError as error:
                if self.process.poll() is not None:
                    raise AssertionError(f"{error}; it ended: {self.said()}") from error
                if time.monotonic() > end:
                    raise AssertionError(f"{error}; {self.events[-10:]}; {self.said()}") from error
                time.sleep(0.1)

    def _wait_quiet(self, end: float) -> None:
        """Until the last thing that it told is that it is idle, as far as that ever comes."""
        while time.monotonic() < end and self.process.poll() is None:
            told = len(self.events)
            time.sleep(0.1)
            if told == len(self.events) and told and self.events[-1]["event"] == "idle":
                return

    def outcomes(self, outcome: str) -> list[str]:
        """The paths of the files that something became of, in order."""
        return [each["path"] for each in self.events if each.get("outcome") == outcome]

    def said(self) -> str:
        """What it wrote on stderr."""
        return self.errors.decode(errors="backslashreplace")[-4000:]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, and give its exit code; without `number`, wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait_end()

    def wait_end(self) -> int:
        """Its exit code."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def kill(self) -> int:
        """End it at once."""
        return self.end(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to stop; it must do so, and say that it did."""
        code = self.end(signal.SIGTERM)
        assert code == 0, (code, self.said())
        assert "Traceback" not in self.said()
        assert [event["event"] for event in self.events[-2:]] == ["stopped", "report"]


class Writer:
    """A process that changes files; see writers.py.

    Args:
        arguments: of its command line.
    """

    def __init__(self, *arguments: Any, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, WRITERS, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=env,
        )

    def ask(self, word: str) -> str:
        """Say a word to it, and give the line that it answers with."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def pause(self) -> None:
        """Until it has finished what it was at, and rests."""
        assert self.ask("pause") == "paused"

    def go_on(self) -> None:
        """Have it change files again."""
        assert self.ask("go") == "going"

    def wait(self) -> str:
        """Until it has come to its end by itself; gives what it said."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return output

    def end(self) -> None:
        """End it."""
        self.process.kill()
        with self.process:
            pass
