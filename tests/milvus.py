"""Milvus Lite as a server, to be killed, stopped and emptied."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

# Not imported: what pymilvus sets up when it is imported is the index's to undo.
MISSING = not (find_spec("pymilvus") and find_spec("milvus_lite"))

SECRET = "correct-horse"


class MilvusServer:
    """Milvus Lite as a server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://root:{SECRET}@127.0.0.1:{self.port}"
        self.library = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, folder: str = "data") -> None:
        command = [sys.executable, "-m", "milvus_lite", "server"]
        place = ["--data-dir", str(self.folder / folder), "--host", "127.0.0.1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *place, "--port", str(self.port)], stdout=log, stderr=log
            )
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def send(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)
