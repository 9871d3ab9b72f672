"""A library as the routes use it: work in threads, as much at once as the machine can bear."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from searchlib.errors import LibraryReadOnlyError, SearchlibError
from searchlib.ingest import processors
from searchlib.library import Library
from searchlib.server.events import Events
from searchlib.server.metrics import Metrics
from searchlib.server.problems import Problem
from searchlib.server.settings import UPLOADS, ServerSettings
from searchlib.server.uploads import Uploads

log = logging.getLogger(__name__)

T = TypeVar("T")

_REMEMBERED = 64
_LONGEST_RETRY = 60.0
_LOOKS = 2
_WARM_UP_AGAIN = 10.0


class Busy(Problem):
    """More requests wait than may."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("busy", "too many requests wait; try again later", retry_after=retry_after)


class Lane:
    """Threads, and those who wait for one, in the order in which they came.

    Args:
        name: of the threads.
        threads: how many.
        queue: how many may wait.
    """

    def __init__(self, name: str, threads: int, queue: int) -> None:
        self._threads = threads
        self._queue = queue
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"searchlib-{name}")
        self._places = asyncio.Semaphore(threads)
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self.waiting = 0
        self.running = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do it in a thread; who is cancelled while waiting gives up the place.

        Raises:
            Busy: too many wait already.
        """
        if self._places.locked() and self.waiting >= self._queue:
            raise Busy(self._patience())
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._timed, work)
        future.add_done_callback(self._done)
        # The thread goes on to its end, whether somebody waits for the result or not.
        return await asyncio.shield(future)

    def close(self) -> None:
        """Take nothing more; what is under way goes on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._recent.append(time.perf_counter() - began)

    def _done(self, future: asyncio.Future[T]) -> None:
        self.running -= 1
        self._places.release()
        if not future.cancelled():
            # Without a look, asyncio complains of an error that nobody waited for.
            future.exception()

    def _patience(self) -> float:
        """Seconds until those who wait now have had their turn."""
        times = list(self._recent)
        mean = sum(times) / len(times) if times else 1.0
        return min(mean * (self.waiting + 1) / self._threads, _LONGEST_RETRY)


class Service:
    """A library as the routes use it; at `request.app.state.service`.

    Args:
        library: stays open for as long as the service runs, and is the caller's to close.
        settings: of the server.

    Attributes:
        managed: the pictures that were uploaded.
        metrics: what is counted.
        events: tells listeners what happens.
        started_at: seconds since 1970.
        stopping: whether nothing more is taken.
        watching: what the watcher does, in a word or a line; None where nobody watches.
    """

    def __init__(self, library: Library, settings: ServerSettings) -> None:
        self.library = library
        self.settings = settings
        self.events = Events()
        self.metrics = Metrics(lambda: self.waiting)
        self.managed = Uploads(library, self.uploads)
        self.started_at = time.time()
        self.watching: str | None = None
        self._queries: Lane | None = None
        self._looks: Lane | None = None
        self._lanes: list[Lane] = []
        self._warming: asyncio.Task[None] | None = None
        self._unready: str | None = "the model and the index are being opened"
        self.stopping = False

    @property
    def uploads(self) -> Path:
        """The folder that uploaded pictures are kept in."""
        return self.settings.uploads or self.library.folder / UPLOADS

    @property
    def unready(self) -> str | None:
        """Why the service is not ready; None where it is."""
        return self._unready

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        return 0 if self._queries is None else self._queries.waiting

    @property
    def running(self) -> int:
        """How much is worked on: requests, and the model and the index while they are opened."""
        return sum(lane.running for lane in self._lanes)

    async def start(self) -> None:
        """Begin, and open the model and the index in the background."""
        threads = self.settings.workers or processors()
        self._queries = Lane("query", threads, self.settings.queue)
        self._looks = Lane("look", _LOOKS, self.settings.queue)
        opening = Lane("open", 1, 0)
        self._lanes = [self._queries, self._looks, opening]
        self.stopping = False
        self.events.open()
        self._warming = asyncio.create_task(self._warm_up(opening))

    def end(self) -> None:
        """Take nothing more, and let the listeners go."""
        self.stopping = True
        self._unready = "the server is being stopped"
        self.events.close()

    async def stop(self) -> None:
        """End, with all that is under way; it is waited for, up to `shutdown_timeout`.

        What runs longer goes on in its thread; `running` says how many.
        """
        self.end()
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        for lane in self._lanes:
            lane.close()
        last = time.monotonic() + self.settings.shutdown_timeout
        while self.running and time.monotonic() < last:
            await asyncio.sleep(0.02)

    async def run(self, work: Callable[[], T]) -> T:
        """Do the work of a request in a thread of its own.

        Raises:
            Busy: too many requests wait.
            Problem: "timed-out" where it takes longer than `request_timeout`, and "not-ready" where
                the server is being stopped.
        """
        return await self._run(self._queries, work)

    async def aside(self, work: Callable[[], T]) -> T:
        """Do something small that need not wait for queries: a look into the catalog.

        Raises:
            Busy, Problem: as `run`.
        """
        return await self._run(self._looks, work)

    async def _run(self, lane: Lane | None, work: Callable[[], T]) -> T:
        if lane is None or self.stopping:
            raise Problem("not-ready", self._unready or "the server does not run", retry_after=5)
        seconds = self.settings.request_timeout
        try:
            async with asyncio.timeout(seconds) as timeout:
                return await lane.run(work)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise Problem(
                "timed-out", f"no answer within {seconds:g} seconds; try again later", retry_after=5
            ) from error

    async def _warm_up(self, lane: Lane) -> None:
        """Open the model and the index; again and again where that fails, as it may be cured."""
        while True:
            try:
                await lane.run(self._open)
            except SearchlibError as error:
                if self._unready != str(error):
                    log.error("not ready: %s", error)
                self._unready = str(error)
            else:
                if not self.stopping:
                    self._unready = None
                return
            await asyncio.sleep(_WARM_UP_AGAIN)

    def _open(self) -> None:
        with suppress(LibraryReadOnlyError):
            self.managed.recover()
        self.library.encoder.load()
        # Some models have no vector for a picture of a single colour.
        ramp = np.full((64, 64, 3), 128, np.uint8)
        ramp[:, :, 0] = np.arange(64, dtype=np.uint8) * 4
        self.library.search(ramp, k=1)
