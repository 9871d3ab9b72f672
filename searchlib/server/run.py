"""Runs the app with uvicorn, until it is told to stop."""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Sequence

import uvicorn

from searchlib.errors import InputError
from searchlib.library import Library
from searchlib.server.app import create_app
from searchlib.server.protocol import protocol_of
from searchlib.server.service import Service
from searchlib.server.settings import ServerSettings, require_loopback
from searchlib.server.watching import Watching

log = logging.getLogger(__name__)

_BACKLOG = 256
_KEEP_ALIVE_SECONDS = 15
_LONGEST_WATCH_END = 10.0


def serve(
    library: Library,
    settings: ServerSettings,
    *,
    folders: Sequence[str | os.PathLike[str]] = (),
    stop: threading.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> bool:
    """Answer for a library until `stop` is set.

    Requests under way at the end have `settings.shutdown_timeout` seconds; listeners of events are
    let go at once.

    Args:
        library: stays the caller's to close.
        settings: of the server.
        folders: that are watched besides those that are registered.
        stop: set it from another thread or a signal handler.
        on_ready: is told the URL, without a slash at its end, as soon as requests are taken.

    Returns:
        Whether all threads have ended; where one still works on the library, it must stay open
        until the process ends.

    Raises:
        InputError: the settings make no sense, the address cannot be listened at, or folders are to
            be watched and none is registered.
    """
    settings.check()
    if settings.watch and not folders and not any(each.watched for each in library.folders()):
        raise InputError("no folder is watched yet; name the folders to be watched")
    listening = _listen(settings)
    try:
        app = create_app(library, settings)
        service: Service = app.state.service
        watching = Watching(service, folders) if settings.watch else None
        config = uvicorn.Config(
            app,
            http=protocol_of(settings),
            loop="auto",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout),
        )
        server = _Server(
            config, service, watching, stop or threading.Event(), on_ready or (lambda _: None)
        )
        with _Logged():
            server.run(sockets=[listening])
    finally:
        listening.close()
    watched = watching is None or watching.join(_LONGEST_WATCH_END)
    if not watched or service.running:
        log.warning("work is still under way in a thread; it is broken off")
        return False
    return True


class _Server(uvicorn.Server):
    """uvicorn's server, which is stopped by an event and leaves signals to others."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        watching: Watching | None,
        stop: threading.Event,
        on_ready: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self._service = service
        self._watching = watching
        self._stop = stop
        self._on_ready = on_ready

    # Uvicorn's own is a generator's context manager, and a with block takes either.
    def capture_signals(self) -> _NoSignals:  # type: ignore[override]
        return _NoSignals()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        self._on_ready(_url(sockets[0]))
        if self._watching is not None:
            self._watching.start()

    async def on_tick(self, counter: int) -> bool:
        return self._stop.is_set() or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._watching is not None:
            self._watching.end()
        self._service.end()
        await super().shutdown(sockets)


class _NoSignals:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class _Logged(logging.Handler):
    """What uvicorn says goes to this package's log while the block runs."""

    _FROM = "uvicorn.error"

    def __enter__(self) -> None:
        logger = logging.getLogger(self._FROM)
        self._before = logger.propagate
        logger.addHandler(self)
        logger.propagate = False

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger(self._FROM)
        logger.removeHandler(self)
        logger.propagate = self._before

    def emit(self, record: logging.LogRecord) -> None:
        # That it breaks off what is under way at the end is not wrong.
        usual = record.levelno < logging.WARNING or record.msg.startswith("Cancel ")
        if not usual and log.isEnabledFor(record.levelno):
            log.handle(record)


def _listen(settings: ServerSettings) -> socket.socket:
    """A socket at the address of the settings.

    Raises:
        InputError: there is no such address, or it is taken.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise InputError(f"{where}: there is no such address: {error}") from error
    # The one that 127.0.0.1 is of comes first where a name has several.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    if settings.token is None and not ipaddress.ip_address(_bare(address)).is_loopback:
        require_loopback(_bare(address))
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # Told apart here: two that are bound with SO_REUSEADDR only meet when they listen.
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise InputError(f"{where}: {reason.lower()}; choose another port or host") from error
    listening.setblocking(False)
    return listening


def _bare(address: tuple[object, ...]) -> str:
    return str(address[0]).partition("%")[0]


def _url(listening: socket.socket) -> str:
    address, port = listening.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
