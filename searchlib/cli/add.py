"""`searchlib add`: folders and files into the library."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared

if TYPE_CHECKING:
    from searchlib.ingest import Progress, Report

_MOST_SKIPPED = 20
_LINE_EVERY_SECONDS = 10.0


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    # One that cannot be read is reported and must not stop the others.
    type=click.Path(path_type=Path, readable=False),
    metavar="PATH...",
)
@click.option("--retry", is_flag=True, help="Try files again that could not be used before.")
@click.option("--workers", type=click.IntRange(1, 256), help="Files worked on at once.")
@shared.json_option
@shared.library_options
@click.pass_context
def add(
    ctx: click.Context,
    paths: tuple[Path, ...],
    retry: bool,
    workers: int | None,
    as_json: bool,
    folder: Path | None,
) -> None:
    """Add folders and images, or bring them up to date.

    Folders are walked; hidden files and folders are left out, and so is what a .searchlibignore
    file names (as in a .gitignore). Only what is new or was changed is read. Interrupt it as you
    like: the next run goes on where this one stopped.
    """
    with shared.open_library(folder, create=True) as library, _progress() as on_progress:
        report = library.add(*paths, retry=retry, workers=workers, on_progress=on_progress)
    if as_json:
        shared.print_json({**asdict(report), "found": report.found})
    else:
        _say_skipped(report)
        click.echo(_summary(report))
    if not report.found and not report.missing:
        ctx.exit(shared.NOTHING_FOUND)
    if report.skipped:
        ctx.exit(shared.PARTLY)


def _say_skipped(report: Report) -> None:
    from searchlib.images import printable

    for skipped in report.skipped[:_MOST_SKIPPED]:
        shared.say(f"skipped {printable(skipped.path)}: {skipped.reason}")
    more = len(report.skipped) - _MOST_SKIPPED
    if more > 0:
        shared.say(f"skipped {more} more; `searchlib status --skipped` lists them")


def _summary(report: Report) -> str:
    if not report.found and not report.missing:
        return "no images found"
    counts = {
        "added": report.added,
        "copies": report.copies,
        "moved": report.moved,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "missing": report.missing,
        "skipped": len(report.skipped),
    }
    always = ("added", "unchanged", "moved", "skipped")
    words = [f"{name} {count}" for name, count in counts.items() if count or name in always]
    line = ", ".join(words) + f" in {report.seconds:.1f} s"
    if report.added:
        line += f" ({report.added / report.seconds:.1f} images/s)"
    return line


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    if sys.stderr is not None and sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield _Lines().tell


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
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
            return Text("" if task.speed is None else f"{task.speed:.1f} images/s")

    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("listing", total=None)

        def tell(progress: Progress) -> None:
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

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < _LINE_EVERY_SECONDS:
            return
        self._last = now
        if progress.total is None:
            shared.say(f"listing: {progress.done} files")
            return
        rate = progress.done / (now - self._started)
        left = (progress.total - progress.done) / rate
        shared.say(
            f"embedding: {progress.done} of {progress.total} files, {rate:.1f} images/s, "
            f"{left:.0f} s left"
        )
