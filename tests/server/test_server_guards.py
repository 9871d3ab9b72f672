"""Who may ask, how much may be sent, and how long it may take."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from searchlib import Library
from searchlib.catalog import ImageRecord
from searchlib.images import SERVER_POLICY
from searchlib.server.guards import OPEN_PATHS
from searchlib.status import Status
from tests.server.conftest import PATIENCE, Running

TOKEN = "a-long-token-of-the-tests"


class OddLibrary(Library):
    """A library that takes its time with images, and fails in a way that nobody thought of."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def images(self, *arguments: Any, **options: Any) -> list[ImageRecord]:
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        return super().images(*arguments, **options)

    def status(self) -> Status:
        raise RuntimeError("a secret of the inside")


@pytest.fixture
def odd_library(filled_library: Path) -> Iterator[OddLibrary]:
    with OddLibrary(filled_library, fetch_policy=SERVER_POLICY) as library:
        yield library


def _is_problem(answer: httpx2.Response, status: int, code: str) -> bool:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(body)
    return (answer.status_code, body["status"], body["code"]) == (status, status, code)


def _problem(data: bytes) -> tuple[int, dict[str, Any], bytes]:
    """Status, body and head of an answer as it came."""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), head.lower()


# Who may ask


def test_a_name_that_is_not_the_servers_is_turned_away(web: httpx2.Client, url: str) -> None:
    hosts = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.com")
    for host, path in itertools.product(hosts, ("/v1/status", "/healthz", "/nothing")):
        answer = web.get(url + path, headers={"Host": host})
        assert _is_problem(answer, 403, "forbidden-host")


def test_names_and_addresses_of_this_machine_are_the_servers(web: httpx2.Client, url: str) -> None:
    for host in ("localhost", "LOCALHOST:80", "localhost.", "127.0.0.1:1", "[::1]:8765", "[::1]"):
        assert web.get(f"{url}/healthz", headers={"Host": host}).status_code == 200


def test_a_name_that_was_allowed_is_the_servers(
    web: httpx2.Client, running: Callable[..., Running]
) -> None:
    url = running(allowed_hosts=("Photos.example",)).url
    for host in ("photos.example", "PHOTOS.EXAMPLE:443", "photos.example."):
        assert web.get(f"{url}/healthz", headers={"Host": host}).status_code == 200
    answer = web.get(f"{url}/healthz", headers={"Host": "other.example"})
    assert _is_problem(answer, 403, "forbidden-host")


