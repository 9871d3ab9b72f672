"""`searchlib serve` as a process: started, asked until it is ready, stopped; and what it took."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from benchmarks.common import ROOT, BenchmarkError, searchlib_command

HOST = "127.0.0.1"

_LONGEST_SECONDS = 60.0
_LOOK_SECONDS = 0.02


class Serving:
    """A server of a library, from its start to its end.

    Args:
        library: its folder; it is there.
        log: a file for what the server says.
        options: more words of the command.

    Attributes:
        port: that it listens at, on HOST.
        ready_seconds: from the start of the process to its first answer that it is ready.
    """

    def __init__(self, library: Path, log: Path, *options: str) -> None:
        self.port = _free_port()
        self._log = log
        command = [*searchlib_command(), "serve", "--library", str(library)]
        command += ["--host", HOST, "--port", str(self.port), *options]
        start = time.perf_counter()
        with log.open("w") as said:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=said, stderr=said, stdin=subprocess.DEVNULL
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        self.ready_seconds = time.perf_counter() - start

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def get(self, path: str) -> str:
        """The text at a path of the server."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=30) as answer:
            return str(answer.read().decode("utf-8"))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def peak_bytes(self) -> int:
        """The most memory that was resident in it so far; 0 where the system does not tell."""
        status = Path(f"/proc/{self._process.pid}/status")
        for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else ():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise BenchmarkError(f"searchlib serve ended: {self._last_line()}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                self.get("/readyz")
                return
            time.sleep(_LOOK_SECONDS)
        raise BenchmarkError(f"searchlib serve is not ready: {self._last_line()}")

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return (lines or ["it said nothing"])[-1]

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far; 0 where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    # Behind the name of the command, which may hold spaces: fields 3 and on of proc(5).
    fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
