"""What stands before the routes: who may ask, how much may be sent, and how long it may take.

All of it is plain ASGI, so that bodies and answers stream through.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searchlib.server.problems import Problem
from searchlib.server.service import Service
from searchlib.server.settings import ServerSettings

log = logging.getLogger(__name__)
access = logging.getLogger("searchlib.server.access")

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What needs no token: it says nothing of the library."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_WAITED_FOR = 499
"""As nginx counts callers who went away before the answer."""

_EVERYWHERE = (
    (b"x-content-type-options", b"nosniff"),
    # Pages of other sites may not show the pictures of this one.
    (b"cross-origin-resource-policy", b"same-origin"),
)


def install(app: FastAPI, service: Service) -> None:
    """Put all guards before the routes of an app."""
    settings = service.settings
    # The last one that is added is the first that a request meets.
    app.add_middleware(BodyGuard, settings=settings)
    app.add_middleware(TokenGuard, token=settings.token)
    app.add_middleware(NameGuard, settings=settings)
    app.add_middleware(Watchman, service=service)


class Watchman:
    """Counts requests, answers for those that fail, and adds the fields that all answers have."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = _NOT_WAITED_FOR

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_usual(message.get("headers", ()))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Problem as problem:
            # Of a guard behind this one.
            await answer(problem, scope, counted)
        except asyncio.CancelledError:
            # The server does it to what is not done when it has to end.
            if status != _NOT_WAITED_FOR or not self._service.stopping:
                raise
            ending = Problem("not-ready", "the server is being stopped", retry_after=5)
            await answer(ending, scope, counted)
        except Exception:
            log.exception("%s %r failed", scope["method"], scope["path"])
            if status != _NOT_WAITED_FOR:
                raise  # the answer is under way: all that is left is to break it off
            failure = Problem("internal", "the server failed; its log says why")
            await answer(failure, scope, counted)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", None)
            self._service.metrics.request(route, scope["method"], status, seconds)
            if access.isEnabledFor(logging.INFO):
                access.info(
                    "%s %r %d %.0f ms", scope["method"], scope["path"], status, 1000 * seconds
                )


