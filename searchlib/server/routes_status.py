"""How the server does: is it alive, is it ready, what is in the library, what happens now."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from searchlib.errors import SearchlibError
from searchlib.server import metrics as figures
from searchlib.server.problems import Problem, problem_responses
from searchlib.server.service import Service

router = APIRouter()

_COUNTING_SECONDS = 2.0


def service_of(request: Request) -> Service:
    """The service of the app that a request came to."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceOf = Annotated[Service, Depends(service_of)]


class Alive(BaseModel):
    """The server runs."""

    status: Literal["ok"] = "ok"


class ServerState(BaseModel):
    """How the server does."""

    model_config = ConfigDict(frozen=True)

    version: str
    pid: int
    started_at: float = Field(description="Seconds since 1970.")
    uptime: float = Field(description="Seconds.")
    ready: bool
    unready: str | None = Field(description="Why it is not ready.")
    waiting: int = Field(description="Requests that wait for work on the library.")
    running: int = Field(description="Requests that are worked on.")
    watching: str | None = Field(description="What the watcher of this server does, if it has one.")


class LibraryState(BaseModel):
    """What is in the library: as `searchlib status --json` has it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    folder: str
    model: str
    identity: str
    dimension: int
    images: int
    files: int
    missing: int
    offline: int
    skipped: int
    failed: int
    queued: int
    folders: int
    recipe: str
    vectors: int
    last_change: str | None


class StatusAnswer(BaseModel):
    """How the server and its library do."""

    model_config = ConfigDict(frozen=True)

    server: ServerState
    library: LibraryState


@router.get("/healthz", tags=["status"])
async def healthz() -> Alive:
    """Whether the server runs at all; needs no token."""
    return Alive()


@router.get("/readyz", tags=["status"], responses=problem_responses("not-ready"))
async def readyz(service: ServiceOf) -> Alive:
    """Whether the library, its model and its index are open; needs no token."""
    if service.unready is not None:
        # Callers without a token are not told what lies where.
        raise Problem("not-ready", "not ready; its log and /v1/status say why", retry_after=1)
    return Alive()


@router.get(
    "/metrics",
    tags=["status"],
    response_class=PlainTextResponse,
)
async def metrics(service: ServiceOf) -> Response:
    """Figures for Prometheus."""
    # They are most wanted when the server has too much to do, and should not wait for it.
    with suppress(TimeoutError, Problem, SearchlibError):
        async with asyncio.timeout(_COUNTING_SECONDS):
            service.metrics.images(await service.aside(service.library.count))
    return Response(service.metrics.text(), headers={"Content-Type": figures.CONTENT_TYPE})


@router.get(
    "/v1/status",
    tags=["status"],
    response_model=StatusAnswer,
    responses=problem_responses("busy", "timed-out", "not-ready", "library-unusable"),
)
async def status(request: Request, service: ServiceOf) -> Response:
    """What is in the library, and how the server does."""
    found = await service.aside(service.library.status)
    last = found.last_change
    values = {
        "server": {
            "version": request.app.version,
            "pid": os.getpid(),
            "started_at": service.started_at,
            "uptime": max(0.0, time.time() - service.started_at),
            "ready": service.unready is None,
            "unready": service.unready,
            "waiting": service.waiting,
            "running": service.running,
            "watching": service.watching,
        },
        "library": {
            **asdict(found),
            "folder": str(found.folder),
            "last_change": None if last is None else last.isoformat(),
        },
    }
    # ASCII, for the bytes of a path that are no text.
    return Response(json.dumps(values), media_type="application/json")


@router.get(
    "/v1/events",
    tags=["status"],
    response_class=EventSourceResponse,
    responses=problem_responses("not-ready"),
)
async def events(service: ServiceOf) -> AsyncIterator[ServerSentEvent]:
    """What becomes of files while the server watches folders, as server-sent events.

    The name of an event is its kind: "started", "scanning", "scanned", "progress", "file",
    "missing", "offline", "idle", "trouble", "stopped", and "lost" with the count of those that a
    slow listener has missed. The data is a JSON object with "path", "outcome", "reason", "count",
    "total" and "at" as far as they are known. A listener hears what happens from its request on.
    """
    with service.events.subscribe() as listener:
        # The head of the answer goes out with the first line, and the listener knows that it hears.
        yield ServerSentEvent(comment="listening")
        async for event in listener:
            yield ServerSentEvent(event=event.kind, raw_data=_line(event.data))


def _line(data: dict[str, Any]) -> str:
    return json.dumps(data)
