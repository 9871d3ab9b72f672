"""`searchlib add`: folders and files into the library."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared
from searchlib.cli.progress import counting

if TYPE_CHECKING:
    from searchlib.ingest import Report

_MOST_SKIPPED = 20


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
    with shared.open_library(folder, create=True) as library, counting() as on_progress:
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
        "embedded": report.embedded,
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
