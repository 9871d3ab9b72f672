"""What the measurements share: processes and what they took, spreads, the machine, the cache."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

ROOT = Path(__file__).resolve().parents[1]
_NOTHING: Mapping[str, str] = {}
_LAUNCHER = Path(__file__).with_name("launch.py")
_PACKAGES = (
    "searchlib",
    "executorch",
    "faiss-cpu",
    "numpy",
    "pillow",
    "sqlalchemy",
    "blake3",
    "onnxruntime",
    "torch",
    "scikit-image",
)


class BenchmarkError(Exception):
    """Something that was to be measured did not run; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Run:
    """A process from its start to its end.

    Attributes:
        seconds: on the clock.
        cpu_seconds: of all its threads together.
        peak_bytes: the most memory that was resident at once.
        stdout: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str


def run(
    command: Sequence[str | Path], *, folder: Path = ROOT, environment: Mapping[str, str] = _NOTHING
) -> Run:
    """Run a command and measure all of it, the start of the process included.

    Args:
        command: its words.
        folder: that it starts in.
        environment: variables on top of those of this process.

    Raises:
        BenchmarkError: it ended with another code than 0.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_LAUNCHER), str(report), *words],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BenchmarkError(f"{' '.join(words)} did not start: {_last_line(done.stderr)}")
        facts = json.loads(report.read_text(encoding="utf-8"))
    if facts["returncode"]:
        raise BenchmarkError(
            f"{' '.join(words)} ended with {facts['returncode']}: {_last_line(done.stderr)}"
        )
    return Run(facts["seconds"], facts["cpu_seconds"], facts["peak_bytes"], done.stdout)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def searchlib_command() -> list[str]:
    """The installed `searchlib` command of this Python."""
    script = Path(sys.executable).with_name("searchlib")
    return [str(script)] if script.exists() else [sys.executable, "-m", "searchlib.cli"]


def module_command(name: str) -> list[str]:
    """A module of this package as a process of its own."""
    return [sys.executable, "-m", f"benchmarks.{name}"]


def peer_command(name: str) -> list[str]:
    """A peer as a process of its own."""
    return [sys.executable, str(ROOT / "benchmarks" / "peers" / f"{name}.py")]


def say(line: str) -> None:
    """Tell what is going on; the table alone goes to stdout."""
    print(line, file=sys.stderr, flush=True)


def installed(module: str) -> bool:
    """Whether a module can be imported, without doing so."""
    return importlib.util.find_spec(module) is not None


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` per cent of them do not exceed, interpolated."""
    return float(np.percentile(np.asarray(values, np.float64), share))


def megabytes(count: float) -> float:
    """Bytes in units of 10^6."""
    return count / 1e6


def cache_folder(given: Path | None) -> Path:
    """Where photographs, libraries and weights are kept from one run to the next."""
    folder = given or platformdirs.user_cache_path("searchlib-benchmarks", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "cores_of_this_process": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_average_at_start": os.getloadavg(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor()