def test_a_request_without_one_good_host_is_wrong(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    address = running().address
    for fields in ("", "Host: a\r\nHost: b", "Host: a b", "Host: user@localhost", "Host:"):
        with raw(address) as connection:
            request = f"GET /healthz HTTP/1.1\r\nConnection: close\r\n{fields}"
            connection.send(f"{request.strip()}\r\n\r\n".encode())
            status, body, _ = _problem(connection.rest())
        assert (status, body["code"]) == (400, "invalid-request")


def test_a_page_of_another_site_may_not_send_anything(web: httpx2.Client, url: str) -> None:
    for fields in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "file://"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        for method, path in (("POST", "/v1/search"), ("DELETE", "/v1/images/1"), ("PUT", "/")):
            answer = web.request(method, url + path, headers=fields)
            assert _is_problem(answer, 403, "forbidden-origin"), fields
        assert web.get(f"{url}/healthz", headers=fields).status_code == 200


def test_a_page_of_the_server_itself_may_send(web: httpx2.Client, url: str) -> None:
    fields = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
    answer = web.post(f"{url}/v1/search", json={"k": 0}, headers=fields)
    assert answer.status_code != 403


WRONG = [
    b"",
    TOKEN.encode(),
    f"Basic {TOKEN}".encode(),
    b"Bearer",
    f"Bearer {TOKEN[:-1]}".encode(),
    f"Bearer {TOKEN}x".encode(),
    f"Bearer {TOKEN.upper()}".encode(),
    b"Bearer \xff\xfe",
]


def test_without_the_token_nothing_is_told(
    web: httpx2.Client, running: Callable[..., Running]
) -> None:
    url = running(token=TOKEN).url
    for fields in ({}, *({"Authorization": shown} for shown in WRONG)):
        for path in ("/v1/status", "/metrics", "/openapi.json", "/v1/events", "/nothing"):
            answer = web.get(url + path, headers=fields)
            assert _is_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer ")
        for path in OPEN_PATHS:
            assert web.get(url + path, headers=fields).status_code != 401


def test_the_token_opens(web: httpx2.Client, running: Callable[..., Running]) -> None:
    url = running(token=TOKEN).url
    for scheme in ("Bearer", "bearer"):
        fields = {"Authorization": f"{scheme} {TOKEN}"}
        assert web.get(f"{url}/v1/status", headers=fields).status_code == 200
    twice = [("Authorization", f"Bearer {TOKEN}")] * 2
    assert web.get(f"{url}/v1/status", headers=twice).status_code == 401


def test_a_body_is_not_read_from_who_has_no_token(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running(token=TOKEN).address) as connection:
        connection.send(
            b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        status, _, head = _problem(connection.rest())
    assert status == 401
    assert b"connection: close" in head


# How much may be sent


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running(max_body=1000).address) as connection:
        connection.send(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
        )
        status, body, head = _problem(connection.rest())
    assert (status, body["code"]) == (413, "too-large")
    assert b"connection: close" in head


def test_a_body_that_is_sent_too_large_is_refused(
    web: httpx2.Client, running: Callable[..., Running]
) -> None:
    url = running(max_body=100_000).url

    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 10_000

    fields = {"Content-Type": "image/jpeg"}
    for path in ("/v1/search", "/v1/images", "/v1/embed"):
        answer = web.post(url + path, content=endless(), headers=fields)
        assert _is_problem(answer, 413, "too-large")
        answer = web.post(url + path, content=b"x" * 4_000_000, headers=fields)
        assert _is_problem(answer, 413, "too-large")


def test_what_is_no_length_is_no_request(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    address = running().address
    for fields in (
        b"Content-Length: -1",
        b"Content-Length: 1e3",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
    ):
        with raw(address) as connection:
            connection.send(
                b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\n"
                b"Connection: close\r\n" + fields + b"\r\n\r\nhello"
            )
            connection.socket.shutdown(1)
            status, body, _ = _problem(connection.rest())
        assert (status, body["code"]) == (400, "invalid-request"), fields


def test_more_than_was_announced_is_not_taken_for_a_request(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running().address) as connection:
        connection.send(
            b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello, there"
        )
        answers = connection.rest()
    # The answer to the first may be broken off by the nonsense behind it, but nothing else comes.
    assert answers.count(b"HTTP/1.1") <= 1


# How long it may take


@pytest.mark.parametrize("limits", [{"piece_timeout": 0.2}, {"body_timeout": 0.2}])
def test_less_than_was_announced_is_waited_for_only_so_long(
    running: Callable[..., Running], raw: Callable[..., Any], limits: dict[str, float]
) -> None:
    with raw(running(**limits).address) as connection:
        connection.send(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 100\r\n\r\nhello"
        )
        status, body, head = _problem(connection.rest())
    assert (status, body["code"]) == (408, "too-slow")
    assert b"connection: close" in head


def test_a_body_that_comes_drop_by_drop_is_given_up(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running(body_timeout=0.5).address) as connection:
        connection.send(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 1000000\r\n\r\n"
        )
        connection.socket.settimeout(0.05)
        received = b""
        for _ in itertools.count():
            try:
                connection.send(b"x")
                if not (piece := connection.socket.recv(65536)):
                    break
                received += piece
            except TimeoutError:
                continue
            except ConnectionError:
                break
    status, body, _ = _problem(received)
    assert (status, body["code"]) == (408, "too-slow")


def test_a_large_body_that_comes_steadily_is_taken(
    web: httpx2.Client, running: Callable[..., Running], original_photos: Path
) -> None:
    url = running(piece_timeout=5.0).url
    content = (original_photos / "coffee.jpg").read_bytes()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(content), 1000):
            yield content[at : at + 1000]

    answer = web.post(f"{url}/v1/search", content=pieces(), headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200
    assert answer.json()["matches"][0]["path"].endswith("coffee.jpg")


def test_who_finds_the_queue_full_gets_503_and_when_to_come_again(
    web: httpx2.Client, running: Callable[..., Running], odd_library: OddLibrary
) -> None:
    url = running(of=odd_library, workers=2, queue=0).url
    codes: list[int] = []
    callers = [
        threading.Thread(
            target=lambda: codes.append(web.get(f"{url}/v1/images", timeout=60).status_code)
        )
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for _ in callers:
        assert odd_library.entered.acquire(timeout=PATIENCE)
    answer = web.get(f"{url}/v1/images")
    assert _is_problem(answer, 503, "busy")
    assert int(answer.headers["retry-after"]) >= 1
    # What tells how the server does is answered all the same.
    assert web.get(f"{url}/healthz").status_code == 200
    assert web.get(f"{url}/metrics").status_code == 200
    odd_library.gate.set()
    for caller in callers:
        caller.join()
    assert codes == [200, 200]


def test_a_caller_that_went_away_frees_its_place_in_the_queue(
    web: httpx2.Client,
    running: Callable[..., Running],
    odd_library: OddLibrary,
    raw: Callable[..., Any],
) -> None:
    server = running(of=odd_library, workers=2, queue=1)
    request = b"GET /v1/images HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with raw(server.address) as one, raw(server.address) as two:
        for connection in (one, two):
            connection.send(request)
            assert odd_library.entered.acquire(timeout=PATIENCE)
        with raw(server.address) as waiting:
            waiting.send(request)
            while not _depth(web, server.url):
                pass
        while _depth(web, server.url):
            pass
        with raw(server.address) as next_one:
            next_one.send(request)
            odd_library.gate.set()
            assert next_one.rest().startswith(b"HTTP/1.1 200 ")
        for connection in (one, two):
            assert connection.rest().startswith(b"HTTP/1.1 200 ")


def test_work_that_does_not_end_is_left_behind_when_the_server_is_stopped(
    running: Callable[..., Running], odd_library: OddLibrary, raw: Callable[..., Any]
) -> None:
    server = running(of=odd_library, shutdown_timeout=0.1)
    with raw(server.address) as connection:
        connection.send(b"GET /v1/images HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert odd_library.entered.acquire(timeout=PATIENCE)
        assert server.stop() is False
        status, body, _ = _problem(connection.rest())
        assert (status, body["code"]) == (503, "not-ready")
    odd_library.gate.set()


def _depth(web: httpx2.Client, url: str) -> int:
    text = web.get(f"{url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("searchlib_queue_depth ")]
    return round(float(lines[0].split()[1]))


# What comes of failures


def test_what_fails_inside_is_told_without_its_inside(
    web: httpx2.Client,
    running: Callable[..., Running],
    odd_library: OddLibrary,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = running(of=odd_library).url
    answer = web.get(f"{url}/v1/status")
    assert _is_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    # But the log has it.
    assert "a secret of the inside" in caplog.text
    assert web.get(f"{url}/healthz").status_code == 200


def test_unknown_routes_and_methods_are_problems(web: httpx2.Client, url: str) -> None:
    assert _is_problem(web.get(f"{url}/nothing"), 404, "not-found")
    assert _is_problem(web.get(f"{url}/v1/"), 404, "not-found")
    assert _is_problem(web.get(f"{url}/healthz/"), 404, "not-found")
    answer = web.post(f"{url}/healthz")
    assert _is_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"
    answer = web.put(f"{url}/v1/images/1")
    assert _is_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "DELETE, GET, PATCH"
    assert _is_problem(web.request("BREW", f"{url}/healthz"), 400, "invalid-request")
    assert _is_problem(web.request("PROPFIND", f"{url}/v1/search"), 405, "method-not-allowed")


def test_what_a_path_holds_does_not_get_into_the_head(web: httpx2.Client, url: str) -> None:
    for path in ("/%0d%0aX-Evil:%20yes", "/%00", "/%ff%fe", "/..%2f..%2fetc"):
        answer = web.get(url + path)
        assert _is_problem(answer, 404, "not-found")
        assert "x-evil" not in answer.headers


def test_all_answers_forbid_guessing_their_type_and_showing_them_elsewhere(
    web: httpx2.Client, url: str
) -> None:
    for path in ("/healthz", "/nothing", "/v1/status", "/openapi.json"):
        headers = web.get(url + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_nothing_is_left_open_by_callers_that_break_off(
    web: httpx2.Client, running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    server = running()
    descriptors = Path("/proc/self/fd")
    web.get(f"{server.url}/healthz")
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        with raw(server.address) as connection:
            connection.send(
                b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"
            )
    while len(list(descriptors.iterdir())) > before:
        web.get(f"{server.url}/healthz")
