from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

EXECUTORCH_VERSION: str

class Error(RuntimeError):
    args: tuple[str, int]

class Module:
    def __init__(self, path: bytes, *, single_threaded: bool = False) -> None: ...
    @property
    def inputs(self) -> list[tuple[str, tuple[int, ...]]]: ...
    @property
    def outputs(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]: ...

def get_threads() -> int: ...
def set_threads(count: int) -> None: ...
