"""Searching and embedding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from searchlib.images import SERVER_POLICY, NamedBytes
from searchlib.search import Timings
from searchlib.server.bodies import Body, received
from searchlib.server.describing import body as described_body
from searchlib.server.fetching import Fetcher
from searchlib.server.problems import problem_responses
from searchlib.server.queries import Asked, Options, asked_of, embed_asked
from searchlib.server.schemas import (
    EmbedAnswer,
    EmbedQuery,
    SearchAnswer,
    SearchQuery,
    answer_of,
)
from searchlib.server.service import Service

router = APIRouter(prefix="/v1", tags=["search"])

JSON = "application/json"

_PROBLEMS = (
    "invalid-request",
    "not-found",
    "too-large",
    "too-slow",
    "head-too-large",
    "unsupported-media-type",
    "not-a-picture",
    "bad-query",
    "no-text-side",
    "bad-url",
    "busy",
    "timed-out",
    "not-ready",
    "internal",
)


@router.post(
    "/search",
    summary="The images nearest to a question",
    response_model=SearchAnswer,
    responses=problem_responses(*_PROBLEMS, "bad-where", "bad-cursor"),
    openapi_extra=described_body(json=SearchQuery, form_json=True, several=True),
)
async def search(request: Request, options: Annotated[Options, Query()]) -> Response:
    """Takes a picture as it is, a form with pictures and a `query`, or a query in JSON.

    No match is an empty list. Options may also stand in the query string; what the body says
    counts before them.
    """
    service: Service = request.app.state.service
    async with received(request, accepted=("picture", "form", "json")) as body:
        # One turn in the queue is enough where nothing has to be fetched.
        done = await service.run(lambda: _begun(service, body, options))
        if isinstance(done, Asked):
            asked = done
            fetched, seconds = await _fetched(request, asked.urls(), body)
            done = await service.run(lambda: _answer(service, asked, fetched, seconds))
    return Response(done, media_type=JSON)


@router.post(
    "/embed",
    summary="The vector of a picture or a text",
    response_model=EmbedAnswer,
    responses=problem_responses(*_PROBLEMS),
    openapi_extra=described_body(json=EmbedQuery),
)
async def embed(request: Request, filename: Annotated[str, Query(max_length=255)] = "") -> Response:
    """With the model of the library, of length 1."""
    service: Service = request.app.state.service
    async with received(request, accepted=("picture", "form", "json")) as body:
        asked = await service.run(lambda: embed_asked(body, filename))
        if isinstance(asked, EmbedQuery) and asked.url is not None:
            fetched, _ = await _fetched(request, [asked.url], body)
            asked = fetched[asked.url]
        given = asked
        answer = await service.run(lambda: _embedded(service, given))
    return Response(answer, media_type=JSON)


def _begun(service: Service, body: Body, options: Options) -> bytes | Asked:
    asked = asked_of(body, options)
    return asked if asked.urls() else _answer(service, asked, {}, 0.0)


def _answer(
    service: Service, asked: Asked, fetched: Mapping[str, NamedBytes], seconds: float
) -> bytes:
    results = service.library.search(asked.question(fetched))
    _observe(service, results.timings, seconds)
    answer = answer_of(results, explain=asked.query.explain, fetched=seconds)
    return answer.__pydantic_serializer__.to_json(answer)


def _observe(service: Service, timings: Timings, fetched: float) -> None:
    observe = service.metrics.observe
    observe("decode", timings.decode + fetched)
    observe("encode", timings.encode)
    observe("search", timings.search)
    observe("fetch", timings.fetch)


def _embedded(service: Service, given: NamedBytes | EmbedQuery) -> bytes:
    library = service.library
    if isinstance(given, EmbedQuery):
        assert given.text is not None
        vector = library.embed_text(given.text)
    else:
        vector = library.embed(given)
    encoder = library.encoder
    answer = EmbedAnswer(
        model=encoder.card.name,
        identity=encoder.identity,
        dimension=len(vector),
        vector=vector.tolist(),
    )
    return answer.__pydantic_serializer__.to_json(answer)


async def _fetched(
    request: Request, urls: list[str], body: Body
) -> tuple[dict[str, NamedBytes], float]:
    """Pictures of the web by URL, and the seconds that they took."""
    fetcher = _fetcher(request)

    async def fetch(url: str) -> NamedBytes:
        picture = await fetcher.fetch(url)
        body.hold(len(picture.content))
        return picture

    began = time.perf_counter()
    distinct = list(dict.fromkeys(urls))
    found = await asyncio.gather(*map(fetch, distinct))
    return dict(zip(distinct, found, strict=True)), time.perf_counter() - began


def _fetcher(request: Request) -> Fetcher:
    state = request.app.state
    if not hasattr(state, "fetcher"):
        most = min(SERVER_POLICY.max_bytes, state.service.settings.max_body)
        state.fetcher = Fetcher(replace(SERVER_POLICY, max_bytes=most))
    fetcher: Fetcher = state.fetcher
    return fetcher
