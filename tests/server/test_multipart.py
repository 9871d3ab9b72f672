from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.errors import InputError
from searchlib.server.multipart import MAX_PARTS, Part, parse_multipart

TYPE = 'multipart/form-data; boundary="edge"'


def form(*parts: tuple[str, bytes], boundary: bytes = b"edge") -> bytes:
    body = b""
    for headers, content in parts:
        body += b"--" + boundary + b"\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--" + boundary + b"--\r\n"


def named(name: str, filename: str | None = None) -> str:
    head = f'Content-Disposition: form-data; name="{name}"'
    return head if filename is None else f'{head}; filename="{filename}"'


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in pairwise(edges)]


@settings(max_examples=200, deadline=None)
@given(
    contents=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.lists(st.sampled_from([b"\r", b"\n", b"--", b"edge", b"\r\n--edge", b"x"])).map(
                b"".join
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_parts_come_back_however_the_body_is_cut(contents: list[bytes], cuts: list[int]) -> None:
    contents = [each.replace(b"\r\n--edge", b"") for each in contents]
    if any(b"\r\n--edge" in b"\r\n" + each + b"\r\n" for each in contents):
        return
    body = form(*((named(f"p{n}", "a.jpg"), each) for n, each in enumerate(contents)))
    found = parse_multipart(pieces(body, cuts), TYPE)
    assert [part.content for part in found] == contents
    assert [part.name for part in found] == [f"p{n}" for n in range(len(contents))]


@settings(max_examples=300, deadline=None)
@given(
    body=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [b"--edge", b"\r\n", b"--", b":", b"Content-Disposition: form-data; name=a"]
            ),
        )
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 10_000), max_size=5),
)
def test_any_bytes_are_parts_or_refused(body: bytes, cuts: list[int]) -> None:
    try:
        found = parse_multipart(pieces(body, cuts), TYPE)
    except InputError:
        return
    assert all(isinstance(part, Part) for part in found)


def test_what_a_part_says_of_itself_is_told() -> None:
    body = form(
        (named("image", 'Füße \\"x\\".JPG') + "\r\nContent-Type: Image/JPEG; x=y", b"123"),
        (named("query"), b"{}"),
    )
    picture, query = parse_multipart([body], TYPE)
    assert picture == Part("image", 'Füße "x".JPG', "image/jpeg", b"123")
    assert query == Part("query", None, "", b"{}")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form((named("a"), b"1"))[:-4], TYPE),
        (b"", TYPE),
        (form((named("a"), b"1")), "multipart/form-data"),
        (form((named("a"), b"1")), "multipart/mixed; boundary=edge"),
        (form((named("a"), b"1")), "multipart/form-data; boundary=other"),
        (form((named("a"), b"1")), f"multipart/form-data; boundary={'e' * 300}"),
        (form(("X-Name: a", b"1")), TYPE),
        (form(('Content-Disposition: attachment; name="a"', b"1")), TYPE),
        (form((named("a") + "\r\nX: " + "x" * 5000, b"1")), TYPE),
        (form((named("a") + "\r\nX: x" * 20, b"1")), TYPE),
        (form(*[(named("a"), b"1")] * (MAX_PARTS + 1)), TYPE),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(InputError):
        parse_multipart([body], content_type)
