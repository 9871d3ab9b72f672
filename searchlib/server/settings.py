"""How a server behaves: where it listens, who may ask, and how much of everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from searchlib.errors import InputError
from searchlib.web.guard import is_localhost

UPLOADS = "uploads"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server behaves.

    Attributes:
        host: the name or address to listen at.
        port: 0 takes a free one.
        token: what callers must show as `Authorization: Bearer`; nobody must where it is None,
            which `check` allows only where no other machine can reach the server.
        max_body: of a request, in bytes.
        max_head: of a request's first line and header fields, in bytes.
        header_timeout: seconds for these to come.
        body_timeout: seconds that are waited for the body in all.
        piece_timeout: seconds between two pieces of it.
        write_timeout: seconds that are waited for a caller to read on.
        request_timeout: seconds for the work on a request, with its time in the queue.
        shutdown_timeout: seconds for what is under way when the server is stopped.
        queue: how many requests may wait for work on the library; more are sent away.
        workers: how many are worked on at once; as many as there are processors if None.
        connections: how many may be open; more are sent away.
        watch: keep the library in step with its registered folders.
        uploads: the folder that uploaded pictures are kept in; `uploads` in the library's if None.
        allowed_hosts: names by which callers may address the server, besides `host`, localhost and
            addresses: any other in the Host field is a page of a stranger that has its name
            resolved to this server.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    # Not in what is printed and logged.
    token: str | None = field(default=None, repr=False)
    max_body: int = 100_000_000
    max_head: int = 65_536
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    piece_timeout: float = 10.0
    write_timeout: float = 60.0
    request_timeout: float = 60.0
    shutdown_timeout: float = 3.0
    queue: int = 64
    workers: int | None = None
    connections: int = 512
    watch: bool = False
    uploads: Path | None = None
    allowed_hosts: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what makes no sense, or what would open the library to other machines.

        Raises:
            InputError: a value is out of its range, the token cannot be sent in a header field, or
                `host` can be reached from other machines and there is no token.
        """
        if not self.host:
            raise InputError("the host is empty; name the address to listen at, as 127.0.0.1")
        if not 0 <= self.port <= 65535:
            raise InputError(f"port {self.port}: must be between 0 and 65535")
        for name, least in (("max_body", 1), ("max_head", 1024), ("queue", 0), ("connections", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: must be at least {least}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers is {self.workers}: must be at least 1")
        for name in (
            "header_timeout", "body_timeout", "piece_timeout", "write_timeout", "request_timeout",
            "shutdown_timeout",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: must be above 0")
        if self.token is None:
            require_loopback(self.host)
        elif not self.token or not all("!" <= character <= "~" for character in self.token):
            raise InputError("the token must be ASCII letters, digits and signs, without spaces")


def require_loopback(host: str) -> None:
    """Refuse an address that other machines can reach.

    Raises:
        InputError: it is not this machine's own.
    """
    if not is_localhost(host):
        raise InputError(
            f"{host}: other machines can reach this address, so callers must show a token; "
            "set $SEARCHLIB_TOKEN or give --token-file"
        )


def read_token(path: Path) -> str:
    """The token in a file: its one line.

    Raises:
        InputError: the file cannot be read, or has no line or several.
    """
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not ASCII text"
        raise InputError(f"{path}: {reason}; write the token into it, in a line") from error
    if len(lines) != 1:
        raise InputError(f"{path}: must hold the token, in one line and without spaces")
    return lines[0]
