"""One file in a process of its own, with a limit of memory and of time.

For a file that may have ended the process that read it: here it can only end a child. The child is
a new interpreter, as a fork of a process with threads may not run much. What passes between them:

    stdin    the request, pickled
    stdout   a line as soon as the encoder is at work: the bytes of memory that are in use then.
             A failure before it is never put down to the file. Then the outcome, pickled

The child leads a session of its own, so that it can be ended with all that it started, and on
Linux it dies with its parent. Memory is limited on Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from searchlib.catalog import ReadFile, SkippedFile
from searchlib.encoder import ImageEncoder, ModelCard
from searchlib.errors import EncoderError, OutputError
from searchlib.images import printable
from searchlib.ingest.read import read_file
from searchlib.ingest.walk import Found

logger = logging.getLogger(__name__)

MEMORY_BYTES = 4 << 30
"""Twice what a picture of the default largest size takes."""

SECONDS = 120.0

# Until the encoder is at work; a large model is read and checked in that time.
_START_SECONDS = 60.0

# Until a killed process is gone.
_END_SECONDS = 5.0

# How often the child is looked at. A decoder fills a few hundred MB in this time at most.
_STEP_SECONDS = 0.05

# Address space for each pixel of the largest picture: JPEG 2000 takes most, about 20. Several
# (AVIF, HEIF, WebP, progressive JPEG) call a good file damaged when an allocation fails, so what
# is refused must be beyond reason; a child that fills more memory than it may is stopped.
_PIXEL_BYTES = 32

_LONGEST = 200

_MEMORY = re.compile(r"^Vm(?:RSS|Swap):\s+(\d+) kB$", re.MULTILINE)

# The parent's own path: it may have been changed since the interpreter started.
_CODE = (
    "import sys; sys.path[:] = sys.argv[1:]; from searchlib.ingest.alone import answer; answer()"
)

_READY = re.compile(rb"\A(\d+)\n")

# What decoders say when an allocation fails, in a refusal or as the last words of the process.
_WANT_OF_MEMORY = re.compile(
    r"(not enough|out of|insufficient|cannot allocate) memory|MemoryError|bad_alloc"
    r"|Allocating \d+ bytes failed",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Request:
    parent: int
    found: Found
    card: ModelCard
    max_pixels: int
    thumbnails: Path | None
    seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class _NoMemory:
    """The outcome of a file that needs more memory than the limit."""


_Limit = Literal["time", "memory"]
_Outcome = ReadFile | SkippedFile | EncoderError | _NoMemory


# -- The parent ----------------------------------------------------------------------------------


def read_alone(
    found: Found,
    card: ModelCard,
    *,
    max_pixels: int,
    thumbnails: Path | None = None,
    seconds: float = SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> ReadFile | SkippedFile:
    """Read, decode and embed a file as `read_file` does, in a process of its own.

    Args:
        found: the file.
        card: of the encoder.
        max_pixels: refuse pictures with more.
        thumbnails: as for `read_file`.
        seconds: for the file, from when the encoder is at work.
        memory_bytes: that the file may take besides what the encoder holds.

    Returns:
        As `read_file`, always with the content; a SkippedFile with the failure "crash" where the
        file ended the process or went beyond a limit.

    Raises:
        EncoderError: the process could not be started, or the encoder fails in it.
    """
    request = _Request(os.getpid(), found, card, max_pixels, thumbnails, seconds, memory_bytes)
    ended = _run(request)
    outcome = ended.outcome()
    if isinstance(outcome, EncoderError):
        raise outcome
    if isinstance(outcome, (ReadFile, SkippedFile)):
        return outcome
    if outcome is None and not ended.ready:
        raise EncoderError(f"{card.name}: the process that reads a file alone {ended.why_no_start}")
    if (
        isinstance(outcome, _NoMemory)
        or ended.stopped == "memory"
        or _WANT_OF_MEMORY.search(ended.last_words)
    ):
        reason = f"decoding it needs more than {_size(memory_bytes)} of memory"
    elif ended.stopped == "time":
        reason = f"decoding it took more than {seconds:g} s"
    elif ended.code == -signal.SIGKILL:
        reason = "decoding it was ended by SIGKILL, most likely for want of memory"
    else:
        reason = f"decoding it ended the process ({ended.how})"
    logger.info("%s: %s: %s", printable(found.path), reason, ended.last_words)
    return SkippedFile(found.path, found.stat, found.folder, reason, failure="crash")


@dataclass(frozen=True, slots=True)
class _Ended:
    """A child that has come to its end.

    Attributes:
        code: its exit code, negative for a signal.
        answer: all that it wrote to stdout.
        last_words: the last line that it wrote to stderr.
        stopped: the limit that it went beyond, for which it was ended.
    """

    code: int
    answer: bytes
    last_words: str
    stopped: _Limit | None

    @property
    def ready(self) -> bool:
        return _READY.match(self.answer) is not None

    @property
    def how(self) -> str:
        if self.code >= 0:
            return self.last_words or f"exit code {self.code}"
        try:
            return f"signal {signal.Signals(-self.code).name}"
        except ValueError:  # a real-time signal
            return f"signal {-self.code}"

    @property
    def why_no_start(self) -> str:
        if self.stopped:
            return f"was not ready within {_START_SECONDS:g} s"
        return f"ended before it was ready ({self.how})"

    def outcome(self) -> _Outcome | None:
        """What the child says; None where it said nothing, or did not come to the end of it."""
        try:
            outcome = pickle.loads(_READY.sub(b"", self.answer, count=1))
        except Exception:  # a torn pickle raises anything
            return None
        known = (ReadFile, SkippedFile, EncoderError, _NoMemory)
        return outcome if isinstance(outcome, known) else None


def _run(request: _Request) -> _Ended:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A decoder with a thread for each core would reserve address space for each of them.
            env={"MALLOC_ARENA_MAX": "2", **os.environ},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"{sys.executable}: no process to read a file alone can be started: {error}"
        ) from error
    try:
        answer, words, stopped = _attend(process, pickle.dumps(request), request)
    except BaseException:
        _kill(process)
        _what_it_said(process)
        raise
    return _Ended(process.returncode, answer, _last_line(words), stopped)


def _attend(
    process: subprocess.Popen[bytes], sent: bytes | None, request: _Request
) -> tuple[bytes, bytes, _Limit | None]:
    """What a child wrote until its end, and the limit that it was stopped at."""
    deadline = time.monotonic() + _START_SECONDS
    most: int | None = None
    limit: _Limit | None = None
    while limit is None:
        left = deadline - time.monotonic()
        try:
            return *process.communicate(sent, max(0.0, min(left, _STEP_SECONDS))), None
        except subprocess.TimeoutExpired as error:
            sent = None
            if most is None and (ready := _READY.match(error.output or b"")):
                deadline = time.monotonic() + request.seconds
                most = int(ready[1]) + request.memory_bytes
            elif left <= 0:
                limit = "time"
            elif most is not None and _memory_of(process.pid) > most:
                limit = "memory"
    _kill(process)
    answer, words = _what_it_said(process)
    # Had it died before, and only something that it started lived on, its own code stands.
    stopped = process.returncode in (None, -signal.SIGKILL)
    return answer, words, limit if stopped else None


def _memory_of(process: int) -> int:
    """The memory of a process and what of it is swapped out, in bytes; 0 where no one tells."""
    try:
        status = Path(f"/proc/{process}/status").read_text("ascii", "replace")
    except OSError:
        return 0
    # A process that has ended has no such lines: proc_pid_status(5).
    return sum(int(kib) << 10 for kib in _MEMORY.findall(status))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started, as long as it was not waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has died by itself
            os.killpg(process.pid, signal.SIGKILL)


def _what_it_said(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired as error:  # it waits for a disk that does not answer
        return error.output or b"", error.stderr or b""


def _last_line(words: bytes) -> str:
    lines = words.decode("utf-8", "replace").split("\n")
    return next(
        (printable(line.strip())[:_LONGEST] for line in reversed(lines) if line.strip()), ""
    )


def _size(count: int) -> str:
    return f"{count / (1 << 30):.3g} GB" if count >= 1 << 30 else f"{count / (1 << 20):.3g} MB"


# -- The child -----------------------------------------------------------------------------------


def answer() -> None:
    """Read a request from stdin, answer it on stdout and end the process."""
    # What native code prints must not get into the answer.
    out = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    request = pickle.load(sys.stdin.buffer)
    assert isinstance(request, _Request)
    _die_with(request.parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    outcome = pickle.dumps(_outcome(request, out))
    with open(out, "wb") as file:
        file.write(outcome)
    # Without what libraries do at the end: the answer is given.
    os._exit(0)


def _outcome(request: _Request, out: int) -> _Outcome:
    encoder = ImageEncoder(request.card)
    with encoder.for_throughput(1):
        try:
            # All that the encoder will ever take is taken at its first picture.
            encoder.embed(Image.linear_gradient("L").convert("RGB"))
        except OutputError:
            pass  # not every model has a vector for any picture
        except EncoderError as error:
            return error
        _limit_space(request.memory_bytes + _PIXEL_BYTES * request.max_pixels)
        os.write(out, b"%d\n" % _memory_of(os.getpid()))
        try:
            read = read_file(
                request.found,
                encoder,
                known=lambda _: False,
                max_pixels=request.max_pixels,
                thumbnails=request.thumbnails,
            )
        except EncoderError as error:
            return error
        except MemoryError:
            return _NoMemory()
    if isinstance(read, SkippedFile) and _WANT_OF_MEMORY.search(read.reason):
        return _NoMemory()
    return read


def _limit_space(count: int) -> None:
    """Let this process reserve so many bytes of address space more than it has now."""
    try:
        # The first field is the size of the address space in pages: proc_pid_statm(5).
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + count
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    # Where the machine has less than that, this process is the one to go.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has died already
        os._exit(1)
