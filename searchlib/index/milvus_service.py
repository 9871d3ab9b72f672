"""A connection to Milvus that never hangs, tells no secrets and comes back after an outage.

pymilvus is imported when it is first needed: that takes most of a second, and few have it. Every
request has a time limit. Whatever fails is raised as `IndexServiceError`, and the next request
connects anew.
"""

from __future__ import annotations

import base64
import importlib
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from searchlib.errors import IndexServiceError, InputError

SCHEMES = ("http", "https", "tcp")

# A channel of gRPC that was refused waits longer after each try, up to two minutes, and shares this
# with all others to the same address. A server that is back should be found at once.
CHANNEL = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}


class Gate:
    """Lets in many readers or one writer; a writer that waits goes before later readers.

    A reader that holds the gate must not enter it again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()


@dataclass(slots=True, eq=False)
class _Connection:
    """A client and how many calls use it; a retired one is closed when the last has ended."""

    client: Any
    users: int = 0
    retired: bool = False


class MilvusService:
    """Milvus at one address; safe to use from several threads.

    Args:
        uri: `http://host:19530`, `https://user:password@host:19530/database`, or the path of a
            file of Milvus Lite that ends in `.db`.
        token: `user:password` or an API key; it goes before what the URI says.
        timeout: seconds that a request may take, and connecting.
        ready: called with each new client before it is used.

    Attributes:
        name: the address as it may be shown: without user and password.
        place: the same for all who use the same server and database, or the same file.

    Raises:
        InputError: the URI is none, the file's folder is missing, or pymilvus is not installed.
    """

    def __init__(
        self, uri: str, *, token: str | None, timeout: float, ready: Callable[[Any], None]
    ) -> None:
        self.name, self._address, own = _parsed(uri)
        self.timeout = timeout
        self._token = token or own
        self._ready = ready
        self._milvus = _pymilvus()
        self._failures: tuple[type[Exception], ...] = (
            self._milvus.MilvusException,
            importlib.import_module("grpc").RpcError,
            importlib.import_module("grpc").FutureTimeoutError,
        )
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._connection: _Connection | None = None
        self._lite = _Lite(self._address) if "://" not in self._address else None
        self.place = self._lite.path if self._lite is not None else self._address

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A connected `pymilvus.MilvusClient`, for some calls.

        Raises:
            IndexServiceError: Milvus cannot be reached, takes too long or refuses.
        """
        connection = None
        try:
            connection = self._borrowed()
            yield connection.client
        except self._failures as error:
            if connection is not None:
                self._retire(connection)
            # Not chained: what pymilvus keeps of a request may hold the token.
            raise self._error(_reason(error)) from None
        finally:
            if connection is not None:
                self._given_back(connection)

    def close(self) -> None:
        """Disconnects; a later request connects anew."""
        with self._lock:
            connection = self._connection
        if connection is not None:
            self._retire(connection)
        if self._lite is not None:
            self._lite.release()

    def _borrowed(self) -> _Connection:
        connection = self._taken()
        if connection is not None:
            return connection
        # One thread connects and the others wait for it, but no longer than it may take.
        if not self._connecting.acquire(timeout=self.timeout):
            raise self._error(f"no answer within {self.timeout:g} s")
        try:
            connection = self._taken()
            if connection is None:
                connection = _Connection(self._connected(), users=1)
                with self._lock:
                    self._connection = connection
            return connection
        finally:
            self._connecting.release()

    def _taken(self) -> _Connection | None:
        with self._lock:
            if self._connection is not None:
                self._connection.users += 1
            return self._connection

    def _connected(self) -> Any:
        address = self._lite.start() if self._lite is not None else self._address
        if address is None:
            raise self._error("it is damaged, or another process has it open")
        client = self._milvus.MilvusClient(
            address,
            token=self._token,
            timeout=self.timeout,
            dedicated=True,
            grpc_options=CHANNEL,
        )
        try:
            self._ready(client)
        except BaseException:
            client.close()
            raise
        return client

    def _retire(self, connection: _Connection) -> None:
        with self._lock:
            connection.retired = True
            if self._connection is connection:
                self._connection = None
            unused = connection.users == 0
        if unused:
            connection.client.close()

    def _given_back(self, connection: _Connection) -> None:
        with self._lock:
            connection.users -= 1
            unused = connection.retired and connection.users == 0
        if unused:
            connection.client.close()

    def _error(self, reason: str) -> IndexServiceError:
        for secret in _secrets(self._token):
            reason = reason.replace(secret, "***")
        if self._lite is not None:
            return IndexServiceError(f"{self.name}: Milvus Lite cannot be used: {reason}")
        return IndexServiceError(
            f"{self.name}: Milvus cannot be used: {reason}; see that it runs and try again, "
            "what changes until then is made up for"
        )


