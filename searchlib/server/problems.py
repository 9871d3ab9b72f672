"""Errors over HTTP: `application/problem+json` (RFC 9457), whatever goes wrong.

`code` tells programs what happened, and does not change; `detail` tells people.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from searchlib import errors

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

CODES: dict[str, tuple[int, str]] = {
    "invalid-request": (400, "The request is not one that this route understands"),
    "unauthorized": (401, "The token is missing or wrong"),
    "forbidden-host": (403, "The server is not known by the name that it was addressed with"),
    "forbidden-origin": (403, "The request comes from a page of another site"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The route does not know this method"),
    "too-slow": (408, "The request did not come in time"),
    "not-managed": (409, "The image lies in a folder that the server does not manage"),
    "read-only": (409, "The library cannot be written"),
    "image-gone": (410, "No file of the image is in place as the library knows it"),
    "too-large": (413, "The request or its picture is too large"),
    "unsupported-media-type": (415, "The content type is not one that this route takes"),
    "bad-range": (416, "The file has no such part"),
    "not-a-picture": (422, "The bytes are not a picture that can be decoded"),
    "bad-query": (422, "The query cannot be answered as it was asked"),
    "bad-where": (422, "The conditions cannot be understood"),
    "bad-cursor": (422, "Not a cursor of this library, or one of another question"),
    "no-text-side": (422, "The model of this library knows only pictures"),
    "bad-url": (422, "The picture cannot be fetched"),
    "head-too-large": (431, "The header fields are too large"),
    "internal": (500, "The server failed"),
    "model-unusable": (500, "The model cannot be used"),
    "library-unusable": (500, "The library cannot be used"),
    "busy": (503, "Too much is asked at once"),
    "timed-out": (503, "The answer took too long"),
    "not-ready": (503, "The server is not ready"),
    "index-unreachable": (503, "The server that keeps the index cannot be used"),
    "disk-full": (507, "No space left"),
}
"""Every code, with its status and its title."""

# The first that fits counts, so the special ones stand before their parents.
_OF_ERRORS: tuple[tuple[type[errors.SearchlibError], str], ...] = (
    (errors.WhereError, "bad-where"),
    (errors.CursorError, "bad-cursor"),
    (errors.NotFoundError, "not-found"),
    (errors.InputError, "bad-query"),
    (errors.WebError, "bad-url"),
    (errors.TooLargeError, "too-large"),
    (errors.DecodeError, "not-a-picture"),
    # Files are never named over HTTP: what cannot be read is a URL.
    (errors.SourceError, "bad-url"),
    (errors.ImageError, "not-a-picture"),
    (errors.TextUnsupportedError, "no-text-side"),
    (errors.AlreadyGeneratingError, "busy"),
    (errors.EncoderError, "model-unusable"),
    (errors.VectorError, "bad-query"),
    (errors.IndexServiceError, "index-unreachable"),
    (errors.DiskFullError, "disk-full"),
    (errors.LibraryReadOnlyError, "read-only"),
    (errors.LibraryBusyError, "busy"),
    (errors.ImageGoneError, "image-gone"),
    (errors.LibraryError, "library-unusable"),
)

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

_OF_STATUSES = {
    400: "invalid-request",
    401: "unauthorized",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    413: "too-large",
    415: "unsupported-media-type",
    416: "bad-range",
    422: "invalid-request",
    431: "head-too-large",
    503: "busy",
}

SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "Why a request was not answered (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "about:blank: `code` tells more."},
        "title": {"type": "string", "description": "The same for all problems of this code."},
        "status": {"type": "integer", "description": "Of HTTP."},
        "detail": {"type": "string", "description": "What happened, and what to do."},
        "code": {"type": "string", "enum": list(CODES)},
        "pointer": {
            "type": "object",
            "description": "The wrong word in the conditions: characters from `start` to `end`.",
            "required": ["start", "end"],
            "properties": {"start": {"type": "integer"}, "end": {"type": "integer"}},
        },
        "errors": {
            "type": "array",
            "description": "What is wrong with which part of the request.",
            "items": {
                "type": "object",
                "required": ["at", "reason"],
                "properties": {"at": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}
"""The JSON schema of a problem; `#/components/schemas/Problem` in the OpenAPI of the app."""


class Problem(HTTPException):
    """What a request is refused with; may be raised anywhere below a route.

    Args:
        code: a key of CODES.
        detail: what happened, and what to do: one line.
        retry_after: seconds after which another try may do better.
        headers: fields of the answer besides.
        more: further members of the JSON: "pointer", "errors".
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        fields = dict(headers or {})
        if retry_after is not None:
            fields["Retry-After"] = str(max(1, math.ceil(retry_after)))
        super().__init__(CODES[code][0], detail, fields)
        self.code = code
        self.more = dict(more or {})

    def body(self) -> bytes:
        """The JSON."""
        return problem_json(self.code, self.detail, **self.more)

    def response(self) -> Response:
        """The answer."""
        return Response(self.body(), self.status_code, self.headers, MEDIA_TYPE)


def problem_json(code: str, detail: str, *, status: int | None = None, **more: Any) -> bytes:
    """The body of an answer with a problem."""
    usual, title = CODES[code]
    values = {
        "type": "about:blank",
        "title": title,
        "status": status or usual,
        "detail": detail,
        "code": code,
        **more,
    }
    # Not ASCII alone would fail for a path that is no text.
    return json.dumps(values).encode()


def problem_of(error: errors.SearchlibError) -> Problem:
    """What an error of the package is over HTTP."""
    code = next((code for kind, code in _OF_ERRORS if isinstance(error, kind)), "internal")
    if code == "internal":
        log.error("an error that no request should meet: %s", error)
        return Problem("internal", "the server failed; its log says why")
    more = {}
    if isinstance(error, errors.WhereError):
        more["pointer"] = {"start": error.start, "end": error.end}
    return Problem(code, str(error), retry_after=1 if code == "busy" else None, more=more)


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems, for the OpenAPI."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = CODES[code]
        found = responses.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {},
                    }
                },
            },
        )
        if status == 503:
            found["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
        example = json.loads(problem_json(code, title))
        found["content"][MEDIA_TYPE]["examples"][code] = {"summary": title, "value": example}
    return responses


def _methods(app: FastAPI, request: Request) -> list[str]:
    """The methods that a path takes."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in app.routes
        )
    ]


def install(app: FastAPI) -> None:
    """Have every error that reaches the app answered with a problem."""

    async def package(_request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.SearchlibError)
        return problem_of(error).response()

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error, Problem):
            return error.response()
        code = _OF_STATUSES.get(error.status_code, "internal")
        if code == "internal" and error.status_code < 500:
            code = "invalid-request"
        detail = str(error.detail)
        if error.status_code in (404, 405):
            detail = f"{request.method} {request.url.path[:200]}: /openapi.json says what there is"
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # Of all routes of this path; by itself the first one answers for all.
            headers["Allow"] = ", ".join(_methods(app, request))
        body = problem_json(code, detail, status=error.status_code)
        return Response(body, error.status_code, headers, MEDIA_TYPE)

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Without the input itself, which may be a picture.
        found = [
            {"at": ".".join(str(each) for each in wrong["loc"]), "reason": str(wrong["msg"])}
            for wrong in error.errors()
        ]
        first = f"{found[0]['at']}: {found[0]['reason']}" if found else "it cannot be understood"
        return Problem("invalid-request", first, more={"errors": found}).response()

    app.add_exception_handler(errors.SearchlibError, package)
    app.add_exception_handler(HTTPException, problem)
    app.add_exception_handler(RequestValidationError, invalid)
