from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from searchlib import Library
from searchlib.images import SERVER_POLICY
from searchlib.server.fetching import Fetcher

IMAGE = "application/octet-stream"


@pytest.fixture
def cat(original_photos: Path) -> bytes:
    return (original_photos / "cat.jpg").read_bytes()


def found(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    return body


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    return body


def test_a_picture_is_asked_in_every_way_a_body_can_have(
    url: str, library: Library, cat: bytes
) -> None:
    expected = [match.image.id for match in library.search(cat, k=3)]
    text = base64.b64encode(cat).decode()
    uri = f"data:image/jpeg;base64,{text}"
    image = {"image": ("a.jpg", cat, "image/jpeg")}
    answers = [
        httpx2.post(f"{url}/v1/search?k=3", content=cat, headers={"Content-Type": "image/jpeg"}),
        httpx2.post(f"{url}/v1/search?k=3", content=cat, headers={"Content-Type": IMAGE}),
        httpx2.post(f"{url}/v1/search?k=3", files=image),
        httpx2.post(f"{url}/v1/search", files={**image, "query": (None, '{"k": 3}')}),
        httpx2.post(f"{url}/v1/search", json={"terms": [{"image": text}], "k": 3}),
        httpx2.post(f"{url}/v1/search?k=9", json={"terms": [{"image": uri}], "k": 3}),
    ]
    for answer in answers:
        assert [match["id"] for match in found(answer)["matches"]] == expected


def test_an_answer_says_all_that_is_known_of_a_match(
    url: str, library: Library, original_photos: Path
) -> None:
    image = library.find(original_photos / "cat.jpg")
    assert image is not None
    library.tag(image.id, "pet")
    library.set_properties(image.id, {"name": "Chelsea"})
    vector = library.embed(original_photos / "cat.jpg").tolist()
    query = {"terms": [{"vector": vector, "label": "my cat"}], "k": 1, "explain": True}
    answer = found(httpx2.post(f"{url}/v1/search", json=query))
    (match,) = answer.pop("matches")
    assert match.pop("terms") == [
        {"term": "my cat", "kind": "vector", "weight": 1.0, "cosine": match["score"],
         "share": match["score"]}
    ]  # fmt: skip
    assert match.pop("score") == pytest.approx(1.0, abs=1e-3)
    assert match.pop("added_at") == image.added_at
    assert match == {
        "rank": 1, "id": image.id, "digest": image.digest, "percentile": None,
        "path": str(original_photos / "cat.jpg"), "paths": [str(original_photos / "cat.jpg")],
        "width": 400, "height": 266, "format": "JPEG", "bytes": image.facts.bytes,
        "taken_at": None, "camera_make": None, "camera_model": None, "latitude": None,
        "longitude": None, "videos": [], "stack": [], "alike": [], "tags": ["pet"],
        "properties": {"name": "Chelsea"}, "thumbnail": f"/v1/images/{image.id}/thumbnail",
        "original": f"/v1/images/{image.id}/original",
    }  # fmt: skip
    assert answer.pop("timings").keys() == {"decode", "encode", "search", "fetch", "total"}
    assert answer.pop("cursor")
    assert answer == {"model": library.encoder.card.name, "exact": True, "min_similarity": None}


def test_uploads_take_the_weights_of_the_terms_that_name_them(
    url: str, original_photos: Path
) -> None:
    names = ("cat.jpg", "coffee.jpg", "rocket.jpg")
    files: list[Any] = [("image", (name, (original_photos / name).read_bytes())) for name in names]
    query = {"terms": [{"upload": 1, "weight": -0.5}, {"upload": 0, "weight": 2}], "k": 2}
    answer = found(
        httpx2.post(f"{url}/v1/search", files=[*files, ("query", (None, json.dumps(query)))])
    )
    terms = answer["matches"][0]["terms"]
    # What no term names counts once, and comes first.
    assert [(term["term"], term["weight"]) for term in terms] == [
        ("rocket.jpg", 1.0), ("coffee.jpg", -0.5), ("cat.jpg", 2.0)
    ]  # fmt: skip
    score = answer["matches"][0]["score"]
    assert sum(term["share"] for term in terms) == pytest.approx(score, abs=1e-4)


def test_a_threshold_is_a_cosine_or_a_percentile(url: str, cat: bytes) -> None:
    body: dict[str, Any] = {"content": cat, "headers": {"Content-Type": "image/jpeg"}}
    answer = found(httpx2.post(f"{url}/v1/search?min_similarity=0.9", **body))
    assert answer["min_similarity"] == {"value": 0.9, "kind": "cosine", "least": 0.9}
    assert len(answer["matches"]) == 1
    # Eight pictures are too few to tell percentiles.
    refused(httpx2.post(f"{url}/v1/search?min_similarity=99%25", **body), 422, "bad-query")


def test_nothing_found_is_an_empty_list(url: str, cat: bytes) -> None:
    answer = found(
        httpx2.post(
            f"{url}/v1/search?where=format:gif", content=cat, headers={"Content-Type": IMAGE}
        )
    )
    assert answer["matches"] == []
    assert answer["cursor"] is None


def test_wrong_conditions_are_pointed_at(url: str) -> None:
    where = "format:png and fodler:x"
    answer = httpx2.post(f"{url}/v1/search", json={"terms": [{"id": 1}], "where": where})
    problem = refused(answer, 422, "bad-where")
    start, end = problem["pointer"]["start"], problem["pointer"]["end"]
    assert where[start:end] == "fodler"


BROKEN: list[Any] = [
    {"terms": [{"path": "/etc/passwd"}]},
    {"terms": [{"id": "7"}]},
    {"terms": [{"id": True}]},
    {"terms": [{"id": 0}]},
    {"terms": [{"id": 2**63}]},
    {"terms": [{"id": 1, "text": "both"}]},
    {"terms": [{"url": "file:///etc/passwd"}]},
    {"terms": [{"url": "/etc/passwd"}]},
    {"terms": [{"url": "gopher://localhost/"}]},
    {"terms": [{"vector": ["1"]}]},
    {"terms": [{"vector": []}]},
    {"terms": [{"id": 1, "weight": 1e9}]},
    {"terms": [[]]},
    {"terms": "x"},
    {"terms": [{"id": 1}], "k": 0},
    {"terms": [{"id": 1}], "k": "all"},
    {"terms": [{"id": 1}], "min_similarity": "99"},
    {"terms": [{"id": 1}], "unknown": 1},
    {"terms": [{"id": 1}] * 33},
    [],
    "text",
]


def test_what_breaks_the_schema_is_400(url: str) -> None:
    for query in BROKEN:
        refused(httpx2.post(f"{url}/v1/search", json=query), 400, "invalid-request")


def test_what_is_no_json_is_400(url: str) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"{", b'{"k": NaN}', b"\xff", b"[" * 100_000, b"1e999"):
        answer = httpx2.post(f"{url}/v1/search", content=body, headers=headers)
        refused(answer, 400, "invalid-request")