class _Lite:
    """The server that Milvus Lite runs inside this process for one file, shared by its users."""

    _users: ClassVar[Counter[str]] = Counter()
    _lock: ClassVar = threading.Lock()

    def __init__(self, path: str) -> None:
        self.path = str(Path(path).resolve())
        self._using = False
        if not Path(self.path).parent.is_dir():
            raise InputError(f"{path}: there is no folder for this file; make it first")
        try:
            module = importlib.import_module("milvus_lite.server_manager")
        except ImportError:
            raise InputError(
                f"{path}: milvus-lite is not installed; pip install milvus-lite, "
                "or give the address of a server"
            ) from None
        self._servers = module.server_manager_instance

    def start(self) -> str | None:
        """The address to connect to, or None where the file cannot be opened."""
        with self._lock:
            address: str | None = self._servers.start_and_get_uri(self.path)
            if address is not None and not self._using:
                self._using = True
                self._users[self.path] += 1
            return address

    def release(self) -> None:
        """Closes the file if nobody else in this process uses it."""
        with self._lock:
            if self._using:
                self._using = False
                self._users[self.path] -= 1
                if not self._users[self.path]:
                    self._servers.release_server(self.path)


def _pymilvus() -> Any:
    """The module, without the log handlers that it sets up.

    Raises:
        InputError: it is not installed.
    """
    first = "pymilvus" not in sys.modules
    try:
        module = importlib.import_module("pymilvus")
    except ImportError:
        raise InputError(
            "pymilvus is not installed; pip install 'searchlib[milvus]' to use Milvus"
        ) from None
    if first:
        # It writes to stderr by itself, tracebacks too. What it logs should go where the program
        # that uses this library sends its log, and nowhere where it sends it nowhere.
        for name in ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer", "milvus_lite"):
            logger = logging.getLogger(name)
            logger.handlers[:] = [logging.NullHandler()]
            logger.propagate = True
    return module


def check_uri(uri: str) -> None:
    """Whether a URI may be that of a Milvus server or file; nothing is connected.

    Raises:
        InputError: it is none.
    """
    _parsed(uri)


def _parsed(uri: str) -> tuple[str, str, str]:
    """The URI as it may be shown, as it is to be used, and the token in it."""
    if uri.endswith(".db") and "://" not in uri:
        return uri, uri, ""
    scheme, separator, rest = uri.partition("://")
    # What stands before the last @ is user and password, whatever characters they hold.
    login, _, location = (rest if separator else uri).rpartition("@")
    location = location.partition("?")[0].partition("#")[0]
    if not separator or scheme.lower() not in SCHEMES or not location.strip("/:"):
        raise InputError(
            f"{location!r} is no address of Milvus; give http://host:19530, or a file that ends "
            "in .db"
        )
    address = f"{scheme.lower()}://{location}"
    return address, address, unquote(login)


def _secrets(token: str) -> list[str]:
    """All that would give the token away, the longest first."""
    if not token:
        return []
    password = token.partition(":")[2]
    plain = [token, *([password] if password else [])]
    coded = [base64.b64encode(each.encode()).decode() for each in plain]
    return sorted(plain + coded, key=len, reverse=True)


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if hasattr(error, "details"):
        # An error of gRPC, whose types are not installed with it: its own text is several lines.
        text = f"{error.code().name}: {error.details()}"  # type: ignore[attr-defined]
    else:
        text = str(getattr(error, "message", error))
    return " ".join((text or type(error).__name__).split())[:300]
