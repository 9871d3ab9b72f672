"""The parts of a `multipart/form-data` body (RFC 7578).

The parser of python-multipart does the reading; nothing is written to disk, and what a picture
has in bytes is copied once. How much there may be of each thing is bounded here; how long the
whole body may be is bounded before it comes here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from searchlib.errors import InputError

MAX_PARTS = 64
MAX_HEADERS = 8
MAX_HEADER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form.

    Attributes:
        name: of the field.
        filename: as the sender wrote it, which may be anything; None where it has none.
        content_type: in lower case, without parameters; "" where it has none.
        content: the bytes.
    """

    name: str
    filename: str | None
    content_type: str
    content: bytes = field(repr=False)


def parse_multipart(pieces: Iterable[bytes], content_type: str) -> list[Part]:
    """The parts of a body, in their order.

    Args:
        pieces: of the body.
        content_type: the header of the request, with the boundary.

    Raises:
        InputError: it is no such body, it breaks off, or it has too many parts or headers.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise InputError("the body is no form: its Content-Type names no boundary")
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_name,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.headers_end,
                "on_part_data": reader.data,
                "on_part_end": reader.end,
                "on_end": reader.whole,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )
        for piece in pieces:
            parser.write(piece)
    except FormParserError as error:
        raise InputError("the form in the body is damaged") from error
    if not reader.is_whole:
        raise InputError("the form in the body breaks off before its last boundary")
    return reader.parts


class _Reader:
    """Collects what the parser tells of."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.is_whole = False
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._data: list[memoryview] = []
        self._disposition: dict[bytes, bytes] = {}

    def begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise InputError(f"the form in the body has more than {MAX_PARTS} parts")
        self._headers, self._data = {}, []

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def headers_end(self) -> None:
        kind, self._disposition = parse_options_header(
            self._headers.get(b"content-disposition", b"")
        )
        if kind != b"form-data" or b"name" not in self._disposition:
            raise InputError("a part of the form in the body has no name")

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(memoryview(data)[start:end])

    def end(self) -> None:
        filename = self._disposition.get(b"filename")
        content_type, _ = parse_options_header(self._headers.get(b"content-type", b""))
        self.parts.append(
            Part(
                name=_text(self._disposition[b"name"]),
                filename=None if filename is None else _text(filename),
                content_type=content_type.decode("latin-1").lower(),
                content=b"".join(self._data),
            )
        )
        self._data = []

    def whole(self) -> None:
        self.is_whole = True


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