UNANSWERABLE: list[tuple[Any, str]] = [
    ({}, "bad-query"),
    ({"terms": [{"id": 1, "weight": 0}]}, "bad-query"),
    ({"terms": [{"id": 1, "weight": -1}]}, "bad-query"),
    ({"terms": [{"vector": [1.0, 2.0]}]}, "bad-query"),
    ({"terms": [{"vector": [0.0] * 320}]}, "bad-query"),
    ({"terms": [{"upload": 0}]}, "bad-query"),
    ({"terms": [{"id": 1}], "k": None}, "bad-query"),
    ({"terms": [{"id": 1}], "cursor": "x"}, "bad-cursor"),
    ({"terms": [{"text": "a dog"}]}, "no-text-side"),
    ({"terms": [{"image": "no base64!"}]}, "not-a-picture"),
    ({"terms": [{"image": "/etc/passwd"}]}, "not-a-picture"),
    ({"terms": [{"image": "data:image/png;base64,!!!"}]}, "not-a-picture"),
    ({"terms": [{"image": "file:///etc/passwd"}]}, "not-a-picture"),
    ({"terms": [{"image": "http://127.0.0.1/a.jpg"}]}, "not-a-picture"),
    ({"terms": [{"image": ""}]}, "not-a-picture"),
    ({"terms": [{"url": "http://127.0.0.1:1/a.jpg"}]}, "bad-url"),
    ({"terms": [{"url": "http://[::1]/a.jpg"}]}, "bad-url"),
    ({"terms": [{"url": "http://169.254.169.254/latest"}]}, "bad-url"),
    ({"terms": [{"url": "http://user@[/"}]}, "bad-url"),
]


def test_what_cannot_be_answered_is_422_and_says_why(url: str) -> None:
    for query, code in UNANSWERABLE:
        refused(httpx2.post(f"{url}/v1/search", json=query), 422, code)


def test_what_is_not_there_is_404(url: str) -> None:
    answer = httpx2.post(f"{url}/v1/search", json={"terms": [{"id": 10**9}]})
    refused(answer, 404, "not-found")


def test_forms_are_taken_strictly(url: str, cat: bytes) -> None:
    image: Any = ("image", ("a.jpg", cat))
    for files in (
        [("other", ("a.jpg", cat))],
        [image, ("query", (None, "{")), ],
        [image, ("query", (None, "{}")), ("query", (None, "{}"))],
        [image, ("k", (None, "3"))],
        [("query", (None, '{"terms": [{"id": 1}]}'))],
        [image] * 33,
    ):  # fmt: skip
        refused(httpx2.post(f"{url}/v1/search", files=files), 400, "invalid-request")


