"""Tells listeners what happens, without waiting for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KEPT = 1000
"""How many events wait for a listener that does not keep up; it is told how many it has missed."""

LOST = "lost"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        kind: as WatchEvent.kind; "lost" tells a listener how many it has missed, as "count".
        data: for JSON.
    """

    kind: str
    data: dict[str, Any]


class Listener:
    """What one listener has not heard yet; iterate over it. It ends when the server does."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._closed = False
        self._news = asyncio.Event()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        await self._news.wait()
        if self._lost:
            lost, self._lost = self._lost, 0
            return Event(LOST, {"count": lost})
        if not self._waiting:
            raise StopAsyncIteration
        event = self._waiting.popleft()
        if not self._waiting and not self._closed:
            self._news.clear()
        return event

    def put(self, event: Event) -> None:
        """Take an event; the oldest goes where there are too many."""
        if len(self._waiting) >= KEPT:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)
        self._news.set()

    def close(self) -> None:
        """End it after what waits."""
        self._closed = True
        self._news.set()


class Events:
    """Hands events from any thread to the listeners in the event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[Listener] = set()
        self._closed = False

    def open(self) -> None:
        """Take events from now on; to be called in the loop."""
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def close(self) -> None:
        """End all listeners; to be called in the loop."""
        self._closed = True
        for listener in self._listeners:
            listener.close()

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Tell all listeners; from any thread, and never waits."""
        loop = self._loop
        if loop is None or not self._listeners:
            return
        try:
            loop.call_soon_threadsafe(self._spread, Event(kind, data))
        except RuntimeError:
            # The loop was closed meanwhile, and all listeners with it.
            return

    @contextmanager
    def subscribe(self) -> Iterator[Listener]:
        """A listener that hears everything from now on until the block ends."""
        listener = Listener()
        if self._closed:
            listener.close()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _spread(self, event: Event) -> None:
        for listener in self._listeners:
            listener.put(event)
