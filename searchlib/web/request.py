"""Requests: redirects followed under a guard, bodies bounded, failures in words."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit

from searchlib.errors import WebError
from searchlib.web.guard import Guard, is_localhost
from searchlib.web.words import UNESCAPED, shown, size_words, status_words

if TYPE_CHECKING:
    import httpcore2

MAX_REDIRECTS = 5

_REDIRECTS = {301, 302, 303, 307, 308}
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PIECE_BYTES = 64 * 1024
_PLAIN = Guard()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, with the body still to come.

    Attributes:
        url: where it came from in the end, fit to be shown.
        status: the HTTP status; a redirect was followed already.
        headers: by name in lower case; of several with one name, all, with ", " between.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    _response: httpcore2.Response = field(repr=False)
    _request: _Request = field(repr=False)

    @property
    def length(self) -> int | None:
        """The bytes of the body that the server announced, as they travel."""
        said = self.headers.get("content-length", "")
        return int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None

    def chunks(self) -> Iterator[bytes]:
        """The body as it travels, in pieces of up to 64 KiB, once.

        Raises:
            WebError: it broke off; `interrupted` is True.
        """
        from searchlib.web.connect import FAILURES

        try:
            yield from self._response.iter_stream()
        except FAILURES as error:
            raise self._request.failure(error, begun=True) from error

    def require_success(self) -> None:
        """Refuse an answer that is not the thing asked for.

        Raises:
            WebError: the status is not a success.
        """
        if self.status not in (200, 203, 206):
            raise self._request.error(
                f"the server answered {status_words(self.status)}", status=self.status
            )


def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout: float = 10.0,
    deadline: float = 60.0,
    guard: Guard = _PLAIN,
) -> bytes:
    """The body behind a URL.

    Args:
        url: http or https, as the guard allows.
        max_bytes: refuse a longer body, after decompression, as soon as that shows.
        timeout: seconds that may pass without anything coming.
        deadline: seconds that all of it may take, redirects included.
        guard: where the request may go.

    Raises:
        WebError: it cannot be fetched.
    """
    with stream(url, timeout=timeout, deadline=deadline, guard=guard) as answer:
        answer.require_success()
        request = answer._request
        too_long = f"is larger than {size_words(max_bytes)}, the most that is fetched"
        if (answer.length or 0) > max_bytes:
            raise request.error(too_long)
        body = bytearray()
        for piece in _decoded(answer):
            body += piece
            if len(body) > max_bytes:
                raise request.error(too_long)
        return bytes(body)


@contextmanager
def stream(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    deadline: float | None = None,
    guard: Guard = _PLAIN,
) -> Iterator[Answer]:
    """Ask for a URL and follow its redirects; the body is read in the `with` block, or not at all.

    Args:
        headers: to send. "Authorization" is left out where a redirect leads to another server.
        url, timeout, deadline, guard: as for `fetch`; no deadline where it is None.

    Raises:
        WebError: there is no answer. One of any status is an answer.
    """
    request = _Request(url, timeout, deadline, guard)
    place = first = request.place(url)
    for _ in range(MAX_REDIRECTS + 1):
        own = place.origin == first.origin
        sent = {
            name: value
            for name, value in (headers or {}).items()
            if own or name.lower() != "authorization"
        }
        if own and first.login is not None:
            sent.setdefault("Authorization", first.login)
        with ExitStack() as stack:
            answer = request.open(place, sent, stack)
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or target is None:
                yield answer
                return
        place = request.follow(place, target)
    raise request.error(f"it is redirected more than {MAX_REDIRECTS} times")


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL in the parts that a request is made of, in ASCII."""

    scheme: str
    host: str
    port: int
    target: str
    login: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


