from __future__ import annotations

import dataclasses
import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searchlib import Library
from searchlib.catalog.conditions import Below, Format
from searchlib.client import Client, encoded
from searchlib.errors import InputError, ServerError, ServerUnreachableError, SourceError
from searchlib.images import NamedBytes
from searchlib.search import Match, Question, Results, Term, Threshold, Timings


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def comparable(results: Results) -> Results:
    """Without what differs from run to run, and the path of a thumbnail on the server."""
    matches = tuple(dataclasses.replace(match, thumbnail=None) for match in results)
    return dataclasses.replace(results, matches=matches, timings=Timings())


def ids(results: Results) -> list[int]:
    return [match.image.id for match in results]


def test_every_kind_of_question_has_the_answer_of_the_library(
    library: Library, client: Client, original_photos: Path
) -> None:
    cat, coffee = original_photos / "cat.jpg", original_photos / "coffee.jpg"
    stored = library.images(limit=8)
    vector = library.embed(original_photos / "rocket.jpg")
    questions: list[tuple[Any, dict[str, Any]]] = [
        (cat, {}),
        (str(cat), {"k": 3}),
        (cat.read_bytes(), {"exact": True}),
        (NamedBytes("a cat", cat.read_bytes()), {"where": "format:jpeg"}),
        (stored[2].id, {"collapse": True}),
        (vector, {"offset": 2, "k": 4}),
        ([cat, coffee], {"min_similarity": 0.2}),
        (cat, {"unlike": coffee, "like": stored[1].id}),
        ([Term(image=cat, weight=2.0), Term(stored=stored[0].id, weight=-0.5)], {}),
        (np.asarray(Image.open(cat).convert("RGB")), {}),
        (Image.open(coffee), {"where": Format(frozenset({"PNG"}))}),
        (cat, {"k": None, "min_similarity": 0.0}),
        (Question((Term(image=cat, label="mine"),), k=2, threshold=Threshold(0.1)), {}),
    ]
    for query, options in questions:
        here = comparable(library.search(query, **options))
        there = comparable(client.search(query, **options))
        assert there == here, query
        assert all(isinstance(match, Match) for match in there)


def test_a_cursor_goes_on_where_the_answer_ended(
    library: Library, client: Client, original_photos: Path
) -> None:
    cat = original_photos / "cat.jpg"
    whole = client.search(cat, k=8)
    first = client.search(cat, k=3)
    assert first.cursor is not None
    rest = client.search(cat, k=8, cursor=first.cursor)
    assert ids(first) + ids(rest) == ids(whole)
    assert comparable(rest) == comparable(library.search(cat, k=8, cursor=first.cursor))


def test_timings_come_with_the_answer(client: Client, original_photos: Path) -> None:
    timings = client.search(original_photos / "cat.jpg").timings
    assert timings.total > 0
    assert timings.total >= timings.search


def test_lists_and_counts_are_those_of_the_library(library: Library, client: Client) -> None:
    for where in (None, "format:png", Below("/nowhere")):
        for newest_first in (True, False):
            options: dict[str, Any] = {"newest_first": newest_first}
            assert client.images(where, **options) == library.images(where, **options)
            assert client.images(where, limit=3, **options) == library.images(
                where, limit=3, **options
            )
        assert client.count(where) == library.count(where)
    third = library.images()[2].id
    assert client.images(after=third) == library.images(after=third)
    assert client.image(third) == library.image(third)
    assert client.image(10**9) is None


def test_vectors_are_those_of_the_library(
    library: Library, client: Client, original_photos: Path
) -> None:
    cat = original_photos / "cat.jpg"
    np.testing.assert_array_equal(client.embed(cat), library.embed(cat))
    small = Image.open(cat).resize((200, 150))
    there = client.embed(small)
    assert there.dtype == np.float32
    np.testing.assert_allclose(there, library.embed(small), atol=1e-6)


def test_status_is_that_of_the_library(library: Library, client: Client) -> None:
    assert client.status() == library.status()


def test_tags_and_properties_are_put_and_taken(library: Library, client: Client) -> None:
    first, second = (each.id for each in library.images(limit=2))
    assert client.tag([first, second], "beach", "sun") == 4
    assert client.tag(first, "beach") == 0
    assert client.tags() == library.tags() == {"beach": 2, "sun": 2}
    assert client.untag(second, "sun", "moon") == 1
    client.set_properties(first, {"album": "2024", "rating": "5"})
    client.set_properties(first, {"rating": None})
    image = client.image(first)
    assert image == library.image(first)
    assert image is not None
    assert image.tags == ("beach", "sun")
    assert image.properties == (("album", "2024"),)


def test_files_come_as_they_are(client: Client, library: Library, original_photos: Path) -> None:
    image = library.find(original_photos / "cat.jpg")
    assert image is not None
    assert client.original(image.id) == (original_photos / "cat.jpg").read_bytes()
    with Image.open(io.BytesIO(client.thumbnail(image.id))) as small:
        assert small.format == "WEBP"
        assert max(small.size) == 256


