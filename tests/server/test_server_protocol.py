"""Heads of requests that are slow, large or none, and connections too many."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from searchlib import Library
from tests.server.conftest import Running

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _problem(data: bytes) -> tuple[int, str]:
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    values = json.loads(body)
    assert values["status"] == int(head.split()[1])
    return values["status"], values["code"]


def test_a_head_that_does_not_come_is_waited_for_only_so_long(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    address = running(header_timeout=0.2).address
    for start in (b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.1\r\nX: "):
        with raw(address) as connection:
            connection.send(start)
            assert _problem(connection.rest()) == (408, "too-slow")


def test_a_head_that_comes_drop_by_drop_is_given_up(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running(header_timeout=0.5).address) as connection:
        connection.send(b"GET /healthz HTTP/1.1\r\n")
        connection.socket.settimeout(0.05)
        while True:
            try:
                connection.send(b"X: y\r\n")
                data = connection.socket.recv(65536)
                break
            except TimeoutError:
                continue
    assert _problem(data) == (408, "too-slow")


def test_the_second_head_of_a_connection_has_the_same_time(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running(header_timeout=0.3).address) as connection:
        connection.send(ALIVE)
        assert connection.until(b'{"status":"ok"}').startswith(b"HTTP/1.1 200")
        connection.send(b"GET /hea")
        assert _problem(connection.rest()) == (408, "too-slow")


def test_many_slow_heads_hold_nobody_up(
    running: Callable[..., Running], raw: Callable[..., Any], web: httpx2.Client
) -> None:
    server = running(header_timeout=60.0)
    with ExitStack() as connections:
        for _ in range(100):
            connections.enter_context(raw(server.address)).send(b"GET / HTTP/1.1\r\nX: ")
        assert web.get(f"{server.url}/healthz").status_code == 200


def test_a_head_that_is_too_large_is_refused(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    address = running().address
    for head in (
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ):
        with raw(address) as connection:
            connection.send(head)
            assert _problem(connection.rest()) == (431, "head-too-large")


def test_a_head_without_an_end_is_refused_while_it_comes(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running().address) as connection:
        connection.send(b"GET /healthz HTTP/1.1\r\nX: ")
        connection.socket.settimeout(0.01)
        for _ in range(10_000):
            try:
                connection.send(b"x" * 10_000)
                data = connection.socket.recv(65536)
                break
            except TimeoutError:
                continue
    assert _problem(data) == (431, "head-too-large")


def test_fields_behind_a_body_are_passed_over(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running().address) as connection:
        connection.send(
            b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nHost: evil.example\r\nAuthorization: none\r\n\r\n"
        )
        assert connection.until(b"\r\n\r\n").startswith(b"HTTP/1.1 404")


NO_REQUESTS = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"GET / HTTP/1.1\nHost: localhost\n\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n X: folded\r\n\r\n",
    b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /h\xc3\xb6h HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


def test_what_is_no_request_is_refused_and_harms_nobody(
    running: Callable[..., Running], raw: Callable[..., Any], web: httpx2.Client
) -> None:
    server = running()
    for data in NO_REQUESTS:
        with raw(server.address) as connection:
            connection.send(data)
            connection.socket.shutdown(socket.SHUT_WR)
            status, _ = _problem(connection.rest())
            assert 400 <= status < 500, data
    assert web.get(f"{server.url}/healthz").status_code == 200


def test_no_bytes_bring_the_server_down(
    running: Callable[..., Running], raw: Callable[..., Any], web: httpx2.Client
) -> None:
    server = running(header_timeout=0.2, piece_timeout=0.2)
    pieces = st.sampled_from(
        [ALIVE, b"GET ", b"POST /v1/search HTTP/1.1\r\n", b"Host: localhost\r\n", b"\r\n", b"0\r\n",
         b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"\x00",
         b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n"]
    )  # fmt: skip

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(pieces | st.binary(max_size=20), max_size=8))
    def check(parts: list[bytes]) -> None:
        with raw(server.address) as connection:
            try:
                connection.send(b"".join(parts))
                connection.socket.shutdown(socket.SHUT_WR)
                answers = connection.rest()
            except ConnectionError:
                return
            assert b"HTTP/1.1 500" not in answers

    check()
    assert web.get(f"{server.url}/healthz").status_code == 200


def test_requests_in_a_row_are_answered_in_a_row(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running().address) as connection:
        connection.send(ALIVE * 5 + LAST)
        assert connection.rest().count(b"HTTP/1.1 200") == 6


def test_who_sends_ahead_without_end_is_broken_off(
    running: Callable[..., Running], raw: Callable[..., Any], web: httpx2.Client
) -> None:
    server = running()
    with raw(server.address) as connection:
        # Longer than any number of answers takes, if the server took them all.
        try:
            for _ in range(200):
                connection.send(ALIVE * 5000)
        except ConnectionError:
            broken_off = True
        else:
            broken_off = False
    assert broken_off
    assert web.get(f"{server.url}/healthz").status_code == 200


def test_who_does_not_read_the_answer_is_broken_off(
    running: Callable[..., Running],
    raw: Callable[..., Any],
    web: httpx2.Client,
    library: Library,
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3000, 2000, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path, compress_level=0)
    library.add(path)
    found = library.find(path)
    assert found is not None
    server = running(write_timeout=0.3)
    with raw(server.address) as connection:
        connection.send(
            f"GET /v1/images/{found.id}/original HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        # Here nothing tells of it, as what was sent before can still be read.
        while "/original" not in web.get(f"{server.url}/metrics").text:
            pass
        received = 0
        try:
            while piece := connection.socket.recv(1 << 20):
                received += len(piece)
        except ConnectionError:
            pass
    assert 0 < received < path.stat().st_size


def test_an_upgrade_is_answered_as_a_plain_request(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running().address) as connection:
        connection.send(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert connection.rest().startswith(b"HTTP/1.1 200")


def test_connections_too_many_are_sent_away_and_told_when_to_come_again(
    running: Callable[..., Running], raw: Callable[..., Any], web: httpx2.Client
) -> None:
    server = running(connections=3)
    with ExitStack() as connections:
        for _ in range(3):
            connection = connections.enter_context(raw(server.address))
            connection.send(ALIVE)
            connection.until(b'{"status":"ok"}')
        with raw(server.address) as one_more:
            data = one_more.rest()
            assert _problem(data) == (503, "busy")
            assert b"retry-after: 1" in data.lower()
    # Those that were open are closed now; the server notices a moment later.
    while web.get(f"{server.url}/healthz").status_code == 503:
        pass


def test_the_refusal_of_a_large_body_is_read_by_who_sends_it_all_first(
    running: Callable[..., Running], raw: Callable[..., Any]
) -> None:
    with raw(running(max_body=1000).address) as connection:
        connection.send(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n"
            + b"x" * 3_000_000
        )
        assert _problem(connection.rest()) == (413, "too-large")