class _Request:
    """One fetch over all its redirects: its guard, its clock, and the words for what fails."""

    def __init__(self, url: str, timeout: float, deadline: float | None, guard: Guard) -> None:
        self._url = url
        self._timeout = timeout
        self._deadline = deadline
        self._end = None if deadline is None else time.monotonic() + deadline
        self._guard = guard
        self._at: _Place | None = None
        self._followed = False

    def place(self, url: str) -> _Place:
        """Take a URL apart.

        Raises:
            WebError: it is not one, or of a scheme that the guard does not allow.
        """
        if _CONTROL.search(url):
            raise self.error("is not a URL: it has control characters in it")
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").lower()
            if not host.isascii():
                host = host.encode("idna").decode("ascii")
        except ValueError as error:
            raise self.error("is not a URL") from error
        scheme = parts.scheme.lower()
        local = scheme == "http" and self._guard.insecure_localhost and is_localhost(host)
        if scheme not in self._guard.schemes & _PORTS.keys() and not local:
            allowed = " or ".join(sorted(self._guard.schemes))
            raise self.error(f"{scheme}:// is not allowed here, only {allowed}")
        if not _HOST.fullmatch(host) or port == 0:
            raise self.error("is not a URL: it names no server")
        login = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return _Place(scheme, host, port or _PORTS[scheme], quote(target, safe=UNESCAPED), login)

    def follow(self, place: _Place, location: str) -> _Place:
        """Where a redirect leads.

        Raises:
            WebError: it must not be followed.
        """
        try:
            # Servers send what is not ASCII as UTF-8, and headers are read as Latin-1.
            url = urljoin(place.url, location.encode("latin-1").decode("utf-8", "replace"))
            scheme = urlsplit(url).scheme
        except ValueError as error:
            raise self.error("it is redirected to what is not a URL") from error
        self._at = None
        if place.scheme == "https" and scheme == "http":
            raise self.error(f"it is redirected from https to http, to {shown(url)}")
        self._followed = True
        try:
            return self.place(url)
        except WebError as error:
            raise self.error(f"it is redirected to {shown(url)}: {error.reason}") from error

    def open(self, place: _Place, headers: Mapping[str, str], stack: ExitStack) -> Answer:
        """Send the request and read the head of the answer; `stack` closes the connection.

        Raises:
            WebError: there is no answer.
        """
        import httpcore2

        from searchlib.web.connect import FAILURES, AddressRefused, Backend, proxy_for, tls_context

        self._at = place
        sent = {
            "Host": place.authority,
            "User-Agent": "searchlib",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        port = None if place.port == _PORTS[place.scheme] else place.port
        url = httpcore2.URL(scheme=place.scheme, host=place.host, port=port, target=place.target)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout)
        failures: tuple[type[Exception], ...] = (*FAILURES, OSError)
        try:
            pool = httpcore2.ConnectionPool(
                ssl_context=tls_context() if place.scheme == "https" else None,
                proxy=proxy_for(place.scheme, place.host) if self._guard.private else None,
                network_backend=Backend(self._guard, self.left),
            )
            stack.enter_context(pool)
            response = stack.enter_context(
                pool.stream("GET", url, headers=list(sent.items()), extensions={"timeout": limits})
            )
        except AddressRefused as error:
            raise self.error(str(error)) from error
        except failures as error:
            raise self.failure(error, begun=False) from error
        found: dict[str, str] = {}
        for name, value in response.headers:
            key, text = name.decode("ascii").lower(), value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
        return Answer(shown(place.url), response.status, found, response, self)

    def left(self, timeout: float | None) -> float | None:
        """The seconds that the next step may take: the time-out, or what is left of the deadline.

        Raises:
            httpcore2.ReadTimeout: nothing is left.
        """
        if self._end is None:
            return timeout
        left = self._end - time.monotonic()
        if left <= 0:
            import httpcore2

            raise httpcore2.ReadTimeout("the deadline has passed")
        return left if timeout is None else min(timeout, left)

    def error(
        self, reason: str, *, status: int | None = None, interrupted: bool = False
    ) -> WebError:
        """The error of this request, which says so where a redirect has led elsewhere."""
        if self._at is not None and self._followed and not reason.startswith("it is redirected"):
            reason = f"it is redirected to {shown(self._at.url)}: {reason}"
        return WebError(shown(self._url), reason, status=status, interrupted=interrupted)

    def failure(self, error: Exception, *, begun: bool) -> WebError:
        """An exception of the network in words.

        Args:
            begun: whether the head of the answer had come.
        """
        import httpcore2

        # httpcore2 hands the exception that it translates on as the argument of its own.
        inner = error.args[0] if error.args else None
        cause = inner if isinstance(inner, Exception) else error
        if isinstance(error, httpcore2.TimeoutException):
            if self._end is not None and time.monotonic() >= self._end:
                return self.error(f"it took longer than {self._deadline:g} seconds")
            if isinstance(error, httpcore2.ReadTimeout):
                reason = f"the server sent nothing for {self._timeout:g} seconds"
                return self.error(reason, interrupted=True)
            return self.error(f"the server did not answer within {self._timeout:g} seconds")
        if begun:
            return self.error("the connection broke off", interrupted=True)
        if isinstance(error, httpcore2.ProxyError):
            return self.error(f"the proxy refused: {error}")
        if isinstance(error, httpcore2.RemoteProtocolError):
            if cause is error:  # where bytes came, it is what h11 says of them
                return self.error("the server closed the connection", interrupted=True)
            return self.error("the server does not speak HTTP")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return self.error(f"its certificate is not trusted: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError):
            words = (cause.reason or "TLS failed").replace("_", " ").lower()
            return self.error(f"no secure connection could be made: {words}")
        if isinstance(cause, socket.gaierror):
            return self.error("its server is not found; check the name and the network connection")
        if isinstance(cause, ConnectionRefusedError):
            return self.error("the server refused the connection")
        if isinstance(cause, (ConnectionResetError, BrokenPipeError)):
            return self.error("the server closed the connection", interrupted=True)
        if isinstance(cause, OSError):
            return self.error(f"it cannot be reached: {cause.strerror or cause}")
        return self.error(f"the request failed: {error or type(error).__name__}")


def _decoded(answer: Answer) -> Iterator[bytes]:
    """The body in pieces of 64 KiB at most, decompressed where the server insisted on gzip."""
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        yield from answer.chunks()
        return
    if coding not in ("gzip", "x-gzip"):
        raise answer._request.error("the server compressed it in a way that was not asked for")
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        for chunk in answer.chunks():
            rest, piece = chunk, b""
            while rest or len(piece) == _PIECE_BYTES:
                yield (piece := decompressor.decompress(rest, _PIECE_BYTES))
                rest = decompressor.unconsumed_tail
                if decompressor.eof:
                    return
    except zlib.error as error:
        raise answer._request.error("what the server sent is not the gzip it should be") from error
    raise answer._request.error("the compressed answer broke off", interrupted=True)