class NameGuard:
    """Turns away the pages of other sites, which a browser on this machine would serve.

    A page whose name is resolved to this server (DNS rebinding) has its own name in the Host field;
    a page of another site has its name in Origin when it sends something.
    """

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self._app = app
        names = {"localhost", settings.host, *settings.allowed_hosts}
        self._names = {name.lower().rstrip(".") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = self._host(scope)
            if scope["method"] not in _READING:
                _check_origin(scope, host)
        await self._app(scope, receive, send)

    def _host(self, scope: Scope) -> str:
        hosts = _fields(scope, b"host")
        if len(hosts) != 1:
            raise Problem("invalid-request", "the request must have one Host field")
        name = _name_of(hosts[0])
        if name is None:
            raise Problem("invalid-request", f"the Host field is no name: {hosts[0][:100]!r}")
        if name not in self._names and not _is_address(name):
            raise Problem(
                "forbidden-host",
                f"this server is not {name[:100]!r}; it answers to that name if it is started with "
                "--allow-host",
            )
        return hosts[0].lower()


class TokenGuard:
    """Asks for the token, where there is one."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._digest = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and self._digest is not None
            and scope["path"] not in OPEN_PATHS
        ):  # fmt: skip
            self._check(scope, self._digest)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, digest: bytes) -> None:
        shown = _fields(scope, b"authorization")
        scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise _unauthorized("show the token: Authorization: Bearer TOKEN")
        # Of digests, so that the time tells neither of the token nor of its length.
        if not hmac.compare_digest(_digest(token.strip()), digest):
            raise _unauthorized("the token is wrong", ', error="invalid_token"')


class BodyGuard:
    """Bounds the body of a request in size and in time, and notices callers that went away.

    Who went away before the answer began is worked for no longer: the work is cancelled.
    """

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, self._settings)
        began = False

        async def guarded(message: Message) -> None:
            nonlocal began
            if body.problem is not None and not began:
                return  # what the app made of the broken body; the problem is told instead
            if message["type"] == "http.response.start":
                began = True
                if not body.is_complete:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        task = asyncio.current_task()
        assert task is not None
        body.on_gone = lambda: None if began else task.cancel()
        try:
            await self._app(scope, body.receive, guarded)
        except asyncio.CancelledError:
            if not body.is_gone or began:
                raise
            task.uncancel()
        except Exception:
            if body.problem is None or began:
                raise
        finally:
            body.close()
        if body.problem is not None and not began:
            raise body.problem


class _Body:
    """The body of a request, piece by piece.

    Attributes:
        problem: why it was not read to its end.
        is_complete: whether it came as a whole.
        is_gone: whether the caller went away.
        on_gone: is called when that is noticed.
    """

    def __init__(self, scope: Scope, receive: Receive, settings: ServerSettings) -> None:
        self._receive = receive
        self._settings = settings
        self._bytes = 0
        self._waited = 0.0
        self._gone = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.problem: Problem | None = None
        self.is_complete = False
        self.on_gone: Any = None
        self._first: Message | None = None
        self._take_head(scope)

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()

    async def receive(self) -> Message:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._listening is not None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if self.problem is not None:
            raise self.problem
        message = await self._next()
        if message["type"] == "http.disconnect":
            self._gone.set()
            return message
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._settings.max_body:
            self.problem = _too_large(self._settings)
            raise self.problem
        if not message.get("more_body", False):
            self.is_complete = True
            self._listening = asyncio.create_task(self._listen())
        return message

    def _take_head(self, scope: Scope) -> None:
        length = _length(scope)
        if length is not None and length > self._settings.max_body:
            raise _too_large(self._settings)
        if length == 0:
            # Nothing comes, so that a route need not ask for it before its caller is listened for.
            self.is_complete = True
            self._first = {"type": "http.request", "body": b"", "more_body": False}
            self._listening = asyncio.create_task(self._listen())

    async def _next(self) -> Message:
        limits = self._settings
        left = min(limits.piece_timeout, limits.body_timeout - self._waited)
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(left, 0.0)):
                return await self._receive()
        except TimeoutError as error:
            detail = f"the body did not come in time; {self._bytes} bytes came"
            self.problem = Problem("too-slow", detail)
            raise self.problem from error
        finally:
            self._waited += time.monotonic() - began

    async def _listen(self) -> None:
        """Until the caller goes away, for after the body nothing else comes."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        self.on_gone()


async def answer(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a problem; nothing more is read of the request."""

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    response = problem.response()
    if _length(scope) != 0:
        # What is left of the body would be taken for the next request.
        response.headers["Connection"] = "close"
    await response(scope, nothing, send)


def _check_origin(scope: Scope, host: str) -> None:
    for site in _fields(scope, b"sec-fetch-site"):
        if site.lower() in ("cross-site", "same-site"):
            raise Problem("forbidden-origin", "pages of other sites may not send anything here")
    for origin in _fields(scope, b"origin"):
        try:
            parts = urlsplit(origin.lower())
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or parts.netloc != host:
            raise Problem(
                "forbidden-origin", f"pages of {origin[:100]!r} may not send anything here"
            )


def _with_usual(headers: Any) -> list[tuple[bytes, bytes]]:
    given = list(headers)
    names = {name.lower() for name, _ in given}
    return [*given, *(field for field in _EVERYWHERE if field[0] not in names)]


def _length(scope: Scope) -> int | None:
    """Of the body; None where it is not known before its end."""
    if _fields(scope, b"transfer-encoding"):
        return None
    lengths = _fields(scope, b"content-length") or ["0"]
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
        raise Problem("invalid-request", "Content-Length must be one number")
    return int(lengths[0])


def _fields(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _name_of(host: str) -> str | None:
    """The name in a Host field, without its port; None if it is none."""
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not name:
        name, port = port, ""
    if port and not port.isdecimal():
        return None
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1].lower()
    if not name or any(sign in name for sign in "[]:/@\\ "):
        return None
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    """A page cannot be at an address where its own server is not."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _unauthorized(detail: str, more: str = "") -> Problem:
    headers = {"WWW-Authenticate": f'Bearer realm="searchlib"{more}'}
    return Problem("unauthorized", detail, headers=headers)


def _too_large(settings: ServerSettings) -> Problem:
    return Problem("too-large", f"the body has more than {settings.max_body:,} bytes")
