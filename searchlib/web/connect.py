"""The connections below a request: to checked addresses, within its time, or through a proxy."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2

from searchlib.web.guard import Guard, is_localhost, is_public

FAILURES: tuple[type[Exception], ...] = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
)
"""What httpcore2 raises; its exceptions have no root of their own."""

_PROXY_PORTS = {"http": 80, "https": 443}

TimeLeft = Callable[[float | None], float | None]


class AddressRefused(Exception):
    """The host has an address that the guard does not let through."""


class Backend(httpcore2.NetworkBackend):
    """Connects to the addresses that it checked.

    Args:
        guard: which addresses are let through.
        left: the seconds that a step may take, from those it was given; raises when none are left.
    """

    def __init__(self, guard: Guard, left: TimeLeft) -> None:
        self._guard = guard
        self._left = left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = self._guard.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(error) from error
        if not self._guard.private and not all(map(is_public, addresses)):
            raise AddressRefused(f"{host} is a private address, and those are not fetched from")
        failed: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                stream = httpcore2.SyncBackend().connect_tcp(
                    address, port, self._left(timeout), local_address, socket_options
                )
                return _Stream(stream, self._left)
            # One address after the other is the point: a host may have several.
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed


class _Stream(httpcore2.NetworkStream):
    """A connection of which every step looks at the clock.

    The time-out of a socket begins anew with every byte, and so does not end a slow drip.
    """

    def __init__(self, inner: httpcore2.NetworkStream, left: TimeLeft) -> None:
        self._inner = inner
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._left(timeout))
        return _Stream(inner, self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def tls_context() -> ssl.SSLContext:
    """Certificates are checked against those of the system, or those that the user names instead.

    Raises:
        OSError: what is named cannot be read.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    return httpcore2.default_ssl_context()


def proxy_for(scheme: str, host: str) -> httpcore2.Proxy | None:
    """The proxy that the environment or the system names, or None.

    Raises:
        OSError: it is of a kind that is not supported.
    """
    if is_localhost(host) or proxy_bypass(host):
        return None
    named = getproxies()
    if not (said := named.get(scheme) or named.get("all")):
        return None
    parts = urlsplit(said if "://" in said else f"http://{said}")
    if parts.scheme not in _PROXY_PORTS or parts.hostname is None:
        raise OSError(f"a proxy of {parts.scheme}:// is not supported")
    url = httpcore2.URL(
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port or _PROXY_PORTS[parts.scheme],
        target="/",
    )
    if parts.username is None:
        return httpcore2.Proxy(url)
    return httpcore2.Proxy(url, auth=(unquote(parts.username), unquote(parts.password or "")))
