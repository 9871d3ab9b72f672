"""What the tests of the server share: servers, in a process of their own and in a thread."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

import searchlib
from searchlib import ImageEncoder, Library
from searchlib.images import SERVER_POLICY
from searchlib.server import ServerSettings, create_app
from searchlib.server import serve as run_server

PATIENCE = 60.0


class Served:
    """A `searchlib serve` in a process of its own.

    Attributes:
        process: it.
        ready: the JSON line that it printed.
        url: where it answers, without a slash at its end.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if readable else b""
        if not line:
            process.kill()
            raise AssertionError(f"it did not start: {process.communicate()}")
        self.ready = json.loads(line)
        self.url: str = self.ready["url"]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, bytes]:
        """Send it a signal; gives its exit code and what it wrote on stderr."""
        self.process.send_signal(number)
        output, error = self.process.communicate(timeout=PATIENCE)
        assert output == b""
        return self.process.returncode, error


@pytest.fixture
def start_server(
    filled_library: Path, environment: dict[str, str], launch: list[str]
) -> Iterator[Callable[..., Served]]:
    """Starts `searchlib serve` over the filled library, and waits until it answers.

    Args:
        arguments: of the command besides the port.
        env: variables besides the usual ones.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start_server(*arguments: str | Path, env: dict[str, str] | None = None) -> Served:
        process = subprocess.Popen(
            [*launch, "serve", "--port", "0", "--json", "--library", filled_library, *arguments],
            env={**environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return Served(process)

    yield start_server
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def serve(start_server: Callable[..., Served]) -> str:
    """The URL of a `searchlib serve` in a process of its own, over the filled library."""
    return start_server().url


@pytest.fixture
def library(filled_library: Path, encoder: ImageEncoder) -> Iterator[Library]:
    """The filled library, open as a server has it."""
    with searchlib.open_library(
        filled_library, encoder=encoder, fetch_policy=SERVER_POLICY
    ) as library:
        yield library


@pytest.fixture
def app(library: Library) -> FastAPI:
    """The app over the filled library, with the usual settings; it does not run yet."""
    return create_app(library, ServerSettings())


class Running:
    """A server in a thread of this process.

    Attributes:
        url: where it answers, without a slash at its end.
    """

    def __init__(self, library: Library, settings: ServerSettings, **options: Any) -> None:
        self.url = ""
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._ended: bool | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(library, settings, options))
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._error is not None:
            self._thread.join()
            raise self._error

    def _run(self, library: Library, settings: ServerSettings, options: Any) -> None:
        try:
            self._ended = run_server(
                library, settings, stop=self._stop, on_ready=self._tell, **options
            )
        except BaseException as error:
            self._error = error
            self._ready.set()

    def _tell(self, url: str) -> None:
        self.url = url
        self._ready.set()

    @property
    def address(self) -> tuple[str, int]:
        """For a socket."""
        url = httpx2.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def stop(self) -> bool:
        """Stop it; gives what `serve` did."""
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        assert self._ended is not None
        return self._ended


@pytest.fixture
def running(library: Library) -> Iterator[Callable[..., Running]]:
    """Starts servers over the filled library in threads, with these settings."""
    with ExitStack() as ends:

        def running(
            *, folders: tuple[Path, ...] = (), of: Library | None = None, **settings: Any
        ) -> Running:
            values = {"port": 0, **settings}
            server = Running(of or library, ServerSettings(**values), folders=folders)
            ends.callback(server.stop)
            return server

        yield running


@pytest.fixture
def url(running: Callable[..., Running]) -> str:
    """The URL of a server in a thread, over the filled library and with the usual settings."""
    return running().url


@pytest.fixture
def web() -> Iterator[httpx2.Client]:
    """A caller; without the certificates, which take longer to read than most tests."""
    with httpx2.Client(verify=False, timeout=PATIENCE) as client:
        yield client


class Raw:
    """A connection on which anything can be sent.

    Attributes:
        socket: of it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        pieces = []
        while piece := self.socket.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)

    def until(self, end: bytes) -> bytes:
        """What comes up to these bytes."""
        data = b""
        while end not in data:
            piece = self.socket.recv(65536)
            assert piece, data
            data += piece
        return data


@pytest.fixture
def raw() -> Callable[..., Any]:
    """Opens a connection to a server for the block that it is used in."""

    @contextmanager
    def raw(address: tuple[str, int]) -> Iterator[Raw]:
        with socket.create_connection(address, timeout=PATIENCE) as connection:
            yield Raw(connection)

    return raw