def test_pictures_are_uploaded_and_removed(
    client: Client, library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "new.png"
    Image.radial_gradient("L").resize((300, 200)).save(path)
    one, again = client.add(path, path, tags=["mine"])
    assert one == again == library.image(one.id)
    assert one.tags == ("mine",)
    assert client.original(one.id) == path.read_bytes()
    client.remove(one.id)
    assert client.image(one.id) is None
    with pytest.raises(ServerError) as failed:
        client.remove(one.id)
    assert (failed.value.status, failed.value.code) == (404, "not-found")


def test_a_refusal_says_why(client: Client, library: Library, original_photos: Path) -> None:
    with pytest.raises(ServerError, match="fodler") as failed:
        client.search(original_photos / "cat.jpg", where="fodler:x")
    assert (failed.value.status, failed.value.code) == (422, "bad-where")
    with pytest.raises(ServerError) as failed:
        client.search(b"no picture")
    assert (failed.value.status, failed.value.code) == (422, "not-a-picture")
    with pytest.raises(ServerError) as failed:
        client.embed_text("a dog")
    assert (failed.value.status, failed.value.code) == (422, "no-text-side")
    with pytest.raises(ServerError) as failed:
        client.remove(library.images(limit=1)[0].id)
    assert (failed.value.status, failed.value.code) == (409, "not-managed")


def test_what_cannot_be_read_here_is_told_before_anything_is_sent(
    client: Client, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="no such file"):
        client.search(tmp_path / "none.jpg")
    with pytest.raises(SourceError):
        client.add(tmp_path)
    with pytest.raises(InputError):
        client.images(limit=0)


def test_a_token_is_shown(running: Callable[..., Any], original_photos: Path) -> None:
    url = running(token="open-sesame").url
    with Client(url, token="open-sesame") as client:
        assert len(client.search(original_photos / "cat.jpg", k=2)) == 2
    with Client(url) as client, pytest.raises(ServerError) as failed:
        client.tags()
    assert (failed.value.status, failed.value.code) == (401, "unauthorized")


def test_a_server_that_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url) as client, pytest.raises(ServerUnreachableError, match="searchlib serve"):
            client.tags()
    for wrong in ("localhost:8765", "ftp://localhost", str(tmp_path)):
        with pytest.raises(InputError, match="URL"):
            Client(wrong)


def test_what_is_no_server_of_searchlib_is_told(hub: Any) -> None:
    (hub.folder / "v1").mkdir()
    (hub.folder / "v1" / "tags").write_text("hello")
    with Client(hub.url) as client:
        with pytest.raises(ServerError) as failed:
            client.tags()
        assert failed.value.code == "no-answer"
        with pytest.raises(ServerError) as failed:
            client.count()
        assert (failed.value.status, failed.value.code) == (404, "no-answer")


def test_a_busy_server_is_asked_once_more() -> None:
    answers = [b"HTTP/1.1 503 No\r\nRetry-After: 0.01\r\nContent-Length: 31\r\n\r\n"
               b'{"code": "busy", "detail": "x"}',
               b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"tags": {"a": 1}}']  # fmt: skip
    asked = []

    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            for each in answers:
                asked.append(connection.recv(65536))
                connection.sendall(each)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        with Client(f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            assert client.tags() == {"a": 1}
        thread.join()
    assert len(asked) == 2


@pytest.mark.parametrize("fetch", ["client", "server"])
def test_private_addresses_are_fetched_by_the_client_only(
    url: str, hub: Any, original_photos: Path, fetch: Any
) -> None:
    cat = (original_photos / "cat.jpg").read_bytes()
    (hub.folder / "cat.jpg").write_bytes(cat)
    with Client(url, fetch=fetch) as client:
        if fetch == "client":
            assert client.search(f"{hub.url}/cat.jpg", k=1)[0].score == pytest.approx(1, abs=1e-3)
            return
        with pytest.raises(ServerError) as failed:
            client.search(f"{hub.url}/cat.jpg")
        assert (failed.value.status, failed.value.code) == (422, "bad-url")
        with pytest.raises(ServerError):
            client.embed(f"{hub.url}/cat.jpg")
    assert hub.asked == []


def test_events_of_a_watching_server_come_as_they_happen(
    running: Callable[..., Any], photos: Path
) -> None:
    server = running(watch=True, folders=(photos,))
    with Client(server.url) as client:
        events = client.events()
        first = threading.Timer(
            0.5, lambda: Image.new("RGB", (50, 40), "red").save(photos / "n.png")
        )
        first.start()
        found = next(each for each in events if each.kind == "file" and each.path is not None)
        first.join()
        events.close()  # type: ignore[attr-defined]
    assert found.outcome in ("added", "copy", "unchanged", "moved")


def test_pixels_are_sent_without_loss(original_photos: Path) -> None:
    with Image.open(original_photos / "cat.jpg") as image:
        sent = encoded(image)
        with Image.open(io.BytesIO(sent.content)) as png:
            assert png.tobytes() == image.tobytes()
    for wrong in (np.zeros((3, 3, 7), np.uint8), np.zeros((3, 3), np.float32)):
        with pytest.raises(SourceError, match="shape"):
            encoded(wrong)
    uri = (original_photos / "cat.jpg").as_uri()
    assert encoded(uri).content == (original_photos / "cat.jpg").read_bytes()
