"""What the tests of the command share: processes that go on, and what they say meanwhile."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Process = subprocess.Popen[bytes]


@pytest.fixture
def many_photos(original_photos: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder with some photographs."""

    def many_photos(count: int) -> Path:
        folder = tmp_path / "many"
        folder.mkdir()
        content = [path.read_bytes() for path in sorted(original_photos.glob("*.jpg"))]
        for number in range(count):
            # Different bytes: decoders pass over what stands behind the picture.
            data = content[number % len(content)] + number.to_bytes(2, "big")
            (folder / f"{number:03}.jpg").write_bytes(data)
        return folder

    return many_photos


@pytest.fixture
def start(environment: dict[str, str], launch: list[str]) -> Iterator[Callable[..., Process]]:
    """Starts the command without waiting for it; what is left of it is killed after the test."""
    started: list[Process] = []

    def start(*arguments: str | Path, **options: Any) -> Process:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([*launch, *arguments], env=environment, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def on_a_terminal(
    environment: dict[str, str], launch: list[str]
) -> Callable[..., tuple[int, bytes, bytes]]:
    """Runs the command at a terminal; gives its exit code, stdout (a pipe) and the drawing.

    Args:
        arguments: of the command line.
        typed: what somebody types on the keyboard.
    """

    def on_a_terminal(*arguments: str | Path, typed: bytes = b"") -> tuple[int, bytes, bytes]:
        ours, theirs = pty.openpty()
        os.write(ours, typed)
        process = subprocess.Popen(
            [*launch, *arguments],
            env={**environment, "TERM": "xterm", "COLUMNS": "300"},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        drawn = bytearray()
        while True:
            select.select([ours], [], [], 60)
            try:
                piece = os.read(ours, 65536)
            except OSError:  # what Linux gives where the other end is closed
                piece = b""
            if not piece:
                break
            drawn += piece
        os.close(ours)
        with process:
            assert process.stdout is not None
            output = process.stdout.read()
        return process.returncode, output, bytes(drawn)

    return on_a_terminal


class Watching:
    """A running `searchlib watch --json`.

    Attributes:
        process: it.
        events: all that it said so far.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        # A watcher that says nothing must not hold up the tests for ever.
        self._patience = threading.Timer(60, process.kill)
        self._patience.daemon = True
        self._patience.start()

    def until(self, kind: str, **values: Any) -> dict[str, Any]:
        """Wait for an event; gives the first one of this kind and with these values."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            self.events.append(event)
            if event["event"] == kind and values.items() <= event.items():
                return event
        pytest.fail(f"it ended without {kind} {values}: {self.events}")

    def names(self, outcome: str) -> list[str]:
        """Of the files that had this outcome so far."""
        return sorted(Path(e["path"]).name for e in self.events if e.get("outcome") == outcome)

    def end(self, number: int) -> tuple[int, bytes]:
        """Send a signal; gives the exit code and what is on stderr."""
        self.process.send_signal(number)
        self.until("report")
        output, error = self.process.communicate(timeout=60)
        assert output == b""
        self._patience.cancel()
        return self.process.returncode, error


@pytest.fixture
def watching(start: Callable[..., Process], library_folder: Path) -> Callable[..., Watching]:
    """Starts `searchlib watch --json`, and waits until the folders are up to date."""

    def watching(*arguments: str | Path) -> Watching:
        process = start(
            "watch", *arguments, "--json", "--settle", "0.1", "--library", library_folder
        )
        watching = Watching(process)
        watching.until("idle")
        return watching

    return watching
