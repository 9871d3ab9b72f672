"""The app: routes, what stands before them, and what comes of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from searchlib.library import Library
from searchlib.server import guards, problems, routes_images, routes_search, routes_status
from searchlib.server.service import Service
from searchlib.server.settings import ServerSettings

# What the guards may answer to any request.
_ANYWHERE = (
    "invalid-request",
    "unauthorized",
    "forbidden-host",
    "forbidden-origin",
    "too-slow",
    "too-large",
    "head-too-large",
    "internal",
    "busy",
)


def create_app(library: Library, settings: ServerSettings | None = None) -> FastAPI:
    """An ASGI app that answers for a library.

    Args:
        library: stays open for as long as the app runs, and is the caller's to close. Where it
            fetches URLs for others, open it with a policy that forbids private addresses.
        settings: of the server.

    Raises:
        InputError: the settings make no sense.
    """
    settings = settings or ServerSettings()
    settings.check()
    service = Service(library, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="searchlib",
        summary="Find images by what they look like.",
        version=version("searchlib"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=problems.problem_responses(*_ANYWHERE),
    )
    app.state.service = service
    problems.install(app)
    for routes in (routes_status, routes_search, routes_images):
        app.include_router(routes.router)
    guards.install(app, service)
    _describe(app, with_token=settings.token is not None)
    return app


def _describe(app: FastAPI, *, with_token: bool) -> None:
    """Have the OpenAPI say what is answered to wrong requests, and how the token is shown."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            components = schema.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas["Problem"] = problems.SCHEMA
            # FastAPI's own, which nothing here answers with.
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for path in schema.get("paths", {}).values():
                for operation in path.values():
                    _without_fastapis_own(operation["responses"])
            if with_token:
                components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"token": []}]
            app.openapi_schema = schema
        return app.openapi_schema

    # As FastAPI's documentation has it.
    app.openapi = openapi  # type: ignore[method-assign]


def _without_fastapis_own(responses: dict[str, Any]) -> None:
    content = responses.get("422", {}).get("content", {})
    json = content.get("application/json", {})
    if "HTTPValidationError" in json.get("schema", {}).get("$ref", ""):
        del content["application/json"]
        if not content:
            del responses["422"]
