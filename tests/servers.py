"""A real HTTP server on this machine that behaves as badly as it is told."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

Behaviour = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request, and the means to answer it rightly or wrongly."""

    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_GET(self) -> None:
        self.close_connection = True
        self.owner.requests.append((self.path, dict(self.headers.items())))
        behaviour = self.owner.routes.get(self.path.partition("?")[0], not_found)
        with suppress(ConnectionError):
            behaviour(self)

    @property
    def owner(self) -> Server:
        return self.server.owner

    def head(self, status: int, **headers: object) -> None:
        """The status line and the headers; "_" in a name stands for "-"."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def whole(self, body: bytes, status: int = 200, **headers: object) -> None:
        self.head(status, Content_Length=len(body), **headers)
        self.body(body)

    def body(self, data: bytes) -> None:
        self.wfile.write(data)

    def chunk(self, data: bytes) -> None:
        """One chunk of a body of unknown length; an empty one ends it."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def hang_up(self) -> None:
        """Close the connection at once, whatever was announced."""
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Say nothing more until the server ends."""
        self.wfile.flush()
        self.owner.ending.wait(60)

    def log_message(self, *_: object) -> None:
        """A test's output is for its failures."""


def not_found(exchange: Exchange) -> None:
    exchange.whole(b"nothing here", 404)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    owner: Server

    def handle_error(self, *_: object) -> None:
        """The clients of these tests break connections on purpose."""


class Server:
    """Listens on 127.0.0.1 while its `with` block lasts.

    Attributes:
        routes: by path, what is done with a request.
        requests: the path and the headers of each, in order.
        ending: set when the server ends.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.routes: dict[str, Behaviour] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ending = threading.Event()
        self._listener = _Listener(("127.0.0.1", 0), Exchange)
        self._listener.owner = self
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._listener.socket = context.wrap_socket(self._listener.socket, server_side=True)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,))

    @property
    def port(self) -> int:
        return self._listener.server_address[1]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def serve(self, path: str, behaviour: Behaviour | bytes) -> str:
        """Answer a path, with these bytes where it is bytes; gives the URL."""
        if isinstance(behaviour, bytes):
            body = behaviour
            self.routes[path] = lambda exchange: exchange.whole(body)
        else:
            self.routes[path] = behaviour
        return self.url(path)

    def headers_of(self, name: str) -> list[str | None]:
        """A header in each of the requests."""
        return [headers.get(name) for _, headers in self.requests]

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ending.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()


@dataclass
class File:
    """A behaviour: a file that can be asked for in pieces, with the faults that it is given.

    Attributes:
        content: the file.
        etag: None for none.
        breaks: for each coming request, after how many bytes of its body the connection breaks.
        ranges: whether `Range` is honoured.
        if_range: whether `If-Range` is.
        sent: the bytes of body in each answer.
    """

    content: bytes
    etag: str | None = '"1"'
    breaks: list[int | None] = field(default_factory=list)
    ranges: bool = True
    if_range: bool = True
    sent: list[int] = field(default_factory=list)

    def __call__(self, exchange: Exchange) -> None:
        headers: dict[str, object] = {} if self.etag is None else {"ETag": self.etag}
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.headers.get("Range", ""))
        condition = exchange.headers.get("If-Range")
        same = condition is None or not self.if_range or condition == self.etag
        if asked and self.ranges and same:
            start, status = int(asked[1]), 206
            total = len(self.content)
            if start >= total:
                exchange.whole(b"", 416, Content_Range=f"bytes */{total}")
                return
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        body = self.content[start:]
        exchange.head(status, Content_Length=len(body), **headers)
        after = self.breaks.pop(0) if self.breaks else None
        self.sent.append(len(body[:after]))
        exchange.body(body[:after])
        if after is not None:
            exchange.hang_up()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 at which nobody listens, for as long as the block lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def make_certificate(folder: Path) -> Path:
    """A key and a certificate of its own for localhost and 127.0.0.1, in one file.

    Raises:
        OSError: there is no openssl command.
    """
    path = folder / "server.pem"
    key = folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-addext", "subjectAltName=DNS:localhost,DNS:pictures.test,IP:127.0.0.1"),
            *("-keyout", key, "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path
