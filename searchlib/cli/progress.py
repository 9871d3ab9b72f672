"""How far a command is, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from searchlib.cli import shared

_LINE_EVERY_SECONDS = 10.0


class Counted(Protocol):
    """How far something has come that deals with many things."""

    @property
    def stage(self) -> str: ...

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int | None: ...

    @property
    def skipped(self) -> int: ...


@contextmanager
def share(words: str) -> Iterator[Callable[[float], None] | None]:
    """Show a share of 0 to 1 as a bar, where there is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(words, total=1.0)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far each step is: a bar on a terminal, else a line now and then."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _step_lines()
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("opening", total=None)
        yield lambda step, done, total: bar.update(
            task, description=step, completed=done, total=total
        )


def _step_lines() -> Callable[[str, int, int], None]:
    last = time.monotonic()

    def tell(step: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_EVERY_SECONDS:
            last = now
            shared.say(f"{step}: {100 * done // max(total, 1)} %")

    return tell


@contextmanager
def counting(
    things: str = "files", *, per_second: str = "images"
) -> Iterator[Callable[[Counted], None]]:
    """Show how many things are done: a bar on a terminal, else a line now and then."""
    if sys.stderr is not None and sys.stderr.isatty():
        with _counting_bar(per_second) as tell:
            yield tell
    else:
        yield _Lines(things, per_second).tell


@contextmanager
def _counting_bar(per_second: str) -> Iterator[Callable[[Counted], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} {per_second}/s")

    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        # What is said meanwhile comes out above the bar as it is: no colours, no breaks in a path.
        console=Console(stderr=True, highlight=False, soft_wrap=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("listing", total=None)

        def tell(progress: Counted) -> None:
            skipped = f", {progress.skipped} skipped" if progress.skipped else ""
            bar.update(
                task,
                description=progress.stage + skipped,
                completed=progress.done,
                total=progress.total,
            )

        yield tell


class _Lines:
    """Progress where there is no terminal: a line now and then."""

    def __init__(self, things: str, per_second: str) -> None:
        self._things = things
        self._per_second = per_second
        self._started = self._last = time.monotonic()

    def tell(self, progress: Counted) -> None:
        now = time.monotonic()
        if now - self._last < _LINE_EVERY_SECONDS:
            return
        self._last = now
        if progress.total is None:
            shared.say(f"{progress.stage}: {progress.done} {self._things}")
            return
        rate = max(progress.done, 1) / (now - self._started)
        left = (progress.total - progress.done) / rate
        shared.say(
            f"{progress.stage}: {progress.done} of {progress.total} {self._things}, "
            f"{rate:.1f} {self._per_second}/s, {left:.0f} s left"
        )
