"""Images: lists, single ones, their files, uploads, and what is said of them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from searchlib.catalog import ImageRecord
from searchlib.errors import CursorError, NotFoundError
from searchlib.images import NamedBytes
from searchlib.library import Library
from searchlib.server.bodies import received
from searchlib.server.describing import body as described_body
from searchlib.server.originals import (
    SECURITY_HEADERS,
    Original,
    OriginalResponse,
    content_type,
    disposition,
    open_original,
    wanted_range,
)
from searchlib.server.problems import problem_responses
from searchlib.server.queries import Flag, Whole, one_picture
from searchlib.server.schemas import (
    MAX_LABELS,
    MAX_PAGE,
    MAX_WHERE,
    Image,
    ImagePage,
    Label,
    Patch,
    PatchAnswer,
    TagCounts,
    image_of,
)
from searchlib.server.service import Service
from searchlib.server.thumbnails import thumbnail

router = APIRouter(prefix="/v1", tags=["images"])

JSON = "application/json"

# A file under an id is always the same bytes; whether it may be seen can change.
_CACHE = "private, max-age=3600"
_CURSOR = re.compile(r"(newest|oldest)-([0-9]{1,18})")

_ALWAYS = ("invalid-request", "head-too-large", "busy", "timed-out", "not-ready", "internal")
_OF_ONE = (*_ALWAYS, "not-found")

ImageId = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[7]), Whole]


class Listing(BaseModel):
    """The query string of a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str = Field("", max_length=MAX_WHERE, examples=["taken:2024 and tag:beach"])
    cursor: str = Field("", max_length=1000)
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), Whole] = 100
    order: Literal["newest", "oldest"] = Field("newest", description="added last or first")
    count: Flag = Field(False, description="also say how many there are in all")


class Upload(BaseModel):
    """The query string of an upload."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filename: str = Field("", max_length=255, description="only its end counts")
    tag: list[Label] = Field(default_factory=list, max_length=MAX_LABELS)


@router.get(
    "/images",
    summary="Images that meet conditions",
    response_model=ImagePage,
    responses=problem_responses(*_ALWAYS, "bad-where", "bad-cursor"),
)
async def images(request: Request, listing: Annotated[Listing, Query()]) -> Response:
    """In the order in which they were added. Images that are added meanwhile shift no page."""
    service: Service = request.app.state.service
    return _json(await service.run(lambda: _page(service.library, listing)))


@router.post(
    "/images",
    summary="Upload a picture",
    status_code=201,
    response_model=Image,
    responses={
        200: {"model": Image, "description": "The library has these bytes already."},
        **problem_responses(
            *_ALWAYS,
            "read-only",
            "too-large",
            "too-slow",
            "unsupported-media-type",
            "not-a-picture",
            "bad-query",
            "disk-full",
        ),
    },
    openapi_extra=described_body(),
)
async def upload(request: Request, options: Annotated[Upload, Query()]) -> Response:
    """It is kept in the server's own folder, under the digest of its bytes."""
    service: Service = request.app.state.service
    async with received(request, accepted=("picture", "form")) as body:

        def work() -> tuple[ImageRecord, bool]:
            return _keep(service, one_picture(body, options.filename), options.tag)

        image, new = await service.run(work)
    answer = _json(image_of(image), 201 if new else 200)
    answer.headers["Location"] = f"/v1/images/{image.id}"
    return answer


@router.get(
    "/tags", summary="All tags", response_model=TagCounts, responses=problem_responses(*_ALWAYS)
)
async def tags(request: Request) -> Response:
    """And how many images have each."""
    service: Service = request.app.state.service
    return _json(TagCounts(tags=await service.aside(service.library.tags)))


@router.get(
    "/images/{id}",
    summary="An image",
    response_model=Image,
    responses=problem_responses(*_OF_ONE),
)
async def image(request: Request, id: ImageId) -> Response:
    """What is known of it."""
    service: Service = request.app.state.service
    return _json(image_of(await service.aside(lambda: _image(service.library, id))))


@router.patch(
    "/images/{id}",
    summary="Put and take tags and properties",
    response_model=PatchAnswer,
    responses=problem_responses(*_OF_ONE, "bad-query", "read-only", "disk-full"),
)
async def patch(request: Request, id: ImageId, changes: Patch) -> Response:
    """Properties first, then the tags that are put, then those that are taken."""
    service: Service = request.app.state.service
    return _json(await service.run(lambda: _patched(service.library, id, changes)))


