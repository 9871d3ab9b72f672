"""`searchlib serve` as a person starts and stops it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Run
from tests.server.conftest import PATIENCE, Served

TOKEN = "a-token-of-the-tests"


def test_it_says_where_it_answers_and_ends_with_0(
    start_server: Callable[..., Served], web: httpx2.Client, original_photos: Path
) -> None:
    server = start_server()
    assert server.ready == {"url": server.url, "pid": server.process.pid}
    content = (original_photos / "rocket.jpg").read_bytes()
    answer = web.post(
        f"{server.url}/v1/search", content=content, headers={"Content-Type": "image/jpeg"}
    )
    assert answer.json()["matches"][0]["path"].endswith("rocket.jpg")
    assert server.end(signal.SIGINT) == (0, b"")


def test_it_ends_soon_while_a_listener_and_slow_requests_are_open(
    start_server: Callable[..., Served], web: httpx2.Client, raw: Callable[..., Any]
) -> None:
    server = start_server()
    address = ("127.0.0.1", httpx2.URL(server.url).port)
    with (
        web.stream("GET", f"{server.url}/v1/events") as listener,
        raw(address) as slow_body,
        raw(address) as slow_head,
    ):
        lines = listener.iter_lines()
        assert next(lines) == ": listening"
        slow_head.send(b"GET /healthz HT")
        slow_body.send(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert slow_body.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        # Each of them would hold it up for ever.
        server.process.send_signal(signal.SIGTERM)
        output, error = server.process.communicate(timeout=20)
        assert (server.process.returncode, output) == (0, b"")
        assert error == b""
        assert slow_body.rest().startswith(b"HTTP/1.1 503 ")
        assert [line for line in lines if line] == []


def test_it_starts_for_a_person_with_a_line_that_is_the_url(
    filled_library: Path, environment: dict[str, str], launch: list[str], web: httpx2.Client
) -> None:
    with subprocess.Popen(
        [*launch, "serve", "--port", "0", "--library", filled_library],
        env=environment,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert web.get(f"{url}/healthz").status_code == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_a_port_that_is_taken_is_told_in_a_line(run: Run, filled_library: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port), "--library", filled_library)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        f"searchlib: 127.0.0.1:{port}: address already in use; choose another port or host"
    ]


@pytest.mark.parametrize("host", ["256.1.1.1", "203.0.113.7"])
def test_an_address_that_is_not_there_is_told_in_a_line(
    run: Run, filled_library: Path, host: str
) -> None:
    done = run(
        "serve", "--host", host, "--port", "0", "--library", filled_library,
        env={"SEARCHLIB_TOKEN": TOKEN},
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert host.encode() in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "photos.example"])
def test_a_host_that_others_can_reach_is_refused_without_a_token_before_anything_is_opened(
    run: Run, tmp_path: Path, host: str
) -> None:
    done = run("serve", "--host", host, "--library", tmp_path / "none")
    assert done.returncode == 2
    assert b"SEARCHLIB_TOKEN" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_the_token_comes_from_a_file_or_the_environment(
    start_server: Callable[..., Served], web: httpx2.Client, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    for server in (
        start_server("--token-file", file),
        start_server("--host", "0.0.0.0", env={"SEARCHLIB_TOKEN": TOKEN}),
    ):
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert web.get(f"{url}/v1/status").status_code == 401
        shown = {"Authorization": f"Bearer {TOKEN}"}
        assert web.get(f"{url}/v1/status", headers=shown).status_code == 200
        assert server.end() == (0, b"")


def test_a_token_file_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    done = run("serve", "--token-file", tmp_path / "none", "--library", tmp_path / "library")
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"searchlib: {tmp_path / 'none'}: No such file")


def test_folders_without_watch_are_a_mistake(run: Run, tmp_path: Path) -> None:
    done = run("serve", tmp_path, "--library", tmp_path / "library")
    assert done.returncode == 2
    assert b"--watch" in done.stderr


def test_nothing_to_watch_is_told_in_a_line(run: Run, filled_library: Path) -> None:
    done = run("serve", "--watch", "--port", "0", "--library", filled_library)
    assert done.returncode == 2
    assert done.stderr.startswith(b"searchlib: no folder is watched yet")


def test_a_folder_that_is_watched_is_searched_soon(
    start_server: Callable[..., Served], web: httpx2.Client, photos: Path
) -> None:
    server = start_server("--watch", photos)
    content = (photos / "coffee.jpg").read_bytes() + b"!"
    with web.stream("GET", f"{server.url}/v1/events") as listener:
        lines = listener.iter_lines()
        assert next(lines) == ": listening"
        (photos / "new.jpg").write_bytes(content)
        for line in lines:
            if line.startswith("data: ") and "new.jpg" in line:
                break
    assert json.loads(line.removeprefix("data: "))["outcome"] == "added"
    assert server.end() == (0, b"")


def test_without_the_extra_it_says_what_to_install(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # Python's own way to have a package not be there.
    program = (
        "import sys; sys.modules['fastapi'] = None; sys.modules['uvicorn'] = None\n"
        "from searchlib.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--library", tmp_path / "library"],
        env=environment,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert done.stderr == (
        b"searchlib: the server needs fastapi, uvicorn; install them: "
        b"pip install 'searchlib[server]'\n"
    )


def test_other_commands_do_not_pay_for_the_server(
    environment: dict[str, str], filled_library: Path
) -> None:
    program = (
        "import sys\n"
        "from searchlib.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    rooms = ('fastapi', 'starlette', 'uvicorn', 'pydantic', 'prometheus_client')\n"
        "    print([room for room in rooms if room in sys.modules], file=sys.stderr)\n"
    )
    for arguments in (["status", "--library", filled_library], ["serve", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environment,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0
        assert done.stderr.strip() == b"[]"
