"""Clients of a server: image queries over HTTP, and how long each took.

    python -m benchmarks.search_load PORT PID FOLDER CLIENTS SECONDS WARM EVERY

CLIENTS clients send the photographs of a folder for SECONDS, each from another place of it on, over
connections that stay open: one query after the other where EVERY is 0, else one every so many
seconds, and the time counts from when it was due. Counted are the answers that come in SECONDS,
which begin after WARM seconds. Prints JSON.
No two uploads have the same bytes.

It shares its processors with the server, so it does as little as can be done: one process, bodies
made before, HTTP/1.1 written and read as bytes, answers looked at no further than their status and
the number of matches.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.common import module_command, run
from benchmarks.search_server import HOST, Serving, cpu_seconds

K = 10

_BOUNDARY = b"searchlib-benchmark"
_MATCH = b'"rank":'


@dataclass(slots=True)
class Answers:
    """What the clients were answered.

    Attributes:
        ms: of each query that was answered, from its first byte sent to the last one received.
        at: when each of these ended, in seconds of the clock of `time.monotonic`.
        errors: what went wrong otherwise.
    """

    ms: list[float] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def load(
    server: Serving, folder: Path, *, clients: int, seconds: float, warm: float = 0.0,
    every: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Run the clients as a process of its own.

    Returns:
        `ms`, `at` and `errors` as in `Answers`; `seconds` that were measured; `cpu_seconds` that
        the clients themselves took meanwhile, and `server_cpu_seconds`.
    """
    words = [server.port, server.pid, folder, clients, seconds, warm, every]
    found: dict[str, Any] = json.loads(
        run([*module_command("search_load"), *map(str, words)]).stdout
    )
    return found


class Upload:
    """A multipart upload of a photograph, ready to be sent.

    Args:
        path: of a JPEG.
        port: of the server.
    """

    def __init__(self, path: Path, port: int) -> None:
        # As a comment in the JPEG, behind its first marker.
        jpeg, number = path.read_bytes(), b"%012d" % 0
        head = (
            b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="image"; filename="'
            + path.name.encode() + b'"\r\nContent-Type: image/jpeg\r\n\r\n'
            + jpeg[:2] + b"\xff\xfe" + (2 + len(number)).to_bytes(2, "big")
        )  # fmt: skip
        self._rest = jpeg[2:] + b"\r\n--" + _BOUNDARY + b"--\r\n"
        length = len(head) + len(number) + len(self._rest)
        self._head = (
            f"POST /v1/search HTTP/1.1\r\nHost: {HOST}:{port}\r\nAccept: application/json\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n"
            f"Content-Length: {length}\r\n\r\n"
        ).encode() + head

    def numbered(self, number: int) -> tuple[bytes, bytes]:
        """The request in two parts; each number makes other bytes of the same photograph."""
        return self._head + b"%012d" % number, self._rest


class Connection:
    """One connection that stays open.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, *message: bytes) -> tuple[int, bytes]:
        """Send a request in parts; gives the status and the body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port, limit=1 << 20)
        reader, writer = self._streams
        try:
            for part in message:
                writer.write(part)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in lines
                if line.startswith(b"content-length:")
            )
            body = await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        if b"connection: close" in lines:
            self.close()
        return int(lines[0].split()[1]), body

    def close(self) -> None:
        """End it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _client(
    port: int, uploads: list[Upload], first: int, span: tuple[float, float], every: float,
    numbers: Iterator[int], answers: Answers,
) -> None:  # fmt: skip
    begin, end = span
    connection = Connection(port)
    due = time.monotonic()
    try:
        while time.monotonic() < end:
            if every:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            start = due if every else time.monotonic()
            try:
                message = uploads[first % len(uploads)].numbered(next(numbers))
                status, body = await connection.ask(*message)
                wrong = _wrong(status, body)
            except (OSError, EOFError, StopIteration) as error:
                wrong = repr(error)
            now = time.monotonic()
            if begin <= now <= end:
                if wrong:
                    answers.errors.append(wrong)
                else:
                    answers.ms.append(1000 * (now - start))
                    answers.at.append(now)
            first += 1
            due += every
    finally:
        connection.close()


def _wrong(status: int, body: bytes) -> str:
    if status == 200 and body.count(_MATCH) == K:
        return ""
    return f"status {status}: {body[:200]!r}"


async def _measure(
    port: int, pid: int, folder: Path, clients: int, seconds: float, warm: float, every: float
) -> dict[str, Any]:
    uploads = [Upload(path, port) for path in sorted(folder.iterdir())]
    # No two runs send the same bytes, so nobody answers from memory.
    numbers = count(time.time_ns() // 1000 % 10**9 * 1000)
    answers = Answers()
    gc.freeze()
    begin = time.monotonic() + warm
    span = (begin, begin + seconds)
    every_client = [
        asyncio.create_task(
            _client(port, uploads, number * len(uploads) // clients, span, every, numbers, answers)
        )
        for number in range(clients)
    ]
    await asyncio.sleep(warm)
    ours, theirs = time.process_time(), cpu_seconds(pid)
    await asyncio.sleep(span[1] - time.monotonic())
    ours, theirs = time.process_time() - ours, cpu_seconds(pid) - theirs
    await asyncio.gather(*every_client)
    return {
        "ms": answers.ms,
        "at": answers.at,
        "errors": answers.errors,
        "seconds": seconds,
        "cpu_seconds": ours,
        "server_cpu_seconds": theirs,
    }


def main() -> None:
    """Measure."""
    port, pid, folder, clients, *spans = sys.argv[1:]
    seconds, warm, every = map(float, spans)
    found = _measure(int(port), int(pid), Path(folder), int(clients), seconds, warm, every)
    print(json.dumps(asyncio.run(found)))


if __name__ == "__main__":
    main()