@router.delete(
    "/images/{id}",
    summary="Delete an uploaded image",
    status_code=204,
    response_class=Response,
    responses=problem_responses(*_OF_ONE, "not-managed", "read-only", "disk-full"),
)
async def delete(request: Request, id: ImageId) -> Response:
    """Only what was uploaded; its file goes to a trash, and from there after 30 days."""
    service: Service = request.app.state.service
    await service.run(lambda: service.managed.remove(id))
    return Response(status_code=204)


@router.head("/images/{id}/thumbnail", include_in_schema=False)
@router.get(
    "/images/{id}/thumbnail",
    summary="A small picture of an image",
    response_class=Response,
    responses={
        200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "The caller has it."},
        **problem_responses(*_OF_ONE, "image-gone"),
    },
)
async def small(
    request: Request, id: ImageId, if_none_match: Annotated[str, Header()] = ""
) -> Response:
    """WebP of up to 256 pixels on the longer side."""
    service: Service = request.app.state.service
    found = await service.aside(lambda: _image(service.library, id))
    headers = {"ETag": f'"{found.digest}-256"', "Cache-Control": _CACHE, **SECURITY_HEADERS}
    if _has(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    content = await service.run(lambda: thumbnail(service.library, found))
    return Response(content, 200, headers, "image/webp")


@router.head("/images/{id}/original", include_in_schema=False)
@router.get(
    "/images/{id}/original",
    summary="The file of an image",
    response_class=Response,
    responses={
        200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
        206: {
            "description": "The part that was asked for.",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The caller has it."},
        **problem_responses(*_OF_ONE, "image-gone", "bad-range"),
    },
)
async def original(
    request: Request,
    id: ImageId,
    range: Annotated[str, Header()] = "",
    if_range: Annotated[str, Header()] = "",
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """Its bytes, if they are still those that the library read."""
    service: Service = request.app.state.service

    def work() -> tuple[ImageRecord, Original]:
        found = _image(service.library, id)
        return found, open_original(service.library, found)

    found, opened = await service.aside(work)
    try:
        headers = {
            "ETag": f'"{found.digest}"',
            "Cache-Control": _CACHE,
            "Content-Disposition": disposition(opened.path),
            **SECURITY_HEADERS,
        }
        if _has(if_none_match, headers["ETag"]):
            opened.close()
            return Response(status_code=304, headers=headers)
        asked = range if not if_range or if_range == headers["ETag"] else None
        part = wanted_range(asked, opened.size)
        return OriginalResponse(
            opened, part, headers=headers, media_type=content_type(found.facts.format)
        )
    except BaseException:
        opened.close()
        raise


def _page(library: Library, listing: Listing) -> ImagePage:
    newest_first = listing.order == "newest"
    after = None
    if listing.cursor:
        cursor = _CURSOR.fullmatch(listing.cursor)
        if cursor is None or cursor[1] != listing.order:
            raise CursorError("not a cursor of this list; ask again without one")
        after = int(cursor[2])
    found = library.images(
        listing.where, after=after, limit=listing.limit + 1, newest_first=newest_first
    )
    shown = found[: listing.limit]
    more = len(found) > len(shown)
    return ImagePage.model_construct(
        images=[image_of(each) for each in shown],
        cursor=f"{listing.order}-{shown[-1].id}" if more else None,
        count=library.count(listing.where) if listing.count else None,
    )


def _image(library: Library, id: int) -> ImageRecord:
    found = library.image(id)
    if found is None:
        raise NotFoundError(f"there is no image {id} with a file in place in this library")
    return found


def _keep(service: Service, picture: NamedBytes, tags: list[str]) -> tuple[ImageRecord, bool]:
    image, new = service.managed.add(picture)
    if tags:
        service.library.tag(image.id, *tags)
        image = _image(service.library, image.id)
    return image, new


def _patched(library: Library, id: int, changes: Patch) -> PatchAnswer:
    _image(library, id)
    if changes.properties:
        library.set_properties(id, changes.properties)
    added = library.tag(id, *changes.add_tags) if changes.add_tags else 0
    removed = library.untag(id, *changes.remove_tags) if changes.remove_tags else 0
    return PatchAnswer(image=image_of(_image(library, id)), added=added, removed=removed)


def _has(if_none_match: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or tags == {"*"}


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.__pydantic_serializer__.to_json(answer), status, media_type=JSON)
