"""Whether the server is alive and ready, and what it counts and tells."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

import searchlib
from searchlib import ImageEncoder, Library
from searchlib.encoder.card_file import load_card
from searchlib.search import Results
from searchlib.server import ServerSettings
from tests.server.conftest import PATIENCE, Running


def _until(web: httpx2.Client, url: str, status: int) -> httpx2.Response:
    while (answer := web.get(url)).status_code != status:
        pass
    return answer


def _figures(web: httpx2.Client, url: str) -> dict[str, float]:
    lines = web.get(f"{url}/metrics").text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def _events(answer: httpx2.Response) -> Iterator[tuple[str, Any]]:
    """Names and data of the events of an answer; the first is that it listens."""
    name = ""
    for line in answer.iter_lines():
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)
        elif line.startswith(": listening"):
            yield "listening", None


def test_it_is_alive_at_once_and_ready_when_all_is_open(web: httpx2.Client, url: str) -> None:
    assert web.get(f"{url}/healthz").json() == {"status": "ok"}
    assert _until(web, f"{url}/readyz", 200).json() == {"status": "ok"}


def test_an_empty_library_is_ready_too(
    web: httpx2.Client,
    running: Callable[..., Running],
    tmp_path: Path,
    encoder: ImageEncoder,
) -> None:
    with searchlib.open_library(tmp_path / "empty", encoder=encoder) as library:
        server = running(of=library)
        _until(web, f"{server.url}/readyz", 200)
        assert web.get(f"{server.url}/v1/status").json()["library"]["images"] == 0
        server.stop()


def test_without_its_model_it_is_alive_and_not_ready(
    web: httpx2.Client,
    running: Callable[..., Running],
    tmp_path: Path,
    make_card: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    card = load_card(make_card())
    with searchlib.open_library(tmp_path / "odd", encoder=ImageEncoder(card)) as library:
        assert card.path is not None
        card.path.write_bytes(b"damaged")
        server = running(of=library)
        answer = _until(web, f"{server.url}/readyz", 503)
        assert answer.json()["code"] == "not-ready"
        assert int(answer.headers["retry-after"]) >= 1
        # The reason names files, and is for those who may see them.
        assert str(tmp_path) not in answer.text
        while (
            "damaged"
            not in (found := web.get(f"{server.url}/v1/status").json())["server"]["unready"]
            and "picture" not in found["server"]["unready"]
        ):
            pass
        assert found["server"]["ready"] is False
        assert web.get(f"{server.url}/healthz").status_code == 200
        server.stop()
    assert "not ready" in caplog.text


class SlowLibrary(Library):
    """A library whose index takes long to be opened."""

    gate = threading.Event()

    def search(self, *arguments: Any, **options: Any) -> Results:
        assert self.gate.wait(PATIENCE)
        return super().search(*arguments, **options)


def test_a_server_that_is_not_ready_yet_can_be_stopped(
    web: httpx2.Client, running: Callable[..., Running], filled_library: Path
) -> None:
    with SlowLibrary(filled_library) as library:
        server = running(of=library, shutdown_timeout=0.1)
        assert web.get(f"{server.url}/readyz").status_code == 503
        assert web.get(f"{server.url}/v1/status").json()["server"]["ready"] is False
        assert server.stop() is False
        library.gate.set()
        while any(each.name.startswith("searchlib-open") for each in threading.enumerate()):
            pass


def test_the_status_is_that_of_the_library_and_of_the_server(
    web: httpx2.Client, url: str, filled_library: Path
) -> None:
    _until(web, f"{url}/readyz", 200)
    found = web.get(f"{url}/v1/status").json()
    assert found["library"]["images"] == 8
    assert found["library"]["folder"] == str(filled_library)
    server = found["server"]
    assert (server["ready"], server["unready"], server["watching"]) == (True, None, None)
    assert server["uptime"] >= 0


def test_requests_are_counted_by_route_and_not_by_path(web: httpx2.Client, url: str) -> None:
    _until(web, f"{url}/readyz", 200)
    before = _figures(web, url)
    web.get(f"{url}/v1/status")
    web.get(f"{url}/v1/images/987654")
    web.get(f"{url}/v1/images/987655")
    for number in range(5):
        web.get(f"{url}/made/up/{number}")
    web.request("PROPFIND", f"{url}/healthz")
    after = _figures(web, url)
    new = {name: after[name] - before.get(name, 0) for name in after if "_total{" in name}
    counted = {name: count for name, count in new.items() if count}
    assert counted == {
        'searchlib_requests_total{method="GET",route="/v1/status",status="200"}': 1,
        'searchlib_requests_total{method="GET",route="/v1/images/{id}",status="404"}': 2,
        'searchlib_requests_total{method="GET",route="none",status="404"}': 5,
        'searchlib_requests_total{method="other",route="/healthz",status="405"}': 1,
        'searchlib_requests_total{method="GET",route="/metrics",status="200"}': 1,
    }
    assert after["searchlib_images"] == 8
    assert after["searchlib_queue_depth"] == 0
    assert not any("made" in name or "98765" in name for name in after)


def test_apps_do_not_share_their_figures(app: FastAPI, web: httpx2.Client, url: str) -> None:
    web.get(f"{url}/healthz")
    text = app.state.service.metrics.text().decode()
    assert 'route="/healthz"' not in text


def test_the_steps_of_a_query_are_measured(
    web: httpx2.Client, url: str, original_photos: Path
) -> None:
    content = (original_photos / "cat.jpg").read_bytes()
    answer = web.post(f"{url}/v1/search", content=content, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200
    figures = _figures(web, url)
    for step in ("decode", "encode", "search"):
        assert figures[f'searchlib_step_seconds_count{{step="{step}"}}'] == 1


def test_a_watching_server_takes_in_a_new_file_and_tells_of_it(
    web: httpx2.Client,
    running: Callable[..., Running],
    photos: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    server = running(watch=True, folders=(folder,))
    with web.stream("GET", f"{server.url}/v1/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = _events(answer)
        assert next(events)[0] == "listening"
        # Other bytes than those that the library has: a copy would need no reading.
        content = (photos / "cat.jpg").read_bytes() + b"!"
        (folder / "new.jpg").write_bytes(content)
        data = next(data for name, data in events if name == "file")
    assert data["path"] == str(folder / "new.jpg")
    assert data["outcome"] == "added"
    found = web.get(f"{server.url}/v1/status").json()
    assert found["server"]["watching"] == "watching"
    assert found["library"]["images"] == 9
    assert _figures(web, server.url)['searchlib_ingested_total{outcome="added"}'] == 1
    answer = web.post(
        f"{server.url}/v1/search", content=content, headers={"Content-Type": "image/jpeg"}
    )
    assert str(folder / "new.jpg") in [match["path"] for match in answer.json()["matches"]]
    server.stop()


def test_a_listener_that_leaves_is_forgotten(
    web: httpx2.Client, running: Callable[..., Running]
) -> None:
    server = running()
    for _ in range(3):
        with web.stream("GET", f"{server.url}/v1/events") as answer:
            assert next(_events(answer))[0] == "listening"
    route = 'searchlib_requests_total{method="GET",route="/v1/events",status="200"}'
    while _figures(web, server.url).get(route) != 3:
        pass


def test_listeners_are_let_go_when_the_server_is_stopped(
    web: httpx2.Client, running: Callable[..., Running]
) -> None:
    # A server that waited for them would take this long.
    server = running(shutdown_timeout=1000.0)
    with web.stream("GET", f"{server.url}/v1/events") as answer:
        events = _events(answer)
        assert next(events)[0] == "listening"
        assert server.stop()
        assert list(events) == []


def test_where_another_process_watches_the_server_goes_on_and_says_so(
    web: httpx2.Client,
    running: Callable[..., Running],
    photos: Path,
    filled_library: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from searchlib.ingest.holder import WatchLock

    shutil.rmtree(photos)
    photos.mkdir()
    lock = WatchLock(filled_library)
    lock.acquire()
    try:
        server = running(watch=True, folders=(photos,))
        while not (
            words := web.get(f"{server.url}/v1/status").json()["server"]["watching"]
        ).startswith("waiting"):
            pass
        assert "watched" in words or "watches" in words
        assert server.stop()
    finally:
        lock.release()
    assert "not watching" in caplog.text


def test_a_server_is_not_told_to_watch_nothing(running: Callable[..., Running]) -> None:
    with pytest.raises(searchlib.errors.InputError, match="no folder is watched"):
        running(watch=True)


def test_the_openapi_tells_of_problems_and_not_of_what_is_never_answered(app: FastAPI) -> None:
    schema = app.openapi()
    assert "Problem" in schema["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(schema)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            content = operation["responses"]["500"]["content"]
            assert list(content) == ["application/problem+json"], path
    assert "security" not in schema


def test_the_openapi_of_a_server_with_a_token_says_so(
    app: FastAPI, web: httpx2.Client, running: Callable[..., Running]
) -> None:
    assert app.state.service.settings == ServerSettings()
    url = running(token="the-token").url
    schema = web.get(f"{url}/openapi.json", headers={"Authorization": "Bearer the-token"}).json()
    assert schema["security"] == [{"token": []}]