def test_other_bodies_are_415(url: str, cat: bytes) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "x", None):
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = httpx2.post(f"{url}/v1/search", content=cat, headers=headers)
        refused(answer, 415, "unsupported-media-type")


def test_a_query_string_is_taken_strictly(url: str, cat: bytes) -> None:
    for query in ("k=0", "k=1_0", "k=%201", "k=1.0", "collapse=yes", "min_similarity=2", "x=1"):
        answer = httpx2.post(
            f"{url}/v1/search?{query}", content=cat, headers={"Content-Type": IMAGE}
        )
        refused(answer, 400, "invalid-request")


def test_a_vector_comes_back_for_a_picture(
    url: str, library: Library, original_photos: Path, cat: bytes
) -> None:
    expected = library.embed(original_photos / "cat.jpg").tolist()
    text = base64.b64encode(cat).decode()
    for answer in (
        httpx2.post(f"{url}/v1/embed", content=cat, headers={"Content-Type": "image/jpeg"}),
        httpx2.post(f"{url}/v1/embed", files={"image": cat}),
        httpx2.post(f"{url}/v1/embed", json={"image": text}),
    ):
        assert found(answer) == {
            "model": library.encoder.card.name,
            "identity": library.encoder.identity,
            "dimension": 320,
            "vector": expected,
        }
    refused(httpx2.post(f"{url}/v1/embed", json={"text": "a"}), 422, "no-text-side")
    refused(httpx2.post(f"{url}/v1/embed", json={}), 422, "bad-query")
    refused(httpx2.post(f"{url}/v1/embed", json={"path": "a.jpg"}), 400, "invalid-request")
    two: Any = [("image", ("a", cat)), ("image", ("b", cat))]
    refused(httpx2.post(f"{url}/v1/embed", files=two), 400, "invalid-request")


def test_steps_are_measured(url: str) -> None:
    found(httpx2.post(f"{url}/v1/search", json={"terms": [{"id": 1}]}))
    figures = httpx2.get(f"{url}/metrics").text
    for step in ("decode", "encode", "search", "fetch"):
        assert f'searchlib_step_seconds_count{{step="{step}"}} 1.0' in figures


def test_more_bodies_than_the_memory_may_hold_are_sent_away(
    running: Callable[..., Any], cat: bytes
) -> None:
    server = running(max_body=20_000_000)
    host, port = server.address
    head = (
        f"POST /v1/search HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: image/png\r\n"
        "Content-Length: 19000000\r\n\r\n"
    ).encode()
    with ExitStack() as open_ones:
        for _ in range(4):
            connection = open_ones.enter_context(socket.create_connection((host, port), 30))
            connection.sendall(head + bytes(18_000_000))
        at = f"{server.url}/v1/search"
        large = {"content": bytes(19_000_000), "headers": {"Content-Type": "image/png"}}
        answer = httpx2.post(at, **large, timeout=30)
        refused(answer, 503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        # A small one finds its place.
        found(httpx2.post(at, content=cat, headers={"Content-Type": "image/jpeg"}))
    # What was held is free again.
    for _ in range(100):
        if httpx2.post(at, **large, timeout=30).status_code == 422:
            return
        time.sleep(0.1)
    raise AssertionError("the memory of broken requests is not free again")


def test_pictures_of_the_web_are_fetched_once_and_searched_with(
    app: FastAPI, library: Library, hub: Any, cat: bytes
) -> None:
    # The hub has a private address, which the server would not go to.
    app.state.fetcher = Fetcher(replace(SERVER_POLICY, private=True))
    (hub.folder / "cat.jpg").write_bytes(cat)
    at = f"{hub.url}/cat.jpg"

    async def ask(path: str, query: Any) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(path, json=query)

    async def all_of_it() -> None:
        async with app.router.lifespan_context(app):
            query = {"terms": [{"url": at}, {"url": at, "weight": 0.5}], "explain": True}
            answer = found(await ask("/v1/search", query))
            expected = [match.image.id for match in library.search(cat)]
            assert [match["id"] for match in answer["matches"]] == expected
            assert answer["timings"]["decode"] > 0
            assert hub.asked == ["/cat.jpg"]
            vector = found(await ask("/v1/embed", {"url": at}))["vector"]
            assert vector == library.embed(cat).tolist()
            query = {"terms": [{"url": f"{hub.url}/none.jpg"}]}
            refused(await ask("/v1/search", query), 422, "bad-url")

    asyncio.run(all_of_it())
