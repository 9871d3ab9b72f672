"""Watches the registered folders for as long as a server runs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict

from searchlib.errors import SearchlibError
from searchlib.ingest import WatchEvent
from searchlib.server.service import Service

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 30.0


class Watching:
    """Keeps the library in step with its folders, in a thread, and tells the service's listeners.

    Where another process watches the library already, or the watcher fails, the server goes on
    without and tries again after half a minute.

    Args:
        service: whose library it is; is told what happens.
        folders: are registered first.
    """

    def __init__(self, service: Service, folders: Sequence[str | os.PathLike[str]] = ()) -> None:
        self._service = service
        self._folders = tuple(folders)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="searchlib-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._service.watching = "starting"
        self._thread.start()

    def end(self) -> None:
        """Stop after what is under way, without waiting for it."""
        self._stop.set()

    def join(self, seconds: float) -> bool:
        """Wait for the end for so long; says whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._service.library.watch(
                    *self._folders, background=True, stop=self._stop, on_event=self._tell
                )
            except SearchlibError as error:
                log.warning("not watching, and trying again in half a minute: %s", error)
                self._tell(WatchEvent("trouble", reason=str(error)))
                self._service.watching = f"waiting: {error}"
                self._stop.wait(_AGAIN_SECONDS)
            except Exception:
                log.exception("the watcher failed, and is started again in half a minute")
                self._service.watching = "failed; the log of the server says why"
                self._stop.wait(_AGAIN_SECONDS)
        self._service.watching = None

    def _tell(self, event: WatchEvent) -> None:
        if event.kind in ("started", "idle"):
            self._service.watching = "watching"
        if event.kind == "file" and event.outcome is not None:
            self._service.metrics.ingested(event.outcome)
        values = {name: value for name, value in asdict(event).items() if value is not None}
        self._service.events.publish(values.pop("kind"), values)
