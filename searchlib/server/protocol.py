"""HTTP/1.1 with bounds on the head of a request, and answers that reach callers who still send.

uvicorn's protocol on httptools waits for a head as long as it takes, and takes it at any size.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from searchlib.server.problems import Problem
from searchlib.server.settings import ServerSettings

# What uvicorn would say of failures, the app has said already; and nonsense on a port is no news.
_silent = logging.getLogger("searchlib.server.uvicorn")
_silent.setLevel(logging.CRITICAL)

_LINGER_SECONDS = 2.0
_MOST_FIELDS = 100
_MOST_IN_A_ROW = 32


class Protocol(HttpToolsProtocol):
    """One connection. `protocol_of` makes the class for a server.

    A head that does not come in time is answered with 408, one that is too large with 431, what is
    no HTTP with 400, and a connection too many with 503: all as problems. Who does not read the
    answer, or sends many requests ahead without waiting for answers, is broken off.
    """

    settings = ServerSettings()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _silent
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._fields = 0
        self._in_head = False
        self._in_body = False
        self._refusal: Problem | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head, or send the caller away."""
        lingering = _Lingering(cast("asyncio.Transport", transport), self)
        # It has what uvicorn uses of a transport, and not all of one.
        super().connection_made(lingering)  # type: ignore[arg-type]
        open_ones = len(self.connections)
        if open_ones > 2 * self.settings.connections:
            # Not even an answer: those who get one take up to two seconds to leave.
            lingering.abort()
        elif open_ones > self.settings.connections:
            detail = f"{self.settings.connections} connections are open already"
            self._refuse(Problem("busy", detail, retry_after=1))
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits."""
        self._stop_waiting()
        self._read_on()
        self._linger.forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came: the head of a request, or its body."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if not self._in_body:
            self._wait_for_head()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # To what nobody speaks here: it is answered as plain HTTP, and is the last one.
            if self.cycle is not None:
                self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._refusal or Problem("invalid-request", "this is no HTTP/1.1 request"))
        else:
            if self._in_head:
                self._count(len(data))
                if self._refusal is not None:
                    self._refuse(self._refusal)

    def on_message_begin(self) -> None:
        """The first byte of a head came."""
        self._in_head = True
        self._head_bytes = self._fields = 0
        self._wait_for_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the first line came."""
        self._count(len(url), stop=True)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field came."""
        if self._in_body:
            return  # behind a body in chunks, where nobody looks for fields
        self._fields += 1
        self._count(len(name) + len(value), stop=True)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        self._in_body = True
        self._stop_waiting()
        super().on_headers_complete()
        if len(self.pipeline) > _MOST_IN_A_ROW:
            raise ValueError("too many requests ahead")  # httptools turns it into its own error

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer was sent."""
        if self._in_body and not self.transport.is_closing():
            # The rest of a body that nobody wanted could keep the connection open for ever.
            self.transport.close()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The caller does not read as fast as it is answered."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.settings.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has read on."""
        self._read_on()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close it as soon as what is under way is done."""
        if self.transport.is_closing():
            self._linger.now()
        super().shutdown()

    @property
    def _linger(self) -> _Lingering:
        transport: Any = self.transport
        assert isinstance(transport, _Lingering)
        return transport

    def _wait_for_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.settings.header_timeout, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _read_on(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            # The answer to an earlier request comes first, and is the last one.
            self.cycle.keep_alive = False
        else:
            self._refuse(Problem("too-slow", "the head of the request did not come in time"))

    def _count(self, size: int, *, stop: bool = False) -> None:
        self._head_bytes += size
        if self._head_bytes > self.settings.max_head or self._fields > _MOST_FIELDS:
            detail = f"more than {self.settings.max_head:,} bytes or {_MOST_FIELDS} fields"
            self._refusal = Problem("head-too-large", detail)
            if stop:
                raise ValueError(detail)  # httptools turns it into its own error

    def _refuse(self, problem: Problem) -> None:
        """Answer in place of the app, and close."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # An answer to an earlier request, or to the head of this one, is under way: nothing
            # can be said in between.
            self.transport.abort()
            return
        body = problem.body()
        fields = {
            "content-type": problem.response().headers["content-type"],
            "content-length": str(len(body)),
            "connection": "close",
            **{name.lower(): value for name, value in (problem.headers or {}).items()},
        }
        lines = [f"HTTP/1.1 {problem.status_code} {HTTPStatus(problem.status_code).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        self._in_body = True  # whatever comes now is not looked at
        self.transport.close()


class _Lingering:
    """A transport that is closed only after the caller has read the last answer.

    To close a connection while the caller still sends makes the system discard the answer that is
    on its way. So the own side is closed first, and what comes is thrown away for some seconds.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Protocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._timer is not None or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if not self._protocol._in_body or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._timer = self._protocol.loop.call_later(_LINGER_SECONDS, self.now)
        self._transport.write_eof()
        self._protocol.flow.resume_reading()

    def now(self) -> None:
        """Wait no longer."""
        self.forget()
        self._transport.close()

    def forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol_of(settings: ServerSettings) -> type[Protocol]:
    """The protocol of a server with these settings."""
    return type("Protocol", (Protocol,), {"settings": settings})
