"""The bodies of requests: read in large pieces, and told apart by their type.

A body is never written to disk. How long it may be, and how slowly it may come, is the matter of
the guards around the application.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from fastapi import Request

from searchlib.images import NamedBytes, printable
from searchlib.server.multipart import Part, parse_multipart
from searchlib.server.problems import Problem

Kind = Literal["picture", "form", "json"]

# A body that comes byte by byte is not kept as so many objects.
_PIECE_BYTES = 65536
_LONGEST_NAME = 255
# So many of the longest bodies may be held at once, and of small ones as many as this.
_BODIES = 4
_LEAST_BUDGET = 64_000_000


@dataclass(frozen=True, slots=True)
class Body:
    """A body as it was received.

    Attributes:
        kind: what its type says that it is.
        content_type: the whole header.
        pieces: of its bytes.
        hold: counts further bytes to those that are held for the request; raises as `received`.
    """

    kind: Kind
    content_type: str
    pieces: Sequence[bytes] = field(repr=False)
    hold: Callable[[int], None]

    def content(self) -> bytes:
        """All of it."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def parts(self) -> list[Part]:
        """The parts of a form.

        Raises:
            InputError: it is damaged.
        """
        return parse_multipart(self.pieces, self.content_type)


@asynccontextmanager
async def received(request: Request, *, accepted: Sequence[Kind]) -> AsyncIterator[Body]:
    """The body of a request, which is held while the block runs.

    Args:
        request: whose body nobody read yet.
        accepted: what it may be.

    Raises:
        Problem: "unsupported-media-type", it is something else; "busy", the bodies of all requests
            take too much memory.
    """
    content_type = request.headers.get("content-type", "")
    kind = _kind(content_type)
    if kind is None or kind not in accepted:
        names = {
            "picture": "a picture as it is (image/* or application/octet-stream)",
            "form": "multipart/form-data",
            "json": "application/json",
        }
        raise Problem(
            "unsupported-media-type",
            f"the body is {printable(content_type[:100]) or 'of no type'}; send "
            + " or ".join(names[each] for each in accepted),
        )
    budget = _budget(request)
    held = 0

    def hold(count: int) -> None:
        nonlocal held
        held += count
        budget.take(count)

    pieces: list[bytes] = []
    small = bytearray()
    try:
        async for piece in request.stream():
            hold(len(piece))
            if len(piece) >= _PIECE_BYTES and not small:
                pieces.append(piece)
                continue
            small += piece
            if len(small) >= _PIECE_BYTES:
                pieces.append(bytes(small))
                small.clear()
        if small:
            pieces.append(bytes(small))
        yield Body(kind, content_type, pieces, hold)
    finally:
        budget.free += held


class _Budget:
    """What the bodies of all requests may take at once, in bytes; used in the event loop only."""

    def __init__(self, free: int) -> None:
        self.free = free

    def take(self, count: int) -> None:
        self.free -= count
        if self.free < 0:
            raise Problem("busy", "too many large requests at once; try again later", retry_after=5)


def _budget(request: Request) -> _Budget:
    state = request.app.state
    if not hasattr(state, "bodies"):
        state.bodies = _Budget(max(_LEAST_BUDGET, _BODIES * state.service.settings.max_body))
    budget: _Budget = state.bodies
    return budget


def picture(content: bytes, filename: str | None) -> NamedBytes:
    """An uploaded picture; of its name only what is behind the last separator is kept."""
    return NamedBytes(plain_name(filename) or "<upload>", content)


def plain_name(filename: str | None) -> str:
    """The last part of a file name from elsewhere, as one printable line; "" where none is left."""
    last = (filename or "").replace("\\", "/").rpartition("/")[2]
    return printable(last)[-_LONGEST_NAME:].strip()


def _kind(content_type: str) -> Kind | None:
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/json":
        return "json"
    if media == "multipart/form-data":
        return "form"
    if media.startswith("image/") or media == "application/octet-stream":
        return "picture"
    return None
