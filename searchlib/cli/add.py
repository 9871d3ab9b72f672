"""`searchlib add`: folders and files into the library."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchlib.cli import shared
from searchlib.cli.progress import Counted, counting
from searchlib.cli.signals import Stop, stopping

if TYPE_CHECKING:
    from searchlib.ingest import Report
    from searchlib.library import Library

_MOST_SKIPPED = 20
_EVENT_EVERY_SECONDS = 0.2


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
@shared.ingest_options
@shared.json_option
@click.option("--jsonl", is_flag=True, help="Print a JSON line for each file, as it is done.")
@shared.library_options
@click.pass_context
def add(
    ctx: click.Context,
    paths: tuple[Path, ...],
    retry: bool,
    workers: int | None,
    thumbnails: bool | None,
    as_json: bool,
    jsonl: bool,
    folder: Path | None,
) -> None:
    """Add folders and images, or bring them up to date.

    Folders are walked; hidden files and folders are left out, and so is what a .searchlibignore
    file names (as in a .gitignore). Only what is new or was changed is read. Interrupt it as you
    like: the next run goes on where this one stopped.
    """
    if as_json and jsonl:
        raise click.UsageError("--json and --jsonl exclude each other")
    how = {"retry": retry, "workers": workers, "thumbnails": thumbnails}
    with shared.open_library(folder, create=True) as library, stopping() as stop:
        report = (_add_by_lines if jsonl else _add)(library, paths, stop, how)
        is_due = _is_build_due(library)
    if jsonl:
        shared.print_json_line({"event": "report", **report_as_json(report)})
    elif as_json:
        shared.print_json(report_as_json(report))
    else:
        say_skipped(report)
        click.echo(_nothing_found(report) or summary(report))
        if is_due:
            shared.say(f"the library has outgrown its index; {shared.HOW_TO_BUILD}")
    if stop.code is not None and report.cancelled:
        shared.say("searchlib: interrupted; what was added is kept")
        ctx.exit(stop.code)
    if _nothing_found(report):
        ctx.exit(shared.NOTHING_FOUND)
    if report.skipped:
        ctx.exit(shared.PARTLY)


def _is_build_due(library: Library) -> bool:
    from searchlib.errors import SearchlibError

    try:
        return library.index_status().is_due
    except SearchlibError:  # a hint is no reason to keep the report back
        return False


def _add(library: Library, paths: tuple[Path, ...], stop: Stop, how: dict[str, Any]) -> Report:
    with counting() as on_progress:
        return library.add(*paths, cancel=stop.event, on_progress=on_progress, **how)


def _add_by_lines(
    library: Library, paths: tuple[Path, ...], stop: Stop, how: dict[str, Any]
) -> Report:
    results = library.adding(*paths, cancel=stop.event, on_progress=_now_and_then(), **how)
    with results as adding:
        for result in adding:
            shared.print_json_line({"event": "file", **asdict(result)})
    return adding.report


def _now_and_then() -> Callable[[Counted], None]:
    """Prints the progress as a JSON line, at most a few times a second and at each stage's end."""
    last = 0.0

    def tell(progress: Counted) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.done == progress.total or now - last >= _EVENT_EVERY_SECONDS:
            last = now
            values = {name: getattr(progress, name) for name in ("stage", "done", "total")}
            shared.print_json_line({"event": "progress", **values, "skipped": progress.skipped})

    return tell


def report_as_json(report: Report) -> dict[str, Any]:
    """The report with what follows from it."""
    return {**asdict(report), "found": report.found}


def say_skipped(report: Report) -> None:
    """The first of the files that were skipped, on stderr."""
    from searchlib.images import printable

    for skipped in report.skipped[:_MOST_SKIPPED]:
        shared.say(f"skipped {printable(skipped.path)}: {skipped.reason}")
    more = len(report.skipped) - _MOST_SKIPPED
    if more > 0:
        shared.say(f"skipped {more} more; `searchlib status --skipped` lists them")


def _nothing_found(report: Report) -> str | None:
    if report.found or report.missing or report.purged or report.cancelled:
        return None
    return "no images found"


def summary(report: Report) -> str:
    """The report in a line."""
    counts = {
        "added": report.added,
        "copies": report.copies,
        "moved": report.moved,
        "changed": report.changed,
        "embedded": report.embedded,
        "unchanged": report.unchanged,
        "missing": report.missing,
        "offline": report.offline,
        "skipped": len(report.skipped),
        "purged": report.purged,
    }
    always = ("added", "unchanged", "moved", "skipped")
    words = [f"{name} {count}" for name, count in counts.items() if count or name in always]
    line = ", ".join(words) + f" in {report.seconds:.1f} s"
    if report.added:
        line += f" ({report.added / report.seconds:.1f} images/s)"
    return line
