"""Where the time of a search goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from searchlib.search.match import Timings

Step = Literal["decode", "encode", "search", "fetch"]


class Stopwatch:
    """Adds up the seconds of each step of one search."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent: dict[Step, float] = dict.fromkeys(("decode", "encode", "search", "fetch"), 0.0)

    @contextmanager
    def step(self, name: Step) -> Iterator[None]:
        """Count the time of the block for a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += time.perf_counter() - start

    def timings(self) -> Timings:
        """What was spent so far."""
        return Timings(**self._spent, total=time.perf_counter() - self._start)
